"""Tries: how often work on one record may fail for a reason that nobody expected. Pure and bounded.

What is wrong with a record by the rules of its topic is an `InvalidInput`: it is refused at once. Anything else that is raised is a
defect, ours or of what the record holds; it may pass (too little memory) or not (a number that overflows). So the work is tried again,
TRIES times in all, and then given up for this record only: `GivenUp` is an `InvalidInput`, so the record goes where refused ones go.

Work that concerns no record (`Chore`) is given up too, or tried at its every turn: it ends no process, and readiness says what is undone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

from pydantic import ValidationError

from shared.contracts import headers
from shared.contracts.base import VERSION
from shared.contracts.bounds import explain
from shared.errors import InvalidInput, InvalidRecord, TuttiError
from shared.kafka.port import Record, Unreadable
from shared.telemetry import logs

log = logs.get(__name__)

T = TypeVar("T")

TRIES = 3
REMEMBERED = 1_000


class GivenUp(InvalidInput):
    """Work on the record failed again and again."""

    code = "internal"


class Chore(NamedTuple):
    """The key of work that concerns no record, as upkeep; `of`: the part of it that does."""

    name: str
    of: str = ""


class Tries:
    """Counts failures by key, as a record's place or a job's id. Of more than REMEMBERED the oldest is forgotten and is tried anew."""

    def __init__(self) -> None:
        self._failures: OrderedDict[Hashable, int] = OrderedDict()
        self.at: Hashable = None
        """What is being worked on, where an error does not say it. None: nothing that could be given up."""

    def failed(self, key: Hashable) -> int:
        """Note one more failure; returns how many tries are left."""
        count = self._failures.pop(key, 0) + 1
        self._failures[key] = count
        while len(self._failures) > REMEMBERED:
            self._failures.popitem(last=False)
        return max(0, TRIES - count)

    def blame(self) -> int | None:
        """What was being worked on has failed once more; how many tries are left, None where there is nothing to blame."""
        return None if self.at is None else self.failed(self.at)

    def exhaust(self, key: Hashable) -> None:
        """No further try."""
        while self.failed(key):
            pass

    def spent(self, key: Hashable) -> bool:
        """Whether no try is left."""
        return self._failures.get(key, 0) >= TRIES

    def may(self, chore: Chore) -> bool:
        """Work on this begins; False: it has failed too often, and is left undone."""
        self.at = chore
        return not self._failures or not self.spent(chore)

    @contextmanager
    def chore(self, name: str) -> Iterator[None]:
        """Do this at its every turn. What it raises ends nothing: it is logged, the first times in a row."""
        key = Chore(name)
        try:
            yield
        except Exception as error:
            if not self.spent(key):
                log.failure("chore_failed", error, chore=name, tries_left=self.failed(key))
        else:
            self._failures.pop(key, None)

    @property
    def undone(self) -> tuple[str, ...]:
        """What has failed again and again, for readiness."""
        keys = [key for key in self._failures if isinstance(key, Chore) and self.spent(key)]
        return tuple(f"{key.name}{' of ' if key.of else ''}{key.of} fails again and again; the log says why" for key in keys)

    def begin(self, key: Hashable, of: Hashable = None) -> None:
        """Work on this begins, which is a part of `of`. Raises GivenUp when no try is left."""
        self.at = key
        if self._failures and (self.spent(key) or self.spent(of)):
            raise GivenUp(f"work on it failed {TRIES} times")


def message(record: Record, validate: Callable[[bytes], T], what: str) -> T:
    """The message that the record is. Raises InvalidRecord; the reason quotes no values, because they hold prompts."""
    if record.value is None:
        raise InvalidRecord("the record has no value")
    if record.headers and headers.Envelope(record.headers).version() > VERSION:
        raise InvalidRecord(f"the {what}'s version is newer than this service")
    try:
        return validate(record.value)
    except ValidationError as error:
        raise InvalidRecord(explain(error, what)) from None


def place(record: Record) -> tuple[str, int, int]:
    """The key of a record."""
    return record.topic, record.partition, record.offset


def read(record: Record, reader: Callable[[Record], T]) -> T:
    """What `reader` makes of the record; it changes nothing, so it is tried again at once.

    Raises what the reader raises on purpose, InvalidRecord for an unreadable record, GivenUp when it always fails in another way.
    """
    if isinstance(record, Unreadable):
        raise InvalidRecord(record.reason)
    tries = TRIES
    while True:
        try:
            return reader(record)
        except TuttiError:
            raise
        except Exception as error:
            tries -= 1
            if tries <= 0:
                log.failure("record_not_read", error, topic=record.topic, partition=record.partition, offset=record.offset)
                raise GivenUp(f"reading it failed {TRIES} times: {type(error).__name__}") from error
