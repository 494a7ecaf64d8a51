"""Schedules: recurring jobs. The planner that owns partition hash(schedule id) begins each run once.

A run is begun by an event, ScheduleFired, in the same batch as its job's JobAccepted: both are history, or neither is. Of each schedule the
last ScheduleFired is kept (see `kept`), so a successor knows what has run, however long ago. No record goes through `jobs.*`.

Due: which runs of a schedule begin now. Pure: a schedule, its last run and the time in, instants out.
"""

from __future__ import annotations

from math import inf

from services.planner.deciding.admission import JobInput, accept
from services.planner.round import Round
from services.planner.state.watermark import SCHEDULED
from shared.contracts.base import ScheduleId
from shared.contracts.event import ScheduleFired
from shared.contracts.ids import digest_of
from shared.contracts.schedule import Missed, Schedule
from shared.derived import derived
from shared.scheduling.schedule_table import ScheduleEntry, ScheduleTable
from shared.telemetry import logs, metrics
from shared.topics import partition_of

MOST_RUNS = 100
"""Of one schedule at once; of more missed runs the oldest are dropped."""


def due_runs(entry: ScheduleEntry, last: float, now: float) -> list[float]:
    """Instants in (last run, now] whose runs begin, in order. `last`: the instant of the last run, -inf when there was none.

    Never one at or before the last run, so a clock that goes back repeats nothing.
    """
    schedule = entry.schedule
    after = max(schedule.since, last)
    if not schedule.enabled or now <= after:
        return []
    in_time = entry.cron.newest(max(after, now - schedule.late_seconds), now, MOST_RUNS)
    if schedule.missed is Missed.ALL:
        return entry.cron.newest(after, now, MOST_RUNS)
    if schedule.missed is Missed.LAST and not in_time:
        return entry.cron.newest(after, now, 1)
    return in_time


def next_run(entry: ScheduleEntry, last: float, now: float) -> float:
    """When to look again; inf for a schedule that is off."""
    if not entry.schedule.enabled:
        return inf
    following = entry.cron.next(max(entry.schedule.since, last, now))
    return inf if following is None else following


log = logs.get(__name__)

_AGAIN_SECONDS = 1.0
"""Until the registry is read, or a full home has room."""
LOOK_SECONDS = 30.0
"""Longest wait for a due time: the wall clock may be set meanwhile."""


def run_id(schedule: ScheduleId, due_at: float, homes: int = 1) -> str:
    """The job of this run: at home where its schedule is."""
    return derived("s_", f"{schedule}\x1f{due_at:.3f}", partition_of(schedule.encode(), homes), homes)


class Clockwork:
    """Begins runs of one home's schedules. Thrown away with the fold."""

    def __init__(self, table: ScheduleTable, home: int, homes: int) -> None:
        self._table, self._home, self._homes = table, home, homes
        self._next_at, self._version = -inf, -1

    def seconds_left(self, wall: float) -> float:
        """Until `fire` has something to do; infinity when nothing is scheduled here."""
        if self._version != self._table.version:
            return 0.0
        return inf if self._next_at == inf else min(LOOK_SECONDS, max(0.0, self._next_at - wall))

    def fire(self, round_: Round, room: int) -> None:
        """Begin what is due, at most `room` jobs."""
        if self.seconds_left(round_.wall) > 0.0:
            return
        if not self._table.complete():
            self._next_at, self._version = round_.wall + _AGAIN_SECONDS, self._table.version
            return
        self._version, self._next_at = self._table.version, inf
        for name, entry in self._table.entries.items():
            if partition_of(name.encode(), self._homes) != self._home:
                continue
            try:
                room -= self._fire_one(round_, entry, room)
            except Exception as error:  # of this schedule: the others, and the home's jobs, go on
                log.failure("schedule_failed", error, schedule=name)
                self._next_at = min(self._next_at, round_.wall + LOOK_SECONDS)
        round_.book.runs.forget_others(self._table.entries)

    def _fire_one(self, round_: Round, entry: ScheduleEntry, room: int) -> int:
        """Returns how many jobs it began."""
        name, began = entry.schedule.id, 0
        for due_at in due_runs(entry, round_.book.runs.last(name), round_.wall):
            if began >= room:
                self._next_at = min(self._next_at, round_.wall + _AGAIN_SECONDS)
                break
            begin(round_, entry.schedule, due_at, self._homes)
            began += 1
        self._next_at = min(self._next_at, next_run(entry, round_.book.runs.last(name), round_.wall))
        return began


def begin(round_: Round, schedule: Schedule, due_at: float, homes: int = 1) -> None:
    """One run: ScheduleFired, then the job as if it had been read."""
    book = round_.book
    job_id = run_id(schedule.id, due_at, homes)
    event = ScheduleFired(**round_.about(job_id), schedule=schedule.id, due_at=due_at)
    source = f"{SCHEDULED}/{schedule.id}@{due_at:.0f}"
    known = book.jobs.get(job_id)
    if known is not None or book.recent_ids.find(job_id, round_.now) is not None:
        # Nobody else is given such an id; who forged one is told of here, and by whoever waits for the run.
        if known is None or known.accepted.source != source:
            metrics.SCHEDULE_RUNS_TAKEN.inc()
            log.error("schedule_run_taken", schedule=schedule.id, job=job_id)
        book.runs.add(round_, event)
        return
    book.runs.add(round_, event, job_id)
    job = schedule.job.model_copy(update={"id": job_id})
    given = JobInput(
        id=job_id,
        client_id=True,
        job=job,
        priority_class=schedule.priority_class,
        source=source,
        source_offset=0,
        reply=None,
        trace=None,
        digest=digest_of(job.to_bytes()),
    )
    accept(round_, given)
    log.info("schedule_fired", schedule=schedule.id, job=job_id, late=max(0.0, round_.wall - due_at))
