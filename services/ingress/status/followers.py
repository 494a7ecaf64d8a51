"""Followers: who is reading a job's event stream right now, to be woken when something about the job is new."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


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
