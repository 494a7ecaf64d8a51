"""Blobs: what was written is read whole, by its tenant alone, or it is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

import pytest

from infra.lab.virtual_loop import run
from shared.clock import LoopClock
from shared.contracts.blob import BLOB_BYTES, BlobRef
from shared.errors import LogError, TooLarge
from shared.kafka.memory.memory import MemoryLog
from shared.kafka.memory.memory_faults import Fate
from shared.kafka.port import NewTopic, TopicPartition
from shared.processing.blobs import CHUNK_BYTES, BlobGone, Blobs
from shared.topics import Topics, TopicSettings

TOPICS = Topics(TopicSettings(other_partitions=1))
PLACE = TopicPartition(TOPICS.blobs, 0)


def play(scenario: Callable[[MemoryLog, Blobs], Awaitable[None]]) -> None:
    """Run it with one partition, so that everybody writes to the same."""

    async def go() -> None:
        clock = LoopClock()
        log = MemoryLog(clock, random=Random(7))
        await (await log.admin()).create_topics([NewTopic(TOPICS.blobs, 1, 1, {})])
        await scenario(log, Blobs(log, clock, TOPICS, service="test", instance="a"))
        await log.close()

    run(go())


def body(size: int, seed: int = 1) -> bytes:
    return Random(seed).randbytes(size)


@pytest.mark.parametrize("size", [1, CHUNK_BYTES, CHUNK_BYTES + 1, 5 * CHUNK_BYTES - 1])
def test_what_was_written_is_read_whole(size: int) -> None:
    """Of one chunk, of full ones, and of a rest."""

    async def scenario(_log: MemoryLog, blobs: Blobs) -> None:
        written = body(size)
        ref = await blobs.store("t", written)
        assert (ref.size, ref.chunks) == (size, -(-size // CHUNK_BYTES))
        assert await blobs.fetch("t", ref) == written

    play(scenario)


def test_writers_may_interleave() -> None:
    """Many at once into one partition, one blob twice among them: each reference leads to its own body."""

    async def scenario(log: MemoryLog, blobs: Blobs) -> None:
        others = [Blobs(log, LoopClock(), TOPICS, service="test", instance=f"w{number}") for number in range(6)]
        bodies = [body(3 * CHUNK_BYTES + number, number // 2) for number in range(6)]
        bodies[1] = bodies[0]
        refs = await asyncio.gather(*(one.store("t", written) for one, written in zip(others, bodies, strict=True)))
        for written, ref in zip(bodies, refs, strict=True):
            assert await blobs.fetch("t", ref) == written
        wide = refs[0].model_copy(update={"first": min(r.first for r in refs), "last": max(r.last for r in refs)})
        assert await blobs.fetch("t", wide) == bodies[0]

    play(scenario)


def test_another_tenants_blob_is_not_to_be_had() -> None:
    """Whoever names digest, partition and offsets of it finds nothing."""

    async def scenario(_log: MemoryLog, blobs: Blobs) -> None:
        ref = await blobs.store("b", body(1_000))
        with pytest.raises(BlobGone):
            await blobs.fetch("a", ref)

    play(scenario)


@pytest.mark.parametrize(
    "wrong", [{"digest": "0" * 32}, {"size": 999}, {"first": 1}, {"last": 99}, {"chunks": 4}, {"chunks": 2}, {"last": 1}]
)
def test_a_reference_that_is_not_right_is_gone(wrong: dict[str, object]) -> None:
    """Count, size and digest are checked; nothing is given that was not written as one."""

    async def scenario(_log: MemoryLog, blobs: Blobs) -> None:
        ref = await blobs.store("t", body(3 * CHUNK_BYTES))
        with pytest.raises(BlobGone):
            await blobs.fetch("t", BlobRef.model_validate({**ref.model_dump(), **wrong}))

    play(scenario)


def test_what_retention_took_is_gone() -> None:
    """Also when only its first chunk was taken. Asked again it is gone again: nobody waits for it."""

    async def scenario(log: MemoryLog, blobs: Blobs) -> None:
        ref = await blobs.store("t", body(3 * CHUNK_BYTES))
        await (await log.admin()).delete_records({PLACE: ref.first + 1})
        with pytest.raises(BlobGone):
            await blobs.fetch_in_time("t", ref)

    play(scenario)


def test_a_chunk_that_was_not_acknowledged_makes_no_reference() -> None:
    """The error comes out; who has time writes the whole again, and that one is read."""

    async def scenario(log: MemoryLog, blobs: Blobs) -> None:
        written = body(3 * CHUNK_BYTES)
        log.faults.script(PLACE, Fate.UNACKNOWLEDGED)
        with pytest.raises(LogError):
            await blobs.store("t", written)
        log.faults.script(PLACE, Fate.LOST, Fate.UNACKNOWLEDGED, Fate.OFFSET_UNKNOWN)
        assert await blobs.fetch("t", await blobs.store_in_time("t", written)) == written

    play(scenario)


def test_beyond_the_bound_nothing_is_written() -> None:
    """A typed error that says the bound."""

    async def scenario(log: MemoryLog, blobs: Blobs) -> None:
        with pytest.raises(TooLarge, match=str(BLOB_BYTES)):
            await blobs.store("t", bytes(BLOB_BYTES + 1))
        assert log.existing(PLACE).end == 0

    play(scenario)
