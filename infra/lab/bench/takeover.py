"""`python -m infra.lab.bench.takeover`: 20 jobs of 2 s, 5 at once, and a SIGKILL 5 s after the first: when does the last one end?

    restarted    the only worker (5 slots) is killed and started again at once
    gone         of two workers (3 and 2 slots) the smaller one is killed for good: the other has to take its running steps over
    planner      of two planners one is killed for good

Without a kill the last job ends after 8 s. Services as processes on a real Kafka; the node is simulated (no model). Each way on a cluster
of its own; medians of repeats. Exit code 1 when a job was lost or the budget is missed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import click
import uvloop

from infra.lab.bench import machine
from infra.lab.bench.arrivals import Jobs, connected
from infra.lab.bench.figures import Budget, Figures, Spreads, median_of, most_of
from infra.lab.bench.local import local_cluster, started_broker
from infra.lab.bench.outcome import Outcome, bench_options
from infra.native.cluster import LocalCluster
from infra.native.errors import NativeError
from shared.clock import SystemClock
from shared.contracts.base import PriorityClass

JOBS = 20
JOB_SECONDS = 2.0
KILL_SECONDS = 5.0
LONGEST_SECONDS = 60.0
TOKENS = 5
MODEL = "steady"
_CLOCK = SystemClock()


@dataclass(frozen=True, slots=True)
class Way:
    """Who is killed, whether it is started again, and the cluster: slots of each node's worker, copies of services."""

    killed: str
    at_most: float
    """Budget of the last end, seconds."""
    slots: Sequence[int] = (5,)
    copies: Mapping[str, int] = field(default_factory=dict)
    restarted: bool = False


WAYS: Mapping[str, Way] = {
    "restarted": Way("worker-1", at_most=13.0, restarted=True),
    "gone": Way("worker-2", at_most=20.0, slots=(3, 2)),
    "planner": Way("planner", at_most=12.0, copies={"planner": 2}),
}
BUDGETS: tuple[Budget[Spreads], ...] = (
    *(Budget(f"last end, {name}", "s", median_of(f"{name}.last_end_seconds"), at_most=way.at_most) for name, way in WAYS.items()),
    *(Budget(f"jobs lost in any run, {name}", "jobs", most_of(f"{name}.lost"), at_most=0.0) for name in WAYS),
)


def node() -> tuple[str, ...]:
    """Options of every simulated node: JOB_SECONDS a call, as many calls at once as its worker has slots."""
    model = {"name": MODEL, "bytes_per_context_token": 0, "decode_tokens_per_second": TOKENS / JOB_SECONDS}
    values = {"num_parallel": 8, "decode_sharing": 0, "jitter": 0, "answer_tokens": [TOKENS, TOKENS], "models": [model]}
    return ("--profile", "instant", *chain.from_iterable(("--set", f"{name}={json.dumps(value)}") for name, value in values.items()))


def jobs() -> Jobs:
    """JOBS equal ones."""
    names = [f"standard:default:{number}" for number in range(JOBS)]
    body = {"model": MODEL, "options": {"max_tokens": TOKENS}}
    return [(PriorityClass.STANDARD, name, json.dumps({**body, "id": name, "prompt": name}).encode()) for name in names]


async def measure(cluster: LocalCluster, way: Way) -> Figures:
    """Queue all, kill, wait for all. Raises LoadFailed: a job that failed."""
    killed = cluster.services[way.killed]
    async with connected(cluster, _CLOCK) as traffic:
        await traffic.send(jobs())
        await traffic.listen(KILL_SECONDS - traffic.seconds)
        before = traffic.ended("standard")
        killed.daemon.kill()
        if way.restarted:
            await asyncio.to_thread(killed.start)
        await traffic.until(lambda: traffic.ended("standard") >= JOBS, LONGEST_SECONDS)
        ended = traffic.ended("standard")
        return {
            "last_end_seconds": max(traffic.latencies("standard"), default=0.0) if ended == JOBS else LONGEST_SECONDS,
            "ended_before": float(before),
            "lost": float(JOBS - ended),
        }


def _run(servers: str, chosen: Sequence[str]) -> Figures:
    """Each way once; figures carry its name."""
    found: dict[str, float] = {}
    for name in chosen:
        way = WAYS[name]
        nodes = [{"TUTTI_WORKER__SLOTS": str(slots)} for slots in way.slots]
        with local_cluster("takeover", servers, nodes=nodes, simulator=node(), copies=way.copies) as cluster:
            figures = uvloop.run(measure(cluster, way))
        click.echo(f"  {name}: " + ", ".join(f"{key} {value:.4g}" for key, value in figures.items()), err=True)
        found |= {f"{name}.{key}": value for key, value in figures.items()}
    return found


@click.command(context_settings={"show_default": True})
@click.option("--way", "chosen", type=click.Choice(list(WAYS)), multiple=True, help="Only these.")
@bench_options("Of each way.")
def main(*, chosen: tuple[str, ...], repeats: int, servers: str | None, json_file: Path | None) -> None:
    """When the last of 20 jobs ends, after a kill."""
    facts = machine.facts()
    try:
        with started_broker(servers) as kafka:
            runs = [_run(kafka, chosen or tuple(WAYS)) for _ in range(repeats)]
    except NativeError as error:
        raise click.ClickException(str(error)) from error
    options = {
        "jobs": JOBS,
        "job_seconds": JOB_SECONDS,
        "kill_after_seconds": KILL_SECONDS,
        "ways": list(chosen or WAYS),
        "repeats": repeats,
    }
    Outcome("takeover", "the nodes are simulated, no model", facts, options, runs, BUDGETS).end(json_file)


if __name__ == "__main__":
    main()
