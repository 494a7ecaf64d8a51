"""`tutti topics`: create what is missing, list what is there, show what is unread."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import click

from infra.cli.acls import acls
from infra.cli.adopt import adopt
from infra.cli.cluster import Cluster, with_cluster
from infra.cli.nodes import read_nodes
from infra.cli.output import AS_JSON, emit_json, emit_table
from shared.kafka.port import TopicPartition
from shared.processing.provision import differing, new_topics
from shared.services import group_of, listed
from shared.topics import GROWS


@click.group()
def topics() -> None:
    """The cluster's topics."""


topics.add_command(acls)
topics.add_command(adopt)


@topics.command()
@click.option("--grow", is_flag=True, help="Also add the partitions that steps, work, controls and replies lack; for good.")
@click.pass_context
def create(context: click.Context, *, grow: bool) -> None:
    """Create the topics that do not exist; existing ones are left as they are, and it is said how they differ."""
    grown = with_cluster(context, grow_topics) if grow else {}
    created, warnings = with_cluster(context, create_topics)
    for name in created:
        click.echo(f"created {name}")
    for name, (before, now) in grown.items():
        click.echo(f"{name} has {now} partitions instead of {before}")
    click.echo(f"{len(created)} topics created" if created else "all topics exist")
    for line in warnings:
        click.echo(f"warning: {line}", err=True)


async def grow_topics(cluster: Cluster) -> dict[str, tuple[int, int]]:
    """Topic → its partitions before and now, of those that may grow and have fewer than the settings say."""
    async with cluster.admin() as admin:
        present = await cluster.connected(admin.list_topics())
        wanted = [topic for topic in cluster.topics.all() if topic.family.count in GROWS and topic.name in present]
        grown = {t.name: (present[t.name].partitions, t.partitions) for t in wanted if present[t.name].partitions < t.partitions}
        if grown:
            await cluster.tell("grow", "topics", count=len(grown))
            await cluster.connected(admin.add_partitions({name: now for name, (_, now) in grown.items()}))
    return grown


async def create_topics(cluster: Cluster) -> tuple[list[str], list[str]]:
    """The names created, and a line for each topic that is otherwise than the registry says."""
    wanted = new_topics(cluster.topics)
    async with cluster.admin() as admin:
        created = await cluster.connected(admin.create_topics(wanted))
        present = await cluster.connected(admin.list_topics())
        configured = await cluster.connected(differing(admin, cluster.topics))
    counted = [
        f"{topic.name} has {present[topic.name].partitions} partitions, the settings say {topic.partitions}"
        for topic in wanted
        if topic.name in present and present[topic.name].partitions != topic.partitions
    ]
    return sorted(created), counted + configured


@topics.command(name="list")
@AS_JSON
@click.pass_context
def list_(context: click.Context, as_json: bool) -> None:
    """List the registry's topics: partitions wanted and present, who writes, who reads."""
    rows = with_cluster(context, _listed)
    if as_json:
        emit_json(rows)
    else:
        emit_table(
            ("topic", "partitions", "present", "cleanup", "written by", "read by"),
            [
                (row["name"], row["partitions"], row["present"], row["cleanup"], ",".join(row["written_by"]), ",".join(row["read_by"]))
                for row in rows
            ],
        )


async def _listed(cluster: Cluster) -> list[dict[str, Any]]:
    async with cluster.admin() as admin:
        present = await cluster.connected(admin.list_topics())
    return [
        {
            "name": topic.name,
            "partitions": topic.partitions,
            "present": present[topic.name].partitions if topic.name in present else None,
            "cleanup": topic.family.cleanup,
            "written_by": list(topic.family.written_by),
            "read_by": list(topic.family.read_by),
        }
        for topic in cluster.topics.all()
    ]


@topics.command()
@AS_JSON
@click.pass_context
def lag(context: click.Context, as_json: bool) -> None:
    """Show how many records each group has not read yet, and how many of them wait behind an open transaction."""
    rows = with_cluster(context, _lags)
    if as_json:
        emit_json(rows)
    else:
        emit_table(
            ("group", "topic", "unread", "worst partition", "held back"),
            [(row["group"], row["topic"], row["unread"], row["worst"], row["held_back"]) for row in rows],
            empty="no group has committed an offset yet",
        )


async def _lags(cluster: Cluster) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for group in await _groups(cluster):
        async with cluster.admin() as admin:
            committed = await cluster.connected(admin.group_offsets(group))
        if not committed:
            continue
        async with cluster.reader(sorted(committed)) as consumer:
            ends = await cluster.connected(consumer.end_offsets(list(committed)))
        async with cluster.reader(sorted(committed), committed_only=True) as consumer:
            stable = await cluster.connected(consumer.end_offsets(list(committed)))
        rows += [{"group": group, "topic": topic, **counts} for topic, counts in unread(committed, ends, stable).items()]
    return rows


async def _groups(cluster: Cluster) -> list[str]:
    """The services' groups, and one for each registered node's worker."""
    services = (service.name for service in listed() if service.grouped)
    workers = [node.id for node in await read_nodes(cluster)]
    return [group_of(name, cluster.topics.settings.prefix) for name in (*services, *(f"worker-{node}" for node in workers))]


def unread(
    committed: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int], stable: Mapping[TopicPartition, int]
) -> dict[str, dict[str, int]]:
    """Topic → what can be read and is not, summed over its partitions and the largest of them; and what waits behind an open transaction.

    The planner's watermark on `job-events` counts what a replay would read.
    """
    behind: dict[str, list[int]] = defaultdict(list)
    held_back: dict[str, int] = defaultdict(int)
    for partition, offset in sorted(committed.items()):
        behind[partition.topic].append(max(0, stable[partition] - offset))
        held_back[partition.topic] += ends[partition] - stable[partition]
    return {t: {"unread": sum(counts), "worst": max(counts), "held_back": held_back[t]} for t, counts in behind.items()}
