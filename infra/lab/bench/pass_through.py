"""tutti beside a bare pass-through of the same five hops, in the same run, on the same machine.

Absolute figures differ from machine to machine; what counts is the ratio to bare: of what is answered in process to `bare`, of what goes
over a node to the bare that calls the same node (`bare_node`). Systems take turns, and who is first alternates. The model is simulated: an
in-process backend, or the simulated Ollama at zero latency. Figures are `scenario/system/figure`.

    rest_n        n callers in a closed loop over HTTP
    queue         a burst of jobs on Kafka, from the first send to the last result
    first_token   streams, one at a time, at zero latency; beside them `direct`: the node alone
    streams       many at once, of CHUNKS words at a steady rhythm
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

import click

from infra.lab.bench.bare import NODE_TOKENS, node_body
from infra.lab.bench.figures import MIB, MS, Budget, Figures, median_of, percentile
from infra.lab.bench.load import Burst, call_in_loop, queue_burst
from infra.lab.bench.machine import cpu_since, resident_bytes
from infra.lab.bench.report import Table
from infra.lab.bench.runner import Bench, Lab
from infra.lab.bench.systems import IN_PROCESS, INSTANT, PACED, System, Systems, bare_body, chat_body, only, systems
from shared.clock import SystemClock

CHUNKS = 50
PAUSE_SECONDS = 0.5
"""Between runs: commits, credits and the broker's own work of the last one end."""
BARE, BARE_NODE, DIRECT, TUTTI, TUTTI_IN_PROCESS = "bare", "bare_node", "direct", "tutti", "tutti_in_process"
"""Systems: bare and tutti each over the node and without one, and the node alone."""
FLOORS = (BARE, BARE_NODE)
_SHARED = ("kafka", "node")
_CLOCK = SystemClock()


@dataclass(frozen=True, slots=True)
class Sizes:
    """Counts of one run. `rest`: in flight → calls."""

    rest: Mapping[int, int]
    queued: int
    first_tokens: int
    streams: int
    streams_in_flight: int

    def scenarios(self) -> Iterator[tuple[str, str, int, int, tuple[str, ...]]]:
        """(name, kind, calls or jobs, in flight, systems)"""
        for in_flight, count in self.rest.items():
            yield f"rest_{in_flight}", "rest", count, in_flight, (BARE, BARE_NODE, TUTTI, TUTTI_IN_PROCESS)
        yield "queue", "queue", self.queued, 0, (BARE, TUTTI_IN_PROCESS)
        yield "first_token", "first_token", self.first_tokens, 1, (DIRECT, TUTTI)
        yield "streams", "streams", self.streams, self.streams_in_flight, (DIRECT, TUTTI)


FULL = Sizes({1: 200, 10: 1_000, 64: 3_000, 256: 4_000}, queued=10_000, first_tokens=100, streams=900, streams_in_flight=300)
QUICK = Sizes({1: 20, 10: 100, 64: 320, 256: 512}, queued=1_000, first_tokens=10, streams=60, streams_in_flight=30)


@dataclass(frozen=True, slots=True)
class Task:
    """One scenario of one system. `size`: calls or jobs."""

    scenario: str
    system: str
    kind: str
    size: int
    in_flight: int


def plan(sizes: Sizes, repeat: int) -> Iterator[Task]:
    """One run: systems follow one another scenario by scenario, and who is first alternates from run to run."""
    for scenario, kind, size, in_flight, names in sizes.scenarios():
        for system in names if repeat % 2 == 0 else reversed(names):
            yield Task(scenario, system, kind, size, in_flight)


def measure(lab: Lab, repeat: int, *, chosen: tuple[str, ...], only_bare: bool) -> Figures:
    """Measure tutti against the bare pass-through."""
    running, found = lab.kept(systems, lab, only_bare=only_bare), dict[str, float]()
    sizes = QUICK if lab.quick else FULL
    lab.details["sizes"] = asdict(sizes)
    for task in plan(sizes, repeat):
        if (not chosen or task.scenario in chosen) and not (only_bare and task.system.startswith(TUTTI)):
            figures = lab.run(_perform(task, running))
            click.echo(f"  {task.scenario} {task.system} #{repeat + 1}: {figures['per_second']:.0f}/s", err=True)
            found |= {f"{task.scenario}/{task.system}/{name}": value for name, value in figures.items()}
    return found


async def _perform(task: Task, running: Systems) -> Figures:
    """One task while the other systems are stopped. Raises Unmeasured, StartFailed."""
    system = {BARE: running.bare, BARE_NODE: running.bare, DIRECT: None}.get(task.system, running.tutti)
    await only(system, running.started)
    await _CLOCK.sleep(PAUSE_SECONDS)
    pids = {**running.pids, **(system.pids if system is not None else {})}
    used = cpu_since(pids)
    burst = await _burst(task, system, running)
    return _values(task, burst) | _usage(task, burst, used(), pids)


async def _burst(task: Task, system: System | None, running: Systems) -> Burst:
    if task.kind == "queue":
        assert system is not None
        assert system.queue is not None
        values = [bare_body(n, None) if task.system == BARE else _job_body(n) for n in range(task.size)]
        return await queue_burst(running.servers, system.queue, values, _CLOCK)
    if task.kind == "rest":
        assert system is not None
        model = {BARE: None, TUTTI_IN_PROCESS: IN_PROCESS}.get(task.system, INSTANT)
        make = bare_body if task.system in FLOORS else chat_body
        return await call_in_loop(system.url, [make(number, model) for number in range(task.size)], task.in_flight, _CLOCK)
    model, tokens = (PACED, CHUNKS) if task.kind == "streams" else (INSTANT, NODE_TOKENS)
    if system is None:
        return await call_in_loop(
            f"{running.node_url}/api/chat", [node_body(model, "question", tokens)] * task.size, task.in_flight, _CLOCK
        )
    bodies = [chat_body(number, model, tokens, stream=True) for number in range(task.size)]
    return await call_in_loop(system.url, bodies, task.in_flight, _CLOCK)


def _values(task: Task, burst: Burst) -> dict[str, float]:
    values = {"per_second": burst.per_second, "count": float(burst.count)}
    if burst.latencies and task.kind != "streams":
        values |= {"p50_ms": percentile(burst.latencies, 0.5) * MS, "p99_ms": percentile(burst.latencies, 0.99) * MS}
    if burst.first_texts:
        values["first_token_p50_ms"] = percentile(burst.first_texts, 0.5) * MS
        values["first_token_p99_ms"] = percentile(burst.first_texts, 0.99) * MS
    return values


def _usage(task: Task, burst: Burst, cpu: Figures, pids: Mapping[str, int]) -> dict[str, float]:
    """CPU per job (or per chunk) by service, memory by service. What both systems share is shown, not added up."""
    per = burst.count * (CHUNKS if task.kind == "streams" else 1)
    unit = "cpu_us_per_chunk" if task.kind == "streams" else "cpu_us_per_job"
    values = {f"{unit}.{name}": seconds / per * 1e6 for name, seconds in cpu.items()}
    values[unit] = sum(seconds for name, seconds in cpu.items() if name not in _SHARED) / per * 1e6
    return values | {f"resident_mb.{name}": resident_bytes(pid) / MIB for name, pid in pids.items() if name not in _SHARED}


def _job_body(number: int) -> bytes:
    return json.dumps({"prompt": f"question {number}", "model": IN_PROCESS}).encode()


def derived(medians: Figures) -> Figures:
    """`<figure>_to_<floor>` where that floor ran the same scenario; what tutti adds to a first token; its largest service."""
    found: dict[str, float] = {}
    for name, value in medians.items():
        scenario, system, figure = name.split("/")
        for floor in FLOORS:
            base = medians.get(f"{scenario}/{floor}/{figure}")
            if base and system not in FLOORS and figure in ("per_second", "p50_ms", "p99_ms", "cpu_us_per_job"):
                found[f"{name}_to_{floor}"] = value / base
    through, direct = (medians.get(f"first_token/{system}/first_token_p50_ms") for system in (TUTTI, DIRECT))
    if through is not None and direct is not None:
        found["first_token/tutti/added_p50_ms"] = through - direct
    if sizes := [value for name, value in medians.items() if f"/{TUTTI}" in name and "/resident_mb." in name]:
        found["all/tutti/largest_resident_mb"] = max(sizes)
    return found


def _of_system(name: str) -> tuple[str, str] | None:
    row, _, figure = name.rpartition("/")
    return None if "." in figure else (row, figure)


def _of_service(name: str) -> tuple[str, str] | None:
    row, _, figure = name.rpartition("/")
    kind, _, service = figure.partition(".")
    return (f"{row}, {'MB' if kind == 'resident_mb' else 'us a ' + kind.rpartition('_')[2]}", service) if service else None


BENCH = Bench(
    measure,
    "every model of this bench is simulated; each system while the others are stopped",
    (
        Budget("REST, one at a time, p50", "ms", median_of("rest_1/tutti_in_process/p50_ms"), at_most=10),
        Budget("REST, one at a time over a node, p99", "ms", median_of("rest_1/tutti/p99_ms"), at_most=30),
        Budget("REST, one at a time, p50 to bare", "x", median_of("rest_1/tutti_in_process/p50_ms_to_bare"), at_most=1.35),
        Budget("REST, 64 in flight, to bare", "x", median_of("rest_64/tutti_in_process/per_second_to_bare"), at_least=0.5),
        Budget("REST, 64 in flight over a node, to its floor", "x", median_of("rest_64/tutti/per_second_to_bare_node"), at_least=0.65),
        Budget("queued jobs to results", "jobs/s", median_of("queue/tutti_in_process/per_second"), at_least=2_500),
        Budget("queued jobs, to bare", "x", median_of("queue/tutti_in_process/per_second_to_bare"), at_least=0.19),
        Budget("added time to first token, p50", "ms", median_of("first_token/tutti/added_p50_ms"), at_most=8),
        Budget("streams of 50 chunks", "streams/s", median_of("streams/tutti/per_second"), at_least=300),
        Budget("CPU a chunk, services", "us", median_of("streams/tutti/cpu_us_per_chunk"), at_most=70),
        Budget("planner, CPU a queued job", "us", median_of("queue/tutti_in_process/cpu_us_per_job.planner"), at_most=280),
        Budget("largest service, resident", "MB", median_of("all/tutti/largest_resident_mb"), at_most=120),
    ),
    (
        click.Option(["--scenario", "chosen"], multiple=True, help="Only these, for example rest_64, queue, first_token, streams."),
        click.Option(["--only-bare"], is_flag=True, help="The baseline alone."),
    ),
    repeats=5,
    strict=False,
    tables=(
        Table(
            _of_system,
            (
                *("per_second", "p50_ms", "p99_ms", "first_token_p50_ms", "cpu_us_per_job", "cpu_us_per_chunk"),
                *("per_second_to_bare", "p50_ms_to_bare", "per_second_to_bare_node", "p50_ms_to_bare_node"),
            ),
        ),
        Table(_of_service),
    ),
    derived=derived,
)
