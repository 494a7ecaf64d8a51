"""Lines: which live jobs wait for a node, by capability, class and tenant, folded from history; and how wrong predictions were.

A job stands in line while a step of it is asked for and not claimed. Steps are recognised by their events' bytes; what a caller could forge
in them moves his own jobs only. While nothing waits, a job is looked at when it has lived for a second, or when somebody asks: most
have ended by then. What lies in `jobs.*` and is no job yet is the backlog's to count.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping

from services.ingress.admission.backlog import Backlog
from services.ingress.status.shown import RawEvent, class_of, kind_in, parse, tenant_in
from services.ingress.status.status import JobState, JobStatus
from shared.contracts.base import CLASSES, PriorityClass
from shared.contracts.event import JobSnapshot, StepAnswered, facts_of
from shared.scheduling.places import AheadInLine, Pace, PlaceInLine, error_of, place_in_line
from shared.telemetry import metrics

_MOST_JOBS = 20_000
"""Live jobs that are known here: more than planners hold. Beyond that the oldest gives way, and is in no line."""
_MOST_TOLD = 2_000
"""Predictions that wait for the start they predict."""
_ASK = re.compile(rb'\{"step":"([0-9a-f]{32})"([^{}]*)\}')
_STEP = re.compile(rb'"step":"([0-9a-f]{32})"')
_CAPABILITY = re.compile(rb'"capability":"([a-z0-9-]{1,32})"')
_EMBEDS = (b'"texts":[', b'"operation":"embed"')
_NEAR_BYTES = 512
_OVER = frozenset({"step_answered", "attempt_failed"})
_CHAT, _EMBED = "chat", "embed"


_Queue = tuple[PriorityClass, str]
"""Class and tenant."""


class _Live:
    """One live job. `serial`: its place among its tenant's, while it waits."""

    __slots__ = ("line", "queue", "rebuilt", "running", "serial", "waiting")

    def __init__(self, line: _Line, queue: _Queue) -> None:
        self.line, self.queue = line, queue
        self.waiting: set[bytes] = set()
        self.running: set[bytes] = set()
        self.serial: int | None = None
        self.rebuilt: str | None = None


class _Line:
    """Of one capability: serials of who waits, by class and tenant, and the pace at which they go."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.queues: dict[_Queue, list[int]] = {}
        self.counts: Counter[PriorityClass] = Counter()
        self.pace = Pace()

    def enter(self, queue: _Queue, serial: int) -> None:
        self.queues.setdefault(queue, []).append(serial)
        self.counts[queue[0]] += 1

    def leave(self, queue: _Queue, serial: int) -> None:
        serials = self.queues[queue]
        del serials[bisect_left(serials, serial)]
        self.counts[queue[0]] -= 1
        if not serials:
            del self.queues[queue]


class Lines:
    """Told of every valid event; asked by whoever waits."""

    def __init__(self, capabilities: Iterable[str], backlog: Backlog) -> None:
        self._lines = {name: _Line(name) for name in (_CHAT, _EMBED, *capabilities)}
        self._backlog = backlog
        self._jobs: OrderedDict[str, _Live] = OrderedDict()
        self._new: dict[str, tuple[bytes, PriorityClass]] = {}
        """Accepted and not looked at."""
        self._busy = False
        self._serial = self._running = 0
        self._told: OrderedDict[str, tuple[float, float, PriorityClass]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._jobs)

    def look(self, slots: Mapping[str, int], now: float) -> None:
        """Measure the paces; once a second or so. `slots`: of nodes that live, by capability."""
        self._catch_up(now)
        self._busy = False
        for line in self._lines.values():
            busy = line.counts.total() > 0 and not self._free(line, slots)
            line.pace.look(now, busy=busy)
            self._busy = self._busy or busy

    def on_accepted(self, job: str, value: bytes, priority_class: PriorityClass, now: float) -> None:
        """A JobAccepted."""
        if self._busy or len(self._new) >= _MOST_JOBS:
            self._catch_up(now)
            self._accept(job, value, priority_class, now)
        else:
            self._new[job] = value, priority_class

    def _catch_up(self, now: float) -> None:
        for job, (value, priority_class) in self._new.items():
            self._accept(job, value, priority_class, now)
        self._new.clear()

    def _accept(self, job: str, value: bytes, priority_class: PriorityClass, now: float) -> None:
        line = self._lines.get(_capability_of(value)) or self._lines[_CHAT]
        if job in self._jobs:
            self._end(job)
        live = self._jobs[job] = _Live(line, (priority_class, tenant_in(value)))
        if (at := value.rfind(b'"asks":[')) >= 0:
            for step, rest in _ASK.findall(value, at):
                if b'"node":' in rest:  # most steps of a cluster that has room; nothing waited
                    live.running.add(step)
                    self._running += 1
                else:
                    self._asked(job, live, step, rest, now)
        if len(self._jobs) > _MOST_JOBS:
            self._end(next(iter(self._jobs)))

    def on_event(self, job: str, event: RawEvent, now: float) -> None:
        """Any other one."""
        kind, value = event.kind, event.value
        if job in self._new:
            if kind == "job_settled" and job not in self._told:
                del self._new[job]
                return
            self._accept(job, *self._new.pop(job), now)
        if kind == "job_settled":
            if job in self._told:
                self._started(job, event, now)
            self._told.pop(job, None)
            self._end(job)
        elif kind == "job_snapshot":
            self._on_snapshot(job, event, now)
        elif (live := self._jobs.get(job)) is not None and (found := _STEP.search(value)) is not None:
            step = found[1]
            if kind in ("step_asked", "step_retried", "step_funded"):
                self._asked(job, live, step, value, now)
            elif kind == "step_claimed":
                self._starts(job, live, step, now)
            elif kind in _OVER:
                if job in self._told:
                    self._started(job, event, now)
                self._starts(job, live, step, now)
                self._stops(live, step)
            elif kind == "step_waits":
                if b'"missing":[]' in value:
                    self._waits(live, step)
                else:
                    self._leaves(live, step)

    def _asked(self, job: str, live: _Live, step: bytes, told: bytes, now: float) -> None:
        self._stops(live, step)
        if b'"node":' in told:
            self._starts(job, live, step, now)
        elif b'"unfunded":true' not in told:
            self._waits(live, step)

    def _waits(self, live: _Live, step: bytes) -> None:
        live.waiting.add(step)
        if live.serial is None:
            self._serial += 1
            live.serial = self._serial
            live.line.enter(live.queue, live.serial)

    def _leaves(self, live: _Live, step: bytes) -> bool:
        """Whether the job stands in line no longer."""
        live.waiting.discard(step)
        if live.waiting or live.serial is None:
            return False
        live.line.leave(live.queue, live.serial)
        live.serial = None
        return True

    def _starts(self, job: str, live: _Live, step: bytes, now: float) -> None:
        if step not in live.running:
            live.running.add(step)
            self._running += 1
        if self._leaves(live, step):
            live.line.pace.news += 1
        self._judge(job, now)

    def _stops(self, live: _Live, step: bytes) -> None:
        if step in live.running:
            live.running.discard(step)
            self._running -= 1

    def _end(self, job: str) -> None:
        live = self._jobs.pop(job, None)
        if live is not None:
            if live.serial is not None:
                live.line.leave(live.queue, live.serial)
            self._running -= len(live.running)

    def _on_snapshot(self, job: str, event: RawEvent, now: float) -> None:
        """A job whose beginning was not seen here is known by it."""
        snapshot = parse(event.kind, event.value)
        if not isinstance(snapshot, JobSnapshot) or not (job not in self._jobs if snapshot.part == 0 else self._is_rebuilt(job, snapshot)):
            return
        for text in snapshot.facts:
            value, kind = text.encode(), kind_in(text)
            if kind == "job_accepted":
                self.on_accepted(job, value, class_of(value), now)
            elif kind != event.kind:
                self.on_event(job, RawEvent(event.offset, kind, value), now)
        if job in self._jobs:
            self._jobs[job].rebuilt = snapshot.snapshot

    def _is_rebuilt(self, job: str, snapshot: JobSnapshot) -> bool:
        return job in self._jobs and self._jobs[job].rebuilt == snapshot.snapshot

    def place(self, status: JobStatus, slots: Mapping[str, int], now: float) -> PlaceInLine | None:
        """Where a job stands; None where it stands in no line. `slots`: of nodes that live, by capability."""
        self._catch_up(now)
        live = self._jobs.get(status.id)
        if live is None:
            if status.state is not JobState.QUEUED:
                return None
            found = self._of_queued(status, slots)
        elif live.serial is None:
            return None
        else:
            own = bisect_left(live.line.queues[live.queue], live.serial)
            found = place_in_line(self._ahead(live.line, live.queue, slots)._replace(own=own), live.line.pace)
        if found.seconds is not None and status.id not in self._told:
            self._told[status.id] = (now, found.seconds, status.priority_class or PriorityClass.STANDARD)
            if len(self._told) > _MOST_TOLD:
                self._told.popitem(last=False)
        return found

    def _of_queued(self, status: JobStatus, slots: Mapping[str, int]) -> PlaceInLine:
        """All that planners have taken and not given away is before it, by turns, and what lies before it in Kafka."""
        priority_class = status.priority_class or PriorityClass.STANDARD
        unread = self._backlog.unread_before(priority_class, status.home, status.queued_offset)
        ahead = self._ahead(self._lines[_CHAT], (priority_class, status.tenant or "default"), slots)
        return place_in_line(ahead._replace(unread=unread), self._backlog.pace)

    def _ahead(self, line: _Line, queue: _Queue, slots: Mapping[str, int]) -> AheadInLine:
        """Of one behind all of its tenant's that stand in line."""
        own_class, tenant = queue
        others = [len(serials) for (its_class, whose), serials in line.queues.items() if its_class is own_class and whose != tenant]
        classes = {each: line.counts[each] + self._backlog.unread(each) for each in CLASSES if each is not own_class}
        return AheadInLine(own_class, len(line.queues.get(queue, ())), others, classes=classes, free=self._free(line, slots))

    def _free(self, line: _Line, slots: Mapping[str, int]) -> int:
        """What runs may run on any node: of its own capability more may be free."""
        return max(0, slots.get(line.name, 0) - self._running)

    def _started(self, job: str, event: RawEvent, now: float) -> None:
        """Of a claim that history does not hold its worker's own time tells when it began."""
        for fact in facts_of(parse(event.kind, event.value)):
            if isinstance(fact, StepAnswered):
                self._judge(job, now - fact.timings.total_ms / 1000)

    def _judge(self, job: str, began: float) -> None:
        told = self._told.pop(job, None)
        if told is not None:
            at, seconds, priority_class = told
            metrics.PLACE_ERROR.labels(priority_class.value).observe(error_of(seconds, max(0.0, began - at)))


def _capability_of(value: bytes) -> str:
    """Of a JobAccepted. The texts of its request, which may be long, are not looked through: what it needs stands behind them."""
    end = value.rfind(b'"priority_class":')
    head, behind = value[:_NEAR_BYTES], value[max(0, end - _NEAR_BYTES) : end]
    found = _CAPABILITY.search(behind)
    if found is not None:
        return found[1].decode()
    return _EMBED if _EMBEDS[0] in head or _EMBEDS[1] in behind else _CHAT
