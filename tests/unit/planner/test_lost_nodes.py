"""A node of which nothing is heard has lost its claims before their leases end; one that is slow at credits, or at renewals, has not."""

from __future__ import annotations

from typing import Any

from services.planner.intake.nodes_heard import NodesHeard
from services.planner.job.open_step import Phase
from services.planner.state.policy import Policy
from shared.clock import ManualClock
from shared.contracts import headers
from shared.contracts.event import AttemptFailed
from shared.contracts.failure import FailureKind
from shared.kafka.memory.memory import MemoryLog
from shared.kafka.port import TopicPartition
from shared.placement.facts import DEAF_SECONDS
from shared.topics import Topics
from tests.unit.planner.desk import Desk, claimed, last, renewed

LOST_SECONDS, LEASE_SECONDS = 10.0, 20.0


class Heard:
    """For how long `n1` is silent, as a test says."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def silent_seconds(self, node: str, now: float) -> float:
        assert node == "n1"
        return self.seconds


def running() -> tuple[Desk, Heard]:
    heard = Heard()
    desk = Desk(Policy(silent_seconds=heard.silent_seconds))
    desk.submit()
    desk.say(claimed(desk.job, desk.step))
    return desk, heard


def failure(desk: Desk) -> Any:
    found = last(desk, AttemptFailed)
    assert isinstance(found, AttemptFailed)
    return found.failure


def test_credits_and_renewals_that_are_silent_end_a_claim() -> None:
    """It counts, and the next attempt avoids the node."""
    desk, heard = running()
    heard.seconds = LOST_SECONDS
    desk.wait(LOST_SECONDS - 0.1)
    assert desk.step.phase is Phase.CLAIMED
    desk.wait(0.2)
    assert (failure(desk).kind, failure(desk).node) == (FailureKind.NODE_LOST, "n1")
    assert desk.step.avoid == ("n1",)


def test_renewals_alone_that_are_silent_end_nothing_before_the_lease() -> None:
    """Its credits are heard: it is slow, or what it tells this home is held up. And when they fall silent too it is soon noticed."""
    desk, heard = running()
    heard.seconds = 1.0
    for _ in range(int(LEASE_SECONDS) - 1):
        desk.wait(1.0)
    assert desk.step.phase is Phase.CLAIMED
    desk.wait(1.1)
    assert failure(desk).kind is FailureKind.LEASE_EXPIRED
    desk, heard = running()
    heard.seconds = 1.0
    desk.wait(LOST_SECONDS + 0.1)
    heard.seconds = LOST_SECONDS
    desk.wait(LOST_SECONDS - 1.0)
    assert failure(desk).kind is FailureKind.NODE_LOST


def test_credits_alone_that_are_silent_end_nothing() -> None:
    """Renewals come."""
    desk, heard = running()
    heard.seconds = 100.0
    for _ in range(10):
        desk.wait(5.0)
        desk.say(renewed("c1"))
    assert desk.step.phase is Phase.CLAIMED


def test_a_successor_waits_a_whole_period() -> None:
    """What was renewed before it came, it does not know."""
    desk, heard = running()
    heard.seconds = LOST_SECONDS
    desk.wait(LOST_SECONDS - 0.5)
    desk.take_over()
    desk.wait(LOST_SECONDS - 0.5)
    assert desk.step.phase is Phase.CLAIMED
    desk.wait(1.0)
    assert failure(desk).kind is FailureKind.NODE_LOST


class _Credits:
    """As much of a record as is looked at."""

    def __init__(self, key: bytes | None) -> None:
        self.key, self.value, self.headers = key, b"", headers.envelope("credits")


def test_silence_is_counted_only_while_anything_is_heard() -> None:
    """Of one never heard since we listen; all begins anew when we were deaf."""
    clock, topics = ManualClock(), Topics()
    heard, where = NodesHeard(MemoryLog(clock), clock, topics, "p"), TopicPartition(topics.credits, 0)

    def tell(*keys: bytes | None) -> None:
        heard.on_records(where, [_Credits(key) for key in keys])  # type: ignore[misc]

    def silent(node: str) -> float:
        return heard.silent_seconds(node, clock.monotonic())

    assert silent("n1") == 0.0, "nothing is heard yet"
    tell(b"n1", None)
    for _ in range(8):
        clock.advance(1.0)
        tell(b"router-1")
    assert (silent("n1"), silent("n2"), silent("router-1")) == (8.0, 8.0, 0.0)
    clock.advance(DEAF_SECONDS + 0.1)
    assert silent("n1") == 0.0
    tell(b"router-1")
    clock.advance(2.0)
    assert (silent("n1"), silent("n2")) == (2.0, 2.0)
