"""A node's worker has started again: what its earlier boots have claimed is void, and what they still say counts for nothing."""

from __future__ import annotations

from services.planner.draft import Dispatch, Stop
from services.planner.job.open_step import Phase
from services.planner.round import Round
from shared.contracts.control import StopStep
from shared.contracts.event import AttemptFailed
from shared.contracts.failure import FailureKind
from shared.contracts.outcome import WorkerStarted, claim_id
from tests.unit.planner.desk import Desk, claimed, last, opened, renewed, routed, succeeded

NODE = "n1"
OLD, NEW = 7, 12
STARTED = WorkerStarted(node=NODE, incarnation=NEW)
CLAIM_SECONDS, LEASE_SECONDS = 5.0, 20.0


def stopped(round_: Round) -> list[StopStep]:
    return [effect.control for effect in round_.after if isinstance(effect, Stop)]


def running(*, stream: bool = False) -> Desk:
    """A step that the old boot has claimed."""
    desk = opened(stream=stream)
    desk.say(claimed(desk.job, desk.step, claim_id(NODE, OLD, 1)))
    return desk


def test_exactly_the_claims_of_lower_boots_of_that_node_are_void() -> None:
    """Also those of workers of before, which do not say their boot. Not another node's, nor those of this very boot."""
    desk = Desk()
    claims = {"old": claim_id(NODE, OLD, 1), "before": "n1.0123456789ab.1", "own": claim_id(NODE, NEW, 1), "other": claim_id("n2", 3, 1)}
    for name, claim in claims.items():
        desk.submit(id_=name)
        desk.say(claimed(desk.job, desk.step, claim, node="n2" if name == "other" else NODE))
    round_ = desk.say(STARTED)
    assert [effect.step.job for effect in round_.after if isinstance(effect, Dispatch)] == ["old", "before"]
    phases = {job.id: step.phase for job in desk.book.jobs.values() for step in job.steps.values()}
    assert phases == {"old": Phase.ASKED, "before": Phase.ASKED, "own": Phase.CLAIMED, "other": Phase.CLAIMED}


def test_it_is_not_the_jobs_fault_but_for_one_that_meets_it_again_and_again() -> None:
    """The first times the next attempt goes out at once, wherever; then it counts and avoids the node: a job that kills workers ends."""
    desk = opened()
    fates = []
    for boot in range(1, 20):
        if not desk.job.steps:
            break
        desk.say(claimed(desk.job, desk.step, claim_id(NODE, boot, 1)))
        desk.say(WorkerStarted(node=NODE, incarnation=boot + 1))
        failed = last(desk, AttemptFailed)
        assert isinstance(failed, AttemptFailed)
        assert failed.failure.kind is FailureKind.NODE_LOST
        fates.append((failed.counted, failed.failure.node))
        desk.wait(60.0)
    assert fates == [(False, None)] * 2 + [(True, NODE)] * 2 + [(True, None)]


def test_what_an_earlier_boot_says_later_counts_for_nothing() -> None:
    """Its claim is stopped, its renewal prolongs nothing, and the end of the stream is that of the claim that stands."""
    desk = running(stream=True)
    desk.say(STARTED)
    desk.say(routed(desk.job, desk.step))
    late, own = claim_id(NODE, OLD, 2), claim_id(NODE, NEW, 1)
    assert [stop.claim for stop in stopped(desk.say(claimed(desk.job, desk.step, late)))] == [late]
    desk.say(claimed(desk.job, desk.step, own), renewed(late))
    desk.say(succeeded(desk.job, desk.step, "of the old boot", claim=late))
    assert desk.job.settled is None
    job = desk.job
    desk.say(succeeded(job, desk.step, "of the new boot", claim=own))
    assert job.settled is not None
    assert job.settled.result.answer is not None
    assert job.settled.result.answer.text == "of the new boot"


def test_a_streams_end_without_a_claim_that_stands_is_nobodys() -> None:
    """A refused boot's success may come before the other one has claimed."""
    desk = running(stream=True)
    desk.say(STARTED)
    late = claim_id(NODE, OLD, 2)
    desk.say(claimed(desk.job, desk.step, late), succeeded(desk.job, desk.step, claim=late))
    assert desk.job.settled is None


def test_a_refused_claim_leaves_the_claim_timeout_armed() -> None:
    """Its record may lie behind the mailbox's position already: nobody else will claim it. Also where no router has told of it."""
    for told in (True, False):
        desk = running()
        desk.say(STARTED)
        before = desk.step.attempt
        desk.say(*([routed(desk.job, desk.step)] if told else []))
        desk.wait(1.0)
        desk.say(claimed(desk.job, desk.step, claim_id(NODE, OLD, 2)))
        desk.wait(CLAIM_SECONDS + (0.0 if told else 1.0))
        assert last(desk, AttemptFailed).failure.kind is FailureKind.UNCLAIMED  # type: ignore[attr-defined]
        desk.wait(60.0)
        assert desk.step.attempt == before + 1


def test_a_record_of_a_lower_boot_voids_nothing() -> None:
    """It was written by a boot that has been superseded since."""
    desk = opened()
    desk.say(STARTED)
    desk.say(claimed(desk.job, desk.step, claim_id(NODE, NEW, 1)))
    desk.say(WorkerStarted(node=NODE, incarnation=OLD), WorkerStarted(node=NODE, incarnation=NEW))
    assert desk.step.phase is Phase.CLAIMED


def test_a_successor_has_forgotten_it_and_the_lease_ends_what_was_claimed() -> None:
    """In memory only: nothing is lost by that but time."""
    desk = running()
    desk.say(STARTED)
    desk.take_over()
    assert stopped(desk.say(claimed(desk.job, desk.step, claim_id(NODE, OLD, 2)))) == []
    desk.wait(LEASE_SECONDS + 1.0)
    assert last(desk, AttemptFailed).failure.kind is FailureKind.LEASE_EXPIRED  # type: ignore[attr-defined]


def test_it_is_forgotten_after_a_while() -> None:
    """`nodes` may be made anew, and its offsets begin again: a boot with a lower one works."""
    desk = opened()
    desk.say(STARTED)
    desk.wait(400.0)
    assert stopped(desk.say(claimed(desk.job, desk.step, claim_id(NODE, OLD, 1)))) == []
    assert desk.step.phase is Phase.CLAIMED
