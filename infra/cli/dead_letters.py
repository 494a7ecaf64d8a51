"""`tutti dead-letters`: records that could not be processed. They may hold prompts: only `show` prints a value."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from functools import partial
from typing import Any

import click

from infra.cli.cluster import Cluster, Edge, with_cluster
from infra.cli.exits import CommandExit, Exit
from infra.cli.instants import instant
from infra.cli.letters import filter_of, filtered, read_letters
from infra.cli.output import AS_JSON, emit_json, emit_table, moment
from shared.kafka.port import TopicPartition
from shared.processing.replay import Letter, address, find_letter, original, send_again


@click.group(name="dead-letters")
def dead_letters() -> None:
    """Records that could not be processed, each with its reason."""


@dead_letters.command(name="list")
@filtered
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 10_000), help="The newest N.")
@AS_JSON
@click.pass_context
def list_(context: click.Context, /, limit: int, as_json: bool, **options: str | None) -> None:
    """List the newest dead letters, without their values."""
    wanted = filter_of(_edge(context).clock, options)
    letters = with_cluster(context, lambda cluster: read_letters(cluster, wanted))
    letters = sorted(letters, key=lambda letter: letter.content.at)[-limit:]
    if as_json:
        emit_json([_described(letter) for letter in letters])
    else:
        emit_table(
            ("id", "when", "from", "service", "code", "reason"),
            [
                (letter.id, moment(c.at), f"{c.topic}/{c.partition}/{c.offset}", c.service, c.code, c.reason)
                for letter in letters
                if (c := letter.content)
            ],
            empty="no dead letters",
        )


@dead_letters.command()
@click.argument("letter_id", metavar="ID")
@AS_JSON
@click.pass_context
def show(context: click.Context, letter_id: str, as_json: bool) -> None:
    """Show one dead letter with its original key, headers and value. ID is partition:offset."""
    letter = find_letter(with_cluster(context, read_letters), letter_id)
    described = _described(letter) | {
        "key": _readable(letter.content.key),
        "headers": {name: _readable(value) for name, value in letter.content.headers},
        "value": _readable(letter.content.value),
        "truncated": letter.content.truncated,
    }
    if as_json:
        emit_json(described)
    else:
        emit_table(("field", "value"), list(described.items()))


@dead_letters.command()
@click.argument("letter_ids", metavar="[ID]...", nargs=-1)
@filtered
@click.option("--all", "everything", is_flag=True, help="All of them.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def replay(context: click.Context, /, letter_ids: tuple[str, ...], everything: bool, yes: bool, **options: str | None) -> None:
    """Send the original bytes of dead letters to their original topics again: those with these IDs, or those that the options choose.

    Sending one twice changes nothing: a job without an id of its own keeps the id that it would have had the first time, for an hour
    after its end like every repeated id, and whatever else is replayed has ids of its own.
    """
    wanted = filter_of(_edge(context).clock, options)
    if bool(letter_ids) + (not wanted.empty) + everything != 1:
        raise CommandExit(Exit.USAGE, "say which: IDs, or filters, or --all")
    letters = with_cluster(context, lambda cluster: read_letters(cluster, wanted))
    chosen = [find_letter(letters, letter_id) for letter_id in dict.fromkeys(letter_ids)] if letter_ids else letters
    for letter in chosen:
        original(letter)  # one that was kept in part is told before anything is asked
    if not letter_ids and chosen and not yes:
        click.confirm(f"send {len(chosen)} records again?", abort=True, err=True)
    for line in with_cluster(context, partial(_replay, chosen=chosen)):
        click.echo(line)
    if not chosen:
        click.echo("no dead letters")


async def _replay(cluster: Cluster, *, chosen: Sequence[Letter]) -> list[str]:
    await cluster.tell("replay", "dead_letters", count=len(chosen))
    producer = await cluster.connected(cluster.log.producer(client_id="tutti-cli"))
    try:
        return [f"{letter.id} -> {place.topic}/{place.partition}/{place.offset}" async for letter, place in send_again(producer, chosen)]
    finally:
        await producer.close()


@dead_letters.command()
@click.option("--before", "letter_id", metavar="ID", help="Those of its partition that lie in front of this one.")
@click.option("--until", metavar="WHEN", help="Those written before: 30m, 2h, 7d ago, or ISO 8601 with an offset.")
@click.option("--all", "everything", is_flag=True, help="All of them.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def purge(context: click.Context, letter_id: str | None, until: str | None, everything: bool, yes: bool) -> None:
    """Delete the oldest dead letters for good. Kafka deletes from the beginning of a partition only, so there are no other filters."""
    if sum((letter_id is not None, until is not None, everything)) != 1:
        raise CommandExit(Exit.USAGE, "say which: --before ID, --until WHEN or --all")
    written_before = None if until is None else instant(until, _edge(context).clock.wall())
    offsets, count = with_cluster(context, partial(_doomed, letter_id=letter_id, written_before=written_before))
    if count and not yes:
        click.confirm(f"delete {count} dead letters for good?", abort=True, err=True)
    with_cluster(context, partial(_delete, offsets=offsets, count=count))
    click.echo(f"{count} dead letters deleted")


async def _doomed(cluster: Cluster, *, letter_id: str | None, written_before: float | None) -> tuple[dict[TopicPartition, int], int]:
    """What to delete: partition → first offset that stays, and how many records that are. By the records' own timestamps."""
    topic = cluster.topics.dead_letters
    partitions = await cluster.partitions(topic)
    async with cluster.reader(partitions) as consumer:
        begins = await cluster.connected(consumer.beginning_offsets(partitions))
        ends = await cluster.connected(consumer.end_offsets(partitions))
        if letter_id is not None:
            partition, offset = address(letter_id, topic)
            if partition not in ends:
                raise CommandExit(Exit.NOT_FOUND, f"there is no dead letter {letter_id}")
            stays = {partition: min(offset, ends[partition])}
        elif written_before is not None:
            moment_ms = int(written_before * 1000)
            stays = {partition: await cluster.connected(consumer.offset_at(partition, moment_ms)) for partition in partitions}
        else:
            stays = ends
    offsets = {partition: offset for partition, offset in stays.items() if offset > begins[partition]}
    return offsets, sum(offset - begins[partition] for partition, offset in offsets.items())


async def _delete(cluster: Cluster, *, offsets: dict[TopicPartition, int], count: int) -> None:
    await cluster.tell("purge", "dead_letters", count=count)
    async with cluster.admin() as admin:
        await cluster.connected(admin.delete_records(offsets))


def _edge(context: click.Context) -> Edge:
    return context.find_object(Edge) or Edge()


def _described(letter: Letter) -> dict[str, Any]:
    content = letter.content
    return {
        "id": letter.id,
        "at": moment(content.at),
        "topic": content.topic,
        "partition": content.partition,
        "offset": content.offset,
        "service": content.service,
        "code": content.code,
        "reason": content.reason,
    }


def _readable(value: bytes | None) -> str | None:
    """Text, or base64 of what is not text."""
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return "base64:" + b64encode(value).decode()
