"""The admission estimate: refuses only what measured capacity cannot do."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.ingress.admission.backlog import Backlog
from shared.contracts.base import PriorityClass

INTERACTIVE, STANDARD, BATCH = PriorityClass


def busy(rate: int, seconds: int, *, waiting: int, priority_class: PriorityClass = STANDARD) -> Backlog:
    """`rate` jobs settle a second, for `seconds`; `waiting` remain."""
    backlog = Backlog()
    backlog.observe({(priority_class, 0): 0}, 0.0)
    for _ in range(rate * seconds + waiting):
        backlog.on_accepted(priority_class, 0, None)
    for now in range(1, seconds + 1):
        for _ in range(rate):
            backlog.on_settled(priority_class)
        backlog.observe({(priority_class, 0): 0}, float(now))
    return backlog


def test_unknown_capacity_admits() -> None:
    """With nothing measured nobody is turned away."""
    backlog = Backlog()
    backlog.observe({(STANDARD, 0): 0}, 0.0)
    backlog.observe({(STANDARD, 0): 1_000_000}, 1.0)
    assert backlog.retry_after_seconds(STANDARD, 1.0) is None


def test_a_deadline_beyond_the_estimate_is_refused_with_when_to_come_again() -> None:
    """1,000 waiting at 20/s are 50 s: 60 s is fine, 30 s is not, and in 20 s it will be."""
    backlog = busy(20, 20, waiting=1_000)
    assert backlog.retry_after_seconds(STANDARD, 60.0) is None
    retry_after = backlog.retry_after_seconds(STANDARD, 30.0)
    assert retry_after is not None
    assert 15 < retry_after < 25


def test_less_urgent_jobs_do_not_stand_in_the_way() -> None:
    """A batch backlog delays batch, not interactive."""
    backlog = busy(20, 20, waiting=10_000, priority_class=BATCH)
    assert backlog.retry_after_seconds(BATCH, 30.0) is not None
    assert backlog.retry_after_seconds(INTERACTIVE, 1.0) is None


def test_unread_jobs_in_kafka_count() -> None:
    """End offset minus what planners have taken; what lay there before the first look does not count."""
    backlog = Backlog()
    backlog.observe({(STANDARD, 0): 500}, 0.0)
    assert backlog.waiting(STANDARD) == 0
    backlog.observe({(STANDARD, 0): 600}, 1.0)
    assert backlog.waiting(STANDARD) == 100
    backlog.on_accepted(STANDARD, 0, 549)
    backlog.observe({(STANDARD, 0): 600}, 2.0)
    assert backlog.waiting(STANDARD) == 50 + 1


def test_what_planners_committed_is_the_beginning_for_a_new_instance() -> None:
    """A million jobs that were queued before this instance started count; what events tell is newer than what is committed."""
    backlog = Backlog()
    backlog.observe({(BATCH, 0): 1_000_100, (BATCH, 1): 50}, 0.0, {(BATCH, 0): 100, (BATCH, 1): 50})
    assert backlog.waiting(BATCH) == 1_000_000
    backlog.on_accepted(BATCH, 0, 199)
    backlog.observe({(BATCH, 0): 1_000_100, (BATCH, 1): 50}, 1.0, {(BATCH, 0): 100, (BATCH, 1): 50})
    assert backlog.waiting(BATCH) == 999_900 + 1
    backlog.observe({(BATCH, 0): 1_000_100, (BATCH, 1): 50}, 2.0, {(BATCH, 0): 1_000_100, (BATCH, 1): 50})
    assert backlog.waiting(BATCH) == 1


def test_records_that_never_become_jobs_do_not_wait_for_ever() -> None:
    """Cancels, dead letters, repeated ids: no event tells of them, the committed offset does."""
    backlog = Backlog()
    backlog.observe({(STANDARD, 0): 10}, 0.0, {(STANDARD, 0): 0})
    assert backlog.waiting(STANDARD) == 10
    backlog.observe({(STANDARD, 0): 10}, 1.0, {(STANDARD, 0): 10})
    assert backlog.waiting(STANDARD) == 0
    backlog.observe({(STANDARD, 0): 12}, 2.0, None)
    assert backlog.waiting(STANDARD) == 2


def test_a_class_that_is_full_is_refused_whatever_the_rate() -> None:
    """With a rate: until enough have ended; without: a minute."""
    unknown = Backlog()
    unknown.observe({(BATCH, 0): 100}, 0.0, {(BATCH, 0): 0})
    assert unknown.retry_after_seconds(BATCH, 1e9, 101) is None
    assert unknown.retry_after_seconds(BATCH, 1e9, 100) == 60.0
    assert unknown.retry_after_seconds(STANDARD, 1e9, 100) is None
    known = busy(20, 20, waiting=1_000)
    retry_after = known.retry_after_seconds(STANDARD, 1e9, 901)
    assert retry_after is not None
    assert 4 < retry_after < 6


def test_idle_time_does_not_lower_the_measured_rate() -> None:
    """An hour without work, then a burst: the capacity of before still counts, or none at all."""
    backlog = busy(100, 20, waiting=0)
    for now in range(21, 40):
        backlog.observe({(STANDARD, 0): 0}, float(now))
    rate = backlog.settled_per_second
    assert rate is not None
    assert rate > 50


@given(
    st.lists(st.tuples(st.sampled_from(["accepted", "settled", "look"]), st.sampled_from([INTERACTIVE, STANDARD, BATCH])), max_size=80),
    st.floats(0.1, 1e4),
)
def test_refusals_always_say_when_and_counts_are_never_negative(script: list[tuple[str, PriorityClass]], deadline: float) -> None:
    """Whatever order facts come in."""
    backlog = Backlog()
    for now, (what, priority_class) in enumerate(script):
        if what == "accepted":
            backlog.on_accepted(priority_class, 0, now)
        elif what == "settled":
            backlog.on_settled(priority_class)
        else:
            backlog.observe({(priority_class, 0): now}, float(now))
        assert backlog.waiting(priority_class) >= 0
        retry_after = backlog.retry_after_seconds(priority_class, deadline)
        assert retry_after is None or retry_after >= 1.0
