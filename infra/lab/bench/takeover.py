"""20 jobs of 2 s, 5 at once, and a SIGKILL 5 s after the first: when does the last one end?

    restarted    the only worker (5 slots) is killed and started again at once
    gone         of two workers (3 and 2 slots) the smaller one is killed for good: the other has to take its running steps over
    planner      of two planners one is killed for good

Without a kill the last job ends after 8 s. Services as processes on a real Kafka; the node is simulated (no model). Each way on a cluster
of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import click

from infra.lab.bench.arrivals import connected, jobs, steady
from infra.lab.bench.figures import Budget, Figures, median_of, most_of
from infra.lab.bench.runner import Bench, Lab, under
from infra.native.cluster import LocalCluster
from shared.clock import SystemClock
from shared.contracts.base import PriorityClass

JOBS = 20
JOB_SECONDS = 2.0
KILL_SECONDS = 5.0
LONGEST_SECONDS = 60.0
SLOTS = 8
"""Of every node: more than its worker has."""
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


async def _run(cluster: LocalCluster, way: Way) -> Figures:
    """Queue all, kill, wait for all. Raises Unmeasured: a job that failed."""
    killed = cluster.services[way.killed]
    async with connected(cluster, _CLOCK) as traffic:
        await traffic.send(jobs(JOBS, PriorityClass.STANDARD))
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


def measure(lab: Lab, repeat: int, *, chosen: tuple[str, ...]) -> Figures:
    """When the last of 20 jobs ends, after a kill."""
    found: dict[str, float] = {}
    for name in chosen or WAYS:
        way = WAYS[name]
        nodes = [{"TUTTI_WORKER__SLOTS": str(slots)} for slots in way.slots]
        with lab.cluster("takeover", nodes=nodes, simulator=steady(JOB_SECONDS, SLOTS), copies=way.copies) as cluster:
            figures = lab.run(_run(cluster, way))
        found |= under(name, figures)
    return found


BENCH = Bench(
    measure,
    "the nodes are simulated, no model",
    (
        *(Budget(f"last end, {name}", "s", median_of(f"{name}.last_end_seconds"), at_most=way.at_most) for name, way in WAYS.items()),
        *(Budget(f"jobs lost in any run, {name}", "jobs", most_of(f"{name}.lost"), at_most=0.0) for name in WAYS),
    ),
    (click.Option(["--way", "chosen"], type=click.Choice(list(WAYS)), multiple=True, help="Only these."),),
    quick={"chosen": ("restarted",)},
)
