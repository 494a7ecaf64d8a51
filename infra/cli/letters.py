"""Dead letters as a command sees them: the filters that choose among them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click
from pydantic_core import from_json

from infra.cli.cluster import Cluster
from infra.cli.instants import instant
from shared.clock import Clock
from shared.contracts.dead_letter import DeadLetter
from shared.processing.replay import Letter, letters_of

Command = TypeVar("Command", bound=Callable[..., Any])


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
        letters += [letter for letter in letters_of([record]) if wanted is None or wanted.takes(letter.content)]
    return letters
