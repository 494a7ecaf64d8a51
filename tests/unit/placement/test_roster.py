"""Nodes as people see them: who is heard, by the brokers' clock, and what keeps each from work."""

from __future__ import annotations

from typing import Any

import pytest

from infra.lab import virtual_loop
from shared.clock import LoopClock
from shared.contracts import headers
from shared.contracts.credits import Credits, RouterPresence
from shared.contracts.node import Node, NodeModel
from shared.kafka.memory.memory import MemoryLog
from shared.kafka.port import Message, TopicPartition
from shared.placement.roster import STALE_SECONDS, LastHeard, heard, shown, state
from shared.processing.provision import ensure_topics
from shared.topics import Topics


def node(name: str = "a", **changes: Any) -> Node:
    base: dict[str, Any] = {"id": name, "boot": "1", "mailbox": 0, "backend": "ollama", "at": 100.0}
    return Node(**base | {"models": (NodeModel(name="m"), NodeModel(name="n", resident=True))} | changes)


def credits_of(name: str, boot: str = "1", **more: Any) -> Message:
    told = Credits(node=name, boot=boot, sequence=1, mailbox=0, offers={}, read={}, **more)
    return Message("credits", told.to_bytes(), name.encode(), 0, headers.envelope("credits"))


def test_who_tells_of_its_places_is_heard() -> None:
    """The newest record of all is now: a machine whose clock is wrong sees the same. Another boot's word, and a router's, are none."""

    async def scenario() -> None:
        clock, topics = LoopClock(), Topics()
        log, credits_ = MemoryLog(clock), TopicPartition(topics.credits, 0)
        await ensure_topics(log, topics)
        assert shown(node(), await heard(log, topics, "test"), 100.0).state == "live"  # nothing is known
        log.write(credits_, [credits_of("a"), credits_of("b", running=2, resident=("m",)), credits_of("c", boot="0")])
        await clock.sleep(6.0)
        log.write(credits_, [credits_of("b", running=1, resident=("m",)), Message("credits", b"odd", b"x", 0, ())])
        log.write(credits_, [Message("credits", RouterPresence(router="r", backlog=0).to_bytes(), b"r", 0, headers.envelope("router"))])
        found = await heard(log, topics, "test")
        rows = {name: shown(node(name), found, 100.0) for name in "abcd"}
        assert {name: (row.state, row.silent_seconds, row.running) for name, row in rows.items()} == {
            "a": ("silent", 6.0, 0), "b": ("live", 0.0, 1), "c": ("silent", 6.0, 0), "d": ("silent", 6.0, 0),
        }  # fmt: skip
        assert [model.resident for model in rows["b"].models] == [True, False]
        assert shown(node("b"), found, 101.0 + STALE_SECONDS).state == "live"  # some clock is wrong
        assert shown(node("d"), LastHeard(), 101.0 + STALE_SECONDS).state == "silent"

    virtual_loop.run(scenario())


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, "live"),
        ({"pause_seconds": 9.0}, "paused"),
        ({"pause_seconds": 2.0}, "live"),
        ({"draining": True}, "draining"),
        ({"draining": True, "yields": "somebody works"}, "yields"),
        ({"draining": True, "maintenance": True}, "maintenance"),
        ({"reachable": False}, "unreachable"),
        ({"asleep": True, "draining": True}, "asleep"),
    ],
)
def test_a_state_is_the_strongest_reason(changes: dict[str, Any], found: str) -> None:
    """Five seconds after its registration."""
    assert state(node(**changes), 0.0, 5.0) == found
    assert state(node(**changes), 60.0, 5.0) == (found if found == "asleep" else "silent")
