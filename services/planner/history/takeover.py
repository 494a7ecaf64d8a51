"""Take-over: become the owner of a partition. Append PlannerStarted (its offset is the epoch), replay from the watermark to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from pydantic import ValidationError
from pydantic_core import from_json

from services.planner.history.reading import read_range
from services.planner.history.recovery import Replay
from services.planner.round import Round
from services.planner.shard.wiring import Wiring
from services.planner.state.book import Book, internal
from services.planner.state.taken import NOTHING, Offsets
from shared.contracts import headers
from shared.contracts.event import EVENT, PlannerStarted
from shared.contracts.versions import NEWEST
from shared.errors import InvalidInput, InvalidRecord, LogError, NewerVersion, TuttiError
from shared.kafka.port import Message, MissedRecords, Record, TopicPartition, Unreadable
from shared.processing.folding import pass_over
from shared.processing.tries import Tries
from shared.telemetry import logs, metrics

log = logs.get(__name__)


class Superseded(TuttiError):
    """Another planner owns the partition, or the log is not what it was: the fold is worthless."""

    code = "superseded"


@dataclass(frozen=True, slots=True)
class _Taken:
    """A book as of one's own PlannerStarted, where its inputs begin, and the first round."""

    book: Book
    inputs: dict[str, int]
    topic_ids: dict[str, str | None]
    """Of the inputs, and of history: when one of them is another, the book is worthless."""
    done: dict[str, Offsets]
    """By input: with which records all is done, though they lie behind where it begins."""
    round: Round


class TakeOver:
    """One take-over of one partition number."""

    def __init__(self, wiring: Wiring, number: int, tries: Tries) -> None:
        """`tries`: of jobs too: on which work has failed too often ends now."""
        self._wiring, self._number, self._tries = wiring, number, tries
        topics = wiring.topics
        self._events = TopicPartition(topics.job_events, number)
        self._inputs = (*topics.all_jobs(), topics.outcomes)

    async def run(self) -> _Taken:
        """Raises LogError when Kafka fails half-way and Superseded when the epoch cannot be known; both: try again.

        NewerVersion: history holds events that only a newer planner can fold.
        """
        watermark, inputs, topic_ids = await self._committed()
        epoch = await self._start()
        started = self._wiring.clock.monotonic()
        book = Book(self._number, self._wiring.policy, self._wiring.random, self._wiring.tenants, self._tries)
        book.epoch = epoch
        round_ = Round.of(book, self._wiring.clock.wall(), self._wiring.clock.monotonic())
        replay = Replay(round_)
        if watermark is None or watermark < epoch:
            await read_range(self._wiring, self._events, watermark or 0, epoch + 1, partial(_fold, replay))
        done = await self._done(book, inputs, topic_ids)
        round_.wall, round_.now = self._wiring.clock.wall(), self._wiring.clock.monotonic()
        for job in book.jobs.values():
            if self._tries.spent(job.id):
                job.broken = job.broken or internal()
        replay.finish()
        metrics.REPLAY_SECONDS.observe(round_.now - started)
        metrics.TAKEOVERS.labels("taken").inc()
        log.info("partition_taken", home=self._number, epoch=epoch, watermark=watermark, events=replay.events, live=book.live)
        return _Taken(book, inputs, topic_ids, done, round_)

    async def _done(self, book: Book, inputs: dict[str, int], topic_ids: Mapping[str, str | None]) -> dict[str, Offsets]:
        """What the replayed history knows of the inputs ahead of their positions: bitmaps, which also move these on, and jobs.

        Raises Superseded where a topic was made anew after its id was learnt, perhaps before one's own PlannerStarted. *Trace:* a zombie
        knows the old id, its successor accepts and ends a job of the new topic, the zombie starts again: for it that job is of no topic,
        its watermark passes it, and then it meets the new topic and accepts the record a second time.
        """
        named = {source: source.partition("@") for source in {*book.taken.things, *(job.source_topic for job in book.jobs.values())}}
        strange = {topic for topic, _, id_ in named.values() if id_ and topic_ids.get(topic) not in (None, id_)}
        if strange:
            admin = await self._wiring.log.admin()
            present = await admin.list_topics()
            await admin.close()
            if anew := sorted(topic for topic in strange if topic in present and present[topic].id != topic_ids[topic]):
                raise Superseded(f"{', '.join(anew)} made anew: not yet seen here")
        done: dict[str, Offsets] = {}
        ends = await self._wiring.consumer.end_offsets([TopicPartition(topic, self._number) for topic in inputs]) if named else {}
        for source, (topic, _, id_) in named.items():
            if not id_ or topic_ids.get(topic) != id_:
                continue
            found = book.taken.known(source) or NOTHING
            if found.base > ends[TopicPartition(topic, self._number)]:
                log.error("taken_records_gone", home=self._number, topic=topic, base=found.base)
                book.taken.drop(source)
                found = NOTHING
            inputs[topic] = max(inputs[topic], found.base)
            sources = (job.source_offset for job in book.jobs.values() if job.source_topic == source)
            done[topic] = found.joined(inputs[topic], sources)
        for source in [source for source in book.taken.things if topic_ids.get(named[source][0]) not in (None, named[source][2])]:
            log.warning("taken_records_of_another_topic", home=self._number, topic=source)
            book.taken.drop(source)
        return done

    async def _committed(self) -> tuple[int | None, dict[str, int], dict[str, str | None]]:
        """(watermark or None, next input offsets, ids of these topics). Inputs that were never committed begin at their beginning.

        A topic that does not exist is left out: the others go on. What was deleted before it was read is told.
        """
        consumer = self._wiring.consumer
        assigned = consumer.assignment()
        if self._events not in assigned:
            raise LogError("a rebalance is under way")
        partitions = [p for topic in self._inputs if (p := TopicPartition(topic, self._number)) in assigned]
        topic_ids = {topic: consumer.identity(topic) for topic in (*(p.topic for p in partitions), self._events.topic)}
        committed = await consumer.committed([self._events, *partitions])
        beginnings = await consumer.beginning_offsets([self._events, *partitions])
        for p, offset in committed.items():
            # The event that the watermark names may be the last one there was, and then nothing is missing when it goes.
            if offset is not None and offset + (p == self._events) < beginnings[p]:
                consumer.missed.append(MissedRecords(p, offset, beginnings[p]))
        inputs = {p.topic: max(committed[p] or 0, beginnings[p]) for p in partitions}
        return committed[self._events], inputs, topic_ids

    async def _start(self) -> int:
        wiring = self._wiring
        nonce = f"{wiring.random.getrandbits(64):016x}"
        event = PlannerStarted(nonce=nonce, planner=wiring.instance, version=NEWEST)
        message = Message(self._events.topic, event.to_bytes(), None, self._number, headers.envelope(event.type))
        epoch = await wiring.writer.append(self._events, [message])
        if epoch < 0:
            raise Superseded("the broker does not know where PlannerStarted lies")
        return epoch


def _fold(replay: Replay, record: Record) -> None:
    try:
        headers.Envelope(record.headers).refuse_newer(NEWEST)
    except NewerVersion as newer:
        if _is_start(record) or replay.admits_value(record.offset, record.value or b""):
            raise
        log.warning("unreadable_event", offset=record.offset, reason=newer.message)
    except InvalidInput as error:
        log.warning("unreadable_event", offset=record.offset, reason=error.message)
    else:
        if isinstance(record, Unreadable):
            pass_over("planner", record, InvalidRecord(record.reason))
        replay.fold(record.offset, record.value, record.timestamp)


def _is_start(record: Record) -> bool:
    """Whether a record of a newer version says that a newer planner has started. Any other one that no start precedes is nobody's."""
    try:
        found = from_json(record.value or b"")
    except ValueError:
        return False
    return isinstance(found, dict) and found.get("type") == _START


_START: str = PlannerStarted.model_fields["type"].default


async def gap_is_stale(wiring: Wiring, partition: TopicPartition, start: int, end: int) -> bool:
    """Whether [start, end) holds nothing but records of fenced writers, and of nobody: no PlannerStarted, of whatever version.

    Where retention has reached into it nobody can tell.
    """
    found: list[bool] = []

    def visit(record: Record) -> None:
        try:
            headers.Envelope(record.headers).refuse_newer(NEWEST)
            found.append(isinstance(EVENT.validate_json(record.value or b""), PlannerStarted))
        except NewerVersion:
            found.append(_is_start(record))
        except (ValidationError, InvalidInput):
            found.append(False)

    first = await read_range(wiring, partition, start, end, visit)
    return first <= start and not any(found)
