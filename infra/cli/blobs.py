"""`tutti blobs`: what a record names instead of holding it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import click
from pydantic import ValidationError
from pydantic_core import from_json

from infra.cli.cluster import with_cluster
from infra.cli.exits import CommandExit, Exit
from shared.contracts.base import Tenant
from shared.contracts.blob import BlobRef
from shared.contracts.ids import DEFAULT_TENANT


@click.group()
def blobs() -> None:
    """Bodies above the inline bound."""


@blobs.command()
@click.argument("record", default="-")
@click.option("--tenant", help="Whose it is, where RECORD does not say.")
@click.pass_context
def get(context: click.Context, record: str, tenant: Tenant | None) -> None:
    """Write the body that RECORD names to standard output: the JSON of an answer, or of a step's input.

    RECORD is a value of `results`, or what stands under `blob` in any record; `-` (and nothing) is standard input.
    """
    ref, of = _reference(sys.stdin.read() if record == "-" else record)
    body = with_cluster(context, lambda cluster: cluster.connected(cluster.blobs().fetch(tenant or of, ref)))
    sys.stdout.buffer.write(body)


def _reference(text: str) -> tuple[BlobRef, str]:
    """The reference, and the tenant that the record names."""
    try:
        found = from_json(text)
    except ValueError:
        raise CommandExit(Exit.USAGE, "RECORD is not JSON") from None
    if not isinstance(found, Mapping):
        raise CommandExit(Exit.USAGE, "RECORD is not a JSON object")
    try:
        return BlobRef.model_validate(_within(found, "blob") or found), str(_within(found, "tenant") or DEFAULT_TENANT)
    except ValidationError:
        raise CommandExit(Exit.USAGE, "RECORD names no blob: what it holds it holds itself") from None


def _within(found: Mapping[str, Any], name: str) -> Any:
    """What stands under this name in a record, or in the part of it that may hold one: its result's answer, its request's input."""
    if name in found:
        return found[name]
    parts = (found.get(part) for part in ("result", "answer", "request", "input_ref"))
    return next((inner for part in parts if isinstance(part, Mapping) and (inner := _within(part, name)) is not None), None)
