"""The sink on the in-memory log under virtual time: what is stored equals a recount of `job-events`, whatever dies and comes again.

job-events ──► sink (killed, paused, two at once) ──► store (away, slow, half a write) ──► totals, rows, chain = recount
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest

from infra.verify.recount import counted
from services.sink.app import UsageSink, build
from services.sink.port import ACTS, AUDIT, LETTERS, NODES, OFFSET_DIGITS, TALKS, TOTALS, USAGE
from services.sink.settings import SinkSettings
from shared.audit import GENESIS, broken
from shared.clock import until
from shared.contracts.act import Act
from shared.contracts.dead_letter import DeadLetter
from shared.contracts.erased import Erased
from shared.contracts.headers import envelope
from shared.contracts.node import Node
from shared.kafka.port import Message, TopicPartition
from shared.processing.acts import told
from shared.processing.provision import new_topics
from shared.topics import TopicSettings
from tests.support.cluster.processes import run
from tests.support.sink_history import PROMPT, HistoryOfHome, newest_talks, recount, valid_events
from tests.support.sink_store import MemoryStore
from tests.support.stage import Stage

HOMES = 2


class SinkWorld(Stage):
    """A log with histories in it, a store, and sinks."""

    def __init__(self, seed: int, *, fails: float = 0.0, batch: int = 20) -> None:
        super().__init__(TopicSettings(home_partitions=HOMES, other_partitions=2), seed=seed)
        self.store = MemoryStore(Random(seed + 2), fails)
        self.settings = SinkSettings(batch_records=batch, commit_seconds=0.5, known_jobs=self.random.choice((3, 1_000)))
        self.histories = [HistoryOfHome(Random(seed + 10 + home), self.topics, home) for home in range(HOMES)]
        self.lives = 0

    def grow(self, count: int) -> None:
        """So many more events of each home."""
        for home, history in enumerate(self.histories):
            self.log.write(TopicPartition(self.topics.job_events, home), history.grow(count))

    def start(self) -> tuple[str, UsageSink]:
        """One life, by its name."""
        self.lives += 1
        name = f"sink-{self.lives}"
        sink = build(self.environment(name), self.settings, self.store)
        self.run(name, sink)
        return name, sink

    def passed(self) -> int:
        """Events that are committed past."""
        return sum(self.committed(self.topics.job_events, home, "tutti-sink") or 0 for home in range(HOMES))

    @property
    def written(self) -> int:
        return sum(len(history.messages) for history in self.histories)

    async def settled(self, seconds: float = 300.0) -> bool:
        """Whether everything is committed in this time."""
        return await until(self.clock, lambda: self.passed() >= self.written, seconds, 0.25)

    def rows(self, collection: str) -> list[dict[str, Any]]:
        return list(self.store.documents[collection].values())

    def check(self) -> None:
        """What is stored is what the histories say."""
        assert counted(self.rows(TOTALS)) == recount([h.messages for h in self.histories])
        ended = [event for h in self.histories for _, event in valid_events(h.messages) if event.type == "job_settled"]
        settled = [row for row in self.rows(USAGE) if "settled" in row]
        assert sorted((row["job"], row["finished_at"]) for row in settled) == sorted((e.job, e.result.finished_at) for e in ended)
        for home, history in enumerate(self.histories):
            blocks = [row for row in self.rows(AUDIT) if row["home"].endswith(f".{home}")]
            entries = sorted((entry for block in blocks for entry in block["entries"].values()), key=lambda entry: entry["offset"])
            assert [entry["offset"] for entry in entries] == [offset for offset, _ in valid_events(history.messages)]
            assert broken(entries, GENESIS) is None
        talks = {
            (int(row["home"][-1]), row["tenant"], row["conversation"]): json.loads(row["state"][OFFSET_DIGITS:]) for row in self.rows(TALKS)
        }
        told = newest_talks([history.messages for history in self.histories])
        assert {key: (talk["turns"], talk["gone"]) for key, talk in talks.items()} == told
        assert PROMPT not in json.dumps(self.store.documents, default=str)


@asynccontextmanager
async def sinks(seed: int, **options: Any) -> AsyncIterator[SinkWorld]:
    world = SinkWorld(seed, **options)
    try:
        yield world
    finally:
        await world.close()


def test_all_is_stored_and_a_stop_repeats_nothing() -> None:
    """What was told to stop has committed what it wrote; the next one goes on behind it."""

    async def scene() -> None:
        async with sinks(1) as world:
            world.grow(300)
            name, sink = world.start()
            assert sink.readiness().reasons == ("no answer from Kafka yet",)
            assert await world.settled()
            assert sink.readiness().ready, sink.readiness()
            world.check()
            await world.stop(name)
            writes = world.store.writes
            world.store.away = True
            name, idle = world.start()
            await world.clock.sleep(30.0)
            assert idle.readiness().reasons == ("the store does not answer",)
            world.store.away = False
            await world.clock.sleep(30.0)
            assert idle.readiness().ready
            await world.stop(name)
            name, _ = world.start()
            await world.clock.sleep(10.0)
            assert world.store.writes == writes
            world.grow(100)
            assert await world.settled()
            world.check()
            await world.stop(name)

    run(scene())


@pytest.mark.parametrize("seed", range(20))
def test_totals_are_exact_whatever_dies(seed: int) -> None:
    """Killed in mid-batch again and again, with a store that fails in the middle of writes: redelivery changes nothing."""

    async def scene() -> None:
        async with sinks(seed, fails=0.15, batch=Random(seed).choice((1, 7, 50))) as world:
            world.grow(60)
            for _ in range(6):
                process, _ = world.start()
                await world.clock.sleep(world.random.uniform(0.0, 12.0))
                world.grow(40)
                await world.clock.sleep(world.random.uniform(0.0, 0.5))
                world.kill(process)
            world.store.fails = 0.0
            process, _ = world.start()
            assert await world.settled()
            world.check()
            world.kill(process)

    run(scene())


@pytest.mark.parametrize("seed", [*range(6), 102, 108, 121])
def test_history_that_begins_in_the_middle(seed: int) -> None:
    """What retention has taken is not known; what is left is counted once, whatever dies."""

    async def scene() -> None:
        async with sinks(200 + seed, fails=0.15, batch=5) as world:
            world.grow(200)
            begins = [
                [offset for offset, event in valid_events(history.messages) if event.type == "planner_started"][-1]
                for history in world.histories
            ]
            admin = await world.log.admin()
            await admin.delete_records({TopicPartition(world.topics.job_events, home): begin for home, begin in enumerate(begins)})
            for _ in range(5):
                process, _ = world.start()
                await world.clock.sleep(world.random.uniform(1.0, 12.0))
                world.grow(20)
                world.kill(process)
            world.store.fails = 0.0
            process, _ = world.start()
            assert await world.settled()
            assert counted(world.rows(TOTALS)) == recount([history.messages for history in world.histories], begins)
            world.kill(process)

    run(scene())


@pytest.mark.parametrize("seed", [*range(8), 38])
def test_two_at_once_and_one_that_was_paused(seed: int) -> None:
    """A sink that was paused in mid-write comes back and writes on: the other has written the same."""

    async def scene() -> None:
        async with sinks(100 + seed, batch=10) as world:
            world.grow(200)
            first, _ = world.start()
            second, _ = world.start()
            for _ in range(4):
                await world.clock.sleep(world.random.uniform(0.0, 5.0))
                slept = world.random.choice((first, second))
                world.pause(slept)
                world.grow(60)
                await world.clock.sleep(world.random.uniform(5.0, 60.0))
                world.wake(slept)
            assert await world.settled()
            await world.clock.sleep(20.0)
            world.check()
            world.kill(first)
            world.kill(second)

    run(scene())


def test_while_the_store_is_away_kafka_keeps_what_comes() -> None:
    """Nothing is committed, /readyz says why, memory is bounded; when it is back all is written."""

    async def scene() -> None:
        async with sinks(7) as world:
            world.store.away = True
            world.grow(50)
            process, sink = world.start()
            await world.clock.sleep(30.0)
            assert sink.readiness().reasons == ("the store does not answer",)
            assert world.passed() == 0
            world.grow(500)
            await world.clock.sleep(60.0)
            assert world.passed() == 0
            assert all(len(window) <= 2 * 20 + 600 for window in sink.intake.windows.values())
            world.store.away = False
            assert await world.settled()
            assert sink.readiness().ready
            world.check()
            world.kill(process)

    run(scene())


def test_a_topic_made_anew_is_another_home() -> None:
    """The same offsets again, and other jobs: neither hides the other."""

    async def scene() -> None:
        async with sinks(3) as world:
            world.grow(80)
            process, _ = world.start()
            assert await world.settled()
            before = recount([h.messages for h in world.histories])
            world.kill(process)
            world.log.delete([world.topics.job_events])
            world.log.create([topic for topic in new_topics(world.topics) if topic.name == world.topics.job_events])
            world.histories = [HistoryOfHome(Random(900 + home), world.topics, home) for home in range(HOMES)]
            world.grow(80)
            process, _ = world.start()
            await world.clock.sleep(60.0)
            after = recount([h.messages for h in world.histories])
            both = {key: before.get(key, 0) + after.get(key, 0) for key in {**before, **after}}
            assert counted(world.rows(TOTALS)) == {key: value for key, value in both.items() if value}
            world.kill(process)

    run(scene())


def test_dead_letters_and_nodes_are_kept_without_what_they_carry() -> None:
    """One document for what says the same; a node that leaves leaves a trace; of a letter nothing that its sender wrote."""

    async def scene() -> None:
        async with sinks(5) as world:
            letters, nodes = world.topics.dead_letters, world.topics.nodes
            letter = DeadLetter(
                topic="jobs.standard", partition=0, offset=7, timestamp=1, service="planner", reason="odd", code="invalid_record",
                key=PROMPT.encode(), value=PROMPT.encode(), at=5.0,
            )  # fmt: skip
            node = Node(id="n1", boot="b1", mailbox=0, backend="ollama", at=1.0)
            world.log.write(TopicPartition(letters, 0), [Message(letters, letter.to_bytes(), b"k", 0, envelope("DeadLetter"))] * 2)
            said = [node.to_bytes(), node.model_copy(update={"at": 9.0}).to_bytes(), node.model_copy(update={"slots": 4}).to_bytes(), None]
            world.log.write(TopicPartition(nodes, 0), [Message(nodes, value, b"n1", 0, envelope("Node")) for value in said])
            world.log.write(TopicPartition(letters, 1), [Message(letters, b"odd", b"k", 1), Message(letters, None, b"k", 1)])
            process, sink = world.start()
            await world.clock.sleep(20.0)
            assert [row["offset"] for row in world.rows(LETTERS)] == [7]
            assert sorted((row.get("slots"), row.get("left")) for row in world.rows(NODES) if not row.get("left")) == [(1, None), (4, None)]
            assert sum(bool(row.get("left")) for row in world.rows(NODES)) == 1
            assert PROMPT not in json.dumps(world.store.documents, default=str)
            assert sink.readiness().ready
            world.kill(process)

    run(scene())


def test_what_administrators_did_is_kept_once() -> None:
    """Each act is a document, however often it is read; what is no act is passed over."""

    async def scene() -> None:
        async with sinks(6) as world:
            topics = world.topics
            does = [Act(by="root", did="declare", kind="tenant", name=f"t{n}", tenant=f"t{n}", at=1.0) for n in range(3)]
            world.log.write(TopicPartition(topics.acts, 0), [told(topics, act) for act in (*does, does[0])])
            world.log.write(TopicPartition(topics.acts, 0), [Message(topics.acts, value, b"k", 0) for value in (b"odd", None, b"{}")])
            for _ in range(2):  # what was not committed is read again
                process, _ = world.start()
                await world.clock.sleep(10.0)
                world.kill(process)
            found = world.rows(ACTS)
            assert sorted(row["name"] for row in found) == ["t0", "t0", "t1", "t2"]
            assert {(row["by"], row["did"], row["kind"], row["said_at"]) for row in found} == {("root", "declare", "tenant", 1.0)}

    run(scene())


def test_rows_of_an_erased_tenant_go() -> None:
    """Those of before, whoever has stored them; other tenants' and all sums stay; while the store is away it is tried again."""

    async def scene() -> None:
        async with sinks(7) as world:
            world.grow(200)
            process, _ = world.start()
            await world.clock.sleep(20.0)
            totals, before = len(world.rows(TOTALS)), {row["tenant"] for row in world.rows(USAGE)}
            assert "acme" in before
            world.store.away = True
            at = max(row["at"] for row in world.rows(USAGE)) + 1
            entry = Message(world.topics.registry, Erased(at=at, by="root").to_bytes(), b"erased/acme", 0)
            odd = [Message(world.topics.registry, value, b"erased/globex", 0) for value in (b"odd", None)]
            world.log.write(TopicPartition(world.topics.registry, 0), [entry, *odd])
            await world.clock.sleep(20.0)
            world.store.away = False
            await world.clock.sleep(20.0)
            assert {row["tenant"] for row in world.rows(USAGE)} == before - {"acme"}
            assert len(world.rows(TOTALS)) == totals
            world.store.documents[USAGE]["late"] = {"tenant": "acme", "at": at - 1}
            world.store.documents[USAGE]["new"] = {"tenant": "acme", "at": at + 1}
            world.kill(process)
            process, _ = world.start()
            await world.clock.sleep(20.0)
            assert [row["at"] for row in world.rows(USAGE) if row["tenant"] == "acme"] == [at + 1]
            world.kill(process)

    run(scene())


def test_a_job_is_one_upsert_a_batch() -> None:
    """However many events it has."""

    async def scene() -> None:
        async with sinks(9, batch=1_000) as world:
            world.grow(400)
            process, _ = world.start()
            assert await world.settled()
            jobs = sum(len(world.rows(name)) for name in (USAGE, AUDIT, TALKS))
            assert world.store.upserts <= jobs * world.store.writes
            assert world.store.writes <= 4
            world.kill(process)

    run(scene())
