"""Watchlist: who wants to hear of a job's end from history itself, whoever submitted it. Bounded; costs one look-up for all other jobs.

Followers: who is reading a job's event stream right now, to be woken when something about the job is new.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from shared.contracts.event import JobSettled
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.result import Result, Status


class Followers:
    """Job → events to set. Costs nothing for jobs that nobody follows."""

    def __init__(self) -> None:
        self._by_job: dict[str, set[asyncio.Event]] = {}

    def __len__(self) -> int:
        return sum(len(events) for events in self._by_job.values())

    @contextmanager
    def following(self, job: str, news: asyncio.Event | None = None) -> Iterator[asyncio.Event]:
        """An event, `news` where one is given, that is set whenever something about `job` is new."""
        event = news or asyncio.Event()
        self._by_job.setdefault(job, set()).add(event)
        try:
            yield event
        finally:
            readers = self._by_job[job]
            readers.discard(event)
            if not readers:
                del self._by_job[job]

    def wake(self, job: str) -> None:
        """Something about `job` is new."""
        for event in self._by_job.get(job, ()):
            event.set()

    def wake_all(self, jobs: Iterable[str]) -> None:
        """Something about each of `jobs` is new."""
        if self._by_job:
            for job in jobs:
                self.wake(job)


Told = Callable[[Result], None]


class Watchlist:
    """Job → whom to tell. The oldest job gives way when there are too many: its watchers are never told."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._watchers: OrderedDict[str, list[tuple[Told, str | None]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._watchers)

    def add(self, job: str, told: Told, digest: str | None = None) -> None:
        """`told` is called once, with the result, when the settle event is read.

        Who waits for another request (`digest`) gets a conflict; he is told nothing where the event does not tell which it was.
        """
        self._watchers.setdefault(job, []).append((told, digest))
        while len(self._watchers) > self._limit:
            self._watchers.popitem(last=False)

    def remove(self, job: str, told: Told) -> None:
        """Not interested any longer."""
        watchers = [watcher for watcher in self._watchers.get(job, ()) if watcher[0] != told]
        if watchers:
            self._watchers[job] = watchers
        else:
            self._watchers.pop(job, None)

    def on_settled(self, job: str, event: bytes) -> None:
        """A valid JobSettled was read. Raises ValidationError when it is none."""
        if job in self._watchers:
            settled = JobSettled.model_validate_json(event)
            for told, digest in self._watchers.pop(job):
                if digest is None or digest == settled.digest:
                    told(settled.result)
                elif settled.digest:
                    told(_conflict(settled.result))


def _conflict(result: Result) -> Result:
    failure = Failure(kind=FailureKind.CONFLICT, message="this id is already used with another body")
    return result.model_copy(update={"status": Status.FAILED, "answer": None, "failure": failure})
