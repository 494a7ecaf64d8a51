"""Schedules: each due run begins at most once, under the id that follows from it; and which are left out is as the policy says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from services.planner.schedules.clockwork import run_id
from shared.contracts.event import JobAccepted, ScheduleFired
from shared.contracts.schedule import Missed, Schedule
from tests.support.cluster.violation import Violation
from tests.support.cluster.world import World

LAW = "each run of a schedule once"
POLICY = "missed runs are as the policy says"


def _run(world: World, schedule: str, due_at: float) -> str:
    return run_id(schedule, due_at, world.topics.settings.home_partitions)


def runs(world: World) -> dict[str, tuple[Schedule, float]]:
    """Every job that a schedule may begin → its schedule, and when it is due."""
    return {_run(world, declared.id, at): (declared, at) for declared, due in world.schedules for at in due}


def awaited(world: World) -> list[str]:
    """Jobs that must be begun, whoever was away when they were due."""
    found = []
    for declared, due in world.schedules:
        match declared.missed:
            case Missed.ALL:
                found += [_run(world, declared.id, at) for at in due]
            case Missed.LAST:
                found.append(_run(world, declared.id, due[-1]))
            case Missed.SKIP:
                pass
    return found


def check(world: World) -> Iterator[Violation]:
    """Over every valid event. That all have one result, and no run has two, `tutti verify` says."""
    declared, undisturbed = runs(world), _undisturbed(world)
    instants = {schedule.id: due for schedule, due in world.schedules}
    begun = Counter(w.value.job for w in world.history.all_valid() if isinstance(w.value, JobAccepted) and w.value.job in declared)
    for job, (schedule, at) in declared.items():
        if begun[job] > 1:
            yield Violation(LAW, f"the run of {schedule.id} that was due at {at:.0f} began {begun[job]} times", job)
        if not begun[job] and (job in awaited(world) or undisturbed):
            yield Violation(LAW, f"the run of {schedule.id} ({schedule.missed.value}) that was due at {at:.0f} never began", job)
    seen: set[str] = set()
    for written in world.history.all_valid():
        event = written.value
        if not isinstance(event, ScheduleFired) or event.job in seen:
            continue
        seen.add(event.job)
        if event.job not in declared:
            yield Violation(LAW, f"{event.schedule} has begun a run that was due at {event.due_at}, as job {event.job}: there is none")
        else:
            yield from _late(event, *declared[event.job], instants[event.schedule])


def _late(event: ScheduleFired, schedule: Schedule, at: float, due: tuple[float, ...]) -> Iterator[Violation]:
    """The planner's own clock decides: `event.at` is when it did."""
    late = event.at - at
    name = f"the run of {schedule.id} ({schedule.missed.value}) that was due at {at:.0f}"
    if late < 0:
        yield Violation(POLICY, f"{name} began {-late:.2f} s too early", event.job)
    if late <= schedule.late_seconds or schedule.missed is Missed.ALL:
        return
    newest = max(instant for instant in due if instant <= event.at)
    if schedule.missed is Missed.SKIP or at != newest:
        yield Violation(POLICY, f"{name} began {late:.1f} s late", event.job)


def _undisturbed(world: World) -> bool:
    """Whether nothing kept planners from beginning runs in time: then none may be left out, whatever the policy."""
    mix = world.mix
    disturbed = (mix.kill, mix.pause, mix.slow, mix.stop, mix.rebalance, mix.away, mix.refuse, mix.stall)
    unsent = (mix.lost, mix.unacknowledged, mix.offset_unknown)
    slow = (mix.send_seconds, mix.ack_seconds, mix.delivery_seconds, mix.call_seconds, mix.skew_seconds)
    return not any(disturbed) and not any(unsent) and not any(slow) and not mix.tight
