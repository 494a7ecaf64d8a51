"""The registry: the newest entry counts, removals are told, what is not valid or not asked for changes nothing."""

from __future__ import annotations

import asyncio

from infra.lab.virtual_loop import run
from shared.clock import SystemClock
from shared.kafka.memory.memory import MemoryLog
from shared.kafka.port import Message, NewTopic
from shared.processing.registry import ENTRY_BYTES, follow_registry, registry_key
from shared.topics import Topics

TOPICS = Topics()


def test_entries_are_followed_from_the_beginning() -> None:
    """What was declared before the start, what comes later, and what is removed; in log order."""

    async def scenario() -> None:
        clock = SystemClock()
        log = MemoryLog(clock)
        admin = await log.admin()
        await admin.create_topics([NewTopic(TOPICS.registry, 1, 1, {})])
        producer = await log.producer(client_id="admin")
        seen: list[tuple[str, str, bytes | None]] = []

        def on_tenant(kind: str, name: str, value: bytes | None) -> None:
            if value == b"wrong":
                raise ValueError
            seen.append((kind, name, value))

        async def declare(key: bytes, value: bytes | None) -> None:
            await producer.send(Message(TOPICS.registry, value, key, 0))

        await declare(registry_key("tenant", "a"), b"1")
        await declare(registry_key("prompt", "x"), b"not asked for")
        await declare(registry_key("tenant", "b"), b"wrong")
        await declare(registry_key("tenant", "b"), b"y" * (ENTRY_BYTES + 1))
        await declare(b"no-kind", b"1")
        reader = follow_registry(log, clock, TOPICS, client_id="r", service="planner", kinds={"tenant": on_tenant})
        task = asyncio.create_task(reader.run())
        while not reader.caught_up():
            await clock.sleep(0.01)
        assert seen == [("tenant", "a", b"1")]
        await declare(registry_key("tenant", "a"), b"2")
        await declare(registry_key("tenant", "a"), None)
        while len(seen) < 3:
            await clock.sleep(0.01)
        assert seen[1:] == [("tenant", "a", b"2"), ("tenant", "a", None)]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await log.close()

    run(scenario())
