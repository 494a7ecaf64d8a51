"""Beside what it is, and how: see the package's card. What cannot run here is left out, and said."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from statistics import median

import click

from infra.lab.bench import machine
from infra.lab.bench.figures import MS, Figures, by_figure, percentile
from infra.lab.bench.load import call_in_loop
from infra.lab.bench.pass_through import PAUSE_SECONDS
from infra.lab.bench.runner import Bench, Lab, Unmeasured
from infra.lab.bench.systems import IN_PROCESS, START_SECONDS, System, Systems, bare_body, chat_body, only, systems
from infra.lab.versus import stores
from infra.native import ports
from infra.native.errors import NativeError, StartFailed
from infra.native.paths import StackHome
from infra.native.processes import Daemon, started, tail
from infra.native.waiting import wait_until
from shared.clock import SystemClock

FULL, QUICK = {1: 200, 64: 3_000}, {1: 20, 64: 320}
"""In flight → calls of one run."""
WARM_CALLS = 40
NAMES = {
    "bare": "bare pass-through over Kafka, keeps nothing",
    "tutti": "**tutti**, five processes over Kafka",
    "dbos": "DBOS 3.4 on Postgres, within the serving process",
    "saq": "SAQ 0.26 on Redis, one worker",
}
_CLOCK = SystemClock()


def _app(home: StackHome, python: Path, name: str, *arguments: str) -> AbstractContextManager[Daemon]:
    script, part = Path(__file__).parent / f"{name}_app.py", f"{name}-{arguments[0]}"
    return started(Daemon(part, (str(python), str(script), *arguments), home.pid_file(part), home.log(part), dies_with_parent=True))


@contextmanager
def _dbos(home: StackHome, python: Path) -> Iterator[System]:
    [port] = ports.free_ports(1)
    with stores.postgres(home) as (url, server), _app(home, python, "dbos", str(port), url) as app:
        yield _system("dbos", port, {"front": app, "postgres": server})


@contextmanager
def _saq(home: StackHome, python: Path) -> Iterator[System]:
    [port] = ports.free_ports(1)
    with (
        stores.redis(home) as server,
        _app(home, python, "saq", "worker", server.url) as worker,
        _app(home, python, "saq", "front", str(port), server.url) as app,
    ):
        yield _system("saq", port, {"front": app, "worker": worker, "redis": server.daemon})


ALTERNATIVES: Mapping[str, Callable[[StackHome, Path], AbstractContextManager[System]]] = {"dbos": _dbos, "saq": _saq}


def _system(name: str, port: int, daemons: Mapping[str, Daemon]) -> System:
    if not wait_until(lambda: not ports.is_free(port), START_SECONDS):
        raise StartFailed(f"{name}:\n" + "\n".join(tail(daemon.log) for daemon in daemons.values()))
    pids = {part: daemon.pid() or 0 for part, daemon in daemons.items()}
    return System(name, f"http://127.0.0.1:{port}/", pids, [bare_body(number, None) for number in range(20)])


@contextmanager
def _others(lab: Lab) -> Iterator[dict[str, System]]:
    """Those that run here; of the others it is said why not."""
    python = stores.environment()
    with ExitStack() as stack:
        found: dict[str, System] = {}
        for name, start in ALTERNATIVES.items():
            try:
                found[name] = stack.enter_context(start(StackHome(lab.home.root / name), python))
            except NativeError as error:
                click.echo(f"{name} is left out: {error}", err=True)
            else:
                stack.callback(machine.pause, found[name].pids.values(), paused=False)
        yield found


def measure(lab: Lab, repeat: int) -> Figures:
    """Tutti beside durable alternatives."""
    others, running, found = lab.kept(_others, lab), lab.kept(systems, lab), dict[str, float]()
    every = {**{system.name: system for system in running.started}, **others}
    for in_flight, count in (QUICK if lab.quick else FULL).items():
        for name in every if repeat % 2 == 0 else reversed(every):
            lab.run(only(every[name], tuple(every.values())))
            shown = lab.run(_calls(every[name], running, in_flight, count))
            found |= {f"{name}.{in_flight}.{key}": value for key, value in shown.items()}
    return found


async def _calls(system: System, running: Systems, in_flight: int, count: int) -> Figures:
    bodies = [chat_body(number, IN_PROCESS) if system is running.tutti else bare_body(number, None) for number in range(count)]
    await call_in_loop(system.url, bodies[:WARM_CALLS], in_flight, _CLOCK)
    await _CLOCK.sleep(PAUSE_SECONDS)
    shared = running.pids if system in running.started else {}
    used = machine.cpu_since(machine.with_children({**shared, **system.pids}))
    burst = await call_in_loop(system.url, bodies, in_flight, _CLOCK)
    if burst.count != count:
        raise Unmeasured(f"{system.name}: {burst.count} of {count} answers")
    return {
        "p50_ms": percentile(burst.latencies, 0.5) * MS,
        "p99_ms": percentile(burst.latencies, 0.99) * MS,
        "per_second": burst.per_second,
        "cpu_ms_per_job": sum(used().values()) / burst.count * MS,
    }


def table(runs: Sequence[Figures]) -> Iterator[str]:
    """For the README, in Markdown: medians."""
    yield "| system | one at a time, p50 | CPU a job | 64 in flight | p99 | CPU a job |"
    yield "|---|---|---|---|---|---|"
    found = {name: median(values) for name, values in by_figure(runs).items()}
    for name, said in NAMES.items():
        if f"{name}.1.p50_ms" in found:
            one, many = (
                {key: found[f"{name}.{count}.{key}"] for key in ("p50_ms", "p99_ms", "per_second", "cpu_ms_per_job")} for count in FULL
            )
            yield (
                f"| {said} | {one['p50_ms']:.1f} ms | {one['cpu_ms_per_job']:.1f} ms "
                f"| {many['per_second']:.0f}/s | {many['p99_ms']:.0f} ms | {many['cpu_ms_per_job']:.1f} ms |"
            )


BENCH = Bench(measure, "every answer is simulated, no model", also=table)
