"""The laws of ARCHITECTURE on a whole simulated cluster: real services, several instances each, on the in-memory log, with seeded faults.

Each seed draws its own mix of faults (`tests/support/cluster/faults.py`). Phase 1: faults while jobs of all kinds arrive; phase 2: faults
stop and everything must converge. One checker a law (`tests/support/cluster/laws/`). A failure names its seed, its options, and how to
run it again, and shows the job's history. Simulated: no model answers, time is virtual.

`TUTTI_SEEDS=n` runs seeds 0 to n-1 instead of the fixed set; `TUTTI_SEED=s` runs that one.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from prometheus_client import REGISTRY

from services.planner.state.incarnations import Incarnations
from services.worker import runner
from tests.support.cluster import settings
from tests.support.cluster.faults import FaultMix
from tests.support.cluster.laws import stops, told
from tests.support.cluster.mutants.critics import CRITICS
from tests.support.cluster.simulation import simulate
from tests.support.cluster.workload import WEIGHTS

pytestmark = pytest.mark.usefixtures("quiet")

FIXED = 20
SEEDS = [int(one)] if (one := os.environ.get("TUTTI_SEED")) else list(range(int(os.environ.get("TUTTI_SEEDS", str(FIXED)))))
TEST = "tests/simulated/test_cluster_laws.py::test_the_laws_hold"


@pytest.mark.parametrize("seed", SEEDS)
def test_the_laws_hold(seed: int) -> None:
    """Whatever dies in between, every job ends once, and no law is broken on the way."""
    report = simulate(seed)
    if report.violations:
        pytest.fail(report.text(f"TUTTI_SEED={seed} .venv/bin/pytest {TEST}"), pytrace=False)


def test_without_faults_everything_succeeds_at_once() -> None:
    """The simulation itself loses nothing: without faults nothing is doubly run, and the last job ends soon after its submission."""
    report = simulate(1, FaultMix())
    assert not report.violations, report.text("")
    assert report.jobs >= 35
    assert report.doubly_run == 0
    assert not report.ended


def test_one_seed_gives_one_run() -> None:
    """The same seed does the same, here and in a process that hashes strings in another way: what a failure prints can be run again."""
    kinds = WEIGHTS | {"policed": 20.0}
    first, again = (simulate(1, kinds=kinds, aside=CRITICS) for _ in range(2))
    assert (first.virtual_seconds, first.jobs, first.fingerprint) == (again.virtual_seconds, again.jobs, again.fingerprint)
    lines = f"""
import logging
logging.disable()
from tests.support.cluster.simulation import simulate
print(simulate(1, kinds={kinds}, aside={CRITICS}).fingerprint)
"""
    elsewhere = subprocess.run(
        [sys.executable, "-c", lines], env={**os.environ, "PYTHONHASHSEED": "1"}, capture_output=True, text=True, check=True, timeout=110
    )
    assert elsewhere.stdout.split() == [first.fingerprint]


def test_homes_that_forget_which_boot_is_the_newest_lose_time_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """As each does at a take-over: the lease ends what a boot claims that wakes too late."""
    monkeypatch.setattr(Incarnations, "superseded", lambda *_: False)
    report = simulate(3, FaultMix(succeed=0.8, pause_seconds=(3.0, 9.0), delivery_seconds=0.6, jobs=30, seconds=12.0))
    assert not report.violations, report.text("")


APART_SECONDS = 180.0
DURATIONS = {"single": 2.0, "chain": 2.0, "nowhere": 1.0, "chat": 2.0, "rest": 1.0, "limited": 2.0}
"""Jobs of which no user gave an instant."""


@pytest.mark.parametrize("seed", range(6))
def test_the_laws_hold_for_patterns(seed: int) -> None:
    """Every pattern that takes a bare prompt, among other jobs: wide, deep, at its limits, cancelled in the middle."""
    report = simulate(seed, kinds=WEIGHTS | {"pattern": 12.0})
    if report.violations:
        pytest.fail(report.text(f"this test, seed {seed}"), pytrace=False)


@pytest.mark.parametrize("seed", range(3))
def test_the_laws_hold_for_comparisons(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every job of a pattern: they are jobs like others, each of them one."""
    given = settings.planner
    monkeypatch.setattr(settings, "planner", lambda mix: given(mix).model_copy(update={"compared_share": 1.0}))
    before = _compared()
    report = simulate(seed, kinds=WEIGHTS | {"pattern": 12.0})
    if report.violations:
        pytest.fail(report.text(f"this test, seed {seed}"), pytrace=False)
    assert _compared() > before


def _compared() -> float:
    """Comparisons sent, so far."""
    return REGISTRY.get_sample_value("tutti_comparisons_total", {"what": "owed"}) or 0.0


@pytest.mark.parametrize("seed", range(4))
def test_the_laws_hold_for_large_jobs(seed: int) -> None:
    """Among small ones, with all faults: chunks lost, repeated, under way when their writer dies."""
    report = simulate(seed, kinds=WEIGHTS | {"large": 8.0})
    if report.violations:
        pytest.fail(report.text(f"this test, seed {seed}"), pytrace=False)


@pytest.mark.parametrize("seed", range(4))
def test_the_laws_hold_for_answers_by_reference(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a bound that nearly every answer is above. Chains, which read their answers, are not among them."""
    monkeypatch.setattr(runner, "INLINE_BYTES", 60)
    before = _kept_by_workers()
    report = simulate(seed, kinds={kind: weight for kind, weight in WEIGHTS.items() if kind != "chain"} | {"large": 4.0})
    if report.violations:
        pytest.fail(report.text(f"this test, seed {seed}"), pytrace=False)
    assert _kept_by_workers() > before


def _kept_by_workers() -> float:
    """Bytes of answers by reference, so far."""
    return REGISTRY.get_sample_value("tutti_blob_bytes_total", {"service": "worker", "way": "written"}) or 0.0


@pytest.mark.parametrize("seed", range(3))
def test_clocks_minutes_apart_give_nobody_a_shorter_time(seed: int) -> None:
    """Default deadlines of two minutes, waits for a node, leases, budgets: no two machines' clocks are compared, also after take-overs."""
    mix = FaultMix(skew_seconds=APART_SECONDS, kill=0.2, stop=0.1, jobs=25)
    report = simulate(seed, mix, DURATIONS, (told.check,))
    assert not report.violations, report.text(f"seed {seed} of this test")


@pytest.mark.parametrize("seed", range(3))
def test_losing_claims_and_cancelled_generations_are_stopped_in_time(seed: int) -> None:
    """Doubled steps and cancels without any other fault: a second claim ends within a second, a cancelled one within half of one."""
    mix = FaultMix(doubly_routed=0.5, jobs=25)
    report = simulate(seed, mix, {"cancelled": 4.0, "single": 1.0, "chain": 1.0}, (stops.check_times,))
    assert not report.violations, report.text(f"seed {seed} of this test")
