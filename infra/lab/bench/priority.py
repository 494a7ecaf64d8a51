"""`python -m infra.lab.bench.priority --jobs N`: what a saturated cluster does with classes and tenants.

Services as processes on a real Kafka; one simulated node (no model: said in every report) of 4 slots (`backlog`: 64) that takes
`--slot-ms` a call. On a machine that is busy with other things a longer slot keeps the node, not the processors, the narrowest place.

    wait        N batch jobs are queued; interactive jobs arrive at a tenth of the capacity. Their wait beyond the time of one slot, and
                what batch loses meanwhile.
    tenants     ten tenants queue 1:2:...:10 times as many jobs, in a random order. Jain's index of what each gets (1: equal) from the first
                that is sent until the smallest has a fifth of its jobs left: so long all of them wait. No keys: five of six records are
                sent on by the planner that reads them.
    backlog     the same with 20,000 jobs and 64 slots: more than a planner reads ahead, so that turns must reach the whole backlog.
    hidden      one tenant has N jobs of `--bytes` more than a few words queued, then another queues a few: how long these take, and their
                tenant's part of the capacity.
    starvation  interactive jobs arrive twice as fast as they can be served, for good. What batch still gets.

Each scenario on a cluster of its own, on one broker; medians of repeats; JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from random import Random
from typing import Any

import click
import uvloop

from infra.lab.bench import machine
from infra.lab.bench.arrivals import Jobs, Traffic, connected, jain
from infra.lab.bench.figures import Budget, Figures, Spreads, median_of, percentile
from infra.lab.bench.local import local_cluster, started_broker
from infra.lab.bench.outcome import Outcome, bench_options
from infra.native.cluster import LocalCluster
from infra.native.errors import NativeError
from shared.clock import SystemClock
from shared.contracts.base import PriorityClass

INTERACTIVE, STANDARD, BATCH = PriorityClass
SLOTS, MANY_SLOTS = 4, 64
TOKENS = 5
MODEL = "steady"
BUDGETS: tuple[Budget[Spreads], ...] = (
    Budget("interactive beyond one slot time, p99", "ms", median_of("wait.beyond_slot_p99_ms"), at_most=60.0),
    Budget("first job behind another tenant's backlog", "s", median_of("hidden.first_seconds"), at_most=2.0),
    Budget("Jain over ten tenants' whole backlog", "", median_of("backlog.jain"), at_least=0.95),
)
TENANTS = 10
BACKLOG = 20_000
UNIT_SLOTS = 30
"""Jobs of the smallest tenant, for each slot."""
FEW = 40
WARM_UP = 20
SETTLING, ALONE, BESIDE, STARVED, BURST, LONGEST = 60, 200, 600, 900, 400, 2_400
"""Lengths in slot times: 200 of 50 ms are 10 s."""
_CLOCK = SystemClock()
_MS = 1_000.0


@dataclass(frozen=True, slots=True)
class Stage:
    """One scenario's means: traffic, the time of a slot, how many jobs make a long queue and how large each is, chance."""

    traffic: Traffic
    slot_seconds: float
    size: int
    random: Random
    size_bytes: int = 0

    @property
    def capacity(self) -> float:
        """Jobs a second of SLOTS."""
        return SLOTS / self.slot_seconds

    def slots(self, count: int) -> float:
        """So many slot times, in seconds."""
        return count * self.slot_seconds

    async def until(self, prefix: str, count: float) -> bool:
        """Wait for so many results."""
        return await self.traffic.until(lambda: self.traffic.ended(prefix) >= count, self.slots(LONGEST))

    async def saturated(self, prefix: str) -> None:
        """Until these jobs have filled everything that they can fill."""
        await self.until(prefix, SLOTS * 10)
        await self.traffic.listen(self.slots(SETTLING))


def node(slot_seconds: float, slots: int) -> tuple[str, ...]:
    """Options of the simulated node."""
    model = {"name": MODEL, "bytes_per_context_token": 0, "decode_tokens_per_second": TOKENS / slot_seconds}
    values = {"num_parallel": slots, "decode_sharing": 0, "jitter": 0, "answer_tokens": [TOKENS, TOKENS], "models": [model]}
    return ("--profile", "instant", *chain.from_iterable(("--set", f"{name}={json.dumps(value)}") for name, value in values.items()))


def jobs(count: int, priority_class: PriorityClass, tenant: str = "default", size_bytes: int = 0) -> Jobs:
    """So many equal jobs, with ids that tell class, tenant and number, whose prompts have so many bytes more than their ids."""
    names = (f"{priority_class.value}:{tenant}:{number}" for number in range(count))
    more = " much" * (size_bytes // 5)
    return [(priority_class, name, _body(name, tenant, more)) for name in names]


def _body(name: str, tenant: str, more: str) -> bytes:
    body = {"id": name, "tenant": tenant, "prompt": name + more, "model": MODEL, "options": {"max_tokens": TOKENS}}
    return json.dumps(body).encode()


async def wait(stage: Stage) -> Figures:
    """Interactive beside a long batch queue."""
    traffic, rate = stage.traffic, stage.capacity / 10
    urgent = jobs(WARM_UP + int(stage.slots(BESIDE) * rate), INTERACTIVE)
    await traffic.send_paced(urgent[:WARM_UP], rate, stage.random)
    await stage.until("interactive", WARM_UP)
    idle = traffic.latencies("interactive")
    await traffic.send(jobs(stage.size, BATCH))
    await stage.saturated("batch")
    alone = await traffic.rate("batch", stage.slots(ALONE))
    began, before = _CLOCK.monotonic(), traffic.ended("batch")
    await traffic.send_paced(urgent[WARM_UP:], rate, stage.random)
    seconds = _CLOCK.monotonic() - began
    beside, interactive = (traffic.ended("batch") - before) / seconds, (len(urgent) - WARM_UP) / seconds
    await stage.until("interactive", len(urgent))
    beyond = [latency - 2 * stage.slot_seconds for latency in traffic.latencies("interactive")[WARM_UP:]]
    return {
        "idle_p50_ms": percentile(idle, 0.5) * _MS,
        "interactive_per_second": interactive,
        "beyond_slot_p50_ms": percentile(beyond, 0.5) * _MS,
        "beyond_slot_p99_ms": percentile(beyond, 0.99) * _MS,
        "batch_alone_per_second": alone,
        "batch_beside_per_second": beside,
        "capacity_lost": 1.0 - (beside + interactive) / alone,
    }


async def tenants(stage: Stage) -> Figures:
    """Ten tenants of very different appetite."""
    return await _turns(stage, UNIT_SLOTS * SLOTS)


async def backlog(stage: Stage) -> Figures:
    """The same, of BACKLOG jobs."""
    return await _turns(stage, BACKLOG // sum(range(1, TENANTS + 1)))


async def _turns(stage: Stage, unit: int) -> Figures:
    """What each gets; `unit`: jobs of the smallest."""
    traffic = stage.traffic
    queue = [job for number in range(1, TENANTS + 1) for job in jobs(number * unit, STANDARD, f"tenant-{number}")]
    stage.random.shuffle(queue)
    names = [f"standard:tenant-{number}" for number in range(1, TENANTS + 1)]
    await traffic.send(queue)
    # All of them wait all the time: with equal shares the next has more than half left then. Whoever ran out would make it unequal.
    await stage.until(names[0], unit * 4 // 5)
    got = [float(traffic.ended(name)) for name in names]
    return {
        "jain": jain(got),
        "jain_of_the_load": jain([float(number) for number in range(1, TENANTS + 1)]),
        "smallest_share": got[0] / sum(got),
        "largest_share": got[-1] / sum(got),
        "per_second": sum(got) / traffic.seconds,
    }


async def hidden(stage: Stage) -> Figures:
    """A few jobs behind another tenant's many."""
    traffic = stage.traffic
    await traffic.send(jobs(stage.size, STANDARD, "large", stage.size_bytes))
    await stage.saturated("standard:large")
    began, before = _CLOCK.monotonic(), traffic.ended("standard:large")
    await traffic.send(jobs(FEW, STANDARD, "small"))
    await stage.until("standard:small", FEW)
    seconds = _CLOCK.monotonic() - began
    small, large = traffic.ended("standard:small"), traffic.ended("standard:large") - before
    return {
        "first_seconds": min(traffic.latencies("standard:small"), default=seconds),
        "all_seconds": seconds,
        "ended": float(small),
        "share_while_waiting": small / max(1, small + large),
    }


async def starvation(stage: Stage) -> Figures:
    """More interactive jobs than can be served, for good."""
    traffic, length = stage.traffic, stage.slots(STARVED)
    await traffic.send(jobs(SLOTS * STARVED, BATCH))
    flood = jobs(int(2 * stage.capacity * length), INTERACTIVE)
    began = _CLOCK.monotonic()
    await traffic.send_paced(flood, 2 * stage.capacity, stage.random)
    ends = {name: [at - began for at in traffic.end_times(name)] for name in ("batch", "interactive")}
    late = {name: sum(at >= stage.slots(BURST) for at in found) for name, found in ends.items()}
    gaps = [later - earlier for earlier, later in pairwise([0.0, *ends["batch"], length])]
    return {
        "batch_ended": float(len(ends["batch"])),
        "batch_share_after_burst": late["batch"] / max(1, sum(late.values())),
        "longest_gap_seconds": max(gaps),
        "per_second": sum(late.values()) / (length - stage.slots(BURST)),
    }


Scenario = Callable[[Stage], Coroutine[Any, Any, Figures]]
SCENARIOS: Mapping[str, tuple[Scenario, int]] = {
    "wait": (wait, SLOTS),
    "tenants": (tenants, SLOTS),
    "backlog": (backlog, MANY_SLOTS),
    "hidden": (hidden, SLOTS),
    "starvation": (starvation, SLOTS),
}
"""What is done, and slots of the node."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The options of a run."""

    chosen: tuple[str, ...]
    slot_seconds: float
    size: int
    size_bytes: int

    def run(self, servers: str, seed: int) -> Figures:
        """Each scenario once; figures carry its name."""
        found: dict[str, float] = {}
        for name in self.chosen:
            scenario, slots = SCENARIOS[name]
            environment, simulator = {"TUTTI_WORKER__SLOTS": str(slots)}, node(self.slot_seconds, slots)
            with local_cluster("priority", servers, simulator=simulator, environment=environment) as cluster:
                figures = uvloop.run(self._measure(cluster, scenario, seed))
            click.echo(f"  {name}: " + ", ".join(f"{key} {value:.4g}" for key, value in figures.items()), err=True)
            found |= {f"{name}.{key}": value for key, value in figures.items()}
        return found

    async def _measure(self, cluster: LocalCluster, scenario: Scenario, seed: int) -> Figures:
        async with connected(cluster, _CLOCK) as traffic:
            return await scenario(Stage(traffic, self.slot_seconds, self.size, Random(seed), self.size_bytes))


@click.command(context_settings={"show_default": True})
@click.option(
    "--jobs", "size", type=click.IntRange(500), default=100_000, help="Queued batch jobs (wait), jobs of the large tenant (hidden)."
)
@click.option("--bytes", "size_bytes", type=click.IntRange(0, 200_000), default=0, help="More than a few words, of each of these (hidden).")
@click.option("--slot-ms", type=click.FloatRange(10), default=50.0, help="What the simulated node takes for a call.")
@click.option("--scenario", "chosen", type=click.Choice(list(SCENARIOS)), multiple=True, help="Only these.")
@click.option("--seed", default=1, help="Of arrivals; the next repeat's is one higher.")
@click.option("--strict", is_flag=True, help="A missed budget is a failure.")
@bench_options("Of each scenario.")
def main(
    *,
    size: int,
    size_bytes: int,
    slot_ms: float,
    chosen: tuple[str, ...],
    seed: int,
    strict: bool,
    repeats: int,
    servers: str | None,
    json_file: Path | None,
) -> None:
    """Classes and tenants on a saturated cluster."""
    facts, wanted = machine.facts(), Wanted(chosen or tuple(SCENARIOS), slot_ms / _MS, size, size_bytes)
    try:
        with started_broker(servers) as kafka:
            runs = [wanted.run(kafka, seed + repeat) for repeat in range(repeats)]
    except NativeError as error:
        raise click.ClickException(str(error)) from error
    options = {"jobs": size, "bytes": size_bytes, "slot_ms": slot_ms, "scenarios": list(wanted.chosen), "seed": seed, "repeats": repeats}
    Outcome("priority", "the node is simulated, no model", facts, options, runs, BUDGETS).end(json_file, strict=strict)


if __name__ == "__main__":
    main()
