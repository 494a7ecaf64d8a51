"""`python -m infra.lab.versus`: see the package's card. Prints a table in Markdown. What cannot run here is left out, and said."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import click
import uvloop

from infra.lab.bench import machine
from infra.lab.bench.cluster import IN_PROCESS, Bench, DidNotStart, System, running
from infra.lab.bench.figures import Figures, median_of, percentile, spreads
from infra.lab.bench.load import LoadFailed, QueueTarget, call_in_loop
from infra.lab.bench.outcome import Outcome, bench_options
from infra.lab.bench.processes import CpuMark, continue_processes
from infra.lab.bench.scenarios import PAUSE_SECONDS, bare_body, chat_body, warm_up
from infra.lab.versus import stores
from infra.native import ports
from infra.native.errors import NativeError
from infra.native.paths import StackHome
from infra.native.processes import Daemon, tail
from infra.native.waiting import wait_until
from shared.clock import SystemClock

FULL, QUICK = {1: 200, 64: 3_000}, {1: 20, 64: 320}
"""In flight → calls of one run."""
WARM_CALLS = 40
START_SECONDS = 60.0
STOP_SECONDS = 5.0
NAMES = {
    "bare": "bare pass-through over Kafka, keeps nothing",
    "tutti": "**tutti**, five processes over Kafka",
    "dbos": "DBOS 3.4 on Postgres, within the serving process",
    "saq": "SAQ 0.26 on Redis, one worker",
}
_CLOCK = SystemClock()
_MS = 1_000.0


@contextmanager
def _app(home: StackHome, python: Path, name: str, *arguments: str) -> Iterator[Daemon]:
    script = Path(__file__).parent / f"{name}_app.py"
    part = f"{name}-{arguments[0]}"
    daemon = Daemon(part, (str(python), str(script), *arguments), home.pid_file(part), home.log(part), dies_with_parent=True)
    daemon.start()
    try:
        yield daemon
    finally:
        continue_processes([daemon.pid() or 0])
        daemon.stop(STOP_SECONDS)


@contextmanager
def _dbos(home: StackHome, python: Path) -> Iterator[System]:
    (port,) = ports.free_ports(1)
    with stores.postgres(home) as (url, server), _app(home, python, "dbos", str(port), url) as app:
        yield _system("dbos", port, {"front": app, "postgres": server})


@contextmanager
def _saq(home: StackHome, python: Path) -> Iterator[System]:
    (port,) = ports.free_ports(1)
    with (
        stores.redis(home) as server,
        _app(home, python, "saq", "worker", server.url) as worker,
        _app(home, python, "saq", "front", str(port), server.url) as app,
    ):
        yield _system("saq", port, {"front": app, "worker": worker, "redis": server.daemon})


ALTERNATIVES: Mapping[str, Callable[[StackHome, Path], AbstractContextManager[System]]] = {"dbos": _dbos, "saq": _saq}


def _system(name: str, port: int, daemons: Mapping[str, Daemon]) -> System:
    if not wait_until(lambda: not ports.is_free(port), START_SECONDS):
        raise DidNotStart(f"{name}:\n" + "\n".join(tail(daemon.log) for daemon in daemons.values()))
    pids = {part: daemon.pid() or 0 for part, daemon in daemons.items()}
    return System(name, f"http://127.0.0.1:{port}/", QueueTarget("", "", 0, bool), pids)


def _family(pids: Mapping[str, int]) -> dict[str, int]:
    """With the children of each: Postgres serves each connection by a process."""
    parents = {int(entry.name): _parent(entry) for entry in Path("/proc").iterdir() if entry.name.isdigit()}
    children = {f"{name}-{pid}": pid for name, parent in pids.items() for pid, of in parents.items() if of == parent}
    return {**pids, **children}


def _parent(entry: Path) -> int:
    try:
        return int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


async def _measure(bench: Bench, others: Mapping[str, System], calls: Mapping[int, int], repeats: int) -> list[Figures]:
    """One entry a repeat: `<system>.<in flight>.<figure>`. Who is first alternates."""
    assert bench.tutti is not None
    await warm_up(bench, _CLOCK)
    systems = {"bare": bench.bare, "tutti": bench.tutti, **others}
    runs: list[Figures] = []
    for repeat in range(repeats):
        found: dict[str, float] = {}
        for in_flight, count in calls.items():
            for name in systems if repeat % 2 == 0 else reversed(systems):
                for other in systems.values():
                    if other is not systems[name]:
                        other.pause()
                systems[name].resume()
                shared = bench.pids if name in ("bare", "tutti") else {}
                found |= {
                    f"{name}.{in_flight}.{key}": value for key, value in (await _run(name, systems[name], shared, in_flight, count)).items()
                }
        click.echo(f"  #{repeat + 1}: " + ", ".join(f"{key} {value:.4g}" for key, value in found.items() if "p50" in key), err=True)
        runs.append(found)
    return runs


async def _run(name: str, system: System, shared: Mapping[str, int], in_flight: int, count: int) -> Figures:
    bodies = [chat_body(number, IN_PROCESS) if name == "tutti" else bare_body(number, None) for number in range(count)]
    await call_in_loop(system.url, bodies[:WARM_CALLS], in_flight, _CLOCK)
    await _CLOCK.sleep(PAUSE_SECONDS)
    pids = _family({**shared, **system.pids})
    before = CpuMark.now(pids)
    burst = await call_in_loop(system.url, bodies, in_flight, _CLOCK)
    cpu = sum(CpuMark.now(pids).since(before).values())
    return {
        "p50_ms": percentile(burst.latencies, 0.5) * _MS,
        "p99_ms": percentile(burst.latencies, 0.99) * _MS,
        "per_second": burst.per_second,
        "cpu_ms_per_job": cpu / burst.count * _MS,
    }


@contextmanager
def _others(directory: Path) -> Iterator[dict[str, System]]:
    """Those that run here; of the others it is said why not."""
    python = stores.environment()
    with ExitStack() as stack:
        found: dict[str, System] = {}
        for name, start in ALTERNATIVES.items():
            try:
                found[name] = stack.enter_context(start(StackHome(directory / name), python))
            except (NativeError, DidNotStart) as error:
                click.echo(f"{name} is left out: {error}", err=True)
        yield found


def table(runs: list[Figures]) -> Iterator[str]:
    """For the README: medians."""
    yield "| system | one at a time, p50 | CPU a job | 64 in flight | p99 | CPU a job |"
    yield "|---|---|---|---|---|---|"
    found = spreads(runs)
    for name, said in NAMES.items():
        if f"{name}.1.p50_ms" in found:
            one, many = ({key: median_of(f"{name}.{count}.{key}")(found) or 0.0 for key in _SHOWN} for count in (1, 64))
            yield (
                f"| {said} | {one['p50_ms']:.1f} ms | {one['cpu_ms_per_job']:.1f} ms "
                f"| {many['per_second']:.0f}/s | {many['p99_ms']:.0f} ms | {many['cpu_ms_per_job']:.1f} ms |"
            )


_SHOWN = ("p50_ms", "p99_ms", "per_second", "cpu_ms_per_job")


@click.command(context_settings={"show_default": True})
@click.option("--quick", is_flag=True, help="Small counts: does it run.")
@bench_options("Of everything.")
def main(*, quick: bool, repeats: int, servers: str | None, json_file: Path | None) -> None:
    """Tutti beside durable alternatives."""
    facts, calls = machine.facts(), QUICK if quick else FULL
    try:
        with (
            tempfile.TemporaryDirectory(prefix="tutti-versus-") as made,
            _others(Path(made)) as others,
            running(Path(made) / "tutti", servers, only_bare=False) as bench,
        ):
            runs = uvloop.run(_measure(bench, others, calls, repeats))
    except (LoadFailed, DidNotStart, NativeError) as error:
        raise click.ClickException(str(error)) from error
    options = {"repeats": repeats, "calls": {str(in_flight): count for in_flight, count in calls.items()}}
    Outcome("versus", "every answer is simulated, no model", facts, options, runs, ()).end(json_file)
    click.echo("\n".join(["", *table(runs)]))


if __name__ == "__main__":
    main()
