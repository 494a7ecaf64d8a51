"""What the sink keeps of a job (a row of `services/sink/fold.py`) as spans of one trace: the job, below it its steps, below each its
attempts. Pure; no text of prompts or answers is in a row.

Ids are hashes (`shared/telemetry/tracing.py`): whoever tells of a job again tells the same spans. An attempt's span is the one that its
endpoint was called with. Times are the planner's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from shared.contracts.result import Status
from shared.telemetry import gen_ai as names
from shared.telemetry.otlp import Span
from shared.telemetry.tracing import JobSpan, place_of, span_id

Document = dict[str, Any]
MOST_SPANS = 2_000
"""Of one job; its later steps are left out."""
_TOOL = "tool:"


def place(row: Document) -> JobSpan:
    """The trace that a job belongs to."""
    return place_of(row.get("trace"), str(row["job"]), str(row.get("source", row["life"])))


def spans_of(row: Document) -> list[Span]:
    """Of a job that has ended, the job's first."""
    return [span for span, _ in zip(_all(row, place(row)), range(MOST_SPANS), strict=False)]


def _all(row: Document, lies: JobSpan) -> Iterator[Span]:
    begin, end = _between(row["accepted_at"], row["finished_at"])
    told = {
        names.OPERATION: names.INVOKE_WORKFLOW, names.WORKFLOW: row["pattern"], names.CONVERSATION: row.get("conversation"),
        names.REQUEST_MODEL: row.get("model"), **_own(row, "job", "tenant", "class", "status", "attempts", "wasted_tokens", "cost"),
    }  # fmt: skip
    error = None if row["status"] == Status.SUCCEEDED.value else str(row.get("failure", row["status"]))
    name = f"{names.INVOKE_WORKFLOW} {row['pattern']}"
    yield Span(name, lies.trace, lies.span, lies.parent, begin, end, _said(told), error)
    for step, asked in sorted(row.get("s", {}).items(), key=lambda item: (float(item[1].get("asked_at", begin)), item[0])):
        yield from _step(lies, step, asked, begin, end)


def _step(lies: JobSpan, step: str, asked: Document, begin: float, end: float) -> Iterator[Span]:
    """What has no end of its own was given up when its job ended."""
    answered, agent = asked.get("answered", {}), str(asked.get("agent", ""))
    tries = sorted(asked.get("tries", {}).items(), key=lambda item: int(item[0]))
    failed = tries[-1][1].get("failure") if tries else None
    error = None if answered else failed or "abandoned"
    last = answered.get("at") or (tries[-1][1].get("failed_at") if tries else None) or end
    at, until = _between(asked.get("asked_at", begin), last)
    of_step = span_id(lies.trace, step)
    what = {names.TOOL: agent.removeprefix(_TOOL)} if agent.startswith(_TOOL) else {names.AGENT: agent}
    told = {names.OPERATION: names.INVOKE_AGENT, **what, "tutti.step": step, **_own(asked, "path", "why")}
    yield Span(f"{names.INVOKE_AGENT} {agent}", lies.trace, of_step, lies.span, at, until, _said(told), error)
    if answered and str(answered["attempt"]) not in dict(tries):  # its claim came with its answer
        tries.append((str(answered["attempt"]), {}))
    for number, tried in tries:
        took = answered if answered and str(answered["attempt"]) == number else {}
        ended = took.get("at") or tried.get("failed_at") or until
        first, over = _between(tried.get("claimed_at", ended - took.get("ms", 0.0) / 1e3), ended)
        operation = names.EXECUTE_TOOL if agent.startswith(_TOOL) else names.OPERATION_OF.get(agent, names.CHAT)
        called = {
            names.OPERATION: operation, names.PROVIDER: names.PROVIDER_NAME, **what, names.REQUEST_MODEL: asked.get("model"),
            names.RESPONSE_MODEL: took.get("model"), names.INPUT_TOKENS: took.get("prompt_tokens"),
            names.OUTPUT_TOKENS: took.get("completion_tokens"), names.FINISH_REASONS: [took["finish"]] if "finish" in took else None,
            "tutti.attempt": int(number), "tutti.node": took.get("node", tried.get("node")), **_own(took, "cost"),
            **{f"tutti.{stage}_ms": ms for stage, ms in took.get("stages", {}).items()},
        }  # fmt: skip
        wrong = None if took else str(tried.get("failure", "abandoned"))
        id_ = span_id(lies.trace, step, number)
        yield Span(f"{operation} {asked.get('model', '')}".strip(), lies.trace, id_, of_step, first, over, _said(called), wrong, calls=True)


def _own(row: Document, *fields: str) -> dict[str, Any]:
    return {f"tutti.{field}": row[field] for field in fields if field in row}


def _said(told: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in told.items() if value is not None}


def _between(begin: float, end: float) -> tuple[float, float]:
    """Clocks of two planners may differ: nothing ends before it begins."""
    return begin, max(begin, end)
