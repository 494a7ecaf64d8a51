"""What a fleet of so many nodes costs each service that looks at it, and each choice among them.

The nodes are simulated: one process registers them and tells their credits once a second, as so many workers would; services and Kafka are
real. CPU is read at both ends of `--seconds` in which nothing is asked, less what it is without the fleet.
A choice is timed in this process, by the code that planners and routers use.
"""

from __future__ import annotations

import asyncio
from random import Random
from time import process_time

import click

from infra.lab.bench.figures import MS, Figures
from infra.lab.bench.machine import cpu_since, resident_bytes
from infra.lab.bench.runner import IN_PROCESS, Bench, Lab, option
from infra.native.cluster import LocalCluster
from shared.clock import Clock, SystemClock
from shared.contracts.credits import Credits
from shared.contracts.headers import envelope
from shared.contracts.node import Node, NodeModel
from shared.contracts.step import Step
from shared.kafka.client.aio import AioLog
from shared.kafka.port import Message
from shared.placement.choosing import ask_of, best
from shared.placement.demand import demand_of
from shared.placement.filters import NodeView, Unplaceable, candidates
from shared.placement.ledger import NodeCredit
from shared.placement.policies.port import Moment
from shared.tasks import ended
from shared.topics import Topics

CREDITS_SECONDS = 1.0
"""As workers tell them."""
CHOICES = 2_000
_MODELS = ("small:1b", "middle:8b", "large:70b")
_PARTY = "router-of-the-lab"


class Fleet:
    """Nodes that offer nothing and do nothing but tell so."""

    def __init__(self, count: int, topics: Topics, clock: Clock) -> None:
        self._topics, self._clock = topics, clock
        self.nodes = [node(number, clock.wall()) for number in range(count)]

    async def tell(self, servers: str, seconds: float) -> None:
        """For so long."""
        log = AioLog(servers, self._clock)
        producer = await log.producer(client_id="sizing-fleet")
        try:
            await producer.send_many([self._registered(one) for one in self.nodes])
            until, sequence = self._clock.monotonic() + seconds, 0
            while self._clock.monotonic() < until:
                begun, sequence = self._clock.monotonic(), sequence + 1
                await producer.send_many([self._credits(one, sequence) for one in self.nodes])
                await self._clock.sleep(max(0.0, begun + CREDITS_SECONDS - self._clock.monotonic()))
        finally:
            await producer.close()

    def _registered(self, one: Node) -> Message:
        return Message(self._topics.nodes, one.to_bytes(), one.id.encode(), 0, envelope("node"))

    def _credits(self, one: Node, sequence: int) -> Message:
        return Message(self._topics.credits, told(one, sequence, 0).to_bytes(), one.id.encode(), 0, envelope("credits"))


def node(number: int, at: float) -> Node:
    """One of an unequal fleet."""
    models = tuple(NodeModel(name=name, size_bytes=10**9, context_length=8_192) for name in _MODELS[: 1 + number % len(_MODELS)])
    return Node(id=f"n{number}", boot="b", mailbox=number, backend="ollama", simulated=True, slots=4, models=models, at=at)


def told(one: Node, sequence: int, places: int) -> Credits:
    """So many places."""
    resident = tuple(model.name for model in one.models[:1])
    read = {"chat": 0, "embed": 0}
    return Credits(
        node=one.id, boot=one.boot, sequence=sequence, mailbox=one.mailbox, offers={_PARTY: places}, read=read, resident=resident
    )


def choice_seconds(count: int) -> tuple[float, float]:
    """CPU of (filters and choice, the choice alone) of one step among so many nodes, half of which are full."""
    random, views = Random(count), []
    for number in range(count):
        one, account = node(number, 0.0), NodeCredit(f"n{number}")
        account.fold(told(one, 0, random.choice((0, 4))), _PARTY, 0.0)
        views.append(NodeView(one, account))
    step = Step(job="j", id="0" * 32, home=0, model=_MODELS[0])
    found, ask = candidates(demand_of(step), views), ask_of(step)
    assert not isinstance(found, Unplaceable)
    begun = process_time()
    for _ in range(CHOICES):
        best(found, ask, Moment())
    chosen = process_time()
    for _ in range(CHOICES // 10):
        candidates(demand_of(step), views)
    alone = (chosen - begun) / CHOICES
    return alone + (process_time() - chosen) / (CHOICES // 10), alone


async def _used(cluster: LocalCluster, count: int, settle: float, seconds: float) -> dict[str, float]:
    """Milliseconds of CPU a second by service, while so many nodes tell of themselves."""
    clock = SystemClock()
    telling = asyncio.create_task(Fleet(count, cluster.topics, clock).tell(cluster.servers, settle + seconds))
    await clock.sleep(settle)
    used, since = cpu_since(cluster.pids()), clock.monotonic()
    await clock.sleep(seconds)
    found, took = used(), clock.monotonic() - since
    await ended(telling)
    return {name: MS * value / took for name, value in found.items()}


def measure(lab: Lab, repeat: int, *, counts: tuple[int, ...], settle: float, seconds: float) -> Figures:
    """What a fleet costs the services that look at it."""
    found: dict[str, float] = {}
    with lab.cluster("sizing", nodes=[IN_PROCESS], counts={"work_partitions": max(counts) + 1}) as cluster:
        bare = lab.run(_used(cluster, 0, settle, seconds))
        for count in counts:
            used = lab.run(_used(cluster, count, settle, seconds))
            found |= {f"{name}, ms of CPU a second for {count} nodes": value - bare[name] for name, value in used.items()}
            found |= {f"{name}, MB with {count} nodes": resident_bytes(pid) / 1e6 for name, pid in cluster.pids().items()}
    for count in counts:
        whole, alone = choice_seconds(count)
        found[f"one choice among {count} nodes, us"] = 1e6 * alone
        found[f"one choice with its filters, us ({count} nodes)"] = 1e6 * whole
    return found


BENCH = Bench(
    measure,
    "nodes are simulated; services and Kafka are real; nothing is asked",
    options=(
        click.Option(["--nodes", "counts"], multiple=True, default=(3, 30, 300), type=click.IntRange(1, 2_000), help="Sizes of fleets."),
        option("settle", 15.0, "Seconds before each is looked at.", type=click.FloatRange(0)),
        option("seconds", 20.0, "So long it is looked at.", type=click.FloatRange(1)),
    ),
    quick={"counts": (3,), "settle": 2.0, "seconds": 2.0},
)
