"""How chunks leave the worker: who gets which record, and what happens beyond the bounds."""

from __future__ import annotations

import asyncio
from typing import Any

from services.worker.backends.base import Delta
from services.worker.chunks import ChunkSender
from services.worker.settings import WorkerSettings
from shared.contracts.base import ClaimId
from shared.contracts.job import ReplyTo
from shared.contracts.reply import Chunks
from shared.kafka.port import TopicPartition
from tests.unit.worker.world import World, play, step

CLAIM = ClaimId("c1")


def sender(world: World, most_bytes: int = 1_000_000) -> ChunkSender:
    settings = WorkerSettings(chunk_min_seconds=0.025, chunk_max_seconds=0.1, chunk_buffer_bytes=most_bytes)
    return ChunkSender(world.topics, world.clock, settings)


async def sending(world: World, chunks: ChunkSender) -> asyncio.Task[None]:
    return asyncio.create_task(chunks.run(await world.log.producer(client_id="chunks", acks=1)))


def records(world: World, partition: int) -> list[Any]:
    return world.log.existing(TopicPartition(world.topics.replies, partition)).records


def streaming(number: int, reply: ReplyTo) -> Any:
    return step(number, stream=True, reply=reply)


def test_readers_of_many_jobs_get_one_record_others_one_a_job() -> None:
    """Our ingress gets many chunks a record; a foreign reader one, with its correlation in its own header, bytes unchanged."""

    async def scenario(world: World) -> None:
        chunks = sender(world)
        task = await sending(world, chunks)
        ours = ReplyTo(topic=world.topics.replies, partition=0, correlation=b"epoch-1", multiplex=True)
        spring = ReplyTo(topic=world.topics.replies, partition=1, correlation=b"\x00\xff", dialect="spring")
        streams = [chunks.open(streaming(n, ours), CLAIM, "m", False) for n in range(20)]
        streams += [chunks.open(streaming(n, spring), CLAIM, "m", False) for n in (30, 31)]
        for stream in streams:
            assert stream is not None
            stream.add(Delta("first"))
        await world.clock.sleep(0.01)
        [shared] = records(world, 0)
        assert len(Chunks.model_validate_json(shared.value).chunks) == 20
        assert [dict(record.headers)["kafka_correlationId"] for record in records(world, 1)] == [b"\x00\xff"] * 2
        task.cancel()

    play(scenario)


def test_the_first_piece_goes_at_once_and_the_rest_is_gathered() -> None:
    """Added time to the first token is nothing; fifty pieces a stream become a few records for all streams."""

    async def scenario(world: World) -> None:
        chunks = sender(world)
        task = await sending(world, chunks)
        reply = ReplyTo(topic=world.topics.replies, partition=0, multiplex=True)
        streams = [chunks.open(streaming(n, reply), CLAIM, "m", False) for n in range(40)]
        for _ in range(50):
            for stream in streams:
                assert stream is not None
                stream.add(Delta("x"))
            await world.clock.sleep(0.004)
        for stream in streams:
            assert stream is not None
            stream.finish()
        await world.clock.sleep(0.2)
        every = [chunk for record in records(world, 0) for chunk in Chunks.model_validate_json(record.value).chunks]
        assert sum(len(chunk.text) for chunk in every) == 2000
        assert len(records(world, 0)) <= 8
        task.cancel()

    play(scenario)


def test_text_beyond_the_bound_is_dropped_and_leaves_a_gap() -> None:
    """Without a sender memory stays bounded; the sequence tells the reader that something is missing, the offset where it goes on."""

    async def scenario(world: World) -> None:
        chunks = sender(world, most_bytes=10_000)
        stream = chunks.open(streaming(1, ReplyTo(topic=world.topics.replies, partition=0)), CLAIM, "m", False)
        assert stream is not None
        for _ in range(200):
            stream.add(Delta("x" * 100))
        stream.add(Delta("end"))
        assert stream.waiting_bytes <= 10_000
        task = await sending(world, chunks)
        await world.clock.sleep(0.1)
        [record] = records(world, 0)
        [chunk] = Chunks.model_validate_json(record.value).chunks
        assert chunk.sequence > 0
        assert chunk.offset + len(chunk.text) == 20_003
        task.cancel()

    play(scenario)


def test_a_reader_whose_topic_is_not_there_delays_and_silences_nobody() -> None:
    """Its sends take ten seconds to fail, and its text fills the buffer; the others see every piece at once."""

    async def scenario(world: World) -> None:
        chunks = sender(world, most_bytes=10_000)
        task = await sending(world, chunks)
        world.log.faults.away["replies.gone"] = 10.0
        gone = chunks.open(streaming(1, ReplyTo(topic="replies.gone", partition=0)), CLAIM, "m", False)
        here = chunks.open(streaming(2, ReplyTo(topic=world.topics.replies, partition=0)), CLAIM, "m", False)
        assert gone is not None
        assert here is not None
        for number in range(300):
            gone.add(Delta("x" * 100))
            here.add(Delta("y"))
            await world.clock.sleep(0.1)
            assert len(records(world, 0)) == number + 1
        every = [chunk for record in records(world, 0) for chunk in Chunks.model_validate_json(record.value).chunks]
        assert [chunk.sequence for chunk in every] == list(range(300))
        task.cancel()

    play(scenario)


def test_a_chunk_says_whose_run_it_is_of_and_how_many_tokens_the_text_has() -> None:
    """Counted by the node: thoughts are no text; what continues counts on; where nobody counted the beginning, nobody says."""

    async def scenario(world: World) -> None:
        chunks = sender(world)
        task = await sending(world, chunks)
        reply = ReplyTo(topic=world.topics.replies, partition=0, multiplex=True)
        begun = {"prefix": "one two", "attempt": 2}
        for number, changes in enumerate(({}, begun | {"prefix_tokens": 2}, begun)):
            stream = chunks.open(step(number, stream=True, reply=reply, **changes), CLAIM, "m", False)
            assert stream is not None
            stream.add(Delta("", "thought", tokens=5))
            stream.add(Delta(" three four", tokens=3))
            stream.finish()
        await world.clock.sleep(0.2)
        every = [chunk for record in records(world, 0) for chunk in Chunks.model_validate_json(record.value).chunks]
        assert [chunk.tokens for chunk in every] == [3, 5, None]
        assert {chunk.claim for chunk in every} == {CLAIM}
        task.cancel()

    play(scenario)
