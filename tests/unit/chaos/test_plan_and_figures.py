"""Chaos: what follows from the seed, and how recovery times are counted."""

from __future__ import annotations

from random import Random

import pytest
from pydantic_core import from_json

from infra.chaos.figures import Struck, longest_silence, percentile, recoveries, results_per_second, slowest, timeline
from infra.chaos.jobs import FAILS_SOMETIMES, JobMix, Ledger
from infra.chaos.plan import Durations, Fault, FaultKind, cycle
from services.ingress.dialect_tutti import JobSubmission
from shared.contracts.job import Job

SERVICES = {
    "planner": ["planner", "planner-2"],
    "router": ["router"],
    "worker": ["worker-1", "worker-2", "worker-3"],
    "delay": ["delay"],
    "ingress": ["ingress"],
}
PER_SERVICE = (FaultKind.KILL, FaultKind.PAUSE, FaultKind.RESTART)


def plan(seed: int, *, together: bool = False) -> list[Fault]:
    return cycle(SERVICES, 3, Durations(), Random(seed), together=together)


@pytest.mark.parametrize("seed", range(20))
def test_every_kind_strikes_and_every_service_is_struck(seed: int) -> None:
    for together in (True, False):
        faults = plan(seed, together=together)
        assert {fault.kind for fault in faults} == set(FaultKind)
        for kind in PER_SERVICE:
            struck = [name for fault in faults if fault.kind is kind for name in fault.targets]
            assert sorted(name.split("-")[0] for name in struck) == sorted(SERVICES)
        assert faults[0].kind is FaultKind.NOTHING


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
    assert {job.kind for job in jobs} == {"single", "chain", "retries", "delayed"}
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


def test_recovery_is_of_the_jobs_in_flight() -> None:
    """Not of those that had ended, were sent later, were not due, or never ended."""
    book = ledger((1, 0, 5), (2, 0, 30), (3, 0, 13), (11, 0, 12), (4, 20, 21), (5, 0, None))
    (row,) = recoveries(book, [Struck(Fault(FaultKind.KILL), 10.0, 10.5, 30.0)])
    assert (row.faults, row.in_flight, row.p50, row.longest) == (1, 2, 20.0, 20.0)
    assert book.in_flight(25.0) == {5}
    assert slowest(book, 10.0) == [(1, 20.0), (2, 3.0)]


def test_only_the_first_result_counts() -> None:
    book = ledger((1, 0, 5))
    book.on_result(0, 9.0)
    assert (book.ended[0], book.repeated_results) == (5.0, 1)


def test_rates_and_silence() -> None:
    book = ledger(*((0, 0, float(second)) for second in (1, 2, 3, 13)))
    assert results_per_second(book, 0.0, 4.0) == 0.75
    assert longest_silence(book, 0.0, 15.0) == 10.0
    assert timeline(book, 0.0) == [0.6, 0.0, 0.2]
    assert percentile([], 0.5) == 0.0
