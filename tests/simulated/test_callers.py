"""Callers of an ingress are ended by settle events, once it is known which events are valid (simulated, virtual time)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from infra.lab.virtual_loop import run
from services.ingress.replies.ends import Ends
from services.ingress.settings import IngressSettings
from services.ingress.status.events_reader import EventsReader
from shared.contracts.event import CallerJoined, IdsRemembered, JobSettled, PlannerStarted
from shared.contracts.headers import envelope
from shared.contracts.result import Result, Status
from shared.kafka.port import TopicPartition
from shared.services import group_of
from shared.topics import TopicSettings
from tests.support.cluster.faults import FaultMix
from tests.support.cluster.laws.callers import LAW
from tests.support.cluster.mutants.callers import CALLERS, RESTARTS
from tests.support.cluster.simulation import simulate
from tests.support.stage import Stage


class Reading(Stage):
    """One home's events, and an ingress that reads them. `told`: of job j."""

    def __init__(self) -> None:
        super().__init__(TopicSettings(home_partitions=1))
        self.where = TopicPartition(self.topics.job_events, 0)
        self.told: list[Result] = []
        self.reader: EventsReader

    def tell(self, event: Any, key: bytes | None = b"j") -> int:
        return self.write(self.topics.job_events, 0, event.to_bytes(), envelope(event.type), key)

    def start(self) -> int:
        return self.tell(PlannerStarted(nonce="n", planner="p"), None)

    def settle(self, epoch: int, status: Status) -> None:
        result = Result(job="j", status=status, accepted_at=1.0, finished_at=2.0)
        self.tell(JobSettled(epoch=epoch, job="j", at=2.0, result=result))

    def result(self, status: Status) -> None:
        result = Result(job="j", status=status, accepted_at=1.0, finished_at=2.0)
        self.write(self.topics.results, 0, result.to_bytes(), key=b"j")

    async def begin(self, *, committed: int | None = None) -> asyncio.Task[None]:
        """Read from the end, or from where the planners have committed."""
        if committed is not None:
            self.log.group(group_of("planner", "")).offsets[self.where] = committed
        ends = Ends()
        settings = IngressSettings(events_lookback=0, events_pause_seconds=0.0)
        self.reader = EventsReader(self.environment("i"), settings, None, ends)
        ends.add("j", self.told.append)
        task = asyncio.create_task(self.reader.run())
        await self.reader.tail.positioned.wait()
        await asyncio.sleep(1.0)
        return task


Trace = Callable[[], None]


def trace(main: Callable[[Reading], Coroutine[Any, Any, None]]) -> Trace:
    async def all_of_it() -> None:
        await main(Reading())

    def test() -> None:
        run(all_of_it())

    test.__name__, test.__doc__ = main.__name__, main.__doc__
    return test


@trace
async def test_nobody_is_told_before_it_is_known_which_epoch_is_in_force(at: Reading) -> None:
    """Begun at the end, the ingress would take a zombie's epoch for the one in force: the highest that it has seen."""
    zombie = at.start()
    at.start()
    task = await at.begin()
    at.settle(zombie, Status.CANCELLED)
    await asyncio.sleep(1.0)
    assert (at.told, at.reader.established(0)) == ([], False)
    now = at.start()
    await asyncio.sleep(1.0)
    assert at.reader.established(0)
    at.settle(zombie, Status.CANCELLED)
    at.settle(now, Status.SUCCEEDED)
    await asyncio.sleep(1.0)
    assert [result.status for result in at.told] == [Status.SUCCEEDED]
    task.cancel()


@pytest.mark.parametrize("named", ["a start", "an event", "an event that no caller sees"])
def test_the_planners_watermark_says_which_epoch_is_in_force(named: str) -> None:
    """It names a valid record, whatever of: from there on nothing is guessed."""

    @trace
    async def main(at: Reading) -> None:
        zombie = at.start()
        epoch = committed = at.start()
        if named == "an event":
            committed = at.tell(CallerJoined(epoch=epoch, job="j", at=1.0))
        elif named != "a start":
            committed = at.tell(IdsRemembered(epoch=epoch, at=1.0, since=0, until=0, ids=b""), b"#ids")
        at.settle(zombie, Status.CANCELLED)
        task = await at.begin(committed=committed)
        assert (at.told, at.reader.established(0)) == ([], True)
        at.settle(epoch, Status.SUCCEEDED)
        await asyncio.sleep(1.0)
        assert [result.status for result in at.told] == [Status.SUCCEEDED]
        task.cancel()

    main()


@trace
async def test_what_was_missed_may_have_been_a_start(at: Reading) -> None:
    """Retention has reached what an ingress that slept had not read: finals are asked for again, until a planner starts. Who waited then is
    told by his job's result, which is made of a valid event.
    """
    epoch = at.start()
    task = await at.begin(committed=epoch)
    assert at.reader.established(0)
    at.log.freeze("i")
    for _ in range(3):
        at.tell(CallerJoined(epoch=epoch, job="j", at=1.0))
    partition = at.log.existing(at.where)
    partition.delete_before(partition.end - 1)
    at.log.thaw("i")
    await asyncio.sleep(2.0)
    assert not at.reader.established(0)
    at.settle(epoch, Status.CANCELLED)  # valid perhaps
    await asyncio.sleep(2.0)
    assert at.told == []
    at.result(Status.SUCCEEDED)
    await asyncio.sleep(2.0)
    assert [result.status for result in at.told] == [Status.SUCCEEDED]
    at.start()
    await asyncio.sleep(1.0)
    assert at.reader.established(0)
    task.cancel()


@trace
async def test_a_start_that_is_none_changes_nothing(at: Reading) -> None:
    """An odd record whose header says that a planner started."""
    epoch = at.start()
    task = await at.begin(committed=epoch)
    at.write(at.topics.job_events, 0, b"{}", envelope("planner_started"))
    at.settle(epoch, Status.SUCCEEDED)
    await asyncio.sleep(1.0)
    assert len(at.told) == 1
    task.cancel()


@pytest.mark.parametrize("seed", range(3))
def test_callers_are_told_whatever_dies(seed: int) -> None:
    """Keyed requests come again, at any ingress, while ingresses and planners die: the law has its share of work to look at."""
    for mix in (RESTARTS, FaultMix(kill=0.5, down_seconds=(0.0, 1.0), send_seconds=0.3, delivery_seconds=0.3, jobs=40, seconds=20.0)):
        print(f"seed {seed}")
        report = simulate(seed, mix, CALLERS)
        assert not [violation for violation in report.violations if violation.law == LAW], report.text("")
