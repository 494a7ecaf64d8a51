"""Outbox: everything that a service sends, a lane per destination (topic and partition), so that nothing waits for one that takes nothing.

    put ──► lane ──► on its way ──► fate: acknowledged, or given up
              ▲           │
              └── again ──┘  in order, ever more slowly

A lane has one send under way, as Kafka's client has one batch a partition; what gathers meanwhile is the next. Lanes that are ready
together travel in one request. What Kafka does not acknowledge is sent again until it does, so repeats must be harmless, unless its
sender says otherwise (`again`, `patience_seconds`). Given up at once, and loudly, is what can never be sent: a record that is too large, a
topic that is neither the cluster's own nor a caller's, a partition of an own topic that neither the settings nor Kafka know.

Callers' reply topics may not exist, and nothing depends on them: theirs are lanes of a producer of their own, bounded and patient for a
while. Who must not lose a record asks for its fate and says in history, or to the caller, what became of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from math import inf

from shared.clock import Clock, within
from shared.errors import LogError, LogUnavailable, NoDestination, NotSent, Overloaded, RecordTooLarge
from shared.kafka.port import Appended, Message, Producer, Record
from shared.processing.dead_letters import dead_letter
from shared.processing.lane import Destination, Fate, Lane, OutboxEntry, Sent
from shared.tasks import ended
from shared.telemetry import logs, metrics
from shared.topics import Topics

log = logs.get(__name__)

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 2.0
"""Of a lane between two tries: doubling."""
FORGOTTEN_SECONDS = 5.0
"""When nothing waits: who is asked for nothing any more, since Kafka refused it, would never be heard again."""
COMPANY = 256
"""So many lingering records of a topic are worth a send of their own."""
CALLERS_TOPICS = 32
CALLERS_RECORDS = 10_000
CALLERS_BYTES = 8 * 1024 * 1024
"""Of callers' own topics: so many at once, and what may wait for one of them; the oldest give way."""
CALLERS_PATIENCE_SECONDS = 120.0


class Outbox:
    """`run` is its task. Bounded by its users, who look at `full` before they take on more."""

    def __init__(
        self,
        clock: Clock,
        service: str,
        topics: Topics,
        *,
        records: int = 20_000,
        size: int = 64 * 1024 * 1024,
        patience_seconds: float = inf,
        gather_turns: int = 0,
        relieved: Callable[[], None] = lambda: None,
    ) -> None:
        """`size`: bytes of values. `patience_seconds`: of what is offered. `gather_turns`: turns of the event loop before a send, for what
        is about to be ready. `relieved`: called when it is no longer full.
        """
        self._clock, self._service, self._topics = clock, service, topics
        self._own = {topic.name: topic.partitions for topic in topics.all()}
        self._most_records, self._most_bytes = records, size
        self._patience, self._turns, self._relieved = patience_seconds, gather_turns, relieved
        self._lanes: dict[Destination, Lane] = {}
        self._callers = 0
        self._company: dict[str, _Company] = {}
        """By topic: those who read it are woken once for all that lingers."""
        self._records = self._bytes = 0
        self._was_full = False
        self._producer: Producer | None = None
        self._open_callers: Callable[[], Awaitable[Producer]] | None = None
        self._callers_producer: Producer | None = None
        self._opening = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._refused_at = -inf

    def __len__(self) -> int:
        """Records whose fate is not known."""
        return self._records

    @property
    def full(self) -> bool:
        """As much waits as may; what is put nevertheless is sent like all else."""
        return self._records >= self._most_records or self._bytes >= self._most_bytes

    @property
    def failing(self) -> bool:
        """The last word from Kafka was no, or there was none in time."""
        return self._refused_at > -inf and (self._records > 0 or self._clock.monotonic() - self._refused_at <= FORGOTTEN_SECONDS)

    # Putting; never blocks

    def put(
        self,
        message: Message,
        fate: Fate | None = None,
        *,
        again: bool = True,
        patience_seconds: float = inf,
        linger_seconds: float = 0.0,
        instead_of: OutboxEntry | None = None,
    ) -> OutboxEntry:
        """Send this. `again` False: once; a failure is its fate. Beyond the patience it is given up (`expire`). A lingering record waits
        that long for company: it leaves with the next of its topic that does not linger, or when enough have gathered. `instead_of`: its
        place is taken, if it is neither on its way nor gone; then whoever waits for its fate learns that of this, and nobody else does.
        """
        if instead_of is not None and not (instead_of.settled or instead_of.under_way):
            return self._replace(instead_of, message)
        if callers := message.topic not in self._own:
            patience_seconds = min(patience_seconds, CALLERS_PATIENCE_SECONDS)
        expires_at = inf if patience_seconds == inf else self._clock.monotonic() + patience_seconds
        entry = OutboxEntry(message, fate, expires_at, again=again)
        self._records += 1
        self._bytes += entry.size
        self._was_full = self._was_full or self.full
        self._idle.clear()
        refusal = self._refusal(message) if callers else None
        if refusal is not None:
            self._give_up(entry, refusal)
            return entry
        (lane := self._lane(message, callers)).add(entry)
        if linger_seconds > 0.0:
            self._linger(message.topic, linger_seconds)
        else:
            self._leave(lane)
        return entry

    def post(self, messages: Sequence[Message], done: Callable[[], None] | None = None) -> None:
        """Send these. `done`: all are acknowledged or given up, but for callers' own topics, for which nobody waits."""
        if done is None:
            for message in messages:
                self.put(message)
            return
        if len(messages) == 1 and messages[0].topic in self._own:
            self.put(messages[0], lambda _: done())
            return
        left = 1 + sum(1 for message in messages if message.topic in self._own)

        def on_fate(_: object) -> None:
            nonlocal left
            left -= 1
            if not left:
                done()

        for message in messages:
            self.put(message, on_fate if message.topic in self._own else None)
        on_fate(None)  # all are put: from now on the last one's fate is the end

    def offer(self, message: Message, fate: Fate | None = None, *, again: bool = False) -> None:
        """Send this for who can be told no: once, within the outbox's patience, or `again` for as long as it takes. Raises Overloaded."""
        if self.full:
            raise Overloaded("too many records wait for Kafka", retry_after_seconds=self._patience)
        self.put(message, fate, again=again, patience_seconds=inf if again else self._patience)

    async def send(self, message: Message) -> None:
        """Offer this and wait for its acknowledgement. Raises LogError, Overloaded."""
        fate: asyncio.Future[Sent] = asyncio.get_running_loop().create_future()
        self.offer(message, lambda result: None if fate.done() else fate.set_result(result))
        result = await fate
        if isinstance(result, Exception):
            raise result

    def bury(self, record: Record, error: Exception, done: Callable[[], None] = lambda: None) -> None:
        """Send the record to the dead letters."""
        self.put(dead_letter(record, self._service, error, self._clock, self._topics), lambda _: done())

    def _replace(self, entry: OutboxEntry, message: Message) -> OutboxEntry:
        destination = (message.topic, message.partition)
        assert destination == (entry.message.topic, entry.message.partition), "a record keeps its destination"
        lane, more = self._lanes[destination], len(message.value or b"") - entry.size
        entry.message, entry.size = message, entry.size + more
        lane.bytes += more
        self._bytes += more
        self._leave(lane)
        return entry

    async def idle(self, seconds: float) -> bool:
        """Wait until the fate of everything is known, but not for ever; whether it is."""
        if await within(seconds, self._idle.wait()):
            return True
        log.warning("not_sent_in_time", service=self._service, records=self._records)
        return False

    def expire(self, now: float | None = None) -> None:
        """Give up what has waited beyond its patience, by now or by then; what is on its way may be written nevertheless."""
        now = self._clock.monotonic() if now is None else now
        for lane in list(self._lanes.values()):
            stuck = [entry for entry in lane.under_way if entry.expires_at <= now and not entry.settled]
            gone = lane.remove(now)
            for entry in stuck:
                self._end(entry, LogUnavailable())
            for entry in gone:
                self._end(entry, NotSent())
            self._refused_at = now if stuck or gone else self._refused_at
            self._sweep(lane)

    # Sending

    async def run(self, producer: Producer, callers: Callable[[], Awaitable[Producer]] | None = None) -> None:
        """Send until cancelled. `callers`: opens the producer for callers' own topics, when it is needed."""
        self._producer, self._open_callers = producer, callers
        self._start_those_in_a_hurry()
        try:
            await asyncio.Event().wait()
        finally:
            self._producer = None
            await ended(*self._tasks)
            if self._callers_producer is not None:
                await self._callers_producer.close()
                self._callers_producer = None

    def _lane(self, message: Message, callers: bool) -> Lane:
        """The lane of a destination; of a caller's topic the lane of all its partitions, so that none has more than others."""
        destination = (message.topic, None if callers else message.partition)
        lane = self._lanes.get(destination)
        if lane is None:
            lane = self._lanes[destination] = Lane(destination, callers=callers)
            self._callers += callers
        elif callers and (len(lane.waiting) >= CALLERS_RECORDS or lane.bytes >= CALLERS_BYTES):
            oldest = lane.waiting.popleft()
            lane.bytes -= oldest.size
            self._give_up(oldest, NotSent("too many records wait for this topic"))
        return lane

    def _refusal(self, message: Message) -> LogError | None:
        """Why a record for a topic that is not the cluster's own cannot be sent."""
        if not self._topics.may_reply_to(message.topic):
            return NoDestination("this cluster has no such topic")
        if (message.topic, None) not in self._lanes and self._callers >= CALLERS_TOPICS:
            return NotSent("too many callers' topics fail at once")
        return None

    def _linger(self, topic: str, seconds: float) -> None:
        company = self._company.get(topic)
        if company is None:
            company = self._company[topic] = _Company(asyncio.get_running_loop().call_later(seconds, self._flush, topic))
        company.records += 1
        if company.records >= COMPANY:
            self._flush(topic)

    def _leave(self, lane: Lane) -> None:
        """The lane is sent now, and with it all of its topic that lingers."""
        lane.hurry = True
        if lane.destination[0] in self._company:
            self._flush(lane.destination[0])
        elif not lane.busy:
            self._start(lane)

    def _flush(self, topic: str) -> None:
        self._company.pop(topic).timer.cancel()
        for lane in self._lanes.values():
            lane.hurry = lane.hurry or (bool(lane.waiting) and lane.destination[0] == topic)
        self._start_those_in_a_hurry()

    def _start_those_in_a_hurry(self) -> None:
        for lane in self._lanes.values():
            if lane.hurry and not lane.busy:
                self._start(lane)

    def _start(self, lane: Lane) -> None:
        if self._producer is not None:
            lane.busy = True
            task = asyncio.get_running_loop().create_task(self._drain(lane))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _drain(self, lane: Lane) -> None:
        """Send while there is something to hurry for."""
        pause = 0.0
        try:
            while lane.hurry:
                for _ in range(self._turns):
                    await self._clock.sleep(0)
                if await self._send(lane, first=not pause):
                    pause = 0.0
                else:
                    pause = min(LONGEST_PAUSE_SECONDS, 2 * pause or FIRST_PAUSE_SECONDS)
                    await self._clock.sleep(pause)
        finally:
            lane.busy = False
            self._sweep(lane)

    def _sweep(self, lane: Lane) -> None:
        """Forget a lane in which nothing is left."""
        if not lane.waiting:
            lane.hurry = False
            if not (lane.busy or lane.under_way) and self._lanes.pop(lane.destination, None) is not None:
                self._callers -= lane.callers

    async def _send(self, lane: Lane, *, first: bool) -> bool:
        """One batch; False when something of it must be sent again. `first`: the try before succeeded."""
        batch = lane.take()
        if not batch:
            return True
        results = await self._results(lane, batch)
        lane.under_way = []
        errors = [result for result in results if isinstance(result, Exception)]
        again = [entry for entry, result in zip(batch, results, strict=True) if not self._is_settled(lane, entry, result)] if errors else []
        if not errors:
            for entry, result in zip(batch, results, strict=True):
                entry.under_way = False
                if not entry.settled:
                    self._end(entry, result)
        refused = len(errors) == len(batch) and not all(isinstance(error, NoDestination) for error in errors)
        self._refused_at = self._clock.monotonic() if refused else -inf
        if errors:
            metrics.SEND_FAILURES.labels(self._service).inc(len(errors))
            if first:
                topic, partition = lane.destination
                log.warning("send_failed", topic=topic, partition=partition, records=len(errors), reason=str(errors[0]))
        if again:
            lane.put_back(again)
        return not again

    async def _results(self, lane: Lane, batch: Sequence[OutboxEntry]) -> Sequence[Sent]:
        """An error that is not Kafka's is one record's: the others of its batch are sent without it."""
        results: Sequence[Sent]
        try:
            producer = await self._opened() if lane.callers else self._producer
            assert producer is not None, "nothing is sent before `run` or after it"
            results = await producer.send_many([entry.message for entry in batch])
        except LogError as error:
            return [error] * len(batch)
        except Exception as error:
            results = [error] * len(batch)
        if len(batch) == 1 or set(map(type, results)) == {Appended} or not any(map(_is_odd, results)):
            return results
        return [(await self._results(lane, [e]))[0] if _is_odd(r) else r for e, r in zip(batch, results, strict=True)]

    async def _opened(self) -> Producer:
        """The producer for callers' own topics."""
        async with self._opening:
            if self._callers_producer is None:
                assert self._open_callers is not None, "this service sends to no caller's own topic"
                self._callers_producer = await self._open_callers()
            return self._callers_producer

    def _is_settled(self, lane: Lane, entry: OutboxEntry, result: Sent) -> bool:
        """Whether the entry's fate is known now."""
        entry.under_way = False
        if entry.settled:
            return True
        if isinstance(result, Appended):
            self._end(entry, result)
        elif isinstance(result, RecordTooLarge) or _is_odd(result) or (isinstance(result, NoDestination) and self._is_nowhere(lane, entry)):
            self._give_up(entry, result)
        elif not entry.again or entry.expires_at <= self._clock.monotonic():
            self._end(entry, result)
        else:
            return False
        return True

    def _is_nowhere(self, lane: Lane, entry: OutboxEntry) -> bool:
        """Whether a destination that does not exist never will. One of our own is being made anew."""
        return lane.callers or (entry.message.partition or 0) >= self._own[entry.message.topic]

    def _give_up(self, entry: OutboxEntry, error: Exception) -> None:
        topic, partition = entry.message.topic, entry.message.partition
        metrics.MESSAGES_GIVEN_UP.labels(self._service).inc()
        tell = log.error if topic in self._own or not self._topics.may_reply_to(topic) else log.warning
        tell("message_given_up", topic=topic, partition=partition, bytes=entry.size, reason=str(error))
        self._end(entry, error)

    def _end(self, entry: OutboxEntry, result: Sent) -> None:
        entry.settled = True
        self._records -= 1
        self._bytes -= entry.size
        fate, entry.fate = entry.fate, None
        if fate is not None:
            try:
                fate(result)
            except Exception as error:  # one record's: the lane goes on
                log.failure("fate_not_told", error, topic=entry.message.topic)
        if not self._records:
            self._idle.set()
        if self._was_full and not self.full:
            self._was_full = False
            self._relieved()


def _is_odd(result: Sent) -> bool:
    return isinstance(result, Exception) and not isinstance(result, LogError)


class _Company:
    """What lingers of a topic: how many records, and what sends them at last."""

    __slots__ = ("records", "timer")

    def __init__(self, timer: asyncio.TimerHandle) -> None:
        self.records, self.timer = 0, timer
