"""Chaos: what follows from the seed, and what is said of each fault."""

from __future__ import annotations

from random import Random

import pytest
from pydantic_core import from_json

from infra.lab.chaos.figures import (
    Struck,
    Times,
    back_after,
    flow,
    in_flight_ended,
    longest_silence,
    rate_before,
    rates,
    recoveries,
    results_per_second,
    slowest,
)
from infra.lab.chaos.jobs import FAILS_SOMETIMES, TENANTS, JobMix, Ledger
from infra.lab.chaos.plan import OF_SEVERAL_BROKERS, UPGRADED, Durations, Fault, FaultKind, cycle
from services.ingress.dialects.tutti.requests import JobSubmission
from shared.contracts.job import Job
from shared.services import NAMES

SERVICES = {
    "planner": ["planner", "planner-2"],
    "router": ["router"],
    "worker": ["worker-1", "worker-2", "worker-3"],
    "delay": ["delay"],
    "ingress": ["ingress"],
}
PER_SERVICE = (FaultKind.KILL, FaultKind.PAUSE, FaultKind.RESTART)


def plan(seed: int, *, together: bool = False, brokers: int = 1, only: tuple[FaultKind, ...] = ()) -> list[Fault]:
    return cycle(SERVICES, 3, Durations(), Random(seed), together=together, brokers=brokers, only=only)


@pytest.mark.parametrize("seed", range(20))
def test_every_kind_strikes_and_every_service_is_struck(seed: int) -> None:
    for together in (True, False):
        faults = plan(seed, together=together)
        assert {fault.kind for fault in faults} == set(FaultKind) - OF_SEVERAL_BROKERS - ({FaultKind.UPGRADE} if together else set())
        for kind in PER_SERVICE:
            struck = [name for fault in faults if fault.kind is kind for name in fault.targets]
            assert sorted(name.split("-")[0] for name in struck) == sorted(SERVICES)
        assert faults[0].kind is FaultKind.NOTHING


@pytest.mark.parametrize("seed", range(5))
def test_of_three_brokers_each_is_lost_and_then_two(seed: int) -> None:
    """One at a time, each once; then so many that nothing is acknowledged, by surprise and in order."""
    faults = plan(seed, brokers=3)
    assert {fault.kind for fault in faults} == set(FaultKind)
    by_kind = {kind: [fault.targets for fault in faults if fault.kind is kind] for kind in FaultKind}
    assert sorted(by_kind[FaultKind.BROKER_KILL]) == [("1",), ("2",), ("3",)]
    assert [len(targets) for targets in by_kind[FaultKind.BROKER_OUTAGE]] == [1]
    assert sorted(by_kind[FaultKind.BROKER_RESTART][0]) == ["1", "2", "3"]
    for kind in (FaultKind.INSYNC_KILLED, FaultKind.INSYNC_STOPPED):
        assert [len(set(targets)) for targets in by_kind[kind]] == [2]


def test_an_upgrade_takes_every_process_once() -> None:
    """In the order of the runbook; a plan may be of one kind alone."""
    [fault] = plan(3, together=True, only=(FaultKind.UPGRADE,))
    assert sorted(fault.targets) == sorted(name for processes in SERVICES.values() for name in processes)
    order = [UPGRADED.index(name.split("-")[0]) for name in fault.targets]
    assert order == sorted(order)
    assert set(UPGRADED) == set(NAMES)


def test_a_pause_is_longer_than_every_timeout() -> None:
    """Session and rebalance 10 s, lease 20 s, claim timeout 5 s."""
    assert all(fault.seconds > 20 for fault in plan(1) if fault.kind is FaultKind.PAUSE)


def test_the_same_seed_gives_the_same_faults_and_jobs() -> None:
    assert plan(7) == plan(7)
    assert plan(7) != plan(8)
    assert [JobMix(7, "a-").job(n, 1e9) for n in range(50)] == [JobMix(7, "a-").job(n, 1e9) for n in range(50)]


def test_jobs_are_what_kafka_and_rest_take() -> None:
    """Each kind comes; bodies keep the contracts."""
    mix = JobMix(3, "a-")
    jobs = [mix.job(n, 1e9) for n in range(400)]
    for job in jobs:
        (JobSubmission if job.over_rest else Job).model_validate_json(job.body)
        assert (job.not_before is not None) == (job.kind == "delayed")
        assert (FAILS_SOMETIMES in from_json(job.body)["prompt"]) == (job.kind == "retries")
    kinds = {"single", "often", "chain", "retries", "delayed", "pattern", "talk", "tool", "policed"}
    assert {job.kind for job in jobs} == kinds
    assert {from_json(job.body)["tenant"] for job in jobs} == set(TENANTS), "each has a secret for its callbacks"
    assert any(job.over_rest for job in jobs)
    assert [mix.number_of(job.id) for job in jobs] == list(range(400))
    assert mix.number_of("b-1") is None


def ledger(*jobs: tuple[float, float, float | None]) -> Ledger:
    """(acknowledged, due, ended) of each job."""
    found = Ledger()
    for acknowledged, due, ended in jobs:
        number = found.on_sent(due)
        found.on_acknowledged(number, acknowledged)
        if ended is not None:
            found.on_result(number, ended)
    return found


def struck(kind: FaultKind, at: float, over_at: float, until: float) -> Struck:
    return Struck(Fault(kind), at, over_at, until, None)


def test_the_jobs_in_flight_are_those_that_were_sent_and_due() -> None:
    """Not those that had ended, were sent later, were not due, or never ended."""
    book = ledger((1, 0, 5), (2, 0, 30), (3, 0, 13), (11, 0, 12), (4, 20, 21), (5, 0, None))
    (row,) = in_flight_ended(book, [struck(FaultKind.KILL, 10.0, 10.5, 40.0)])
    assert (row.jobs, row.times.longest) == (2, 20.0)
    assert book.in_flight(25.0) == {5}
    assert slowest(book, 10.0) == [(1, 20.0), (2, 3.0)]


@pytest.mark.parametrize(
    ("per_second", "back"),
    [
        ([100, 100, 100, 100, 100], 0.0),  # nothing happened
        ([100, 70, 100, 100, 100], 0.0),  # one slow second is chance
        ([0, 0, 0, 100, 100, 100], 3.0),  # back after three
        ([0, 0, 300, 0, 0, 90, 90, 90], 5.0),  # a flush is no recovery
        ([90, 0, 0, 90, 90, 90, 10, 10, 90, 90, 90], 8.0),  # a second dip while the fault lasts
        ([0, 0, 90, 90, 90, 90, 90, 90, 90, 90, 90, 10, 10, 90, 90, 90], 2.0),  # too late to be this fault's
        ([100, 0, 0, 0, 0, 0], None),  # not before the next fault
        ([], 0.0),
    ],
)
def test_the_rate_is_back_when_no_slow_stretch_follows(per_second: list[float], back: float | None) -> None:
    """80 % of 100 are enough; the fault reaches ten seconds far."""
    assert back_after(per_second, 80.0, 10.0) == back


def test_the_rate_before_is_no_higher_than_what_fell_due() -> None:
    """Ten seconds with two jobs due and four results a second: the four worked off a backlog."""
    moments = [number / 4 for number in range(40)]
    book = ledger(*((0, second if number % 2 else -1.0, second) for number, second in enumerate(moments)))
    assert rate_before(book, 10.0) == 2.0


def test_a_fault_that_stops_everything_is_told_by_gap_and_rate() -> None:
    """Ten results a second; nothing between 20.05 and 26; ended jobs of the next fault are not this one's."""
    steady = [number / 10 for number in range(600) if not 200 < number < 260]
    book = ledger(*((second, second, second) for second in steady))
    calm, broken, later = (struck(FaultKind.NOTHING, 10, 10, 20), struck(FaultKind.KILL, 20, 20, 40), struck(FaultKind.KILL, 40, 40, 59))
    found = flow(book, broken)
    assert (found.rate_before, found.back_after) == (10.0, 6.0)
    assert found.longest_gap == pytest.approx(6.0)
    nothing, kills = recoveries(book, [calm, broken, later])
    assert (nothing.kind, nothing.faults, nothing.back, nothing.not_back) == (FaultKind.NOTHING, 1, Times(0.0, 0.0, 0.0), 0)
    assert kills.back is not None
    assert (kills.faults, kills.back.longest) == (2, 6.0)
    assert kills.back.p50 == pytest.approx(3.0, abs=0.1)
    assert nothing.gap.longest == pytest.approx(0.1)


def test_a_rate_that_does_not_come_back_is_counted() -> None:
    """And is no recovery time."""
    book = ledger(*((0, number / 10, number / 10) for number in range(200)))
    (row,) = recoveries(book, [struck(FaultKind.BROKER_OUTAGE, 15.0, 16.0, 40.0)])
    assert (row.not_back, row.back) == (1, None)
    assert row.gap.longest == pytest.approx(20.1)


def test_only_the_first_result_counts() -> None:
    book = ledger((1, 0, 5))
    book.on_result(0, 9.0)
    assert (book.ended[0], book.repeated_results) == (5.0, 1)


def test_rates_and_silence() -> None:
    book = ledger(*((0, 0, float(second)) for second in (1, 2, 3, 13)))
    assert results_per_second(book, 0.0, 4.0) == 0.75
    assert longest_silence(book, 0.0, 15.0) == 10.0
    assert rates(book.ended, 0.0, 15.0, 5.0) == [0.6, 0.0, 0.2]
    assert rates(book.ended, 1.0, 3.9) == [1.0, 1.0]
