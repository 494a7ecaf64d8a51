"""Comparing: the job that judges a job's answer beside its baseline, on a share of jobs. Pure.

What a job's end owes besides its result: one record on `jobs.batch`, at the job's own home, under an id that follows from the job. It is a
function of history alone, sent with the result and again by a successor that finds the job not yet out: sent twice it is one job. Nobody
waits for it, and no answer says that there is one. A comparison is never compared.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Any

from services.planner.job.live import LiveJob
from shared.contracts import headers, ids
from shared.contracts.base import INLINE_BYTES, PriorityClass
from shared.contracts.ids import Maker, digest_of
from shared.contracts.job import HeldJob, Job
from shared.contracts.result import Status
from shared.derived import comparison_id
from shared.framing import TOLD
from shared.kafka.port import Message
from shared.patterns.auto import AUTO
from shared.patterns.chain import job_input
from shared.patterns.compare import COMPARE, CompareInput
from shared.patterns.comparison import COMPARED_CHARACTERS, Spent
from shared.patterns.judging import readable
from shared.patterns.single import SINGLE
from shared.telemetry import logs, metrics
from shared.telemetry.tracing import place_of
from shared.topics import Topics

log = logs.get(__name__)

_HANDED_ON = ("system", "model", "fallback_models", "capability", "needs")
_ASKED_AGAIN = ("prompt", "messages", "operation", "format", "options")


def comparison_of(job: LiveJob, share: float, topics: Topics, known: Callable[[str], bool] = lambda _: False) -> Message | None:
    """What this settled job owes; None where it is not in the share, there is nothing to compare, or its comparison is `known`.

    *Trace:* a successor reads back to before a job that waits for people and publishes every end anew: the comparisons of last night, whose
    ids are forgotten, are made a second time.
    """
    if not _drawn(job, share) or not _has_baseline(job):
        return None
    homes = topics.settings.home_partitions
    name = comparison_id(job.id, job.accepted.at, homes)
    if known(name):
        return None
    try:
        value = _body(job, name)
    except ValueError as error:  # of this job alone: its home goes on
        log.warning("comparison_left_out", job=job.id, error=type(error).__name__)
        value = None
    if value is None or len(value) > INLINE_BYTES:
        metrics.COMPARISONS.labels("left_out").inc()
        return None
    metrics.COMPARISONS.labels("owed").inc()
    says = (
        *headers.envelope("job", place_of(job.accepted.trace, job.id, job.accepted.source).traceparent()),
        (headers.MADE_BY, Maker.PLANNER.value.encode()),
        (headers.REQUEST_DIGEST, digest_of(name.encode()).encode()),  # another release may write it otherwise: it is the same job
    )
    return Message(topics.jobs(PriorityClass.BATCH), value, name.encode(), ids.home_of(name, homes), says, job.accepted.request.tenant)


def _drawn(job: LiveJob, share: float) -> bool:
    number = blake2b(f"{job.id}\x1f{job.accepted.at}".encode(), digest_size=8).digest()
    return int.from_bytes(number) < share * 2**64


def _has_baseline(job: LiveJob) -> bool:
    """It has ended well, and by a pattern whose prompt alone says the task: else a single call would be asked for something else. `auto`
    without an explanation has picked the single call. Of a conversation neither a single call nor a judge knows what was said before.
    """
    settled, pattern, baseline = job.settled, job.run.pattern, job.run.context.baseline
    if settled is None or settled.result.status is not Status.SUCCEEDED or settled.result.answer is None:
        return False
    if job.accepted.request.conversation is not None or job.accepted.policies:  # nobody has passed what else is compared
        return False
    if pattern.name in (SINGLE.name, COMPARE.name) or (pattern.name == AUTO.name and settled.result.answer.explanation is None):
        return False
    return baseline is not None and (baseline.text is not None or pattern.takes_bare_prompt)


def _body(job: LiveJob, name: str) -> bytes | None:
    """Where the baseline is there, only the task's words are needed; else the whole input. None where neither can be given, or the answer
    is no text that a judge can read whole.
    """
    assert job.settled is not None, "it has ended"
    request, result, baseline = job.accepted.request, job.settled.result, job.run.context.baseline
    assert result.answer is not None, "it has ended well"
    assert baseline is not None, "it has one"
    if not readable(result.answer) or len(result.answer.text) > COMPARED_CHARACTERS:
        return None
    own: dict[str, Any] = {field: getattr(request, field) for field in _HANDED_ON}
    if baseline.text is not None:
        own["prompt"] = job_input(request)[:TOLD] or None
    elif not request.tools and not (isinstance(request, HeldJob) and request.input_ref is not None):
        own |= {field: getattr(request, field) for field in _ASKED_AGAIN}
    if not own.get("prompt") and not own.get("messages"):
        return None
    ask = CompareInput(
        job=job.id,
        accepted_at=result.accepted_at,
        pattern=request.pattern,
        answer=result.answer.text,
        took=Spent.of(result.usage, result.finished_at - result.accepted_at - job.idle_seconds),
        baseline=baseline,
    )
    given = ask.model_dump(mode="json", exclude_none=True)
    return Job(id=name, tenant=request.tenant, pattern=COMPARE.name, input=given, **own).record()
