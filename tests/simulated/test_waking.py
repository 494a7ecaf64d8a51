"""The whole router, and a node that sleeps: it is woken for what waits, and what waits is done when it is awake."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from services.router import wake_calls
from shared.contracts.outcome import StepFailed, StepUnplaced
from shared.kafka.port import Message, TopicPartition
from shared.placement.waking import magic_packet
from tests.support.routing import MODEL, node, step
from tests.support.routing_cluster import Cluster, simulated

MAC = "aa:bb:cc:00:11:22"
OTHER = MODEL.model_copy(update={"name": "other:1b"})


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bytes, Sequence[tuple[str, int]]]]:
    """What would go to the network."""
    found: list[tuple[bytes, Sequence[tuple[str, int]]]] = []
    monkeypatch.setattr(wake_calls, "broadcast", lambda packet, to: found.append((packet, to)))
    return found


def fall_asleep(it: Cluster, name: str, mailbox: int) -> None:
    record = node(name, mailbox=mailbox, asleep=True, mac=MAC)
    it.log.write(TopicPartition(it.topics.nodes, 0), [Message(it.topics.nodes, record.to_bytes(), name.encode(), 0)])


def test_a_step_wakes_the_node_that_has_its_model(sent: list[tuple[bytes, Sequence[tuple[str, int]]]]) -> None:
    """It slept for hours, nobody else has the model, the router is a new one: a burst, then nothing more; awake, it gets the step."""

    @simulated
    async def scenario(it: Cluster) -> None:
        awake = it.node("n1", 0, models=(OTHER,))
        fall_asleep(it, "n2", 1)
        it.delay()
        it.router(wake={"addresses": "192.0.2.255"}, node_forgotten_seconds=60.0)
        await it.clock.sleep(3_600)
        assert not sent, "nothing waits"
        it.ask(step(model=MODEL.name))
        await it.until(lambda: bool(sent), 3)
        assert sent == [(magic_packet(MAC), [("192.0.2.255", 9)])]
        await it.until(lambda: bool(it.outcomes(StepUnplaced)), 5)
        assert "a node that is awake" not in it.outcomes(StepUnplaced)[0].missing, "what is missing is the model"
        await it.clock.sleep(20)
        assert len(sent) == 1
        woken = it.node("n2", 1)
        await it.until(lambda: bool(woken.done), 30)
        assert not awake.done
        assert not it.outcomes(StepFailed)

    scenario()


def test_nobody_is_woken_where_no_operator_has_said_whereto(sent: list[tuple[bytes, Sequence[tuple[str, int]]]]) -> None:
    """By default; the home is told what is missing."""

    @simulated
    async def scenario(it: Cluster) -> None:
        fall_asleep(it, "n2", 1)
        it.delay()
        it.router()
        it.ask(step(model=MODEL.name))
        await it.until(lambda: bool(it.outcomes(StepUnplaced)), 10)
        await it.clock.sleep(30)
        assert not sent

    scenario()
