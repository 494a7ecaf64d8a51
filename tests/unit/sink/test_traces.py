"""Spans of jobs: one trace from caller to attempt, the same whoever tells it; and a collector that is away, slow or gone holds nobody."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from services.sink.fold import HomeFold
from services.sink.handlers import read_event
from services.sink.port import USAGE, Begun, Writes
from services.sink.settings import SinkSettings
from services.sink.traces import HELD_JOBS, Traces
from shared.clock import SystemClock
from shared.contracts import event as events
from shared.contracts.base import PriorityClass, StepId
from shared.contracts.chat import Answer
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.job import Job
from shared.contracts.limits import Limits
from shared.contracts.result import Result, Status
from shared.contracts.usage import Timings, Usage
from shared.epochs import EpochFilter
from shared.kafka.memory.memory_partition import MemoryRecord
from shared.telemetry import metrics, tracing
from shared.telemetry.otlp import Export, otlp, through
from shared.telemetry.spans import spans_of
from shared.topics import Topics
from tests.support.sink_history import PROMPT, HistoryOfHome
from tests.support.sink_store import MemoryStore

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
STEP = StepId("ab" * 16)


def told(trace: str | None = CALLER, job: str = "j1") -> list[Any]:
    """A job whose first attempt fails and whose second one answers, and that gives up another step."""
    about: dict[str, Any] = {"epoch": 0, "job": job}
    asks = tuple(
        events.FirstAsk(step=StepId(step), path=path, agent=agent, model="auto")
        for step, path, agent in ((STEP, "0.0", "critic"), ("cd" * 16, "0.1", "tool:search"))
    )
    accepted = events.JobAccepted(
        **about, at=100.0, request=Job(prompt=PROMPT), priority_class=PriorityClass.STANDARD, home=0, source="jobs.standard/0/7",
        source_offset=7, pattern_version=1, limits=Limits(), deadline_at=1e9, digest="", asks=asks, trace=trace,
    )  # fmt: skip
    of: dict[str, Any] = about | {"step": STEP}
    claim: dict[str, Any] = {"node": "n1", "mailbox": 0, "lease_seconds": 10}
    usage = Usage(calls=1, prompt_tokens=11, completion_tokens=5)
    result = Result(
        job=job, tenant="default", status=Status.SUCCEEDED, usage=usage, pattern="critic", accepted_at=100.0, finished_at=104.0,
        answer=Answer(text=PROMPT),
    )  # fmt: skip
    return [
        events.PlannerStarted(nonce="n", planner="p"),
        accepted,
        events.StepClaimedBy(**of, at=101.0, attempt=1, claim="c1", **claim),
        events.AttemptFailed(
            **of, at=102.0, attempt=1, failure=Failure(kind=FailureKind.MODEL_ERROR, message=PROMPT), retry_after_seconds=0.0
        ),
        events.StepRetried(**of, at=102.0, attempt=2),
        events.StepClaimedBy(**of, at=102.5, attempt=2, claim="c2", **claim),
        events.StepAnswered(
            **of, at=104.0, attempt=2, node="n2", usage=usage, timings=Timings(queue_ms=3.0, total_ms=900.0),
            answer=Answer(text=PROMPT, model="gemma:1b"),
        ),
        events.JobSettled(**about, at=104.0, result=result),
    ]  # fmt: skip


async def folded(values: list[bytes | None], kinds: list[str], store: MemoryStore) -> Writes:
    """Into the store, in one write."""
    fold = HomeFold("h.0", Begun(None, "0" * 32), SinkSettings(), lambda *_: None)
    writes, epochs = Writes(), EpochFilter(None)
    for offset, (value, kind) in enumerate(zip(values, kinds, strict=True)):
        record = MemoryRecord("job-events", 0, offset, 1_700_000_000_000 + offset, None, value, (("type", kind.encode()),), 0.0)
        try:
            valid = read_event(record, epochs)
        except ValueError:
            continue
        if valid is not None:
            fold.fold(valid, writes)
    await store.write(writes)
    return writes


async def stored(store: MemoryStore, trace: str | None = CALLER) -> Writes:
    facts = told(trace)
    return await folded([fact.to_bytes() for fact in facts], [fact.type for fact in facts], store)


async def test_a_job_is_one_trace_below_its_callers_span() -> None:
    """Job, steps, attempts; what failed, what was given up; names and tokens as gen_ai has them."""
    store = MemoryStore()
    await stored(store)
    (row,) = store.documents[USAGE].values()
    job, step, first, second, given_up = spans_of(row)
    assert {span.trace for span in spans_of(row)} == {CALLER[3:35]}
    assert (job.parent, job.begin, job.end, job.error) == (CALLER[36:52], 100.0, 104.0, None)
    assert job.attributes["gen_ai.workflow.name"] == "critic"
    assert (step.parent, step.name, step.begin, step.end) == (job.id, "invoke_agent critic", 100.0, 104.0)
    assert (first.parent, first.error, first.begin, first.end) == (step.id, "model_error", 101.0, 102.0)
    assert (second.parent, second.error, second.begin, second.end) == (step.id, None, 102.5, 104.0)
    assert second.attributes["gen_ai.usage.input_tokens"] == 11
    assert second.attributes["gen_ai.response.model"] == "gemma:1b"
    assert second.attributes["tutti.queue_ms"] == 3.0
    assert second.id == tracing.child(CALLER, STEP, 2)[36:52], "the endpoint was called with it"
    assert (given_up.error, given_up.end) == ("abandoned", 104.0)
    assert given_up.attributes["gen_ai.tool.name"] == "search"


@pytest.mark.parametrize("seed", range(10))
async def test_spans_of_any_history_are_trees_and_the_same_again(seed: int) -> None:
    """Whatever is in it, and without a word of prompts or answers."""
    history, store = HistoryOfHome(Random(seed), Topics(), 0), MemoryStore()
    history.grow(400)
    kinds = [dict(message.headers)["type"].decode() for message in history.messages]
    await folded([message.value for message in history.messages], kinds, store)
    ended = [row for row in store.documents[USAGE].values() if "settled" in row]
    assert ended
    seen: set[tuple[str, str]] = set()
    for row in ended:
        spans = spans_of(row)
        assert spans == spans_of(row)
        known = {span.id for span in spans}
        assert len(known) == len(spans)
        assert [span.parent in known for span in spans] == [False] + [True] * (len(spans) - 1)
        assert all(span.begin <= span.end for span in spans)
        assert PROMPT not in repr(spans)
        seen |= {(spans[0].trace, spans[0].id)}
    assert len(seen) == len(ended), "each life of an id has its own"


def told_of(*what: str) -> float:
    return sum(float(metrics.SINK_TRACES.labels(one)._value.get()) for one in what)


async def sent(store: MemoryStore, writes: Writes, export: Export, share: float = 1.0) -> None:
    """Until all of it has gone out, or was left out."""
    clock, before = SystemClock(), told_of("sent", "left_out")
    traces = Traces(store, export, share, clock)
    traces.written(writes)
    task = asyncio.create_task(traces.run())
    for _ in range(1_000):
        if told_of("sent", "left_out") > before:
            break
        await clock.sleep(0.01)
    task.cancel()


async def test_through_opentelemetrys_own_exporter() -> None:
    """As its library has them; a caller that records nothing is respected, and so is the share."""
    memory, store = InMemorySpanExporter(), MemoryStore()
    await sent(store, await stored(store), through(memory))
    job, *_, second, _ = memory.get_finished_spans()
    assert f"{job.context.trace_id:032x}" == CALLER[3:35]
    assert f"{job.parent.span_id:016x}" == CALLER[36:52]
    assert dict(second.attributes or {})["gen_ai.operation.name"] == "chat"
    assert (second.end_time or 0) - (second.start_time or 0) == 1_500_000_000
    memory.clear()
    silent = MemoryStore()
    await sent(silent, await stored(silent, CALLER[:-2] + "00"), through(memory))
    await sent(store, await stored(store), through(memory), share=0.0)
    assert memory.get_finished_spans() == ()


@contextmanager
def collector(status: int = 200, seconds: float = 0.0) -> Iterator[tuple[str, list[bytes]]]:
    """An OTLP receiver over HTTP: its address, and what it has got."""
    got: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            time.sleep(seconds)
            if status == 200:
                got.append(body)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/traces", got
    finally:
        server.shutdown()
        server.server_close()


async def test_a_real_receiver_gets_protobuf() -> None:
    """Over HTTP, as a collector reads it."""
    store = MemoryStore()
    with collector() as (url, got):
        await sent(store, await stored(store), otlp(url, 5.0))
    spans = [
        span
        for resource in ExportTraceServiceRequest.FromString(got[0]).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    assert len(spans) == 5
    assert {span.trace_id.hex() for span in spans} == {CALLER[3:35]}
    assert PROMPT.encode() not in got[0]


@pytest.mark.parametrize(("status", "seconds"), [(500, 0.0), (429, 0.0), (200, 30.0), (0, 0.0)])
async def test_a_collector_that_fails_holds_nobody(status: int, seconds: float, caplog: pytest.LogCaptureFixture) -> None:
    """Refusing, overloaded, slow or away: its jobs are left out, counted, and the loop goes on meanwhile."""
    store, before = MemoryStore(), told_of("left_out")
    with collector(status or 200, seconds) as (url, _):
        address = url if status else "http://127.0.0.1:9/v1/traces"
        beats = 0
        sending = asyncio.create_task(sent(store, await stored(store), otlp(address, 1.0)))
        while not sending.done():
            await SystemClock().sleep(0.01)
            beats += 1
        await sending
    assert told_of("left_out") == before + 1
    assert beats >= 1
    assert PROMPT not in caplog.text


async def test_what_waits_is_bounded() -> None:
    """More than that is left out at once."""
    store, before = MemoryStore(), told_of("left_out")
    writes = Writes()
    for number in range(HELD_JOBS + 7):
        writes.upsert(USAGE, str(number)).fields.update(home="h.0", job=str(number), life=0, settled=1)
    Traces(store, lambda _: True, 1.0, SystemClock()).written(writes)
    assert told_of("left_out") == before + 7


def test_without_an_address_nothing_is_imported() -> None:
    """Nor is the extra needed."""
    code = "import sys, services.sink.app; sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
