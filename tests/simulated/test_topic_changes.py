"""Topics that change under running services: made anew, deleted, grown, records deleted unread, open transactions (simulated).

Nothing is skipped in silence, and no service ends for what it could go on with.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from infra.lab.virtual_loop import within
from services.planner.app import Planner
from shared.contracts.base import PriorityClass
from shared.contracts.outcome import StepRouted
from shared.errors import LogUnavailable
from shared.kafka.memory.memory import MemoryLog
from shared.kafka.memory.memory_consumer import MemoryConsumer
from shared.kafka.port import Message, MissedRecords, NewTopic, TopicPartition
from shared.processing.delays import build_delayed
from shared.processing.topic_news import TopicNews
from shared.topics import partition_of
from tests.support.planner_traces import events, settled, simulated
from tests.support.planner_world import World
from tests.support.routing import step as make_step
from tests.support.routing_cluster import Cluster
from tests.support.routing_cluster import simulated as on_cluster

with_two_homes = within(lambda: World(homes=2))
BATCH, STANDARD = PriorityClass.BATCH, PriorityClass.STANDARD


def make_anew(log: MemoryLog, name: str, partitions: int | None = None) -> None:
    """Delete a topic and create it again, at once."""
    was = log.topics[name]
    log.delete([name])
    log.create([NewTopic(name, partitions or was.partitions, 1, was.config)])


def produce(world: World, name: str, count: int, priority_class: PriorityClass = BATCH, home: int = 0) -> set[str]:
    """Jobs with ids of their own."""
    ids = [f"{name}{n}" for n in range(count)]
    for job in ids:
        world.produce(json.dumps({"prompt": job, "id": job}).encode(), home=home, priority_class=priority_class)
    return set(ids)


def produce_without_ids(world: World, count: int, priority_class: PriorityClass = BATCH, home: int = 0) -> None:
    """Jobs that stay at the home where they lie, and of which nothing is remembered."""
    for number in range(count):
        world.produce(b'{"prompt": "%d"}' % number, home=home, priority_class=priority_class)


async def done(world: World, jobs: set[str]) -> None:
    await world.until(lambda: jobs <= world.results().keys(), seconds=120.0)


def missed(planner: Planner) -> list[MissedRecords]:
    return list(planner.homes.consumer.missed)


@simulated
async def test_every_job_in_a_topic_made_anew_runs_once(world: World) -> None:
    """More than were read of the old topic, so that the old position would lie in the middle; and again after a restart."""
    world.start("p")
    old = produce(world, "old", 6)
    await done(world, old)
    make_anew(world.log, world.topics.jobs(BATCH))
    new = produce(world, "new", 20)
    other = produce(world, "other", 3, STANDARD)
    await done(world, old | new | other)
    assert world.node.runs == 29
    await asyncio.sleep(5.0)
    world.kill("p")
    world.start("q")
    later = produce(world, "later", 3)
    await done(world, later)
    await asyncio.sleep(30.0)
    assert world.node.runs == 32
    await world.check_laws(32)


@simulated
async def test_a_topic_made_anew_while_nobody_reads_is_read_from_its_beginning(world: World) -> None:
    """Also when the old position was committed by name after the new topic was there."""
    world.start("p")
    old = produce(world, "old", 6)
    await done(world, old)
    await asyncio.sleep(2.0)
    world.kill("p")
    group, partition = world.log.group("tutti-planner"), TopicPartition(world.topics.jobs(BATCH), 0)
    offset, of_topic = group.offsets[partition], group.topic_ids[partition]
    make_anew(world.log, partition.topic)
    group.offsets[partition], group.topic_ids[partition] = offset, of_topic
    new = produce(world, "new", 20)
    world.start("q")
    await done(world, new)
    await world.check_laws(26)


@simulated
async def test_who_has_not_seen_that_a_topic_was_made_anew_does_not_pass_its_jobs(world: World) -> None:
    """A planner whose consumer still knows the old id finds ended jobs of the new topic in history: it begins again until it knows better.

    Their records lie at offsets that the position, of the old topic, says nothing of.
    """
    first = world.start("p")
    produce_without_ids(world, 5)
    await world.until(lambda: world.finished() == 5)
    await asyncio.sleep(2.0)

    async def fails(_: object) -> None:
        raise LogUnavailable

    consumer: Any = first.homes.consumer
    consumer.commit = fails
    old = world.log.topic_ids[world.topics.jobs(BATCH)]
    make_anew(world.log, world.topics.jobs(BATCH))
    produce_without_ids(world, 20)
    await world.until(lambda: world.finished() == 25)
    world.kill("p")
    identity, stale = MemoryConsumer.identity, True
    with pytest.MonkeyPatch.context() as patching:
        name = world.topics.jobs(BATCH)
        patching.setattr(MemoryConsumer, "identity", lambda self, topic: old if topic == name and stale else identity(self, topic))
        late = world.start("q")
        await asyncio.sleep(20.0)
        assert not late.readiness().ready
        stale = False
        await world.until(lambda: late.readiness().ready)
        produce_without_ids(world, 5)
        await world.until(lambda: world.finished() == 30)
        await asyncio.sleep(5.0)
        assert world.node.runs == 30
        await world.check_laws(30)


@simulated
async def test_jobs_of_the_old_topic_do_not_pin_the_watermark(world: World) -> None:
    """Their records lay beyond where the new topic has come to, and can never be read again: history behind them need not be kept."""
    world.start("p")
    produce_without_ids(world, 30)
    await world.until(lambda: world.finished() == 30)
    make_anew(world.log, world.topics.jobs(BATCH))
    produce_without_ids(world, 2)
    await world.until(lambda: world.finished() == 32)
    await asyncio.sleep(5.0)
    watermark = world.log.group("tutti-planner").offsets[events(world)]
    assert world.log.existing(events(world)).end - watermark <= 3


@with_two_homes
async def test_a_class_whose_topic_is_gone_stops_no_other(world: World) -> None:
    """The others are read, run and committed, also by a planner that takes over meanwhile; the class goes on when its topic is back."""
    world.start("p")
    successor = world.start("q")
    await done(world, produce(world, "a", 3))
    name = world.topics.jobs(BATCH)
    world.log.delete([name])
    await asyncio.sleep(20.0)
    await done(world, produce(world, "b", 3, STANDARD))
    world.kill("p")
    await done(world, produce(world, "c", 3, STANDARD) | produce(world, "e", 3, STANDARD, home=1))
    await asyncio.sleep(2.0)
    assert world.log.group("tutti-planner").offsets[TopicPartition(world.topics.jobs(STANDARD), 0)] == 6
    world.log.create([NewTopic(name, 2, 1, {})])
    await done(world, produce(world, "d", 5))
    assert successor.readiness().ready
    await world.check_laws(17)


@with_two_homes
async def test_a_home_count_that_grew_ends_no_planner(world: World) -> None:
    """The old numbers are worked on as before; nobody reads the new ones (`topic_news` refuses them loudly)."""
    planner = world.start("p")
    await done(world, produce(world, "a", 3))
    world.log.add_partitions(world.topics.jobs(BATCH), 5)
    await asyncio.sleep(20.0)
    await done(world, produce(world, "b", 3) | produce(world, "c", 3, STANDARD, home=1))
    assert planner.readiness().ready
    await world.check_laws(9)


@pytest.mark.parametrize("topic", ["jobs", "outcomes"])
def test_inputs_deleted_before_a_planner_read_them_are_told(topic: str) -> None:
    """How many, of which partition; what is left runs."""

    @simulated
    async def scenario(world: World) -> None:
        world.start("p")
        await done(world, produce(world, "a", 3))
        await asyncio.sleep(2.0)
        world.kill("p")
        produce(world, "lost", 5)
        name = world.topics.jobs(BATCH) if topic == "jobs" else world.topics.outcomes
        partition = TopicPartition(name, 0)
        if topic == "outcomes":
            world.log.write(partition, [Message(name, b"{}")] * 5)
        expected, end = world.log.group("tutti-planner").offsets[partition], world.log.existing(partition).end
        world.log.existing(partition).delete_before(end)
        planner = world.start("q")
        await done(world, produce(world, "b", 3))
        assert MissedRecords(partition, expected, end) in missed(planner)

    scenario()


@simulated
async def test_steps_that_lay_in_a_topic_made_anew_are_sent_again(world: World) -> None:
    """They were asked for and nobody has them: the planner sends them as after a take-over, and each job runs once."""
    world.node.silent = 1.0
    planner = world.start("p")
    jobs = produce(world, "a", 3)
    await world.until(lambda: len(world.node.steps_seen) == 3)
    make_anew(world.log, world.topics.steps("chat", BATCH))
    world.node.silent = 0.0
    for tell in planner._env.topics_made_anew:
        tell(world.topics.steps("chat", BATCH))
    await done(world, jobs)
    assert world.node.runs == 3
    await world.check_laws(3)


@with_two_homes
async def test_an_open_transaction_holds_back_its_partition_alone_and_is_told(world: World) -> None:
    """What was rolled back never runs; what was committed runs then and not before; afterwards nothing seems to wait."""
    planner = world.start("p")
    produce_without_ids(world, 2)
    await world.until(lambda: world.finished() == 2)
    jobs = TopicPartition(world.topics.jobs(BATCH), 0)
    world.log.begin_transaction(jobs)
    behind = produce(world, "behind", 2)
    produce_without_ids(world, 2, home=1)
    produce_without_ids(world, 2, STANDARD)
    await world.until(lambda: world.finished() == 6)
    await asyncio.sleep(15.0)
    assert not behind & world.results().keys()
    assert [r for r in planner.readiness().reasons if "2 records of jobs.batch-0 wait behind an open transaction" in r]
    world.log.end_transaction(jobs, commit=False)
    await asyncio.sleep(5.0)
    assert planner.readiness().ready
    assert world.log.group("tutti-planner").offsets[jobs] == world.log.existing(jobs).end == 5
    world.log.begin_transaction(jobs)
    committed = produce(world, "committed", 2)
    await asyncio.sleep(5.0)
    assert not committed & world.results().keys()
    world.log.end_transaction(jobs, commit=True)
    await done(world, committed)
    await asyncio.sleep(5.0)
    assert not behind & world.results().keys()
    assert world.log.group("tutti-planner").offsets[jobs] == world.log.existing(jobs).end
    await world.check_laws(8)


@simulated
async def test_marks_of_transactions_hold_no_position_and_skip_no_record(world: World) -> None:
    """Many short transactions among other jobs, the planner killed in between: each job runs once, and the position reaches the end."""
    world.start("p0")
    jobs = TopicPartition(world.topics.jobs(BATCH), 0)
    wanted: set[str] = set()
    for number in range(6):
        wanted |= produce(world, f"plain{number}-", number)
        world.log.begin_transaction(jobs)
        sent = produce(world, f"sent{number}-", 3)
        await asyncio.sleep(world.random.uniform(0.0, 1.0))
        world.log.end_transaction(jobs, commit=number % 2 == 0)
        wanted |= sent if number % 2 == 0 else set()
        await asyncio.sleep(world.random.uniform(0.0, 2.0))
        world.kill(f"p{number}")
        world.start(f"p{number + 1}")
    await settled(world, len(wanted))
    await asyncio.sleep(10.0)
    assert world.results().keys() == wanted
    assert world.log.group("tutti-planner").offsets[jobs] == world.log.existing(jobs).end
    await world.check_laws(len(wanted))


@on_cluster
async def test_a_router_reads_steps_made_anew_and_partitions_added(it: Cluster) -> None:
    """Every step of the new topic is routed, and those of partitions that came later."""
    service: Any = it.router()
    it.node("n1", 1)
    await it.clock.sleep(5.0)
    name = it.topics.steps("chat", STANDARD)
    for number in range(4):
        it.ask(make_step(id=f"{number:032x}"))
    await it.until(lambda: len(it.outcomes(StepRouted)) == 4)
    make_anew(it.log, name)
    for number in range(12):
        it.ask(make_step(id=f"{number + 100:032x}"))
    await it.until(lambda: len(it.outcomes(StepRouted)) == 16)
    assert len({routed.step for routed in it.outcomes(StepRouted)}) == 16
    it.log.add_partitions(name, 8)
    it.ask(make_step(id="f" * 32), partition=7)
    await it.until(lambda: len(it.outcomes(StepRouted)) == 17)
    assert service.readiness().ready


@on_cluster
async def test_delay_reads_a_tier_made_anew(it: Cluster) -> None:
    """Nothing of it is skipped; what was held of the old one is forgotten with it."""
    service: Any = it.delay()
    await it.clock.sleep(5.0)
    tier, number = it.topics.delay("1s"), partition_of(b"k", 6)

    def put(name: str) -> None:
        at = it.clock.wall()
        message = build_delayed(it.topics, Message("jobs.standard", name.encode(), b"k", 2), at + 0.5, at)
        assert message.topic == tier
        it.log.write(TopicPartition(tier, number), [message])

    for count in range(4):
        put(f"old{count}")
    await it.until(lambda: len(it.records("jobs.standard")) == 4)
    make_anew(it.log, tier)
    for count in range(9):
        put(f"new{count}")
    await it.until(lambda: len(it.records("jobs.standard")) == 13)
    assert len({record.value for record in it.records("jobs.standard")}) == 13
    assert service.readiness().ready


@on_cluster
async def test_each_service_tells_of_its_own_topics(it: Cluster) -> None:
    """Deleted, made anew, grown: each service that reads or writes the topic has it among its reasons, and no other has."""
    everything = list(it.topics.all())
    names = ("planner", "router", "worker", "delay", "ingress")
    news = {name: TopicNews(name, it.clock, takes_requests=name == "ingress") for name in names}

    async def look() -> dict[str, tuple[bool, str]]:
        there = await (await it.log.admin()).list_topics()
        for one in news.values():
            one.seen(everything, there)
        return {name: (ready, " ".join(reasons)) for name, (ready, reasons) in ((n, one.readiness()) for n, one in news.items())}

    assert all(ready and not reasons for ready, reasons in (await look()).values())
    for topic in everything:
        concerned = {name for name in names if name in (*topic.family.written_by, *topic.family.read_by)}
        assert concerned, topic.name
        make_anew(it.log, topic.name)
        said = await look()
        assert {name for name, (_, reasons) in said.items() if f"{topic.name} was deleted and made anew" in reasons} == concerned
        assert {name for name, (ready, _) in said.items() if not ready} == concerned - {"ingress"}
        it.log.add_partitions(topic.name, topic.partitions + 1)
        said = await look()
        assert {
            name for name, (_, reasons) in said.items() if f"{topic.name} has {topic.partitions + 1} partitions" in reasons
        } == concerned
        it.log.delete([topic.name])
        said = await look()
        assert {name for name, (_, reasons) in said.items() if f"{topic.name} does not exist" in reasons} == concerned
        it.log.create([NewTopic(topic.name, topic.partitions, 1, {})])
        await look()
        await it.clock.sleep(200.0)
        assert all(ready and not reasons for ready, reasons in (await look()).values()), topic.name


@on_cluster
async def test_a_grown_home_count_makes_every_service_unready_and_says_what_to_do(it: Cluster) -> None:
    """It does not pass with time: ids would have another home."""
    it.log.add_partitions("jobs.batch", 12)
    for name in ("planner", "ingress", "delay"):
        news = TopicNews(name, it.clock)
        news.seen(list(it.topics.all()), await (await it.log.admin()).list_topics())
        await it.clock.sleep(1_000.0)
        ready, [reason] = news.readiness()
        assert not ready
        assert "jobs.batch has 12 partitions, not 6" in reason
        assert "drain this cluster" in reason
