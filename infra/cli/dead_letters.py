"""`tutti dead-letters`: records that could not be processed. They may hold prompts: only `show` prints a value."""

from __future__ import annotations

from base64 import b64encode
from typing import Any, NamedTuple

import click
from pydantic import ValidationError

from infra.cli.cluster import Cluster, with_cluster
from infra.cli.exits import Exit, Stop
from infra.cli.output import emit_json, emit_table, moment
from shared.contracts.dead_letter import DeadLetter
from shared.kafka.port import Message

REPLAY_OF = "replay-of"
"""Header of a record that was sent again: where its dead letter lies."""


class Letter(NamedTuple):
    """A dead letter and its address, `partition:offset`."""

    id: str
    content: DeadLetter


@click.group(name="dead-letters")
def dead_letters() -> None:
    """Records that could not be processed, each with its reason."""


@dead_letters.command(name="list")
@click.option("--topic", help="Only those that came from this topic.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 10_000), help="The newest N.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def list_(context: click.Context, topic: str | None, limit: int, as_json: bool) -> None:
    """List the newest dead letters, without their values."""
    letters = [letter for letter in with_cluster(context, read_letters) if topic in (None, letter.content.topic)]
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
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def show(context: click.Context, letter_id: str, as_json: bool) -> None:
    """Show one dead letter with its original key, headers and value. ID is partition:offset."""
    letter = _find(with_cluster(context, read_letters), letter_id)
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
@click.argument("letter_ids", metavar="ID...", nargs=-1, required=True)
@click.pass_context
def replay(context: click.Context, letter_ids: tuple[str, ...]) -> None:
    """Send the original bytes of dead letters to their original topics again.

    The record carries the header `replay-of`. Ids are derived or given by the caller, so a record whose work was done meanwhile
    changes nothing; only a job without an id of its own is a new job each time.
    """
    for line in with_cluster(context, lambda cluster: replay_letters(cluster, letter_ids)):
        click.echo(line)


async def read_letters(cluster: Cluster) -> list[Letter]:
    """Every readable dead letter, in the log's order."""
    letters: list[Letter] = []
    async for record in cluster.read_all(cluster.topics.dead_letters):
        try:
            letters.append(Letter(f"{record.partition}:{record.offset}", DeadLetter.model_validate_json(record.value or b"")))
        except ValidationError:
            continue
    return letters


async def replay_letters(cluster: Cluster, letter_ids: tuple[str, ...]) -> list[str]:
    """Send them all, or none when one is unknown or incomplete."""
    letters = await read_letters(cluster)
    chosen = [_find(letters, letter_id) for letter_id in dict.fromkeys(letter_ids)]
    messages = [original(letter, cluster.topics.dead_letters) for letter in chosen]
    producer = await cluster.connected(cluster.log.producer(client_id="tutti-cli"))
    try:
        sent = await producer.send_many(messages)
    finally:
        await producer.close()
    for outcome in sent:
        if isinstance(outcome, Exception):
            raise outcome
    return [
        f"{letter.id} -> {place.topic}/{place.partition}/{place.offset}"
        for letter, place in zip(chosen, sent, strict=True)
        if not isinstance(place, Exception)
    ]


def original(letter: Letter, dead_letters_topic: str) -> Message:
    """The record as it was, on its own partition (home is where a job arrived), with `replay-of` added."""
    content = letter.content
    if content.truncated:
        raise Stop(Exit.FAILED, f"{letter.id} was kept only in part (it was too large) and cannot be sent again")
    headers = tuple((name, value) for name, value in content.headers if name != REPLAY_OF)
    mark = (REPLAY_OF, f"{dead_letters_topic}/{letter.id.replace(':', '/')}".encode())
    return Message(content.topic, content.value, content.key, content.partition, (*headers, mark))


def _find(letters: list[Letter], letter_id: str) -> Letter:
    for letter in letters:
        if letter.id == letter_id:
            return letter
    raise Stop(Exit.NOT_FOUND, f"there is no dead letter {letter_id}; `tutti dead-letters list` shows them")


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
