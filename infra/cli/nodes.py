"""`tutti nodes`: what the workers have registered on the `nodes` topic."""

from __future__ import annotations

from collections.abc import Iterable

import click
from pydantic import ValidationError

from infra.cli.cluster import Cluster, with_cluster
from infra.cli.output import emit_json, emit_table, size
from shared.contracts.node import Node
from shared.kafka.port import Record

STALE_SECONDS = 150.0
"""A worker registers on change and at least every 60 s: two missed and a half."""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the records as JSON.")
@click.pass_context
def nodes(context: click.Context, as_json: bool) -> None:
    """List the model nodes: backend, models, slots, and whether they answer."""
    found = with_cluster(context, read_nodes)
    if as_json:
        emit_json([{**node.model_dump(mode="json", exclude_none=True), "state": state} for node, state in found])
        return
    emit_table(
        ("node", "state", "backend", "mailbox", "slots", "memory", "capabilities", "models"),
        [
            (
                node.id,
                state,
                node.backend + (" (simulated)" if node.simulated else ""),
                node.mailbox,
                node.slots,
                size(node.hardware.vram_bytes or node.hardware.ram_bytes),
                ",".join(node.capabilities),
                ",".join(model.name + ("*" if model.resident else "") for model in node.models),
            )
            for node, state in found
        ],
        empty="no node has registered; start a worker",
    )


async def read_nodes(cluster: Cluster) -> list[tuple[Node, str]]:
    """Each node's newest record, with its state, by id."""
    records = [record async for record in cluster.read_all(cluster.topics.nodes)]
    now = cluster.clock.wall()
    return [(node, state(node, now)) for node in newest(records)]


def newest(records: Iterable[Record]) -> list[Node]:
    """The last record of each key; tombstones and foreign records are left out."""
    last: dict[bytes, Record] = {record.key: record for record in records if record.key is not None}
    found: list[Node] = []
    for record in last.values():
        try:
            found.append(Node.model_validate_json(record.value or b""))
        except ValidationError:
            continue
    return sorted(found, key=lambda node: node.id)


def state(node: Node, now: float) -> str:
    """One word for people. The registry's age is compared with this machine's clock: a hint, nothing is decided by it."""
    if node.asleep:
        return "asleep"
    if now - node.at > STALE_SECONDS:
        return "silent"
    if not node.reachable:
        return "unreachable"
    if node.pause_seconds > now - node.at and not node.draining:
        return "paused"
    if node.draining:
        return "draining"
    return "yields" if node.yields else "live"
