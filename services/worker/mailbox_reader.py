"""The worker's seat in the cluster: takes a mailbox number through `nodes`, reads that mailbox and its controls, commits what it read.

assign() with a group that is used for positions only: a laptop that falls asleep rebalances nobody. Everything read is taken or
released at once, so a position never waits for a generation.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TypeVar

from services.worker.boots import EarlierBoots
from services.worker.handlers import AttemptManager
from services.worker.positions import MailboxPositions
from services.worker.watch import Watch
from services.worker.wiring import WorkerContext
from shared.contracts import headers
from shared.contracts.control import CONTROL, Control
from shared.contracts.node import Node
from shared.contracts.step import Step
from shared.errors import ConsumerGaveUp, InvalidInput, InvalidRecord, LogError, LogUnavailable, TopicMadeAnew
from shared.kafka.port import Consumer, Log, Message, MissedRecords, Producer, Record, TopicPartition
from shared.processing.dead_letters import DeadLetterCap
from shared.processing.lane import Sent
from shared.processing.outbox import Outbox
from shared.processing.tries import GivenUp, message, read
from shared.services import group_of
from shared.settings import DeadLetterCapSettings
from shared.telemetry import logs, metrics
from shared.topics import model_for

log = logs.get(__name__)

T = TypeVar("T")

POLL_SECONDS = 1.0
GIVE_UP_AFTER = 20
"""Failures in a row, Kafka's absence not counted, after which a new process does better (a consumer may be stuck for good)."""
RETRY_SECONDS = 0.5


class MailboxReader:
    """Reads one mailbox number in the topic of every kind of model. `describe(number)` gives a Node record that claims it."""

    def __init__(
        self,
        here: WorkerContext,
        attempts: AttemptManager,
        outbox: Outbox,
        watch: Watch,
        *,
        describe: Callable[[int], Node],
        cap: DeadLetterCapSettings,
    ) -> None:
        self.number: int | None = None
        """The mailbox number; None until it is taken."""
        self.waits_for: str | None = "the registry of nodes has not been read yet"
        """Why there is no mailbox yet, for people."""
        self.superseded = self.given_back = False
        """A later boot of this node has started. The last word of this node is that it has left: nothing is said after it."""
        self._failures, self._begun = 0, False
        self.answered = False
        """The last poll was answered."""
        self.read_at = here.clock.monotonic()
        """When the last step was read, monotonic seconds."""
        self._here, self._attempts, self._outbox, self._watch = here, attempts, outbox, watch
        self._topics, self._clock = here.topics, here.clock
        self.boots = EarlierBoots(here)
        watch.on_credits = self.boots.on_credits
        self._models, self._describe, self._cap = tuple(dict.fromkeys(map(model_for, here.allowed))), describe, cap
        self._caps: dict[TopicPartition, DeadLetterCap] = {}
        self._positions = MailboxPositions(attempts.announce)
        self._kept = False
        self._fresh = True
        """Nothing has been assigned to the consumer yet."""
        self._consumer: Consumer | None = None
        self._connect: Callable[[], Awaitable[Consumer]] | None = None
        self._producer: Producer | None = None
        self._listen: Callable[[], Awaitable[None]] | None = None

    async def start(self, log_: Log, producer: Producer, client_id: str) -> None:
        """Connect. Waits for Kafka."""
        self._producer, self._listen = producer, partial(self.boots.gone, log_, f"{client_id}-boots")
        group = group_of(f"worker-{self._attempts.node}", self._topics.settings.prefix)
        self._connect = partial(log_.consumer, client_id=client_id, group=group, reset="earliest")
        self._consumer = await self._connect()

    def describe(self, number: int) -> Node:
        """The Node record of this moment."""
        return self._describe(number).model_copy(update={"waits": bool(self.boots.waits)})

    def positions(self) -> dict[str, int]:
        """Kind of model to the next offset of the mailbox that will be read."""
        return self._by_model(self._positions.read)

    def told(self) -> dict[str, tuple[int, int]]:
        """Kind of model to the offsets of the mailbox from and up to which the home of every record was told what became of it."""
        return self._by_model(self._positions.told())

    def _by_model(self, found: Mapping[TopicPartition, T]) -> dict[str, T]:
        return {name: found[tp] for name in self._models if (tp := self._work(name)) in found}

    async def run_commits(self) -> None:
        """Commit for ever. What fails is repeated together with what came since. An idle worker has nothing left to commit."""
        while True:
            await self._positions.moved.wait()
            await self._gather()
            self._positions.moved.clear()
            try:
                await self._commit()
            except LogError as error:
                log.warning("commit_failed", code=error.code)
                self._positions.moved.set()
                await self._clock.sleep(RETRY_SECONDS)

    async def _gather(self) -> None:
        """More moves soon, unless the worker is idle."""
        settings, clock = self._here.settings, self._clock
        due = clock.monotonic() + settings.commit_seconds
        while (now := clock.monotonic()) < due and (len(self._attempts.leases) or now < self.read_at + settings.commit_idle_seconds):
            await clock.sleep(min(settings.commit_idle_seconds, due - now))

    async def _commit(self) -> None:
        """Commit what is claimed or released in the log, as far as it is still assigned.

        What lies beyond where the consumer stands was reached in a topic that was made anew since: dropped.
        """
        consumer = self._consumer
        assert consumer is not None
        if self.superseded:
            return  # positions of who assigned by hand are not fenced
        assigned = consumer.assignment()
        reached = {tp: consumer.reached(tp) for tp in assigned}
        offsets = {tp: at for tp, at in self._positions.passable().items() if tp in assigned and at <= (reached[tp] or at)}
        if self._positions.is_news(offsets):
            await consumer.commit(offsets)
            self._positions.committed(offsets)

    async def run(self) -> None:
        """Take a number, read until it is lost, take another one. For ever; Kafka's absence is waited out."""
        while True:
            try:
                await self._take_number()
                await self._begin()
                without = self._missing()
                await self._settle_in(without)
                while self._held() and self._missing() == without:
                    await self._read_patiently()
                if not self._held():
                    log.warning("mailbox_lost", number=self.number)
                    self.number, self.waits_for = None, "another node owns the mailbox number"
            except TopicMadeAnew as error:
                log.warning("mailbox_made_anew", topic=error.topic)  # settled in anew, where it begins
            except LogError as error:
                self.answered = False
                log.warning("mailbox_waits", code=error.code, message=error.message)
                self._failures += not isinstance(error, LogUnavailable)
                if self._failures >= GIVE_UP_AFTER:
                    raise ConsumerGaveUp(error.message) from error
                await self._clock.sleep(RETRY_SECONDS)

    def _held(self) -> bool:
        return self._watch.registry.number_of(self._attempts.node) == self.number

    @property
    def incarnation(self) -> int | None:
        """Of this boot; None until its first record in `nodes` is read."""
        return self._watch.incarnation

    async def _begin(self) -> None:
        """Once, when no earlier boot of this node runs any longer: only then the mailbox, and how far it was read, are this one's."""
        if self._begun:
            return
        if self.boots.waits:
            self.waits_for, self.answered = "an earlier boot of this node may still run", True
        assert self._listen is not None
        await self._listen()
        while (incarnation := self.incarnation) is None:
            await self._watch.caught_up()
        self._attempts.begin(incarnation, self._topics.settings.home_partitions)
        self._begun = True

    def supersede(self) -> None:
        """A later boot begins where this one has committed, when this one is gone: no more is read or committed. Stops are still read."""
        self.superseded = True
        if self._consumer is not None:
            self._consumer.pause(*(tp for tp in self._consumer.assignment() if tp.topic != self._topics.controls))

    # Taking a number

    async def _take_number(self) -> None:
        """Name a number in the log until the log says that it is ours. Returns at once when it still is."""
        while self.number is None or not self._held():
            await self._watch.caught_up()
            self.boots.look(self._watch.registry.newest(self._attempts.node))
            partitions = self._topics.mailboxes_to_take(self._clock.monotonic())
            proposal = self._watch.registry.propose(
                self._attempts.node, partitions, self._clock.monotonic(), self._here.settings.node_expiry_seconds
            )
            if proposal is None:
                self.waits_for = f"all {partitions} mailbox numbers are taken; waiting for a node to expire"
                await self._clock.sleep(1.0)
                continue
            if proposal.evict is not None:
                await self._write(Message(self._topics.nodes, None, proposal.evict.encode(), 0))
            # A worker that is told to stop gives its number back; started again at once, it goes on behind what it has read.
            mine = self._watch.registry.last_of(proposal.number) == self._attempts.node
            offset = await self._write(self._claiming(proposal.number))
            await self._watch.read_to(offset + 1)
            if self._watch.registry.number_of(self._attempts.node) == proposal.number:
                self.number, self._attempts.mailbox, self._kept = proposal.number, proposal.number, mine

    def _claiming(self, number: int) -> Message:
        value = self.describe(number).to_bytes()
        return Message(self._topics.nodes, value, self._attempts.node.encode(), 0, headers.envelope("node"))

    async def _write(self, message: Message) -> int:
        assert self._producer is not None
        return (await self._producer.send(message)).offset

    # Reading

    def _work(self, model: str) -> TopicPartition:
        return TopicPartition(self._topics.work(model), self.number or 0)

    @property
    def _controls(self) -> TopicPartition:
        return TopicPartition(self._topics.controls, self.number or 0)

    def _missing(self) -> frozenset[str]:
        """Topics of the mailbox that do not exist: the others are read meanwhile."""
        return self._topics.missing.intersection((self._topics.controls, *map(self._topics.work, self._models)))

    async def _settle_in(self, without: Collection[str]) -> None:
        """Go on where this node stopped; begin at the end of a mailbox that was another's, or nobody's, until now."""
        partitions = [tp for tp in (*map(self._work, self._models), self._controls) if tp.topic not in without]
        if not partitions:
            raise LogUnavailable("none of the mailbox's topics exists")
        await self._assign(partitions)
        assert self._consumer is not None
        self._positions.begin({})
        self._caps = {self._work(name): DeadLetterCap(self._work(name), self._cap) for name in self._models}
        begins = await self._consumer.beginning_offsets(partitions)
        ends = await self._consumer.end_offsets(partitions)
        committed = await self._consumer.committed(partitions) if self._kept else {}
        next_: dict[TopicPartition, int] = {}
        for tp in partitions:
            # A kept mailbox without a position is a topic that was made anew.
            at = committed.get(tp)
            at = (begins[tp] if self._kept else ends[tp]) if at is None else at
            next_[tp] = min(max(at, begins[tp]), ends[tp])
            if at != next_[tp]:
                self._consumer.missed.append(MissedRecords(tp, at, next_[tp]))
        for tp, offset in next_.items():
            self._consumer.seek(tp, offset)
        await self._consumer.commit(next_)
        self._positions.begin(next_)
        self._kept = True
        self.waits_for, self.answered = None, True
        log.info("mailbox_taken", number=self.number, models=list(self._models))
        self._attempts.announce()

    async def _assign(self, partitions: Sequence[TopicPartition]) -> None:
        """A consumer of its own for each assignment.

        aiokafka's group coordinator takes its assignment, looks for the group's broker, and asserts that the assignment still is the
        one: a second assign() meanwhile ends it for good, and with it every commit (0.14.0, `_coordination_routine`).
        """
        assert self._consumer is not None
        assert self._connect is not None
        if not self._fresh:
            await self._consumer.close()
            self._consumer = await self._connect()
        self._fresh = False
        self._consumer.assign(partitions)

    async def _read_patiently(self) -> None:
        """While Kafka is away nothing is given up: the number, the position and what was read stay."""
        try:
            await self._read_once()
        except LogUnavailable as error:
            self.answered = False
            log.warning("mailbox_waits", code=error.code, message=error.message)
            await self._clock.sleep(RETRY_SECONDS)

    async def _read_once(self) -> None:
        assert self._consumer is not None
        batches = await self._consumer.poll(timeout_seconds=POLL_SECONDS)
        self.answered = True
        self._failures = 0
        if not batches:
            return
        controls = self._controls
        for record in batches.get(controls, ()):
            self._on_control(record)
        for tp, records in batches.items():
            if tp != controls:
                self.read_at = self._clock.monotonic()
                self._on_mailbox(tp, records)
            elif records:
                self._positions.read[tp] = records[-1].offset + 1
        self._attempts.slots.round_trip.arrived(sum(self.positions().values()), self._clock.monotonic())
        self._positions.moved.set()
        self._attempts.start_waiting()
        self._attempts.announce()

    def _on_mailbox(self, tp: TopicPartition, records: Sequence[Record]) -> None:
        """Take or refuse each; a mailbox that is mostly refused is left where it is. Controls are never stopped: they cancel."""
        cap = self._caps[tp]
        if cap.reason is not None or self.superseded:
            return
        for record in records:
            cap.read()
            reason = None if self._on_work(record) else cap.died(record)
            self._positions.read[tp] = record.offset + 1
            if reason is not None:
                self._stop(tp, reason)
                return

    def _stop(self, tp: TopicPartition, reason: str) -> None:
        """Offer no places: routers give the steps to other nodes, and what lies unread is claimed by nobody and tried elsewhere."""
        assert self._consumer is not None
        log.error("dead_letter_cap", reason=reason)
        metrics.STOPPED_PARTITIONS.labels("worker").inc()
        self._consumer.pause(tp)
        self._attempts.close(reason)

    def _on_work(self, record: Record) -> bool:
        """False when it is none, and went to the dead letters."""
        try:
            step, addressee, says = read(record, self._step)
        except InvalidInput as error:
            self._refuse(record, error)
            return False
        trace, waited, used = says.traceparent(), says.waited(), says.get(headers.CREDITS)
        owe = partial(self._owe, record)
        try:
            why, at = says.why(), record.timestamp
            self._attempts.on_step(step, trace, addressee, used=used, why=why, waited_seconds=waited, written_ms=at, owe=owe)
        except Exception as error:  # half begun, it is not begun again: its job tries elsewhere
            log.failure("step_failed", error, job=step.job, step=step.id)
            self._attempts.fail(step, trace, owe)
            self._refuse(record, GivenUp(f"taking the step failed: {type(error).__name__}"))
            return False
        return True

    def _step(self, record: Record) -> tuple[Step, str | None, headers.Envelope]:
        """The step, the node that it was given to, and what else its headers say. Raises InvalidRecord."""
        step, says = message(record, Step.model_validate_json, "step"), headers.Envelope(record.headers)
        if step.home >= self._topics.settings.home_partitions:
            raise InvalidRecord("the step's home is not a partition of this cluster")
        return step, says.text(headers.NODE), says

    def _on_control(self, record: Record) -> None:
        """What it does may be done again."""
        try:
            read(record, self._obey)
        except InvalidInput as error:
            self._refuse(record, error)

    def _obey(self, record: Record) -> None:
        control: Control = message(record, CONTROL.validate_json, "control")
        self._attempts.on_control(control)

    def _owe(self, record: Record) -> Callable[[Sent], None]:
        """The record's position waits for one thing more."""
        paid = self._positions.hold(record)
        return lambda _: paid()

    def _refuse(self, record: Record, error: InvalidInput) -> None:
        self._positions.untold(record)
        self._outbox.bury(record, error, self._positions.hold(record))

    async def give_back(self) -> None:
        """A tombstone frees the mailbox number, and lets a later boot go on at once: none of one that was replaced under its own id, nor of
        one that has waited for the end of an earlier boot until now, nor of one whose machine is put to sleep by being switched off.
        """
        node = self._here.node
        self.given_back = True
        newest = self._watch.registry.newest(node)
        if self._begun and self.number is not None and newest is not None and newest.boot == self._here.boot and not newest.asleep:
            with contextlib.suppress(LogError):
                await self._commit()
                await self._write(Message(self._topics.nodes, None, node.encode(), 0))

    async def close(self) -> None:
        """Commit what is acknowledged, then leave."""
        if self._consumer is None:
            return
        with contextlib.suppress(LogError):
            await self._commit()
        await self._consumer.close()
