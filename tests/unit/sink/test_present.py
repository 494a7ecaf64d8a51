"""The page's live fold: what it counts equals a recount in the plainest way, however events are mixed; and nothing in it grows for ever."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.sink.page import present
from services.sink.page.present import COLUMNS, ShownJobs, tree
from shared.contracts import event as events
from shared.contracts.event import EVENT, JobSnapshot
from shared.topics import Topics
from tests.support.page_world import MadeUp
from tests.support.sink_history import PROMPT, HistoryOfHome, valid_events

HOMES = 3


def histories(seed: int, count: int) -> list[list[Any]]:
    """Valid events of each home."""
    made = [HistoryOfHome(Random(seed + home), Topics(), home) for home in range(HOMES)]
    for history in made:
        history.grow(count)
    return [[event for _, event in valid_events(history.messages)] for history in made]


def mixed(homes: list[list[Any]], random: Random) -> list[Any]:
    """All events, each home's in its order, the homes mixed in stretches as polls bring them."""
    left = [list(reversed(home)) for home in homes]
    found = []
    while any(left):
        home = random.choice([one for one in left if one])
        found += [home.pop() for _ in range(min(len(home), random.randint(1, 9)))]
    return found


def plainly(homes: list[list[Any]]) -> tuple[Counter[str], dict[str, str]]:
    """Ends by status, and id → class of what is live: each home by itself."""
    ends: Counter[str] = Counter()
    alive: dict[str, str] = {}
    for home in homes:
        for event in home:
            if isinstance(event, events.JobAccepted):
                alive[event.job] = event.priority_class.value
            elif isinstance(event, events.JobSettled):
                alive.pop(event.job, None)
                ends[event.result.status.value] += 1
    return ends, alive


def folded(found: list[Any], most: int = 10_000) -> ShownJobs:
    jobs = ShownJobs(most, HOMES)
    for n, event in enumerate(found):
        jobs.event(event, 1_000.0 + n / 50)
    return jobs


def counts_again(jobs: ShownJobs) -> Counter[tuple[str, ...]]:
    """Of what it holds now, from scratch."""
    found: Counter[tuple[str, ...]] = Counter()
    for job in jobs.live():
        found["job", job.priority_class, job.stage, job.reason] += 1
        for step in job.steps:
            if step.agent is not None and step.state in ("asked", "unplaced", "retrying", "unfunded", "running", "reviewed", "sleeping"):
                found["step", job.priority_class, step.agent, "running" if step.state == "running" else "waiting"] += 1
    return found


def rows(jobs: ShownJobs) -> dict[str, list[Any]]:
    return {job.id: job.row() for job in (*jobs.live(), *jobs.ended())}


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), order=st.integers(0, 10_000))
def test_the_fold_is_the_recount_however_homes_are_mixed(seed: int, order: int) -> None:
    """Ends, live jobs, counts, rows and rates by the second."""
    homes = histories(seed, 120)
    jobs = folded(mixed(homes, Random(order)))
    ends, alive = plainly(homes)
    totals = {status: jobs.totals[status] for status in ("succeeded", "failed", "cancelled", "expired")}
    assert totals == {status: ends[status] for status in totals}
    assert {job.id: job.priority_class for job in jobs.live()} == alive
    assert jobs.counts == counts_again(jobs)
    other = folded(mixed(homes, Random(order + 1)))
    assert (rows(jobs), jobs.counts, jobs.totals) == (rows(other), other.counts, other.totals)
    assert PROMPT not in repr(rows(jobs))


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), cut=st.integers(0, 300))
def test_who_begins_behind_a_watermark_counts_the_same_live_jobs(seed: int, cut: int) -> None:
    """A watermark lies at or before the acceptance of each live job: what began before it and goes on behind it is no job of now."""
    [home, *_] = histories(seed, 300)
    _, alive = plainly([home])
    first = min((n for n, event in enumerate(home) if isinstance(event, events.JobAccepted) and event.job in alive), default=len(home))
    jobs = folded(home[min(cut, first) :])
    assert {job.id for job in jobs.live()} == set(alive)
    assert jobs.counts == counts_again(jobs)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), most=st.integers(1, 30))
def test_it_is_bounded_and_keeps_the_live_and_the_newest(seed: int, most: int) -> None:
    """Ended jobs give way, those first that ended first."""
    found = mixed(histories(seed, 150), Random(seed))
    jobs, whole = folded(found, most), folded(found)
    alive = {job.id for job in jobs.live()}
    assert alive == {job.id for job in whole.live()}
    assert len(jobs) <= max(most, len(alive))
    kept = [job.id for job in jobs.ended()]
    assert kept == [job.id for job in whole.ended()][: len(kept)]
    assert jobs._steps == sum(len(job.steps) + job.kept for job in (*jobs.live(), *jobs.ended()))


def test_steps_are_let_go_before_jobs_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tree of such a job says that it is not whole."""
    monkeypatch.setattr(present, "MOST_STEPS", 40)
    made = MadeUp(Random(1), HOMES)
    jobs = folded([due.event for _ in range(60) for due in sorted(made.job(1_000.0))])
    assert jobs._steps <= 40 + 16
    ended = list(jobs.ended())
    assert len(ended) == 60
    assert (tree(ended[-1]).whole, tree(ended[-1]).nodes) == (False, [])
    assert tree(ended[0]).whole
    assert tree(ended[0]).nodes


def test_what_changed_is_told_once_and_in_order() -> None:
    """Whoever asks again behind the last version that he was told misses nothing, whatever the size of an answer."""
    found = mixed(histories(3, 200), Random(3))
    jobs = ShownJobs(10_000, HOMES)
    seen: dict[str, list[Any]] = {}
    version = 0
    for n, event in enumerate(found):
        jobs.event(event, 1.0)
        if n % 7 == 0:
            for job in jobs.since(version, 5):
                assert job.version > version
                version, seen[job.id] = job.version, job.row()
    while changed := jobs.since(version, 5):
        assert len(changed) <= 5
        for job in changed:
            version, seen[job.id] = job.version, job.row()
    assert seen == rows(jobs)
    assert all(len(row) == len(COLUMNS) for row in seen.values())


def test_a_snapshot_is_a_job_that_began_before() -> None:
    """In parts; where the job is known already it says nothing new."""
    made = MadeUp(Random(4), HOMES)
    whole = [due.event for due in sorted(made.job(1_000.0, ends=False))]
    texts = [event.to_bytes().decode() for event in whole]
    parts = [
        JobSnapshot(epoch=0, job=whole[0].job, at=1.0, snapshot="s", part=n, parts=2, facts=tuple(facts))
        for n, facts in enumerate((texts[:1], texts[1:]))
    ]
    plain, late = folded(whole), folded(parts)
    assert (rows(plain), plain.counts) == (rows(late), late.counts)
    assert late.rates.series("accepted", 1_301.0, 5) == [0] * 60
    again = folded([*whole, *parts])
    assert (rows(again), again.totals) == (rows(plain), plain.totals)
    assert all(EVENT.validate_json(text) for text in texts)


def test_stages_follow_what_history_says() -> None:
    """A step that its planner gave to a node is there until the node says that it runs it."""
    made = MadeUp(Random(2), HOMES)
    while True:
        accepted, *rest = (due.event for due in sorted(made.job(1_000.0)))
        if accepted.request.pattern == "single" and accepted.asks[0].node is not None and rest[-1].result.status.value == "succeeded":
            break
    jobs, seen = ShownJobs(10, HOMES), []
    for event in (accepted, *rest):
        jobs.event(event, 1_000.0)
        job = jobs.get(accepted.job)
        assert job is not None
        seen.append((job.stage, job.status))
    assert seen[:2] == [("placed", ""), ("answering", "")]
    assert seen[-1] == ("ended", "succeeded")
    job = jobs.get(accepted.job)
    assert job is not None
    assert job.why == {accepted.asks[0].step: accepted.asks[0].why}


def test_rates_count_by_whole_seconds_and_forget() -> None:
    """In any order, of the last five minutes."""
    rates = ShownJobs(10, HOMES).rates
    for second in [*range(100, 200), *reversed(range(50, 100))]:
        rates.add("ended", second + 0.5)
    assert rates.per_second("ended", 200.2, 10) == 1.0
    assert sum(rates.series("ended", 200.2, 5)) == 150
    for second in range(200, 2_000):
        rates.add("ended", second)
    assert len(rates._seconds) <= 2 * present.RING_SECONDS + 2
    rates.add("ended", 5.0)
    assert rates.series("ended", 2_000.0, 5) == [5] * 60
