"""Followers: who wants to know right now when something about a job is new."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager


class Followers:
    """Job → whom to wake. Costs nothing for jobs that nobody follows."""

    def __init__(self) -> None:
        self._by_job: dict[str, set[Callable[[], None]]] = {}

    def __len__(self) -> int:
        return sum(len(wakes) for wakes in self._by_job.values())

    @contextmanager
    def following(self, job: str, news: asyncio.Event | None = None) -> Iterator[asyncio.Event]:
        """An event, `news` where one is given, that is set whenever something about `job` is new."""
        event = news or asyncio.Event()
        with self.waking(job, event.set):
            yield event

    @contextmanager
    def waking(self, job: str, wake: Callable[[], None]) -> Iterator[None]:
        """`wake` is called whenever something about `job` is new."""
        self._by_job.setdefault(job, set()).add(wake)
        try:
            yield
        finally:
            readers = self._by_job[job]
            readers.discard(wake)
            if not readers:
                del self._by_job[job]

    def wake(self, job: str) -> None:
        """Something about `job` is new."""
        for wake in self._by_job.get(job, ()):
            wake()

    def wake_all(self, jobs: Iterable[str]) -> None:
        """Something about each of `jobs` is new."""
        if self._by_job:
            for job in jobs:
                self.wake(job)
