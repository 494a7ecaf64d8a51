"""Home: one partition number and the planner's ownership of it: take, replay, rounds, and what to do when the append was not the next.

    take ──► replay ──► rounds ──(unexpected offset with a PlannerStarted in the gap, a lower one, unknown fate)──► forget, take again
                          │ ▲
      revoked: suspended ─┘ └─ assigned again and the log's end is one's own last event: go on with the fold

A round folds what has arrived, appends one batch, and only then lets its effects out (dispatches go beside the append). While an append
is outstanding inputs gather, so rounds grow with the load by themselves. They wait for nothing else (`effects`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial

from services.planner.deciding import attempts
from services.planner.deciding.admission import JobInput
from services.planner.history.appender import Appender
from services.planner.history.gate import GatedJob, IdGate
from services.planner.history.takeover import Superseded, TakeOver
from services.planner.history.upkeep import upkeep
from services.planner.intake.canonical import onward, unknown_job
from services.planner.intake.job_queue import LARGE, JobQueue
from services.planner.intake.open_transactions import TopicIds
from services.planner.intake.order import ClassOrder, Queue, Room
from services.planner.intake.refusals import OutcomesStopped, Refusals
from services.planner.round import Round
from services.planner.schedules.clockwork import Clockwork
from services.planner.shard.ahead import Ahead, job_queues
from services.planner.shard.commit import Commit
from services.planner.shard.effects import Effects
from services.planner.shard.fence import Alarm, Fence
from services.planner.shard.wiring import Wiring
from services.planner.state.book import Book
from services.planner.state.taken import Offsets
from shared.contracts import ids
from shared.contracts.base import CLASSES, PriorityClass
from shared.contracts.outcome import CancelRequested
from shared.errors import InvalidInput, LogError, NewerVersion, RecordTooLarge, SendFailed
from shared.kafka.port import Record, TopicPartition
from shared.processing.tries import GivenUp, Tries, place, read
from shared.telemetry import logs

log = logs.get(__name__)

_UPKEEP_SECONDS = 3_600.0
"""The longest time without a round: what is kept ages in a quiet log, too."""
_RETAKE_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Home:
    """`run` is its one task; `offer`, `suspend`, `resume`, `due_commit` are called by the app on the same event loop."""

    def __init__(self, number: int, wiring: Wiring) -> None:
        self.number = number
        self.running = False
        self.left_because: str | None = None
        """Set when the partition must wait for a newer planner, or for a person."""
        self._wiring, topics = wiring, wiring.topics
        self._events = TopicPartition(topics.job_events, number)
        self._outcomes_topic = topics.outcomes
        self._class_of = {topics.jobs(c): c for c in CLASSES}
        self._homes = topics.settings.home_partitions
        self._book = Book(number, wiring.policy, wiring.random, wiring.tenants)
        self._outcomes = Queue(wiring.options.queue_records)
        self._jobs: dict[str, JobQueue] = {}
        self._order = ClassOrder(wiring.options.interactive_share, wiring.policy.places)
        self._refusals = Refusals(wiring, number)
        self._gate = IdGate(wiring, self._events, self._book, self.nudge)
        self._paused: set[str] = set()
        self._positions: dict[str, int] = {}
        """Next offsets whose predecessors' events are acknowledged."""
        self._topic_ids = TopicIds(wiring.consumer, (*self._class_of, topics.outcomes, topics.job_events))
        self._folded: dict[str, int] = {}
        """Next offsets of what is folded, perhaps not yet acknowledged."""
        self._appender = Appender(wiring, self._events, self._book)
        self._claims_since: float | None = None
        self._wake = asyncio.Event()
        self._alarm = Alarm(self._wake)
        self._suspended = False
        self._resumed = asyncio.Event()
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._clockwork = Clockwork(wiring.schedules, number, self._homes)
        self.tries = Tries()
        self._effects = Effects(wiring, self._book, self._refusals, self.tries, wake=self.nudge, still_owner=self._nobody_wrote)
        """Of records and jobs on which work failed in an unexpected way: they outlive the fold, which is thrown away then."""
        self._failures = 0
        """Take-overs since the last round that went well."""
        self._reset_queues({}, {})

    def offer(self, topic: str, records: Sequence[Record]) -> bool:
        """Take records in; returns whether the partition must be paused now."""
        queue = self._queue(topic)
        queue.offer(records)
        self._wake.set()
        if queue.ahead.full:
            self._paused.add(topic)
        return queue.ahead.full

    def suspend(self) -> None:
        """The partition is being revoked: begin nothing new."""
        self._suspended = True
        self._resumed.clear()

    async def quiet(self) -> None:
        """Wait until no append is outstanding."""
        await self._quiet.wait()

    def nudge(self) -> None:
        """There is something to do: look."""
        self._wake.set()

    def resume(self) -> None:
        """Assigned again: go on if the log's end is one's own."""
        self._paused.clear()
        self._resumed.set()
        self.nudge()

    def take_again(self, why: str) -> None:
        """What is folded may not be the truth any more: begin again from history."""
        self._topic_ids.again = why
        self.nudge()

    def reached(self, topic: str, offset: int) -> None:
        """Everything before `offset` was offered; what the reader passed without offering it is no record (marks of transactions)."""
        last, passed = self._queue(topic).next_offset, self._queue(topic).passed(offset)
        if passed and self._positions.get(topic) == self._folded.get(topic) == last:
            self._positions[topic] = self._folded[topic] = offset

    def due_commit(self) -> Commit | None:
        """What may be committed now, or None. Never positions in topics that were made anew since they were reached."""
        if not self.running or self._topic_ids.wrong() is not None:
            return None
        return Commit.of(self._book, self._events, self._reached(), self._appender.expected - 1, self._topic_ids.taken)

    def _reached(self) -> dict[str, int]:
        return self._effects.owed.clamp(self._positions)

    @property
    def live(self) -> int:
        return self._book.live

    async def run(self) -> None:
        """Own the partition until cancelled or superseded for good (then returns)."""
        while True:
            try:
                await self._take()
                await self._rounds()
            except (NewerVersion, OutcomesStopped) as why:
                # Not ours to guess at (the assignor prefers newer planners), or a defect of somebody: the inputs wait in Kafka.
                log.warning("partition_left_alone", home=self.number, reason=why.message)
                self.left_because = why.message
                return
            except Superseded as why:
                log.warning("superseded", home=self.number, reason=why.message)
            except (SendFailed, RecordTooLarge) as why:
                log.warning("append_failed", home=self.number, reason=why.message)
            except LogError as why:
                log.warning("log_error", home=self.number, reason=why.message)
            except Exception as error:
                # History is intact, so begin again from it, ever more slowly; what it failed on is given up after a few tries.
                log.failure("home_failed", error, home=self.number, at=self.tries.at, tries_left=self.tries.blame())
            finally:
                self.running = False
                self._gate.close()
                self._wiring.eager.leave(self.number)
                self._quiet.set()
            wait = _RETAKE_SECONDS[min(self._failures, len(_RETAKE_SECONDS) - 1)]
            self._failures += 1
            await self._wiring.clock.sleep(wait * (0.5 + self._wiring.random.random()))
            still_owner = self._suspended or await self._wiring.still_owner(self.number)
            if not still_owner and not self._suspended:  # a rebalance that began while that was asked decides it anew
                log.warning("partition_dropped", home=self.number)
                return

    async def _take(self) -> None:
        """Become the owner: PlannerStarted, replay, drive on."""
        while self._suspended:
            await self._resumed.wait()
            self._suspended = False
        wiring = self._wiring
        self.tries.at = None
        taken = await TakeOver(wiring, self.number, self.tries).run()
        self._book = taken.book
        self._appender = Appender(wiring, self._events, taken.book)
        self._topic_ids.taken, self._topic_ids.again = taken.topic_ids, None
        self._positions = dict(taken.inputs)
        self._folded = dict(taken.inputs)
        self._effects = Effects(wiring, taken.book, self._refusals, self.tries, wake=self.nudge, still_owner=self._nobody_wrote)
        self._claims_since = None
        self._clockwork = Clockwork(wiring.schedules, self.number, self._homes)
        self._gate = IdGate(wiring, self._events, taken.book, self.nudge)
        self._reset_queues(taken.inputs, taken.done)
        wiring.rewind(self.number, taken.inputs)
        wiring.eager.enter(self.number, taken.book.unclaimed)
        await self._write(taken.round)
        self.running, taken.book.mailboxes = True, wiring.eager
        wiring.spawn(self._gate.run())
        self.nudge()

    def _reset_queues(self, inputs: dict[str, int], done: Mapping[str, Offsets]) -> None:
        options = self._wiring.options
        self._outcomes = Queue(options.queue_records, inputs.get(self._outcomes_topic), most_bytes=options.queue_bytes)
        outcomes = TopicPartition(self._outcomes_topic, self.number)
        self._fence = Fence(self._wiring, outcomes, self._book, self.tries, self.nudge)
        self._jobs = job_queues(options, self._class_of, inputs, done, lambda job: ids.home_of(job, self._homes) == self.number)
        self.ahead = Ahead(self._jobs, self._topic_ids, self._reached, self._effects.owed, self._gate)
        self._book.taken.standing = self.ahead.standing
        self._paused.clear()

    async def _rounds(self) -> None:
        while True:
            self._set_alarm()
            await self._wake.wait()
            self._wake.clear()
            if self._suspended:
                await self._wait_for_assignment()
            if (wrong := self._topic_ids.wrong()) is not None:
                raise Superseded(wrong)
            await self._wiring.clock.sleep(0)  # a round may await nothing, and others of the process have their turn
            self._quiet.clear()
            try:
                await self._round()
                self._failures = 0
            finally:
                self._quiet.set()

    async def _wait_for_assignment(self) -> None:
        """After a rebalance that gave the partition back: the fold is kept if nobody else has written."""
        await self._resumed.wait()
        self._suspended = False
        if not await self._nobody_wrote():
            raise Superseded("somebody wrote during the rebalance")

    async def _nobody_wrote(self) -> bool:
        """Whether the last event of the partition is one's own, or an append was acknowledged in its place since this was asked."""
        appender, expected = self._appender, self._appender.expected
        end = (await self._wiring.consumer.end_offsets([self._events]))[self._events]
        return appender is self._appender and (end == appender.expected or appender.expected > expected)

    async def _round(self) -> None:
        await self._write(self._fold())
        if self._more():
            self._wake.set()

    # Folding

    def _fold(self) -> Round:
        round_ = Round.of(self._book, self._wiring.clock.wall(), self._wiring.clock.monotonic())
        self.ahead.under_way.clear()
        self._effects.fold_returned(round_)
        self._fold_outcomes(round_)
        self._fold_jobs(round_)
        self._fire_timers(round_)
        self._clockwork.fire(round_, self._wiring.options.live_jobs - self._book.live)
        if upkeep(round_, self._appender.expected, self._wiring.options.snapshot_distance):
            self.nudge()
        self._fold_claims(round_)
        return round_

    def _fold_outcomes(self, round_: Round) -> None:
        for _ in range(min(len(self._outcomes.records), self._wiring.options.round_outcomes)):
            record = self._outcomes.take()
            self._refusals.outcome_read()
            try:
                self._fold_outcome(round_, record)
            except InvalidInput as error:
                self._effects.owe(record, self._refusals.outcome(record, error))
            self._folded[self._outcomes_topic] = record.offset + 1
        self.tries.at = None
        self._drained(self._outcomes_topic)

    def _fold_outcome(self, round_: Round, record: Record) -> None:
        """Raises InvalidInput; when folding it has failed too often, the job that it is about ends too."""
        outcome = read(record, self._wiring.reader.outcome)
        job = getattr(outcome, "job", None)
        try:
            self.tries.begin(place(record), job)
        except GivenUp:
            attempts.give_up(round_, outcome)
            self.tries.exhaust(job or place(record))  # what else is told of the job would fail alike
            raise
        if isinstance(outcome, CancelRequested) and outcome.job not in self._book.jobs:
            # Nowhere else is it known whether the job has ended, or waits elsewhere: here it would get a second end.
            elsewhere = onward(record, outcome, self.number, self._homes)
            if elsewhere is not None:
                self._effects.owe(record, [elsewhere])
                return
        self._effects.on_outcome(round_, record, outcome)

    def _fold_jobs(self, round_: Round) -> None:
        for one in self._gate.release(round_.now):
            self.ahead.under_way.append(one.record)
            try:
                self._effects.take_in(round_, one)
            except InvalidInput as error:
                self._effects.owe(one.record, self._refusals.job(one.record, error, one.given.priority_class, round_.wall, one.given.id))
        self._fold_cancels(round_)
        queues = {c: self._jobs[topic] for topic, c in self._class_of.items()}
        for priority_class, record in self._order.take(queues, self._budget(), self._room(), round_.now):
            self._read(round_, record, priority_class)
        self.tries.at = None
        for topic, jobs in self._jobs.items():
            if jobs.position is not None:
                self._folded[topic] = max(self._folded.get(topic, 0), jobs.position)
            self._drained(topic)

    def _fold_cancels(self, round_: Round) -> None:
        """Whatever the room: what they end may be what keeps it."""
        for topic, jobs in self._jobs.items():
            for _ in range(self._wiring.options.round_jobs if jobs.holds_cancel else 0):
                if (record := jobs.take_cancel()) is None:
                    break
                self._read(round_, record, self._class_of[topic])
        for one in self.ahead.unmet.over(round_.now, self._book.knows, self.ahead.position):
            self._effects.owe(one.record, self._refusals.job(one.record, unknown_job(), one.priority_class, round_.wall, one.job))

    def _read(self, round_: Round, record: Record, priority_class: PriorityClass) -> None:
        self.ahead.under_way.append(record)
        try:
            topic_id = self._topic_ids.taken.get(record.topic)
            given = read(record, partial(self._wiring.reader.read, priority_class=priority_class, topic_id=topic_id))
            self.tries.begin(place(record))
            if self._effects.send_on(record, given, self.number, self._homes):
                return
            if isinstance(given, JobInput):
                if not self._gate.hold(record, given, round_.now):
                    self._effects.take_in(round_, GatedJob(record, given))
            else:
                attempts.on_outcome(round_, given)
                if not self._book.knows(given.job, round_.now):
                    self.ahead.unmet.add(record, priority_class, given.job, round_.now, ahead=self.ahead.is_ahead(record))
        except InvalidInput as error:
            self._effects.owe(record, self._refusals.job(record, error, priority_class, round_.wall))

    def _fold_claims(self, round_: Round) -> None:
        """Claims ride with other events; alone they wait a little, because most short steps end within that time."""
        if not self._book.claim_news:
            return
        if self._claims_since is None:
            self._claims_since = round_.now
        if round_.events or round_.now - self._claims_since >= self._wiring.options.claim_delay_seconds:
            attempts.flush_claims(round_)
            self.tries.at = None
            self._claims_since = None

    def _fire_timers(self, round_: Round) -> None:
        self._fence.fire(round_, self._folded.get(self._outcomes_topic, 0))

    def _drained(self, topic: str) -> None:
        if topic in self._paused and self._queue(topic).ahead.half_empty:
            self._paused.discard(topic)
            self._wiring.unpause(TopicPartition(topic, self.number))

    def _more(self) -> bool:
        """Whether another round would find something that it may take."""
        room, first = self._room(), bool(self._outcomes.records) or any(queue.holds_cancel for queue in self._jobs.values())
        jobs = self._jobs if self._budget() > 0 else {}
        return first or any(room.has(c := self._class_of[t]) and q.holds(room.admits(c)) for t, q in jobs.items())

    def _budget(self) -> int:
        """Most jobs of one round."""
        return 0 if self._wiring.outbox.full else self._wiring.options.round_jobs

    def _queue(self, topic: str) -> Queue | JobQueue:
        return self._outcomes if topic == self._outcomes_topic else self._jobs[topic]

    def _room(self) -> Room:
        """What waits at the gate, and records that owe a message, count in their class as live jobs do."""
        live, gate, owed = self._book.live_count, self._gate.of_class, self._effects.owed
        held = {c: live.of_class[c] + gate[c] + owed.count(topic) for topic, c in self._class_of.items()}
        closed, shut = LARGE if self._effects.inputs.full else None, self.ahead.shut(self._class_of, len(self._book.out))
        return Room(self._wiring.options.live_jobs, held, live.of_tenant, closed=closed, shut=shut)

    def _set_alarm(self) -> None:
        """Wake the task for the next timer or for claims that have waited long enough."""
        due = min(self._fence.next_due, self.ahead.unmet.next_due)
        if self._claims_since is not None:
            due = min(due, self._claims_since + self._wiring.options.claim_delay_seconds)
        now = self._wiring.clock.monotonic()
        self._alarm.set(min(due, now + _UPKEEP_SECONDS, now + self._clockwork.seconds_left(self._wiring.clock.wall())), now)

    # Writing

    async def _write(self, round_: Round) -> None:
        """Dispatches beside the append; effects after its acknowledgement; then the inputs count as done."""
        for dispatch in round_.dispatches:
            self._effects.dispatch(dispatch)
        if round_.lookups:
            self._effects.look_up(round_.lookups)
        self._wiring.eager.take_back(self.number)
        folded = None if self._claims_since is not None else self.ahead.unmet.clamp(self._gate.clamp(self._folded))
        await self._appender.append(round_)
        self._effects.let_out(round_)
        if folded is not None:
            self._positions = folded
