"""Dead letters as a command sees them: an address, the content, and the filters that choose among them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import click
from pydantic import ValidationError
from pydantic_core import from_json

from infra.cli.cluster import Cluster
from infra.cli.exits import CommandExit, Exit
from infra.cli.instants import instant
from shared.clock import Clock
from shared.contracts.dead_letter import DeadLetter
from shared.contracts.headers import REPLAY_OF, Envelope, Origin
from shared.kafka.port import Message, TopicPartition

_ADDRESS = re.compile(r"(\d{1,9}):(\d{1,18})")

Command = TypeVar("Command", bound=Callable[..., Any])


class Letter(NamedTuple):
    """A dead letter and its address, `partition:offset`."""

    id: str
    content: DeadLetter


@dataclass(frozen=True, slots=True)
class Filter:
    """What a letter must be; None: anything. `since`, `until`: seconds since 1970 of when it was written."""

    topic: str | None = None
    reason: str | None = None
    since: float | None = None
    until: float | None = None
    tenant: str | None = None
    key: str | None = None

    @property
    def empty(self) -> bool:
        """Nothing is filtered."""
        return self == Filter()

    def takes(self, letter: DeadLetter) -> bool:
        return (
            self.topic in (None, letter.topic)
            and (self.reason is None or self.reason == letter.code or self.reason.lower() in letter.reason.lower())
            and (self.since is None or letter.at >= self.since)
            and (self.until is None or letter.at < self.until)
            and (self.key is None or letter.key == self.key.encode())
            and (self.tenant is None or tenant_of(letter) == self.tenant)
        )


_OPTIONS = (
    click.option("--topic", help="Only those that came from this topic."),
    click.option("--reason", metavar="TEXT", help="Only those with this code, or these words in the reason."),
    click.option("--since", metavar="WHEN", help="Only those written since: 30m, 2h, 7d ago, or ISO 8601 with an offset."),
    click.option("--until", metavar="WHEN", help="Only those written before; spelled like --since."),
    click.option("--tenant", help="Only those whose record names this tenant."),
    click.option("--key", help="Only those with this original key."),
)


def filtered(command: Command) -> Command:
    """The options of a Filter; the command gets them as keyword arguments for `filter_of`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def filter_of(clock: Clock, options: dict[str, str | None]) -> Filter:
    """Raises CommandExit (usage) for an instant that is none."""
    given = (options.pop(name) for name in ("since", "until"))
    since, until = (None if text is None else instant(text, clock.wall()) for text in given)
    return Filter(since=since, until=until, **options)


def tenant_of(letter: DeadLetter) -> str | None:
    """The tenant that the record names; a job that names none is `default`'s. None where the record cannot tell."""
    try:
        body = from_json(letter.value or b"", allow_partial="trailing-strings")
    except ValueError:
        return None
    if not isinstance(body, dict):
        return None
    named = body.get("tenant", "default")
    return named if isinstance(named, str) else None


async def read_letters(cluster: Cluster, wanted: Filter | None = None) -> list[Letter]:
    """Every readable dead letter that `wanted` takes, in the log's order."""
    letters: list[Letter] = []
    async for record in cluster.read_all(cluster.topics.dead_letters):
        try:
            content = DeadLetter.model_validate_json(record.value or b"")
        except ValidationError:
            continue
        if wanted is None or wanted.takes(content):
            letters.append(Letter(f"{record.partition}:{record.offset}", content))
    return letters


def find(letters: Iterable[Letter], letter_id: str) -> Letter:
    """The letter at an address. Raises CommandExit (not found)."""
    for letter in letters:
        if letter.id == letter_id:
            return letter
    raise CommandExit(Exit.NOT_FOUND, f"there is no dead letter {letter_id}; `tutti dead-letters list` shows them")


def original(letter: Letter) -> Message:
    """The record as it was, on its own partition (home is where a job arrived), marked with where the very first one lay.

    From that mark a job without an id gets the id that it would have had: sent twice, it is one job.
    """
    content = letter.content
    if content.truncated:
        raise CommandExit(Exit.FAILED, f"{letter.id} was kept only in part (it was too large) and cannot be sent again")
    lay = Envelope(content.headers).replay_of() or Origin(content.topic, content.partition, content.offset, content.timestamp or 0)
    headers = tuple(header for header in content.headers if header[0] != REPLAY_OF)
    return Message(content.topic, content.value, content.key, content.partition, (*headers, lay.header()))


def address(letter_id: str, topic: str) -> tuple[TopicPartition, int]:
    """Where `partition:offset` lies. Raises CommandExit (usage)."""
    found = _ADDRESS.fullmatch(letter_id)
    if found is None:
        raise CommandExit(Exit.USAGE, f"{letter_id!r} is no dead letter's id: partition:offset")
    return TopicPartition(topic, int(found[1])), int(found[2])
