"""Sealed logs of several processes on one Kafka: what lies there, who can open it, who waits for a key, and what a shredded key leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from infra.lab import virtual_loop
from shared.clock import LoopClock
from shared.contracts.base import RECORD_BYTES
from shared.contracts.headers import SEALED
from shared.errors import ConfigurationError, Locked, RecordTooLarge
from shared.kafka.memory.memory import MemoryLog
from shared.kafka.port import Log, Message, NewTopic, Record, TopicPartition, Unreadable, tenant_of
from shared.processing.provision import new_topics
from shared.sealing import key_ring
from shared.sealing.cipher import ClusterKeys, id_of, new_key
from shared.sealing.entries import DataKeys
from shared.sealing.key_ring import KeyRing
from shared.sealing.sealed_log import PLAIN, SealedLog, sealed
from shared.settings import ClusterSettings
from shared.topics import FAMILIES, Topics
from tests.support.sealing import keys_file

TOPICS = Topics()
JOBS = "jobs.standard"
PROMPT = b'{"prompt":"a secret"}'


class Kafka:
    """One broker; `process` opens a log as a process of its own does."""

    def __init__(self, folder: Path) -> None:
        self.clock, self.folder = LoopClock(), folder
        self.raw = MemoryLog(self.clock)
        self.raw.create(new_topics(TOPICS))
        self.file = keys_file(folder)
        self.opened: list[SealedLog] = []

    def process(self, file: Path | None = None, **options: bool) -> SealedLog:
        ring = KeyRing(self.raw, self.clock, TOPICS, ClusterKeys(str(file or self.file)), client_id="ring")
        log = SealedLog(self.raw, self.clock, TOPICS, ring, **options)
        self.opened.append(log)
        return log

    def blind(self) -> SealedLog:
        """A process that has no keys."""
        return SealedLog(self.raw, self.clock, TOPICS, None)

    @property
    def keys(self) -> DataKeys:
        return DataKeys(self.raw, TOPICS.data_keys)

    def lie(self, topic: str) -> Sequence[Record]:
        """Records of partition 0 as they lie there."""
        return self.raw.existing(TopicPartition(topic, 0)).records


def on_kafka(test: Callable[[Kafka], Awaitable[None]]) -> Callable[[Path], None]:
    def run(tmp_path: Path) -> None:
        async def body() -> None:
            kafka = Kafka(tmp_path)
            await test(kafka)
            for log in kafka.opened:
                await log.close()

        virtual_loop.run(body())

    run.__doc__ = test.__doc__
    return run


async def write(log: Log, *messages: Message) -> None:
    producer = await log.producer(client_id="p")
    for message in messages:
        await producer.send(message)
    await producer.close()


async def read(log: Log, topic: str, count: int) -> list[Record]:
    consumer = await log.consumer(client_id="c")
    consumer.assign([TopicPartition(topic, 0)])
    found: list[Record] = []
    async with asyncio.timeout(60):
        while len(found) < count:
            for records in (await consumer.poll(timeout_seconds=1.0)).values():
                found += records
    await consumer.close()
    return found


def job(tenant: str | None = "acme", value: bytes | None = PROMPT, topic: str = JOBS) -> Message:
    return Message(topic, value, b"k", 0, (("type", b"job"),), tenant)


@on_kafka
async def test_kafka_never_has_what_was_written_and_another_process_reads_it(kafka: Kafka) -> None:
    await write(kafka.process(), job(), job("globex"), job(None), job(value=None))
    lies = kafka.lie(JOBS)
    assert all(b"secret" not in (record.value or b"") and record.headers[0][0] == SEALED for record in lies[:3])
    assert len({record.headers[0][1] for record in lies[:3]}) == 3
    assert (lies[3].value, lies[3].headers) == (None, (("type", b"job"),))
    found = await read(kafka.process(), JOBS, 4)
    assert [record.value for record in found] == [PROMPT, PROMPT, PROMPT, None]
    assert [tenant_of(record) for record in found] == ["acme", "globex", None, None]
    assert all(tuple(record.headers) == (("type", b"job"),) for record in found)


@on_kafka
async def test_what_has_no_bodies_and_topics_of_others_stay_plain(kafka: Kafka) -> None:
    kafka.raw.create([NewTopic("replies.spring", 1, 1, {})])
    assert {family.pattern for family in FAMILIES} > PLAIN
    for topic in ("replies.spring", *sorted(PLAIN - {"data-keys"})):
        await write(kafka.process(), job(topic=topic))
        assert kafka.lie(topic)[-1].value == PROMPT, topic


@on_kafka
async def test_what_was_changed_or_moved_is_unreadable_and_reading_goes_on(kafka: Kafka) -> None:
    log = kafka.process()
    await write(log, job(), job("globex"))
    first, second = kafka.lie(JOBS)[:2]
    moved = [
        Message(JOBS, b"\x01" + (first.value or b"")[2:], b"k", 0, tuple(first.headers)),
        Message(JOBS, first.value, b"another key", 0, tuple(first.headers)),
        Message(JOBS, first.value, b"k", 0, tuple(second.headers)),  # for another tenant
        Message(JOBS, first.value, b"k", 0, ((SEALED, b"no such key"), *first.headers[1:])),
        Message(JOBS, PROMPT, b"k", 0, ()),
    ]
    kafka.raw.write(TopicPartition(JOBS, 0), moved)
    kafka.raw.write(TopicPartition("jobs.batch", 0), [Message("jobs.batch", first.value, b"k", 0, tuple(first.headers))])
    found = await read(log, JOBS, 7)
    assert [isinstance(record, Unreadable) for record in found] == [False, False, True, True, True, True, False]
    assert [record.value for record in found[2:6]] == [message.value for message in moved[:4]]  # as it lies, for the dead letter
    assert not any(isinstance(record, Unreadable) and record.shredded for record in found)  # these are somebody's fault
    [elsewhere] = await read(log, "jobs.batch", 1)
    assert isinstance(elsewhere, Unreadable)
    await write(log, Message(JOBS, found[2].value, b"k", 0, tuple(found[2].headers)))  # sent again, it is not sealed twice
    assert kafka.lie(JOBS)[-1].value == moved[0].value


@on_kafka
async def test_jobs_in_the_clear_can_be_refused(kafka: Kafka) -> None:
    kafka.raw.write(TopicPartition(JOBS, 0), [Message(JOBS, PROMPT, b"k", 0), Message(JOBS, None, b"k", 0)])
    [given, cancel] = await read(kafka.process(jobs_sealed=True), JOBS, 2)
    assert isinstance(given, Unreadable)
    assert "TUTTI_SEALING__JOBS" in given.reason
    assert not isinstance(cancel, Unreadable)


@on_kafka
async def test_a_shredded_tenant_is_unreadable_for_everybody_and_nobody_else_is(kafka: Kafka) -> None:
    log, other = kafka.process(), kafka.process()
    await write(log, job(), job("globex"))
    assert await kafka.keys.shred("acme") == 1
    assert await kafka.keys.shred("acme") == 0
    for process in (log, other, kafka.process()):
        gone, there = await read(process, JOBS, 2)
        assert isinstance(gone, Unreadable)
        assert (gone.reason, gone.shredded) == ("offset 0: its key is gone with its tenant", True)
        assert there.value == PROMPT
    await write(log, job())  # what comes later has a key of its own
    assert (await read(other, JOBS, 3))[2].value == PROMPT
    assert len(await kafka.keys.of_tenant("acme")) == 1


@on_kafka
async def test_two_that_make_a_key_at_once_are_both_understood(kafka: Kafka) -> None:
    one, two = kafka.process(), kafka.process()
    await asyncio.gather(write(one, job()), write(two, job()))
    assert [record.value for record in await read(kafka.process(), JOBS, 2)] == [PROMPT, PROMPT]
    await write(one, job())
    await write(two, job())
    assert len({record.headers[0][1] for record in kafka.lie(JOBS)[2:]}) == 1  # both use the same from now on


@on_kafka
async def test_keys_grow_old(kafka: Kafka) -> None:
    log = kafka.process()
    await write(log, job(), job())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(key_ring, "SEALS_SECONDS", 60.0)
        await kafka.clock.sleep(61.0)
        await write(log, job())
    ids = [record.headers[0][1] for record in kafka.lie(JOBS)]
    assert ids[0] == ids[1] != ids[2]
    assert [record.value for record in await read(log, JOBS, 3)] == [PROMPT] * 3


@on_kafka
async def test_the_cluster_key_is_rotated_while_everything_runs(kafka: Kafka) -> None:
    """The new one behind the old, then before it, then all data keys are wrapped anew, then the old one goes. What is sealed stays."""
    [old] = ClusterKeys(str(kafka.file)).ids
    line, new = kafka.file.read_text(), new_key()
    running = kafka.process()
    await write(running, job(), job(None))
    keys_file(kafka.folder, new)
    kafka.file.write_text(kafka.file.read_text() + line)
    assert await kafka.keys.rewrap(ClusterKeys(str(kafka.file))) == (2, 0)
    assert {entry.cluster_key for entry in (await kafka.keys.held()).values()} == {id_of(new)}
    keys_file(kafka.folder, new)
    await write(running, job("globex"))
    for log in (running, kafka.process()):
        assert [record.value for record in await read(log, JOBS, 3)] == [PROMPT] * 3
    assert await kafka.keys.rewrap(ClusterKeys(str(kafka.file))) == (0, 0)
    assert old not in {entry.cluster_key for entry in (await kafka.keys.held()).values()}


@on_kafka
async def test_a_key_that_is_shredded_while_it_is_wrapped_anew_stays_shredded(kafka: Kafka) -> None:
    log = kafka.process()
    await write(log, job())
    [name] = await kafka.keys.held()
    entry = kafka.lie(TOPICS.data_keys)[0]
    await kafka.keys.shred("acme")
    kafka.raw.write(TopicPartition(TOPICS.data_keys, 0), [Message(TOPICS.data_keys, entry.value, name.encode(), 0)])
    for process in (log, kafka.process()):
        assert isinstance((await read(process, JOBS, 1))[0], Unreadable)
    assert await kafka.keys.held() == {}


@on_kafka
async def test_who_lacks_the_cluster_key_waits_and_makes_no_keys(kafka: Kafka) -> None:
    await write(kafka.process(), job())
    missing = ClusterKeys(str(kafka.file)).first
    right = kafka.file.read_text()
    wrong = keys_file(kafka.folder, new_key(), name="wrong")
    stranger = kafka.process(wrong)
    reading = asyncio.create_task(read(stranger, JOBS, 1))
    writing = asyncio.create_task(write(stranger, job("globex")))
    await kafka.clock.sleep(30.0)
    assert not reading.done()
    assert not writing.done()
    assert stranger.trouble is not None
    assert missing in stranger.trouble
    assert len(kafka.lie(JOBS)) == 1
    wrong.write_text(right)
    assert [record.value for record in await reading] == [PROMPT]
    await writing
    assert stranger.trouble is None


@on_kafka
async def test_who_has_no_keys_at_all_reads_up_to_what_is_sealed_and_no_further(kafka: Kafka) -> None:
    kafka.raw.write(TopicPartition(JOBS, 0), [Message(JOBS, b"{}", b"k", 0)])
    blind = kafka.blind()
    consumer = await blind.consumer(client_id="c", group="g")
    here = TopicPartition(JOBS, 0)
    consumer.assign([here])
    assert [len(records) for records in (await consumer.poll(timeout_seconds=1.0)).values()] == [1]
    await write(kafka.process(), job())
    for _ in range(3):
        with pytest.raises(Locked):
            await consumer.poll(timeout_seconds=1.0)
    assert await consumer.position(here) == 1
    assert "TUTTI_SEALING__KEYS_FILE" in (blind.trouble or "")
    consumer.seek(here, 0)
    await consumer.close()


@on_kafka
async def test_a_poll_that_is_broken_off_loses_nothing(kafka: Kafka) -> None:
    """While it waits to learn of a key: cancelled, it gives the same records to the next."""
    log = kafka.process()
    consumer = await log.consumer(client_id="c")
    consumer.assign([TopicPartition(JOBS, 0)])
    await write(kafka.process(), job())
    kafka.raw.faults.call_seconds = (1.0, 1.0)
    kafka.raw.faults.delivery_seconds = (0.0, 0.0)
    log_ring = log._ring
    assert log_ring is not None
    log_ring._keys.clear()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await consumer.poll(timeout_seconds=1.0)
    kafka.raw.faults.call_seconds = (0.0, 0.0)
    again = await consumer.poll(timeout_seconds=5.0)
    assert [record.offset for records in again.values() for record in records] == [0]
    await consumer.close()


@on_kafka
async def test_a_record_has_the_same_bound_sealed(kafka: Kafka) -> None:
    log = kafka.process()
    room = RECORD_BYTES - 32 - 1 - 8 - 7  # framing, key, header
    await write(log, job(value=b"x" * room))
    with pytest.raises(RecordTooLarge):
        await write(log, job(value=b"x" * (room + 1)))
    assert len((await read(log, JOBS, 1))[0].value or b"") == room


def test_without_settings_nothing_is_between(tmp_path: Path) -> None:
    """Nothing is sealed, and producers are the client's own."""

    async def body() -> None:
        clock = LoopClock()
        raw = MemoryLog(clock)
        raw.create(new_topics(TOPICS))
        log = sealed(raw, ClusterSettings(), clock, TOPICS)
        assert type(await log.producer(client_id="p")) is type(await raw.producer(client_id="p"))
        await write(log, job())
        assert raw.existing(TopicPartition(JOBS, 0)).records[0].value == PROMPT
        assert raw.existing(TopicPartition(TOPICS.data_keys, 0)).end == 0

    virtual_loop.run(body())


def test_settings_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    clock = LoopClock()
    for given in ({"jobs": "sealed"}, {"keys_file": str(tmp_path / "nowhere")}):
        with pytest.raises(ConfigurationError):
            sealed(MemoryLog(clock), ClusterSettings.model_validate({"sealing": given}), clock, TOPICS)
