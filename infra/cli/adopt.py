"""`tutti topics adopt`: what was declared in a cluster goes with its users to one that has other homes, and so another prefix."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import click

from infra.cli.cluster import Cluster, Edge, with_cluster
from infra.cli.exits import CommandExit, Exit
from shared.contracts.beliefs import KIND as BELIEFS
from shared.contracts.erased import KIND as ERASED
from shared.contracts.schedule import KIND as SCHEDULE
from shared.kafka.port import Message, Record, Unreadable
from shared.topics import Topics


@click.command()
@click.argument("prefix")
@click.option("--schedules", is_flag=True, help="Those, too; they are removed there, since both clusters would run them.")
@click.pass_context
def adopt(context: click.Context, prefix: str, *, schedules: bool) -> None:
    """Copy what was declared under PREFIX ('' for none) into this cluster's registry: keys, tenants, agents, prompts, profiles, tools,
    cards and pins of models, nodes in maintenance.

    What is declared here already stays. To be run again as often as you like.
    """
    edge = context.find_object(Edge) or Edge()
    copied = with_cluster(context, lambda cluster: _adopt(cluster, edge, prefix, schedules=schedules))
    for kind, count in sorted(copied.items()):
        click.echo(f"{kind}: {count}")
    click.echo("adopted" if copied else "nothing is new")


async def _adopt(cluster: Cluster, edge: Edge, prefix: str, *, schedules: bool) -> dict[str, int]:
    old = Topics(cluster.topics.settings.model_copy(update={"prefix": prefix}))
    here = newest([record async for record in cluster.read_all(cluster.topics.registry)])
    there = newest(await _read_there(cluster, edge, old))
    chosen = adopted(there, here, schedules=schedules)
    if chosen:
        await cluster.tell("adopt", "registry", prefix, count=len(chosen))
    producer = await cluster.connected(cluster.log.producer(client_id="tutti-cli"))
    try:
        for record in chosen:
            await cluster.connected(producer.send(Message(cluster.topics.registry, record.value, record.key, 0, tuple(record.headers))))
            if kind_of(record) == SCHEDULE:
                await cluster.connected(producer.send(Message(old.registry, None, record.key, 0, tuple(record.headers))))
    finally:
        await producer.close()
    kinds = [kind_of(record) for record in chosen]
    return {kind: kinds.count(kind) for kind in kinds}


async def _read_there(cluster: Cluster, edge: Edge, old: Topics) -> list[Record]:
    """The old registry, opened by the data keys of its own prefix."""
    settings = cluster.settings.model_copy(update={"topics": old.settings})
    elsewhere = replace(cluster, settings=settings, topics=old, log=edge.open_log(settings, cluster.clock))
    try:
        found = [record async for record in elsewhere.read_all(old.registry)]
    finally:
        await elsewhere.log.close()
    if closed := sum(isinstance(record, Unreadable) for record in found):
        keys = "the cluster keys that wrap the data keys there"
        raise CommandExit(Exit.SETTINGS, f"{closed} entries of {old.registry} do not open: TUTTI_SEALING__KEYS_FILE needs {keys}")
    return found


def newest(records: Iterable[Record]) -> dict[bytes, Record]:
    """Key → its last record, also where that says that it was removed."""
    return {record.key: record for record in records if record.key is not None}


def adopted(there: Mapping[bytes, Record], here: Mapping[bytes, Record], *, schedules: bool) -> list[Record]:
    """What is to be copied: declared there, never heard of here. Erasures are over, beliefs name offsets there; schedules run where
    they are unless asked for.
    """
    passed_over = {ERASED, BELIEFS} if schedules else {ERASED, BELIEFS, SCHEDULE}
    return [record for key, record in there.items() if record.value is not None and key not in here and kind_of(record) not in passed_over]


def kind_of(record: Record) -> str:
    """Of an entry of the registry."""
    return (record.key or b"").decode(errors="replace").partition("/")[0]
