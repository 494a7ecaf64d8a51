"""The fold: valid events of one home, in log order, as one upsert a job and write, sums of days, and links of the audit chain. Pure.

Whatever the writes are and however often records are read again, the store becomes the same: a job's fields are set to what the log says
of them, a day's sums take each record once (`port.Sum`), and of a job's id that is used again each life is a document of its own.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import blake2b
from typing import Any

from pydantic_core import to_json

from services.sink.handlers import Valid
from services.sink.port import AUDIT, NOWHERE, OFFSET_DIGITS, TALKS, USAGE, Begun, Document, JobLife, Writes
from services.sink.settings import SinkSettings
from shared.audit import BLOCK, digest, linked
from shared.contracts import event as events
from shared.contracts import ids
from shared.contracts.base import YEAR_10000
from shared.contracts.budget import MICROS
from shared.contracts.conversation import ConversationChanged
from shared.contracts.review import ReviewDecided
from shared.contracts.usage import Usage
from shared.placement.why import in_short

_STEP = re.compile(r"[0-9a-f]{1,64}")
_MOST_TOLD = 300
"""Characters of a reason."""
_STEPS_A_JOB = 8
"""Of the jobs in memory, on average."""
STAGES = ("queue", "load", "prefill", "decode")
UNKNOWN = "unknown"
"""Of a step whose ask is gone: agent, model."""


Heard = Callable[[int, Any, JobLife], None]
"""(offset, fact, its job): for metrics."""


class HomeFold:
    """One home, from where reading began. `name`: topic's id and number, so that a topic made anew is another home."""

    def __init__(self, name: str, begun: Begun, settings: SinkSettings, heard: Heard) -> None:
        self.name, self._settings, self._heard = name, settings, heard
        self._chain = begun.chain
        self._jobs: OrderedDict[str, JobLife] = OrderedDict()
        """The least recently heard of first. Who is put out is looked up again."""
        self._steps = 0

    def unknown(self, valid: Iterable[Valid]) -> Collection[str]:
        """Ids that the store must be asked about before these are folded."""
        found: set[str] = set()
        accepted: set[str] = set()
        for one in valid:
            job: str | None = one.event.__dict__.get("job")
            if job is None or job in self._jobs or job in accepted:
                continue
            if isinstance(one.event, events.JobAccepted):
                accepted.add(job)
            else:
                found.add(job)
        return found

    def learn(self, lives: Sequence[tuple[str, JobLife]], jobs: Iterable[str], offset: int) -> None:
        """What the store says of `jobs`; of several lives that is meant which holds at `offset`, where the write begins. What lies behind
        it is not known yet, though the store may have it: what is made of a record is the same each time.
        """
        found: dict[str, JobLife] = {}
        for job, life in sorted(lives, key=lambda one: one[1].offset):
            if life.offset < offset:
                settled = life.settled if life.settled is not None and life.settled < offset else None
                told = life.offset != NOWHERE or settled is not None
                found[job] = replace(life, tenant=life.tenant if told else ids.owner(job), settled=settled)
        for job in jobs:
            self._put(job, found.get(job) or JobLife(NOWHERE, ids.owner(job)))

    def fold(self, one: Valid, writes: Writes) -> None:
        """In order of offsets, behind what was folded before."""
        job: str | None = one.event.__dict__.get("job")
        known = None if job is None else self._job(job, one)
        self._link(one, known, writes)
        if job is not None and known is not None:
            for fact in events.facts_of(one.event):
                self._fact(job, known, fact, one, writes)
                self._heard(one.offset, fact, known)
        elif isinstance(one.event, ConversationChanged):
            self._talk(one.event, one, writes)

    def trim(self) -> None:
        """Between two writes, since only what is written can be looked up."""
        while len(self._jobs) > self._settings.known_jobs or self._steps > _STEPS_A_JOB * self._settings.known_jobs:
            self._steps -= len(self._jobs.popitem(last=False)[1].steps)

    def _put(self, job: str, known: JobLife) -> None:
        before = self._jobs.pop(job, None)
        self._steps += len(known.steps) - (len(before.steps) if before is not None else 0)
        self._jobs[job] = known

    def _job(self, job: str, one: Valid) -> JobLife:
        known = self._jobs.get(job)
        if isinstance(one.event, events.JobAccepted):
            known = JobLife(one.offset, one.event.request.tenant, conversation=one.event.request.conversation)
        elif known is None:
            known = JobLife(NOWHERE, ids.owner(job))
        elif isinstance(one.event, events.JobSettled) and known.settled is not None:
            known = JobLife(one.offset)  # an end without an acceptance: a delayed job was cancelled, a job was refused
        self._put(job, known)
        if isinstance(one.event, events.JobSettled):
            known.tenant, known.settled = one.event.result.tenant, one.offset
        return known

    # A job's row

    def _fact(self, job: str, known: JobLife, fact: Any, one: Valid, writes: Writes) -> None:
        row = _ROWS.get(type(fact))
        if row is None:
            return
        upsert = writes.upsert(USAGE, f"{job}@{self.name}.{known.offset}")
        day = day_of(one.at_ms)
        if not upsert.most:
            upsert.fields.update(job=job, home=self.name, life=known.offset)
        upsert.most.update(at=one.at_ms / 1000, expires_at=day + timedelta(days=self._settings.usage_days))
        steps = len(known.steps)
        upsert.fields.update(row(fact, known, one.offset))
        self._steps += len(known.steps) - steps
        self._sum(known, fact, one, writes)

    def _talk(self, event: ConversationChanged, one: Valid, writes: Writes) -> None:
        """The newest event of a conversation is all of it: `state` begins with its place in the log, and the larger text is kept."""
        upsert = writes.upsert(TALKS, f"{self.name}/{event.tenant}/{event.conversation}")
        upsert.fields.update(home=self.name, tenant=event.tenant, conversation=event.conversation)
        known = (event.older, *event.recent, event.memory_size)
        state = {"turns": event.ended, "waiting": len(event.waiting), "gone": event.gone}
        state["fewest_tokens"] = sum(portion.fewest_tokens for portion in known)
        used_at = event.at - event.idle_seconds  # it is told again now and then
        upsert.most.update(at=used_at, state=f"{one.offset:0{OFFSET_DIGITS}d}{to_json(state).decode()}")
        upsert.most["expires_at"] = day_of(one.at_ms) + timedelta(days=self._settings.usage_days)

    # A day's sums

    def _sum(self, known: JobLife, fact: Any, one: Valid, writes: Writes) -> None:
        """The day is that of the record's arrival: of one home and one key one document."""
        if isinstance(fact, events.JobSettled):
            result = fact.result
            about: Document = {
                "of": "jobs",
                "tenant": result.tenant,
                "pattern": result.pattern,
                "class": result.priority_class.value,
                "status": result.status.value,
            }
            values = _whole(result.usage) | {"jobs": 1, "steps": result.steps, "attempts": result.attempts}
            values["milliseconds"] = round(1e3 * max(0.0, result.finished_at - result.accepted_at))
            if fact.key is not None:
                about["key"] = fact.key
            if known.conversation is not None:
                self._add({"of": "talks", "tenant": result.tenant, "conversation": known.conversation}, values, one, writes)
        elif isinstance(fact, events.StepAnswered | events.AttemptFailed | events.WorkWasted):
            agent, model = ran(known, fact)
            about = {"of": "steps", "tenant": known.tenant or UNKNOWN, "agent": agent, "model": model}
            answered = isinstance(fact, events.StepAnswered)
            values = _whole(fact.usage if answered else fact.usage.as_waste()) | {
                "answers": int(answered),
                "failures": int(isinstance(fact, events.AttemptFailed)),
            }
        else:
            return
        self._add(about, values, one, writes)

    def _add(self, about: Document, values: dict[str, int], one: Valid, writes: Writes) -> None:
        day = day_of(one.at_ms)
        fields = {"home": self.name, "day": f"{day:%Y-%m-%d}", **about}
        id_ = blake2b("\0".join(map(str, fields.values())).encode(), digest_size=16).hexdigest()
        writes.add(id_, fields, day + timedelta(days=self._settings.totals_days), one.offset, values)

    # The chain

    def _link(self, one: Valid, known: JobLife | None, writes: Writes) -> None:
        event, fields = one.event, one.event.__dict__
        entry: Document = {"offset": one.offset, "type": event.type, "digest": digest(one.value)}
        entry["epoch"] = one.offset if isinstance(event, events.PlannerStarted) else event.epoch
        entry["at_ms"] = one.at_ms
        for name in ("job", "step", "attempt", "node", "by", "verdict", "planner", "schedule"):
            value = fields.get(name)
            if value:
                entry[name] = value
        if isinstance(event, events.JobSettled):
            entry["status"] = event.result.status.value
        elif isinstance(event, events.AttemptFailed | events.JobStopped):
            entry["failure"] = event.failure.kind.value
        self._chain = entry["chain"] = linked(self._chain, entry)
        if known is not None and known.tenant is not None:
            entry["tenant"] = known.tenant
        block = one.offset // BLOCK
        upsert = writes.upsert(AUDIT, f"{self.name}.{block}")
        if not upsert.fields:
            upsert.fields.update(home=self.name, block=block)
        upsert.fields[f"entries.{one.offset}"] = entry
        upsert.least["from_ms"] = min(one.at_ms, upsert.least.get("from_ms", one.at_ms))
        upsert.most["to_ms"] = max(one.at_ms, upsert.most.get("to_ms", 0))
        upsert.most["expires_at"] = day_of(one.at_ms) + timedelta(days=self._settings.audit_days)


def _accepted(event: events.JobAccepted, known: JobLife, _: int) -> Document:
    request = event.request
    told: Document = {
        "tenant": request.tenant,
        "pattern": request.pattern,
        "class": event.priority_class.value,
        "model": request.model,
        "accepted_at": event.at,
        "deadline_at": event.deadline_at,
        "source": event.source,
        "trace": event.trace,
        "conversation": request.conversation,
    }
    return {name: value for name, value in told.items() if value is not None}


def _asked(event: events.StepAsked, known: JobLife, _: int) -> Document:
    name = step_name(event.step)
    known.steps[name] = event.agent, event.model
    under = f"s.{name}"
    told = {"path": event.path[:_MOST_TOLD], "agent": event.agent, "model": event.model, "asked_at": event.at}
    if event.why:
        told["why"] = event.why[:_MOST_TOLD]
    return {f"{under}.{field}": value for field, value in told.items()}


def _claimed(event: events.StepClaimedBy, _: JobLife, __: int) -> Document:
    under = f"s.{step_name(event.step)}.tries.{event.attempt}"
    told = {f"{under}.node": event.node, f"{under}.claimed_at": event.at}
    return told if event.why is None else told | {f"{under}.why": in_short(event.why)[:_MOST_TOLD]}


def _answered(event: events.StepAnswered, _: JobLife, __: int) -> Document:
    under = f"s.{step_name(event.step)}"
    told: Document = _amounts(event.usage) | {
        "attempt": event.attempt,
        "at": event.at,
        "ms": event.timings.total_ms,
        "stages": {name: getattr(event.timings, f"{name}_ms") for name in STAGES},
        "finish": event.answer.finish_reason.value,
        "model": event.answer.model,
        "node": event.node,
    }
    return {f"{under}.answered.{field}": value for field, value in told.items() if value is not None}


def _failed(event: events.AttemptFailed, _: JobLife, __: int) -> Document:
    under = f"s.{step_name(event.step)}.tries.{event.attempt}"
    return {
        f"{under}.failure": event.failure.kind.value,
        f"{under}.tokens": event.usage.prompt_tokens + event.usage.completion_tokens,
        f"{under}.failed_at": event.at,
    }


def _wasted(event: events.WorkWasted, _: JobLife, offset: int) -> Document:
    return {f"waste.{offset}": _amounts(event.usage.as_waste()) | {"step": event.step, "attempt": event.attempt}}


def _settled(event: events.JobSettled, known: JobLife, offset: int) -> Document:
    result = event.result
    told: Document = {
        "tenant": result.tenant,
        "pattern": result.pattern,
        "class": result.priority_class.value,
        "status": result.status.value,
        "accepted_at": result.accepted_at,
        "finished_at": result.finished_at,
        "settled": offset,
        "steps": result.steps,
        "attempts": result.attempts,
        "estimated": result.usage.estimated,
    } | _amounts(result.usage)
    if event.key is not None:
        told["key"] = event.key
    if result.failure is not None:
        told["failure"] = result.failure.kind.value
    return told


_ROWS: dict[type, Callable[[Any, JobLife, int], Document]] = {
    events.JobAccepted: _accepted,
    events.StepAsked: _asked,
    events.StepClaimedBy: _claimed,
    events.StepAnswered: _answered,
    events.AttemptFailed: _failed,
    events.WorkWasted: _wasted,
    events.JobSettled: _settled,
    ReviewDecided: lambda event, _, offset: {f"reviews.{offset}": {"step": event.step, "verdict": event.verdict, "by": event.by or ""}},
}
"""What each fact says of its job. The fields of two facts never meet, or say the same."""


def _amounts(usage: Usage) -> dict[str, float]:
    return {
        "calls": usage.calls,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cost": usage.cost,
        "wasted_calls": usage.wasted_calls,
        "wasted_tokens": usage.wasted_tokens,
        "cut_off_tokens": usage.cut_off_tokens,
    }


def _whole(usage: Usage) -> dict[str, int]:
    """In whole numbers, whose sums are exact in any order."""
    amounts = _amounts(usage)
    return {"cost_micros": round(MICROS * amounts.pop("cost"))} | {name: int(value) for name, value in amounts.items()}


def ran(known: JobLife, fact: events.StepAnswered | events.AttemptFailed | events.WorkWasted | events.StepRetried) -> tuple[str, str]:
    """Agent and model of the attempt: the model that has answered, or failed, where that is told; else the one that was asked for."""
    agent, asked = known.steps.get(step_name(fact.step), (UNKNOWN, UNKNOWN))
    told = (
        fact.answer.model
        if isinstance(fact, events.StepAnswered)
        else fact.failure.model
        if isinstance(fact, events.AttemptFailed)
        else None
    )
    return agent, told or asked


def step_name(step: str) -> str:
    """As a field's name: ids of steps are hex, but nobody checks it."""
    return step if _STEP.fullmatch(step) else blake2b(step.encode("utf-8", "replace"), digest_size=16).hexdigest()


def day_of(at_ms: int) -> datetime:
    """Of the record's arrival."""
    return _midnight(max(0, min(at_ms, (YEAR_10000 - 1) * 1_000)) // 86_400_000)


@lru_cache(maxsize=64)
def _midnight(day: int) -> datetime:
    return datetime.fromtimestamp(86_400 * day, UTC)
