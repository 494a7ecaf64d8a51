"""What a saturated cluster does with classes and tenants.

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

Each scenario on a cluster of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Any

import click

from infra.lab.bench.arrivals import Traffic, connected, jain, jobs, steady
from infra.lab.bench.figures import MS, Budget, Figures, median_of, percentile
from infra.lab.bench.runner import Bench, Lab, option, under
from infra.native.cluster import LocalCluster
from shared.clock import SystemClock
from shared.contracts.base import PriorityClass

INTERACTIVE, STANDARD, BATCH = PriorityClass
SLOTS, MANY_SLOTS = 4, 64
TENANTS = 10
BACKLOG = 20_000
UNIT_SLOTS = 30
"""Jobs of the smallest tenant, for each slot."""
FEW = 40
WARM_UP = 20
SETTLING, ALONE, BESIDE, STARVED, BURST, LONGEST = 60, 200, 600, 900, 400, 2_400
"""Lengths in slot times: 200 of 50 ms are 10 s."""
_CLOCK = SystemClock()


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
        "idle_p50_ms": percentile(idle, 0.5) * MS,
        "interactive_per_second": interactive,
        "beyond_slot_p50_ms": percentile(beyond, 0.5) * MS,
        "beyond_slot_p99_ms": percentile(beyond, 0.99) * MS,
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


async def _run(cluster: LocalCluster, scenario: Scenario, *sizes: Any) -> Figures:
    async with connected(cluster, _CLOCK) as traffic:
        return await scenario(Stage(traffic, *sizes))


def measure(lab: Lab, repeat: int, *, size: int, size_bytes: int, slot_ms: float, chosen: tuple[str, ...], seed: int) -> Figures:
    """Classes and tenants on a saturated cluster."""
    found: dict[str, float] = {}
    for name in chosen or SCENARIOS:
        scenario, slots = SCENARIOS[name]
        slot_seconds = slot_ms / MS
        options = {"simulator": steady(slot_seconds, slots), "environment": {"TUTTI_WORKER__SLOTS": str(slots)}}
        with lab.cluster("priority", **options) as cluster:
            figures = lab.run(_run(cluster, scenario, slot_seconds, size, Random(seed + repeat), size_bytes))
        found |= under(name, figures)
    return found


BENCH = Bench(
    measure,
    "the node is simulated, no model",
    (
        Budget("interactive beyond one slot time, p99", "ms", median_of("wait.beyond_slot_p99_ms"), at_most=60.0),
        Budget("first job behind another tenant's backlog", "s", median_of("hidden.first_seconds"), at_most=2.0),
        Budget("Jain over ten tenants' whole backlog", "", median_of("backlog.jain"), at_least=0.95),
    ),
    (
        click.Option(
            ["--jobs", "size"], type=click.IntRange(500), default=100_000, help="Queued batch jobs (wait), the large tenant's (hidden)."
        ),
        click.Option(
            ["--bytes", "size_bytes"], type=click.IntRange(0, 200_000), default=0, help="More than a few words, of each (hidden)."
        ),
        option("slot-ms", 50.0, "What the simulated node takes for a call.", type=click.FloatRange(10)),
        click.Option(["--scenario", "chosen"], type=click.Choice(list(SCENARIOS)), multiple=True, help="Only these."),
        option("seed", 1, "Of arrivals; the next run's is one higher."),
    ),
    quick={"size": 500, "slot_ms": 10.0, "chosen": ("hidden",)},
    strict=False,
)
