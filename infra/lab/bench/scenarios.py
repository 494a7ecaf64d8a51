"""What is measured. Each scenario is one run of one system; `plan` puts them in an order in which the systems take turns."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random

from infra.lab.bench.bare import NODE_TOKENS, node_body
from infra.lab.bench.cluster import IN_PROCESS, INSTANT, PACED, Bench, System
from infra.lab.bench.figures import percentile
from infra.lab.bench.load import Burst, call_in_loop, queue_burst
from infra.lab.bench.processes import CpuMark, resident_bytes
from shared.clock import Clock

CHUNKS = 50
PAUSE_SECONDS = 0.5
"""Between runs: commits, credits and the broker's own work of the last one end."""
REST_IN_FLIGHT = (1, 10, 64, 256)
BARE, BARE_NODE, DIRECT, TUTTI, TUTTI_IN_PROCESS = "bare", "bare_node", "direct", "tutti", "tutti_in_process"
"""Systems: bare and tutti each over the node and without one, and the node alone."""
_MS = 1_000.0
_MB = 2**20


@dataclass(frozen=True, slots=True)
class Sizes:
    """Counts of one run. `repeats` of everything; medians are taken over them."""

    repeats: int
    rest: Mapping[int, int]
    queued: int
    first_tokens: int
    streams: int
    streams_in_flight: int


FULL = Sizes(
    repeats=5, rest={1: 200, 10: 1_000, 64: 3_000, 256: 4_000}, queued=10_000, first_tokens=100, streams=900, streams_in_flight=300
)
QUICK = Sizes(repeats=1, rest={1: 20, 10: 100, 64: 320, 256: 512}, queued=1_000, first_tokens=10, streams=60, streams_in_flight=30)


@dataclass(frozen=True, slots=True)
class Run:
    """One measurement. Units are in the names of the values."""

    scenario: str
    system: str
    repeat: int
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Task:
    """One scenario of one system, not yet run."""

    scenario: str
    system: str
    repeat: int
    kind: str
    size: int = 0


def plan(sizes: Sizes, *, only_bare: bool) -> Iterator[Task]:
    """All runs, interleaved: within a repeat the systems follow one another scenario by scenario, and who is first alternates."""
    for repeat in range(sizes.repeats):
        for scenario, kind, size, systems in _scenarios(sizes):
            wanted = [name for name in systems if not only_bare or name in (BARE, BARE_NODE, DIRECT)]
            for system in wanted if repeat % 2 == 0 else reversed(wanted):
                yield Task(scenario, system, repeat, kind, size)


def _scenarios(sizes: Sizes) -> Iterator[tuple[str, str, int, tuple[str, ...]]]:
    for in_flight in REST_IN_FLIGHT:
        yield f"rest_{in_flight}", "rest", in_flight, (BARE, BARE_NODE, TUTTI, TUTTI_IN_PROCESS)
    yield "queue", "queue", sizes.queued, (BARE, TUTTI_IN_PROCESS)
    yield "first_token", "first_token", sizes.first_tokens, (DIRECT, TUTTI)
    yield "streams", "streams", sizes.streams, (DIRECT, TUTTI)


async def warm_up(bench: Bench, clock: Clock) -> None:
    """Connections, caches, loaded models: not part of any figure."""
    await call_in_loop(f"{bench.node_url}/api/chat", [node_body(model, "question") for model in (INSTANT, PACED)], 1, clock)
    for system in bench.systems:
        await _warm(system, bench, clock)


async def _warm(system: System, bench: Bench, clock: Clock) -> None:
    if system is bench.bare:
        bodies = [bare_body(number, model) for model in (None, INSTANT) for number in range(20)]
    else:
        bodies = [chat_body(number, model) for model in (INSTANT, PACED, IN_PROCESS) for number in range(20)]
    await call_in_loop(system.url, bodies, 5, clock)


async def perform(task: Task, bench: Bench, sizes: Sizes, clock: Clock) -> Run:
    """Run one task while the other systems are stopped. Raises LoadFailed, DidNotStart."""
    system = {BARE: bench.bare, BARE_NODE: bench.bare, DIRECT: None}.get(task.system, bench.tutti)
    if bench.only(system) and system is not None:
        await _warm(system, bench, clock)  # it was away: credits, connections, perhaps a rebalance
    await clock.sleep(PAUSE_SECONDS)
    pids = {**bench.pids, **(system.pids if system is not None else {})}
    before = CpuMark.now(pids)
    if task.kind == "rest":
        assert system is not None
        burst = await _rest(task, system, sizes, clock)
    elif task.kind == "queue":
        assert system is not None
        burst = await _queue(task, bench, system, clock)
    else:
        burst = await _streams(task, bench, sizes, clock)
    cpu = CpuMark.now(pids).since(before)
    return Run(task.scenario, task.system, task.repeat, _values(task, burst) | _usage(task, burst, cpu, pids))


async def _rest(task: Task, system: System, sizes: Sizes, clock: Clock) -> Burst:
    count = sizes.rest[task.size]
    make, model = {
        BARE: (bare_body, None),
        BARE_NODE: (bare_body, INSTANT),
        TUTTI: (chat_body, INSTANT),
        TUTTI_IN_PROCESS: (chat_body, IN_PROCESS),
    }[task.system]
    bodies = [make(number, model) for number in range(count)]
    return await call_in_loop(system.url, bodies, task.size, clock)


async def _queue(task: Task, bench: Bench, system: System, clock: Clock) -> Burst:
    values = [bare_body(n, None) if task.system == BARE else _job_body(n) for n in range(task.size)]
    return await queue_burst(bench.servers, system.queue, values, clock)


async def _streams(task: Task, bench: Bench, sizes: Sizes, clock: Clock) -> Burst:
    """`first_token`: one at a time, at zero latency. `streams`: many at once, of CHUNKS words at a steady rhythm."""
    many = task.kind == "streams"
    model, tokens, in_flight = (PACED, CHUNKS, sizes.streams_in_flight) if many else (INSTANT, NODE_TOKENS, 1)
    if task.system == DIRECT:
        body = node_body(model, "question", tokens)
        return await call_in_loop(f"{bench.node_url}/api/chat", [body] * task.size, in_flight, clock)
    assert bench.tutti is not None
    bodies = [chat_body(number, model, tokens, stream=True) for number in range(task.size)]
    return await call_in_loop(bench.tutti.url, bodies, in_flight, clock)


def _values(task: Task, burst: Burst) -> dict[str, float]:
    values = {"per_second": burst.per_second, "count": float(burst.count)}
    if burst.latencies and task.kind != "streams":
        values |= {"p50_ms": percentile(burst.latencies, 0.5) * _MS, "p99_ms": percentile(burst.latencies, 0.99) * _MS}
    if burst.first_texts:
        values |= {
            "first_token_p50_ms": percentile(burst.first_texts, 0.5) * _MS,
            "first_token_p99_ms": percentile(burst.first_texts, 0.99) * _MS,
        }
    return values


def _usage(task: Task, burst: Burst, cpu: Mapping[str, float], pids: Mapping[str, int]) -> dict[str, float]:
    """CPU per job (or per chunk) by service, memory by service. What both systems share is shown, not added up."""
    shared = ("kafka", "node")
    per = burst.count * (CHUNKS if task.kind == "streams" else 1)
    unit = "cpu_us_per_chunk" if task.kind == "streams" else "cpu_us_per_job"
    values = {f"{unit}.{name}": seconds / per * 1e6 for name, seconds in cpu.items()}
    values[unit] = sum(seconds for name, seconds in cpu.items() if name not in shared) / per * 1e6
    return values | {f"resident_mb.{name}": resident_bytes(pid) / _MB for name, pid in pids.items() if name not in shared}


def bare_body(number: int, model: str | None) -> bytes:
    named = {} if model is None else {"model": model}
    return json.dumps({"id": f"j-{number}-{Random(number).getrandbits(64):x}", "prompt": f"question {number}", **named}).encode()


def _job_body(number: int) -> bytes:
    return json.dumps({"prompt": f"question {number}", "model": IN_PROCESS}).encode()


def chat_body(number: int, model: str | None, tokens: int = NODE_TOKENS, *, stream: bool = False) -> bytes:
    body = {"model": model, "messages": [{"role": "user", "content": f"question {number}"}], "max_tokens": tokens, "stream": stream}
    return json.dumps(body).encode()
