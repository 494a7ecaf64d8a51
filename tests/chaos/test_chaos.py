"""The promise: nothing is lost and nothing accepted twice while processes, nodes and the broker die under load.

What: 3,000 jobs and more (singles, chains, failing nodes, `not_before`; over Kafka and REST) on two planners, two routers, two delays, an
ingress and three workers with simulated nodes; every kind of fault strikes once, those of services one process of each at a time.
How: infra/lab/chaos, as `make chaos` runs it, only shorter; the history checker judges what lies in Kafka afterwards.
TUTTI_CHAOS_SEED chooses another course of faults.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest
import uvloop

from infra.lab.chaos import report
from infra.lab.chaos.plan import QUICK, FaultKind
from infra.lab.chaos.run import Options, Run
from infra.lab.chaos.stage import QUICK_ENVIRONMENT, QUICK_RATE, running
from infra.native.errors import NativeError
from shared.clock import SystemClock
from tests.support.native import missing

pytestmark = [pytest.mark.kafka, pytest.mark.alone, pytest.mark.timeout(1_800)]

JOBS = 3_000
OF_MORE = {FaultKind.BROKER_RESTART, FaultKind.INSYNC_KILLED, FaultKind.INSYNC_STOPPED, FaultKind.UPGRADE}
"""What needs several brokers, or every process replaced in turn: `make chaos` with BROKERS=3, FAULTS=upgrade."""
SEED = int(os.environ.get("TUTTI_CHAOS_SEED", "20"))


def test_nothing_is_lost_and_nothing_accepted_twice() -> None:
    """Laws 1 to 3 hold; every kind of fault has struck; every job that was acknowledged has its result; no service ended by itself."""
    again = f"python -m infra.lab.bench chaos --quick --jobs {JOBS} --rate {QUICK_RATE:g} --seed {SEED}"
    directory = Path(tempfile.mkdtemp(prefix="tutti-chaos-"))
    print(f"seed {SEED}; again with: {again}; logs, kept on failure: {directory}")  # noqa: T201
    options = Options(JOBS, SEED, QUICK_RATE, together=True, durations=QUICK)
    with ExitStack() as stack:
        try:
            stage = stack.enter_context(running(directory, QUICK_ENVIRONMENT))
        except NativeError as error:
            missing("kafka", error.message)
        outcome = uvloop.run(Run(stage, options, SystemClock(), print).run())
    print("\n".join(report.lines(report.document(options, outcome))))  # noqa: T201
    assert not outcome.wrong
    assert outcome.ledger.count >= JOBS
    assert {one.fault.kind for one in outcome.struck} == set(FaultKind) - OF_MORE
    assert outcome.report.counts.epochs > 6, "no planner ever took a partition over"
    shutil.rmtree(directory, ignore_errors=True)
