"""What the owner of batches opens, counts, keeps and forgets."""

from __future__ import annotations

from services.planner.batches.batch_owner import TIMER, BatchOwner, BatchPolicy
from services.planner.draft import Draft, KeepEnds, SendLines
from shared.contracts.batch import BatchCancelled, BatchChanged, BatchSubmitted, BatchTerms, LineEnded
from shared.contracts.blob import BlobRef
from shared.contracts.result import Result, Status

TERMS = BatchTerms(endpoint="/v1/chat/completions", input_file="file-1", created_at=0.0, window="24h")
LIES = BlobRef(digest="0" * 32, partition=0, first=0, last=0, chunks=1, size=10, written_at=0.0)
KEY = ("t", "b")


class Owner:
    """Its rounds, one at a second unless told otherwise; what they let out."""

    def __init__(self, policy: BatchPolicy | None = None, most: int | None = None) -> None:
        self.batches, self.now, self.timers = BatchOwner(policy or BatchPolicy(), self._set, lambda _: most), 1_000.0, dict[str, float]()
        self.sent: list[int] = []
        self.cancelled: list[int] = []
        self.kept: list[KeepEnds] = []
        self.events: list[BatchChanged] = []
        self.paid: list[int] = []
        self.round = Draft(0, 0.0, self.now)

    def _set(self, key: str, at: float) -> None:
        self.timers[key] = at

    def submit(self, lines: int, name: str = "b", window: float = 60.0) -> None:
        told = BatchSubmitted(tenant="t", batch=name, terms=TERMS, window_seconds=window, index=LIES, lines=lines)
        self.batches.on_submitted(self.round, told)
        self.flush()

    def end(self, number: int, status: Status = Status.SUCCEEDED, name: str = "b") -> None:
        result = Result(job="j", tenant="t", status=status, accepted_at=0.0, finished_at=0.0)
        told = LineEnded(tenant="t", batch=name, number=number, result=result)
        self.batches.on_ended(self.round, told, lambda: self.paid.append(number))
        self.flush()

    def write(self) -> None:
        """What is to be kept lies there."""
        for ends in self.kept[:]:
            self.kept.remove(ends)
            ended = {number: good for number, (_, good) in ends.rows.items()}
            self.batches.on_written(self.round, (ends.known.tenant, ends.known.batch), LIES, len(ended), ended)
        self.flush()

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.round.now = self.now
        for key in [key for key, at in self.timers.items() if at <= self.now]:
            del self.timers[key]
            self.batches.on_due(self.round, key)
        self.flush()

    def flush(self) -> None:
        self.batches.kept.flush(self.round)
        for effect in self.round.after:
            if isinstance(effect, SendLines):
                self.sent += effect.numbers
                self.cancelled += effect.cancelled
                for paid in effect.paid:
                    paid()
            elif isinstance(effect, KeepEnds):
                self.kept.append(effect)
        for values in self.round.ledger.values():
            self.events += [BatchChanged.model_validate_json(value) for _, value in values]
        self.round = Draft(0, 0.0, self.now)

    @property
    def known(self) -> BatchChanged:
        found = self.batches.get(*KEY)
        assert found is not None
        return found


def test_lines_are_opened_as_others_end() -> None:
    """So many at once; an end counts once, its record when an event names it."""
    at = Owner(BatchPolicy(ahead=4, least=1))
    at.submit(6)
    assert (at.sent, at.known.open) == ([0, 1, 2, 3], (0, 1, 2, 3))
    at.end(1)
    at.end(1)
    at.end(5)
    assert at.paid == [1, 5]
    at.pass_time(1.0)
    assert [sorted(kept.rows) for kept in at.kept] == [[1]]
    at.end(1)
    at.write()
    assert (at.sent, at.known.completed, at.known.open) == ([0, 1, 2, 3, 4], 1, (0, 2, 3, 4))
    assert at.paid == [1, 5, 1, 1]
    for number in (0, 2, 3, 4):
        at.end(number, Status.FAILED if number == 2 else Status.SUCCEEDED)
    at.write()
    at.end(5)
    at.write()
    assert (at.known.status, at.known.completed, at.known.failed, at.known.open) == ("completed", 5, 1, ())


def test_a_successor_knows_what_the_newest_event_says() -> None:
    """It sends open lines again, once its timer has fired; what was gathered is told again."""
    before = Owner(BatchPolicy(ahead=4, least=1))
    before.submit(6)
    before.end(0)
    after = Owner(BatchPolicy(ahead=4, least=1))
    after.batches.kept.restore(before.events[-1], 7, after.now)
    after.batches.resume(after.round, 0.0)
    after.flush()
    assert after.sent == []
    after.end(0)
    after.pass_time(0.0)
    assert after.sent == [1, 2, 3]
    assert after.paid == []


def test_a_tenant_has_no_more_lines_open_than_it_may_run() -> None:
    """One of each batch in any case."""
    at = Owner(BatchPolicy(ahead=100), most=3)
    at.submit(10)
    at.submit(10, "c")
    assert [len(event.open) for event in at.events] == [3, 1]


def test_homes_share_what_may_be_open() -> None:
    at = Owner(BatchPolicy(ahead=12, least=2))
    for number in range(4):
        at.submit(50, f"b{number}")
    assert [len(event.open) for event in at.events] == [12, 6, 4, 3]


def test_a_cancel_waits_for_what_is_open_and_not_for_ever() -> None:
    at = Owner(BatchPolicy(ahead=4, least=1, patience_seconds=30.0))
    at.submit(6)
    at.batches.on_cancelled(at.round, BatchCancelled(tenant="t", batch="b"))
    at.flush()
    assert (at.known.status, at.cancelled, at.sent) == ("cancelling", [0, 1, 2, 3], [0, 1, 2, 3])
    at.end(0, Status.CANCELLED)
    at.pass_time(29.0)
    at.write()
    assert (at.known.status, at.known.open) == ("cancelling", (1, 2, 3))
    at.end(1)
    at.pass_time(2.0)
    assert at.known.status == "cancelling"  # what is told is kept
    at.write()
    at.pass_time(1.0)
    assert (at.known.status, at.known.completed, at.known.failed, at.known.open, at.known.next) == ("cancelled", 1, 1, (2, 3), 4)


def test_the_window_is_counted_on_by_a_successor() -> None:
    at = Owner(BatchPolicy(ahead=4, least=1))
    at.submit(6, window=60.0)
    at.pass_time(50.0)
    at.batches.kept.touch(KEY)
    at.flush()
    after = Owner()
    after.batches.kept.restore(at.events[-1], 7, after.now)
    after.batches.resume(after.round, 0.0)
    after.flush()
    after.pass_time(9.0)
    assert after.known.ending is None
    after.pass_time(2.0)
    assert after.known.status == "finalizing"


def test_what_is_over_is_forgotten_in_time_and_by_number() -> None:
    at = Owner(BatchPolicy(most=3, kept_seconds=100.0, live_of_tenant=2))
    for number in range(5):
        at.now += 1.0
        at.round.now = at.now
        at.submit(0, f"b{number}")
    gone = [event.batch for event in at.events if event.gone]
    assert gone == ["b0", "b1"]
    for number in range(3):
        at.submit(1, f"live{number}")
    refused = at.batches.get("t", "live2")
    assert refused is not None
    assert [error.code for error in refused.errors] == ["batch_limit_exceeded"]
    at.pass_time(101.0)
    assert {event.batch for event in at.events if event.gone} >= {"b2", "b3", "b4"}


def test_lines_that_lie_nowhere_end_it() -> None:
    at = Owner()
    at.submit(3)
    at.batches.on_unreadable(at.round, KEY)
    at.flush()
    assert (at.known.status, [error.code for error in at.known.errors]) == ("failed", ["input_gone"])


def test_ends_of_what_nobody_knows_are_passed_over() -> None:
    at = Owner()
    at.end(3)
    assert at.paid == [3]


def test_its_timer_names_it() -> None:
    at = Owner()
    at.submit(1)
    assert list(at.timers) == [f"{TIMER}t/b"]
