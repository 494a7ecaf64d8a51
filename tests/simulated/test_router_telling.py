"""The whole router on the in-memory log: who tells a step's home that it was given to a node, and when its record is committed past."""

from __future__ import annotations

from shared.contracts.outcome import StepRouted
from shared.kafka.memory.memory_faults import Fate
from shared.kafka.port import TopicPartition
from tests.support.routing import step
from tests.support.routing_cluster import Cluster, simulated


@simulated
async def test_routed_is_sent_again_until_home_has_it(it: Cluster) -> None:
    """A lost StepRouted is repeated, and the step is not committed past before."""
    it.node("n1", 0)
    it.router()
    it.log.faults.script(TopicPartition("outcomes", 0), *[Fate.LOST] * 5)
    it.ask(step())
    await it.clock.sleep(2.0)
    assert it.committed("steps.chat.standard") in (None, 0)
    await it.until(lambda: it.committed("steps.chat.standard") == 1)
    assert len(it.outcomes(StepRouted)) == 1


@simulated
async def test_what_is_taken_up_needs_no_routed(it: Cluster) -> None:
    """The node says that it has told the home: nobody else does, and the step is committed past."""
    node = it.node("n1", 3)
    node.tells = True
    it.router()
    for asked in (step(job=f"j{number}", id=f"{number:032x}") for number in range(20)):
        it.ask(asked)
    await it.until(lambda: it.committed("steps.chat.standard") == 20)
    assert not it.outcomes(StepRouted)


@simulated
async def test_what_is_only_read_is_told_of_within_a_second(it: Cluster) -> None:
    """The node has read it and says no more: its claim timeout begins, and only then it is committed past."""
    node = it.node("n1", 3, seconds=30.0)
    it.router()
    await it.clock.sleep(2.0)
    it.ask(step())
    await it.until(lambda: bool(node.records))
    await it.clock.sleep(0.3)
    assert not it.committed("steps.chat.standard")
    assert not it.outcomes(StepRouted)
    await it.until(lambda: len(it.outcomes(StepRouted)) == 1, seconds=0.7)
    await it.until(lambda: it.committed("steps.chat.standard") == 1, seconds=0.5)


@simulated
async def test_a_router_that_leaves_tells_at_once(it: Cluster) -> None:
    """What nobody has told of when it is told to stop: its successor does not give it again."""
    nodes = [it.node("n1", 0, seconds=30.0), it.node("n2", 1, seconds=30.0)]
    it.router("r1")
    await it.clock.sleep(2.0)
    it.ask(step())
    await it.until(lambda: any(node.records for node in nodes))
    await it.stop("r1")
    assert len(it.outcomes(StepRouted)) == 1
    it.router("r2")
    await it.clock.sleep(10.0)
    assert sum(len(node.records) for node in nodes) == 1
