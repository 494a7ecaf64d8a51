"""The whole router on the in-memory log under virtual time: what it promises its neighbours."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from infra.lab.virtual_loop import run
from shared.contracts import headers
from shared.contracts.base import PriorityClass
from shared.contracts.chat import ChatMessage
from shared.contracts.delayed import Delayed
from shared.contracts.failure import FailureKind
from shared.contracts.job import Needs
from shared.contracts.outcome import StepFailed, StepRouted, StepUnplaced
from shared.contracts.step import Step
from shared.kafka.memory.memory_faults import Fate
from shared.kafka.port import Message, TopicPartition
from shared.placement import why
from tests.support.routing import MODEL, step
from tests.support.routing_cluster import Cluster, cluster, simulated


def numbered(count: int, **changes: Any) -> list[Step]:
    return [step(job=f"j{number}", id=f"{number:032x}", **changes) for number in range(count)]


def done(*nodes: Any) -> Counter[str]:
    return Counter(step.job for node in nodes for step in node.done)


@simulated
async def test_a_step_reaches_its_node_with_all_it_needs(it: Cluster) -> None:
    """The node's mailbox gets the step's own bytes and its name; home learns node, mailbox, offset, model and why; then it is committed."""
    node = it.node("n1", 3)
    it.router()
    asked = step(model=MODEL.name, home=4)
    it.ask(asked, partition=2)
    await it.until(lambda: bool(node.done))
    await it.until(lambda: it.committed("steps.chat.standard", 2) == 1)
    assert node.records[0].value == asked.to_bytes()
    (routed,) = it.outcomes(StepRouted)
    assert (routed.node, routed.mailbox, routed.offset, routed.model) == ("n1", 3, 0, MODEL.name)
    told = why.read(routed.why)
    assert told is not None
    assert told.node == "n1"
    assert headers.Envelope(node.records[0].headers).text(headers.WHY) == routed.why
    assert len(it.log.existing(TopicPartition("outcomes", 4)).records) == 1


@simulated
async def test_an_open_model_is_decided_in_the_step(it: Cluster) -> None:
    """`auto` does not reach the worker."""
    node = it.node("n1", 0)
    it.router()
    it.ask(step(model="auto"))
    await it.until(lambda: bool(node.done))
    assert node.done[0].model == MODEL.name


@simulated
async def test_two_routers_and_two_nodes_neither_over_commit_nor_starve(it: Cluster) -> None:
    """Every step runs once; no node ever holds more than its places; both routers work; the nodes are kept busy."""
    nodes = [it.node("n1", 0, slots=4), it.node("n2", 1, slots=4)]
    it.router("r1")
    it.router("r2")
    await it.clock.sleep(5.0)
    for number, asked in enumerate(numbered(240)):
        it.ask(asked, partition=number % 6)
    seconds = await it.until(lambda: sum(len(node.done) for node in nodes) >= 240)
    assert done(*nodes) == Counter({f"j{number}": 1 for number in range(240)})
    assert [node.most for node in nodes] == [4, 4]
    assert seconds < 1.5 * 240 * 0.1 / 8


@simulated
async def test_a_place_visits_the_router_that_has_work(it: Cluster) -> None:
    """One slot, two routers, all work at one of them: it is not held up by offers to the other."""
    node = it.node("n1", 0)
    it.router("r1")
    it.router("r2")
    await it.clock.sleep(5.0)
    for asked in numbered(50):
        it.ask(asked, partition=0)
    assert await it.until(lambda: len(node.done) == 50) < 2 * 50 * 0.1
    assert node.most == 1


@pytest.mark.parametrize("fate", [Fate.LOST, Fate.UNACKNOWLEDGED, Fate.OFFSET_UNKNOWN])
def test_a_dispatch_with_a_bad_fate_leaks_nothing(fate: Fate) -> None:
    """Lost, or landed without anybody knowing: the step runs, the place comes back, the others run too."""

    @simulated
    async def scenario(it: Cluster) -> None:
        node = it.node("n1", 0)
        it.router()
        it.log.faults.script(TopicPartition("work.chat", 0), *[fate] * 3)
        for asked in numbered(20):
            it.ask(asked)
        await it.until(lambda: set(done(node)) == {f"j{number}" for number in range(20)})
        await it.until(lambda: it.committed("steps.chat.standard") == 20)

    scenario()


@simulated
async def test_a_busy_model_does_not_hold_the_others(it: Cluster) -> None:
    """50 steps for a node without places lie before ten for another one in the same partition: the ten run at once."""
    busy = it.node("n1", 0, models=(MODEL.model_copy(update={"name": "busy:1b"}),))
    busy.closed = True
    free = it.node("n2", 1)
    it.router()
    for asked in [*numbered(50, model="busy:1b"), *numbered(10, model=MODEL.name)]:
        it.ask(asked)
    assert await it.until(lambda: len(free.done) == 10) < 3.0
    assert it.committed("steps.chat.standard") in (None, 0)
    busy.closed = False
    await it.until(lambda: len(busy.done) == 50)
    await it.until(lambda: it.committed("steps.chat.standard") == 60)


@simulated
async def test_an_unplaceable_step_leaves_the_partition(it: Cluster) -> None:
    """After a second it goes to delay, and home is told what is missing; its offset is released, and nobody waits behind it."""
    node = it.node("n1", 0)
    it.router()
    it.ask(step(model="none:1b"))
    it.ask(step(job="j2"))
    await it.until(lambda: bool(node.done))
    await it.until(lambda: it.committed("steps.chat.standard") == 2)
    (record,) = it.records("delays.1s")
    delayed = Delayed.model_validate_json(record.value or b"")
    assert (delayed.topic, delayed.partition) == ("steps.chat.standard", 0)
    sent = Step.model_validate_json(delayed.value)
    assert 1.0 <= sent.unplaced_seconds <= 2.0
    assert delayed.due_at is None
    assert delayed.seconds == pytest.approx(sent.unplaced_seconds, abs=0.3)
    assert [told.missing for told in it.outcomes(StepUnplaced)] == [("model none:1b for chat",)] == [sent.missing]


@simulated
async def test_a_step_without_a_node_fails_at_the_limit_and_says_what_is_missing(it: Cluster) -> None:
    """Through delay and back until the limit, then a typed failure."""
    it.node("n1", 0)
    it.delay()
    it.router(no_node_limit_seconds=20.0)
    it.ask(step(needs=Needs(tags=("gpu",))))
    seconds = await it.until(lambda: bool(it.outcomes(StepFailed)))
    assert seconds + 1.0 >= 20.0
    assert seconds <= 26.0
    (failed,) = it.outcomes(StepFailed)
    assert (failed.failure.kind, failed.failure.missing) == (FailureKind.NO_NODE, ("tag gpu",))


@simulated
async def test_a_node_that_comes_later_gets_the_step(it: Cluster) -> None:
    """What waits in delay runs when there is a node for it. What is missing is told when it changes, not each time."""
    it.delay()
    it.router()
    it.ask(step())
    await it.clock.sleep(30.0)
    node = it.node("n1", 0)
    await it.until(lambda: bool(node.done), seconds=12.0)
    assert it.outcomes(StepFailed) == []
    assert [told.missing for told in it.outcomes(StepUnplaced)] == [("a live node",)]


@simulated
async def test_a_step_that_waits_for_a_busy_node_is_told_no_longer_to_miss_one(it: Cluster) -> None:
    """The node has come, and has no place: that is waiting, and has no limit."""
    it.delay()
    it.router(no_node_limit_seconds=20.0)
    it.ask(step(), step(job="j2", id="1" * 32))
    await it.clock.sleep(10.0)
    node = it.node("n1", 0, seconds=200.0)
    await it.clock.sleep(100.0)
    assert it.outcomes(StepFailed) == []
    assert [told.missing for told in it.outcomes(StepUnplaced) if told.job == it.outcomes(StepUnplaced)[-1].job] == [("a live node",), ()]
    await it.until(lambda: len(node.done) == 2, seconds=400.0)


@simulated
async def test_a_step_that_no_window_holds_ends_at_once(it: Cluster) -> None:
    """Ten minutes of waiting make no window longer."""
    it.node("n1", 0, models=(MODEL.model_copy(update={"window": 2048}),))
    it.router()
    it.ask(step(messages=(ChatMessage(role="user", content="word " * 4_000),)))
    await it.until(lambda: bool(it.outcomes(StepFailed)), seconds=6.0)
    failure = it.outcomes(StepFailed)[0].failure
    assert (failure.kind, failure.window) == (FailureKind.CONTEXT_LENGTH, 2048)


@simulated
async def test_what_every_model_denies_is_told_within_seconds(it: Cluster) -> None:
    """Whichever model may answer: a pattern goes on without, and nobody waits ten minutes to learn it. One that can may come meanwhile."""
    blind = MODEL.model_copy(update={"abilities": {"tools": False}})
    tool = {"type": "function", "function": {"name": "f"}}
    it.node("n1", 0, models=(blind,))
    it.delay()
    it.router()
    it.ask(step(model="auto", tools=(tool,)))
    assert await it.until(lambda: bool(it.outcomes(StepFailed)), seconds=20.0) > 5.0
    assert it.outcomes(StepFailed)[0].failure.kind is FailureKind.UNSUPPORTED


@simulated
async def test_a_node_that_falls_silent_gets_nothing_more(it: Cluster) -> None:
    """Lost after 5 s without credits; its registration alone does not make it live. The other node gets the work."""
    it.node("n1", 0, slots=50)
    other = it.node("n2", 1)
    it.router()
    await it.clock.sleep(3.0)
    it.kill("n1")
    await it.clock.sleep(6.0)
    for asked in numbered(10):
        it.ask(asked)
    await it.until(lambda: len(other.done) == 10)
    assert {routed.node for routed in it.outcomes(StepRouted)} == {"n2"}


@simulated
async def test_a_step_past_its_deadline_fails_instead_of_running(it: Cluster) -> None:
    """Its place goes to somebody who still waits."""
    node = it.node("n1", 0, seconds=5.0)
    it.router()
    it.ask(step())
    await it.until(lambda: bool(it.outcomes(StepRouted)))
    it.ask(step(job="late", deadline_at=it.clock.wall() + 1.0))
    await it.until(lambda: bool(it.outcomes(StepFailed)), seconds=2.0)
    assert it.outcomes(StepFailed)[0].failure.kind is FailureKind.DEADLINE
    await it.clock.sleep(10.0)
    assert set(done(node)) == {"j1"}


@simulated
async def test_interactive_steps_overtake_a_backlog(it: Cluster) -> None:
    """With batch steps waiting in every partition the next free place goes to the interactive one."""
    node = it.node("n1", 0)
    it.router()
    for number, asked in enumerate(numbered(300)):
        it.ask(asked, partition=number % 6, priority_class=PriorityClass.BATCH)
    await it.until(lambda: len(node.done) == 3)
    it.ask(step(job="urgent"), priority_class=PriorityClass.INTERACTIVE)
    await it.until(lambda: "urgent" in done(node), seconds=0.35)


@simulated
async def test_poison_becomes_a_dead_letter_and_the_partition_goes_on(it: Cluster) -> None:
    """Not JSON, no value, a newer version, a home that does not exist: each is kept with its reason, once."""
    node = it.node("n1", 0)
    it.router()
    topic = "steps.chat.standard"
    poison = [b"\xff", None, b"{}", step(home=99).to_bytes(), step(capability="none").to_bytes()]
    messages = [Message(topic, value) for value in poison]
    messages.append(Message(topic, step().to_bytes(), headers=(("version", b"9"),)))
    it.log.write(TopicPartition(topic, 0), messages)
    it.ask(step(job="good"))
    await it.until(lambda: set(done(node)) == {"good"})
    await it.until(lambda: it.committed(topic) == 7)
    assert len(it.records("dead-letters")) == 6


@simulated
async def test_a_partition_of_nothing_but_poison_is_stopped_the_others_go_on(it: Cluster) -> None:
    """After 200 dead letters it stands still, uncommitted, and the router says why; steps of other partitions are served."""
    node = it.node("n1", 0)
    router: Any = it.router()
    topic = "steps.chat.standard"
    it.log.write(TopicPartition(topic, 0), [Message(topic, b"{}")] * 3_000)
    await it.until(lambda: bool(router.readiness().reasons) and it.committed(topic) == 200, seconds=60.0)
    it.ask(step(job="good"), partition=1)
    await it.until(lambda: set(done(node)) == {"good"})
    assert len(it.records("dead-letters")) == 200
    assert "200 of the last 200 records of steps.chat.standard/0" in router.readiness().reasons[0]


@simulated
async def test_a_second_router_takes_over_half_and_nothing_is_lost(it: Cluster) -> None:
    """In a rebalance under load what was begun is not begun again: every step runs once."""
    nodes = [it.node("n1", 0, slots=4), it.node("n2", 1, slots=4)]
    it.router("r1")
    for number, asked in enumerate(numbered(300)):
        it.ask(asked, partition=number % 6)
    await it.until(lambda: sum(len(node.done) for node in nodes) > 100)
    it.router("r2")
    await it.until(lambda: len(done(*nodes)) == 300)
    assert sum(done(*nodes).values()) == 300
    assert it.log.group("tutti-router").member_count() == 2


@simulated
async def test_a_killed_router_is_replaced(it: Cluster) -> None:
    """After the session timeout the other one goes on; at most what was not committed runs twice."""
    nodes = [it.node("n1", 0, slots=4), it.node("n2", 1, slots=4)]
    it.router("r1")
    it.router("r2")
    await it.clock.sleep(5.0)
    for number, asked in enumerate(numbered(300)):
        it.ask(asked, partition=number % 6)
    await it.until(lambda: sum(len(node.done) for node in nodes) > 100)
    it.kill("r1")
    await it.until(lambda: len(done(*nodes)) == 300, seconds=40.0)
    assert sum(done(*nodes).values()) < 300 + 60


@simulated
async def test_a_router_that_leaves_commits_what_it_did(it: Cluster) -> None:
    """SIGTERM: the next one begins where it ended, at once, and no node offers it places any more."""
    node = it.node("n1", 0, slots=2)
    it.router("r1")
    for asked in numbered(40):
        it.ask(asked)
    await it.until(lambda: len(node.done) > 10)
    await it.stop("r1")
    it.router("r2")
    await it.until(lambda: len(done(node)) == 40, seconds=5.0)
    assert sum(done(node).values()) == 40


@pytest.mark.parametrize("absence", ["waits", "fails"])
def test_kafka_away_is_waited_out(absence: Any) -> None:
    """Ten seconds without Kafka: nothing crashes, nothing is lost."""

    @simulated
    async def scenario(it: Cluster) -> None:
        node = it.node("n1", 0, slots=2)
        it.router()
        for asked in numbered(100):
            it.ask(asked)
        await it.until(lambda: len(node.done) > 10)
        it.log.go_away(absence)
        await it.clock.sleep(10.0)
        it.log.come_back()
        await it.until(lambda: len(done(node)) == 100)

    scenario()


@simulated
async def test_with_slow_messages_a_node_gets_no_more_than_its_places_twice(it: Cluster) -> None:
    """An offer that is on its way while places move to another router can be used twice, never more often; nothing starves."""
    it.log.faults.send_seconds = it.log.faults.ack_seconds = it.log.faults.delivery_seconds = (0.0, 0.02)
    nodes = [it.node("n1", 0, slots=4), it.node("n2", 1, slots=4)]
    it.router("r1")
    it.router("r2")
    await it.clock.sleep(5.0)
    for number, asked in enumerate(numbered(240)):
        it.ask(asked, partition=number % 6)
    seconds = await it.until(lambda: len(done(*nodes)) == 240)
    assert max(node.most for node in nodes) <= 8
    assert seconds < 3 * 240 * 0.1 / 8


@pytest.mark.parametrize("seconds", [0.0, 20.0])
def test_no_node_waits_for_a_mailbox_that_takes_nothing(seconds: float) -> None:
    """One partition of `work.*` is away for minutes: its node's steps go to the other node, whose own do not wait, and the first works
    again when it is back.
    """

    async def main() -> None:
        async with cluster() as it:
            deaf, well = it.node("n1", 3), it.node("n2", 4)
            it.router()
            await it.clock.sleep(5.0)
            it.log.faults.away[TopicPartition("work.chat", 3)] = seconds
            for number, asked in enumerate(numbered(60)):
                it.ask(asked, partition=number % 6)
                await it.clock.sleep(2.0)
            await it.until(lambda: len(well.done) == 60, seconds=15.0)
            it.log.faults.heal()
            await it.clock.sleep(25.0)
            for number, asked in enumerate(numbered(20)):
                it.ask(asked.model_copy(update={"job": f"again{number}"}), partition=number % 6)
            await it.until(lambda: len(set(done(deaf, well))) == 80)
            assert deaf.done

    run(main())


@pytest.mark.parametrize("seconds", [0.0, 20.0])
def test_no_step_waits_for_a_home_that_takes_nothing(seconds: float) -> None:
    """What one home is not told holds back the records of its steps; those of other homes are committed past."""

    async def main() -> None:
        async with cluster() as it:
            node = it.node("n1", 3, slots=4)
            it.router()
            await it.clock.sleep(5.0)
            it.log.faults.away[TopicPartition("outcomes", 2)] = seconds
            for number, asked in enumerate(numbered(60)):
                it.ask(asked.model_copy(update={"home": number % 6}), partition=number % 6)
                await it.clock.sleep(1.0)
            assert len(node.done) == 60
            assert [it.committed("steps.chat.standard", number) for number in range(6)] == [10, 10, 0, 10, 10, 10]
            it.log.faults.heal()
            await it.until(lambda: it.committed("steps.chat.standard", 2) == 10)

    run(main())
