"""Retention by age: a simulated cluster whose brokers delete what is old, with real default deadlines and waits of many minutes.

A day of retention passes in seconds, and so does the age at which planners write again what they carry: months are a run of minutes.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from services.planner.settings import PlannerSettings
from shared.contracts.event import JobAccepted, JobSettled, StepAsked, StepClaimedBy
from shared.kafka.port import TopicPartition
from tests.support.cluster.faults import FaultMix
from tests.support.cluster.laws import told
from tests.support.cluster.settings import HOMES
from tests.support.cluster.simulation import simulate
from tests.support.cluster.violation import Violation
from tests.support.cluster.world import DAY_SECONDS, World

pytestmark = pytest.mark.usefixtures("quiet")

EYES = "the run shows what it is for"
KEPT_DAYS = 30
"""Of job-events."""


def lives_longer_than_the_log(world: World) -> Iterator[Violation]:
    """Every home's history was deleted from its beginning on, and jobs lived on that had been accepted before."""
    kept_seconds = KEPT_DAYS * world.mix.day_seconds
    events = world.history.all_valid()
    accepted = {written.value.job: written.at for written in events if isinstance(written.value, JobAccepted)}
    lives = [written.at - accepted[written.value.job] for written in events if isinstance(written.value, JobSettled)]
    if sum(life > kept_seconds for life in lives) < 3:
        yield Violation(EYES, f"no three jobs lived for {kept_seconds:g} s")
    for home in range(HOMES):
        if not world.log.existing(TopicPartition(world.topics.job_events, home)).begin:
            yield Violation(EYES, f"nothing of home {home} was deleted")


CARRIED = {"nowhere": 3.0, "scheduled": 1.0, "metered": 4.0, "again": 1.0, "delayed": 1.0, "single": 1.0, "chain": 1.0}
OUTLIVED = FaultMix(
    jobs=50, seconds=240.0, day_seconds=6.0, no_node_seconds=300.0, kill=0.03, stop=0.02, down_seconds=(0.0, 5.0), only=("planner",)
)


@pytest.mark.parametrize("seed", range(2))
def test_what_is_kept_outlives_the_log(seed: int) -> None:
    """Jobs that nobody can run, last runs, shares, ids, over take-overs: each is written again before it is deleted."""
    report = simulate(seed, OUTLIVED, CARRIED, (told.check, lives_longer_than_the_log), patience=480.0)
    assert not report.violations, report.text(f"seed {seed} of this test")


WAITED_SECONDS = 600.0


def waits_ten_minutes(world: World) -> Iterator[Violation]:
    """Some step was claimed ten minutes after it had been asked for."""
    asked: dict[str, float] = {}
    longest = 0.0
    for written in world.history.all_valid():
        if isinstance(written.value, StepAsked):
            asked[written.value.step] = written.at
        elif isinstance(written.value, StepClaimedBy):
            longest = max(longest, written.at - asked[written.value.step])
    if longest < WAITED_SECONDS:
        yield Violation(EYES, f"the longest wait was {longest:.0f} s")


@pytest.mark.parametrize("seed", [0])
def test_ten_minutes_in_a_queue_cost_nobody_anything(seed: int) -> None:
    """Whatever dies meanwhile: only the deadline of its own class ends a job that waits, and only the routers' limit a hopeless one."""
    assert PlannerSettings().deadline_standard_seconds > WAITED_SECONDS
    mix = FaultMix(
        jobs=38,
        workers=1,
        arrive_seconds=60.0,
        seconds=WAITED_SECONDS,
        day_seconds=DAY_SECONDS / 864,
        no_node_seconds=WAITED_SECONDS,
        kill=0.02,
        stop=0.01,
        down_seconds=(0.0, 5.0),
    )
    kinds = {"endless": 8.0, "single": 1.0, "chain": 1.0, "nowhere": 1.0}
    report = simulate(seed, mix, kinds, (told.check, waits_ten_minutes), patience=1_200.0)
    assert not report.violations, report.text(f"seed {seed} of this test")
