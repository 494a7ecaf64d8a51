"""What each service says of itself while Kafka is away: before its first answer and after its last (simulated, virtual time)."""

from __future__ import annotations

import pytest

from shared.kafka.memory.memory_process import Absence
from tests.support.cluster import processes
from tests.support.cluster.faults import FaultMix
from tests.support.cluster.world import World


@pytest.mark.parametrize("absence", ["waits", "fails"])
def test_every_service_tells_whether_kafka_has_ever_answered(absence: Absence) -> None:
    """Before the first answer "yet", whatever else is missing; after it none; when Kafka has left "lately"."""

    async def scenario() -> None:
        async with World(1, FaultMix(), ("critic-1",)) as world:

            def silent(word: str) -> bool:
                states = {name: instance.service.readiness() for name, instance in world.instances.items()}
                said = {name: [reason for reason in state.reasons if "Kafka" in reason] for name, state in states.items()}
                return said == {name: [f"no answer from Kafka {word}"] for name in world.names} and not any(
                    s.ready for s in states.values()
                )

            def ready() -> bool:
                return all(instance.service.readiness().ready for instance in world.instances.values())

            world.log.go_away(absence)
            world.start_all()
            assert not await world.until(lambda: not silent("yet"), 20.0)
            world.log.come_back()
            assert await world.until(ready, 60.0)
            world.log.go_away(absence)
            assert await world.until(lambda: silent("lately"), 20.0)
            assert not await world.until(lambda: not silent("lately"), 20.0)
            world.log.come_back()
            assert await world.until(ready, 60.0)

    processes.run(scenario())
