"""`tutti seals`: cluster keys, which wrap the keys that bodies are sealed with in Kafka (decision 0054)."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import click

from infra.cli.cluster import Cluster, with_cluster
from infra.cli.exits import CommandExit, Exit
from infra.cli.output import AS_JSON, emit_json, emit_table
from shared.sealing.entries import DataKeys
from shared.sealing.sealed_log import SealedLog


@click.group()
def seals() -> None:
    """Make a cluster key, see what wraps what, wrap anew."""


@seals.command("make-key")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def make_key(file: Path) -> None:
    """Add a new cluster key to FILE, behind those in it: it unwraps, the first wraps. A new file is readable by its owner only."""
    from shared.sealing.cipher import id_of, new_key, written

    key = new_key()
    try:
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a") as lines:
            lines.write(f"{written(key)}\n")
    except OSError as error:
        raise CommandExit(Exit.USAGE, f"{file} cannot be written: {error.strerror}") from None
    click.echo(id_of(key))


@seals.command()
@AS_JSON
@click.pass_context
def status(context: click.Context, as_json: bool) -> None:
    """Which cluster keys wrap how many data keys, and which of them this command's file (TUTTI_SEALING__KEYS_FILE) holds."""
    rows = with_cluster(context, _status)
    if as_json:
        emit_json(rows)
        return
    emit_table(
        ("cluster key", "in the file", "data keys", "tenants"),
        [(row["cluster_key"], row["place"] or "no", row["data_keys"], row["tenants"]) for row in rows],
        empty="nothing is sealed, and the file holds no key",
    )


def _plain(cluster: Cluster) -> Cluster:
    """The keys themselves are not sealed, and who lacks one waits for it everywhere else."""
    return replace(cluster, log=cluster.log.inner) if isinstance(cluster.log, SealedLog) else cluster


async def _status(cluster: Cluster) -> list[dict[str, object]]:
    cluster = _plain(cluster)
    held = await cluster.connected(DataKeys(cluster.log, cluster.topics.data_keys).held())
    wraps = Counter(entry.cluster_key for entry in held.values())
    file = cluster.settings.sealing.keys_file
    ours: tuple[str, ...] = ()
    if file:
        from shared.sealing.cipher import ClusterKeys

        ours = ClusterKeys(file).ids
    return [
        {
            "cluster_key": id_,
            "place": None if id_ not in ours else "first: it wraps" if id_ == ours[0] else "it unwraps",
            "data_keys": wraps[id_],
            "tenants": len({entry.tenant for entry in held.values() if entry.cluster_key == id_} - {""}),
        }
        for id_ in dict.fromkeys((*ours, *sorted(wraps)))
    ]


@seals.command()
@click.pass_context
def rotate(context: click.Context) -> None:
    """Wrap every data key by the first cluster key of this command's file. What is sealed stays as it is, and services go on."""
    done, left = with_cluster(context, _rotate)
    click.echo(f"{done} data keys are wrapped anew")
    if left:
        raise CommandExit(Exit.SETTINGS, f"{left} data keys are wrapped by cluster keys that the file does not hold: `tutti seals status`")


async def _rotate(cluster: Cluster) -> tuple[int, int]:
    cluster = _plain(cluster)
    from shared.sealing.cipher import ClusterKeys

    file = cluster.settings.sealing.keys_file
    if not file:
        raise CommandExit(Exit.SETTINGS, "TUTTI_SEALING__KEYS_FILE names no file of cluster keys")
    await cluster.tell("rotate", "cluster_key", ClusterKeys(file).first)
    return await cluster.connected(DataKeys(cluster.log, cluster.topics.data_keys).rewrap(ClusterKeys(file)))
