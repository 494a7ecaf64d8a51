"""What the worker does with what it reads: steps, stops, drains; and with attempts that end. No I/O here: records go to the outbox."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from services.worker.attempt import Attempt, OutcomeWriter, claimed, crash, crashed, measure, released
from services.worker.chores import Chores, silent
from services.worker.concurrency import Concurrency
from services.worker.credits import EagerGate
from services.worker.health import OVERLOAD_PAUSE_SECONDS, Health
from services.worker.inbox import Inbox, StoppedSteps, concerns
from services.worker.lease_log import LeaseLog
from services.worker.round_trip import RoundTrip
from services.worker.runner import Ended, Runner
from services.worker.slots import Slots
from services.worker.speeds import Timeouts, overdue
from services.worker.wiring import WorkerContext
from shared.contracts.chat import Operation
from shared.contracts.control import BeginStep, Control, Drain, StopClaims, StopStep
from shared.contracts.failure import Failure
from shared.contracts.failure import FailureKind as K
from shared.contracts.maintenance import Maintenance
from shared.contracts.outcome import StepFailed, StepReleased, StepSucceeded
from shared.contracts.step import Step
from shared.kafka.port import Message
from shared.placement.parties import Parties
from shared.processing.lane import Fate, OutboxEntry
from shared.processing.outbox import Outbox
from shared.telemetry import logs, tracing

log = logs.get(__name__)

DRAINING, MAINTENANCE = "the node is draining", "the node is out of service"
CLAIM_LINGERS_SECONDS = 0.01
"""How long a claim waits for its outcome. Short beside the claim timeout (5 s), long beside a step without a model."""
MOST_RIDERS = 64
"""Embedding steps that share another one's slot and, within a bound of texts, its call."""


_NOT_THE_ENDPOINTS = (Operation.TOOL, Operation.MANAGE)  # behind each tool, and behind a pull, there is something else
Owe = Callable[[], Fate | None]
"""A record's position waits for one thing more."""


def owes_nothing() -> None:
    """Of what is put without a record that is read."""


class AttemptManager:
    """All attempts of this worker. Everything happens on the event loop, in call order.

    What it tells is sent until it is acknowledged; duplicates are harmless. Bounded by what feeds it: a worker reads nothing new while
    Kafka is away, and holds a bounded number of claims.
    """

    def __init__(self, here: WorkerContext, outbox: Outbox, unreachable: Callable[[], None], parties: Parties, health: Health) -> None:
        """`unreachable`: a call found nobody at the endpoint."""
        self.health, health.heed = health, self._heed
        settings, self.node, self._allowed = here.settings, here.node, here.allowed
        round_trip = RoundTrip(settings.credit_round_trip_seconds)
        self.slots = Slots(settings.slots, prefetch_limit=settings.prefetch_limit, round_trip=round_trip)
        self._concurrency = None if (least := settings.slots_least) is None else Concurrency(min(least, settings.slots), settings.slots)
        self.slots.limit = settings.slots if self._concurrency is None else self._concurrency.limit
        self.inbox, self.chores = Inbox(settings.inbox_limit), Chores()
        self.leases = LeaseLog[Message](here.node, kept_outcomes=settings.kept_outcomes, kept_bytes=settings.kept_outcome_bytes)
        self.mailbox = 0
        self.closings: dict[str, None] = {}
        """Why no step is taken at present, whoever said it: each ends by itself. Empty when open."""
        self._clock, self._writer, self._outbox = here.clock, OutcomeWriter(here.topics.outcomes), outbox
        self.gate = EagerGate(here.boot, lambda: parties.others_wait(here.clock.monotonic()))
        self._timeouts = Timeouts.of(settings)
        self._stops = StoppedSteps(settings.remembered_stops)
        self.announce = here.places_changed.set
        """Places, position or running count changed: tell the routers soon."""
        self._news, self._unreachable = here.node_news.set, unreachable
        self._model: str | None = None
        """Of the step that began last."""
        self._renewals: dict[tuple[int | None, int], OutboxEntry] = {}

    def attach(self, runner: Runner, failed: Callable[[Exception], None]) -> None:
        """Before anything is read: the runner that attempts are given to, and who ends the service by what their ends raise."""
        self._runner, self._failed = runner, failed

    def begin(self, incarnation: int, homes: int) -> None:
        """No earlier boot runs: what those have claimed is void, and from now on steps are claimed in this one's name."""
        self.leases.incarnation = incarnation
        for message in self._writer.started(self.node, incarnation, homes):
            self._outbox.put(message)

    # What is read

    def on_step(
        self,
        step: Step,
        trace: str | None,
        addressee: str | None,
        *,
        used: bytes | None = None,
        why: str | None = None,
        waited_seconds: float = 0.0,
        written_ms: int = 0,
        owe: Owe = owes_nothing,
    ) -> None:
        """A record of the mailbox: claimed, or answered from memory, or released; never dropped silently.

        `why`: of this node, for history. `used`: the record of credits on which a planner has written it itself; None: a router has.
        `waited_seconds`: since what the step says of its deadline was written; `written_ms`: when the record arrived.
        """
        kept = self.leases.finished(step)
        if kept is not None:
            self._outbox.put(kept, owe())
            return
        refusal = self._refusal(step, addressee) or (used and self.gate.refusal(used))
        if refusal:
            if used:
                self.gate.gave_back()
                self.announce()
            self._put(released(step, None, self.node, refusal), step, trace, owe)
            return
        stopped = self._stops.reason(step)
        span = tracing.child(trace, step.id, step.attempt) if trace else None
        attempt = self.leases.claim(step, span, self._clock.monotonic())
        if attempt is None:
            return
        self.health.begin(attempt)
        attempt.written_ms, attempt.why = written_ms, why
        if step.deadline_at is not None:  # by the brokers' clock: the one here may be wrong
            attempt.expires_at = attempt.taken_at + step.deadline_at - written_ms / 1000
        elif step.seconds_left is not None:
            attempt.expires_at = attempt.taken_at + step.seconds_left - waited_seconds
        if stopped:
            self._end_waiting(attempt, Failure(kind=K.CANCELLED, message=stopped), owe)
            return
        self._put_claim(attempt, owe)
        (self.chores.push if step.task else self.inbox.push if step.idempotent else self.inbox.hold)(attempt)

    def fail(self, step: Step, trace: str | None, owe: Owe = owes_nothing) -> None:
        """Taking it raised what nobody expected: whatever was begun of it ends, and its job is told."""
        attempt = next((a for a in self.leases.of_step(step.id) if a.step.attempt == step.attempt), None)
        if attempt is None:
            self._put(crashed(step, None, self.node), step, trace, owe)
        elif attempt.task is None:
            self._take_out(attempt)
            self._end(attempt, crashed(step, attempt.claim, self.node), owe)

    def _refusal(self, step: Step, addressee: str | None) -> str | None:
        if addressee is not None and addressee != self.node:
            return "this mailbox belongs to another node now"
        if step.capability not in self._allowed:
            return "this node does not serve the step's agent"
        if step.needs.node is not None and step.needs.node != self.node:
            return "the step is bound to another node"
        if self.closings:
            return next(iter(self.closings))
        return self.health.refusal(step) or ("the inbox is full" if self.inbox.full or (step.task and self.chores.full) else None)

    def _take_out(self, attempt: Attempt) -> bool:
        """Where it waits; False when it does not."""
        return self.inbox.remove(attempt) or self.chores.remove(attempt)

    def on_control(self, control: Control) -> None:
        """What this node, or every one, is told."""
        match control:
            case StopStep():
                self.on_stop(control)
            case BeginStep():
                self.on_begin(control)
            case StopClaims():
                self.on_stop_claims(control)
            case Drain():
                self.on_drain(control)

    def on_stop(self, stop: StopStep) -> None:
        """Close the streams that `stop` means; remember it for attempts not read yet."""
        if stop.node not in (None, self.node):
            return
        self._stops.remember(stop)
        for attempt in self.leases.of_step(stop.step):
            if concerns(stop, attempt):
                self.stop(attempt, Failure(kind=K.CANCELLED, message=stop.reason))

    def on_begin(self, begin: BeginStep) -> None:
        """What must not be done twice may begin: the claim stands in history."""
        if begin.node == self.node:
            self.inbox.let_go(begin.claim)
            self.start_waiting()

    def on_stop_claims(self, stop: StopClaims) -> None:
        """End the attempts that these claims are of."""
        if stop.node != self.node:
            return
        for attempt in self.leases:
            if attempt.claim in stop.claims:
                self.stop(attempt, Failure(kind=K.CANCELLED, message=stop.reason))

    def on_drain(self, drain: Drain) -> None:
        """An administrator's word; undone by the opposite one."""
        if drain.node == self.node:
            if drain.draining:
                self.close(DRAINING)
            else:
                self.reopen(DRAINING)

    def on_maintenance(self, _kind: str, name: str, value: bytes | None) -> None:
        """An entry of the registry: the same, and it holds for every boot of the node. Raises ValueError when it is not valid."""
        if name == self.node and value is None:
            self.reopen(MAINTENANCE)
        elif name == self.node and value is not None:
            Maintenance.model_validate_json(value)
            self.close(MAINTENANCE)

    # Places

    def close(self, reason: str) -> None:
        """Take nothing more and give back what waits; what runs goes on. Until `reopen` of the same reason, whatever others say."""
        self.closings[reason] = None
        self.give_back_waiting(reason)
        self._news()
        self.announce()

    def give_back_waiting(self, reason: str) -> None:
        """Release what is claimed and has not begun."""
        for attempt in (*self.inbox.clear(), *self.chores.clear()):
            self._give_back(attempt, reason)

    def reopen(self, reason: str) -> None:
        """This reason is over: steps are taken again if there is no other."""
        self.closings.pop(reason, None)
        self._news()
        self.announce()

    def _heed(self) -> None:
        """Give back what has been claimed, and may not be asked of the endpoint, or its model, any longer. What runs goes on."""
        for attempt in self.leases:
            if attempt.asked_at is None and attempt.released is None and (reason := self.health.refusal(attempt.step, attempt.claim)):
                if self.inbox.remove(attempt):
                    self._give_back(attempt, reason)
                else:
                    self._release(reason, (attempt,))

    def reasons(self) -> Iterator[str]:
        """Why no step is taken at present."""
        yield from self.closings
        yield from self.health.reasons()

    def places(self) -> int:
        """Places to offer now."""
        return 0 if self.closings or self.inbox.blocked else self.health.places(self.slots.places(self._clock.monotonic(), len(self.inbox)))

    def free_seconds(self) -> float | None:
        """How soon the first of its slots is likely to be free, where none is; None where that is not known."""
        return None if self.slots.free > 0 else self._runner.first_end(self.leases)

    def start_waiting(self) -> None:
        """Start as many as there are free slots, most urgent first; and tasks on models, which take none."""
        for task in self.chores.startable():
            self._start(task)
        now = self._clock.monotonic()
        while self.slots.free > 0:
            attempt = self.inbox.pop(self._model, now, self._begins if self.slots.busy else None)
            if attempt is None:
                return
            self._model = attempt.step.model
            self.slots.take(now)
            self._start(attempt)
            for rider in self.inbox.pop_like(attempt, MOST_RIDERS):
                rider.rides = True
                self._start(rider)

    def _begins(self, attempt: Attempt) -> bool:
        return self.health.begins(attempt.step, self.leases)

    def _start(self, attempt: Attempt) -> None:
        attempt.busy_before = self.slots.busy_seconds(self._clock.monotonic())
        attempt.task = asyncio.get_running_loop().create_task(self._runner.run(attempt))
        attempt.task.add_done_callback(partial(self._ended, attempt))

    # Ends

    def stop(self, attempt: Attempt, failure: Failure) -> None:
        """End this attempt with `failure`: at once when it waits, else as soon as its stream is closed."""
        if self._take_out(attempt):
            self._end_waiting(attempt, failure)
        elif attempt.task is not None and attempt.stop is None:
            attempt.stop, attempt.stopped_at = failure, self._clock.monotonic()
            attempt.cancel(attempt.stopped_at)

    def release_running(self, reason: str) -> None:
        """Give back what still runs: its streams are closed, no attempt is counted."""
        self._release(reason, self.leases)

    def _release(self, reason: str, attempts: Iterable[Attempt]) -> None:
        for attempt in attempts:
            if attempt.task is not None and attempt.stop is None:
                attempt.released = reason
                attempt.cancel(self._clock.monotonic())

    def sweep(self) -> None:
        """Stop what has taken too long, and what waits beyond its deadline; end a pause."""
        now = self._clock.monotonic()
        if self.health.look():
            self._news()
            self.announce()
        if self.chores.news():
            self._news()
        for attempt in self.leases:
            attempt.insist(now)
            try:
                failure = silent(attempt, now) if attempt.step.task else overdue(attempt, self._timeouts, now)
            except Exception as error:
                log.failure("attempt_not_judged", error, job=attempt.step.job, step=attempt.step.id)
                failure = crash()
            if failure is not None:
                self.stop(attempt, failure)
        if len(self.inbox):  # what was in its way may have left it, or memory, without a call's end
            before = self.slots.busy, self.inbox.blocked
            self.start_waiting()
            if before != (self.slots.busy, self.inbox.blocked):
                self.announce()

    def renew(self) -> None:
        """Renew every claim, one record a home, sent once; newer ones replace those not sent yet, so that they never pile up."""
        waiting, self._renewals = self._renewals, {}
        for number, message in enumerate(self._writer.renewals(self.node, self.mailbox, self.leases.by_home())):
            where = (message.partition, number)
            self._renewals[where] = self._outbox.put(message, again=False, instead_of=waiting.get(where))

    def _ended(self, attempt: Attempt, task: asyncio.Task[Ended]) -> None:
        """The event loop would only log what this raises, and the step or its slot be held for ever. What only counts comes last."""
        now = self._clock.monotonic()
        try:
            outcome = self._on_done(attempt, task, now)
        except Exception as error:
            self._failed(error)
        else:
            measure(attempt, outcome, now)

    def _on_done(self, attempt: Attempt, task: asyncio.Task[Ended], now: float) -> Ended:
        try:
            outcome = self._runner.stopped(attempt) if task.cancelled() else task.result()
        except Exception as error:
            log.failure("attempt_lost", error, job=attempt.step.job, step=attempt.step.id)
            outcome = crashed(attempt.step, attempt.claim, self.node)
        if attempt.step.task:
            self.chores.done(attempt)
        elif attempt.rides:
            self.slots.ended.add(now, int(isinstance(outcome, StepSucceeded)))
        else:
            self.slots.give_back(now, succeeded=isinstance(outcome, StepSucceeded))
            if self._concurrency is not None:
                self.slots.limit = self._concurrency.ended(attempt, outcome, self._runner.beside(attempt), now)
        self._end(attempt, outcome)
        if isinstance(outcome, StepFailed) and attempt.step.operation not in _NOT_THE_ENDPOINTS:
            self._learn(outcome.failure)
        self.start_waiting()
        self.announce()
        return outcome

    def _learn(self, failure: Failure) -> None:
        if failure.kind is K.NODE_UNREACHABLE:
            self.give_back_waiting("the model endpoint does not answer")
            self._unreachable()
        elif failure.retry_after_seconds is not None or failure.kind is K.OVERLOADED:
            self.health.pause(failure.retry_after_seconds or OVERLOAD_PAUSE_SECONDS)

    def _end_waiting(self, attempt: Attempt, failure: Failure, owe: Owe = owes_nothing) -> None:
        attempt.stop = failure
        self._end(attempt, self._runner.stopped(attempt), owe)
        self.announce()

    def _give_back(self, attempt: Attempt, reason: str) -> None:
        attempt.released = reason
        self._end(attempt, self._runner.stopped(attempt))

    def _end(self, attempt: Attempt, outcome: Ended, owe: Owe = owes_nothing) -> None:
        """An outcome takes the place of its claim where that is not sent yet: the planner accepts one whose claim it has not seen."""
        try:
            message = self._writer.message(outcome, attempt.step, attempt.trace)
        except Exception as error:  # an answer that cannot be written is none
            log.failure("outcome_not_written", error, job=attempt.step.job, step=attempt.step.id)
            outcome = crashed(attempt.step, attempt.claim, self.node)
            message = self._writer.message(outcome, attempt.step, attempt.trace)
        self.health.ended(attempt, outcome)
        kept = None if isinstance(outcome, StepReleased) else message
        self.leases.end(attempt, kept, len(message.value or b""))
        self._outbox.put(message, None if attempt.told else owe(), instead_of=attempt.told)

    def _put_claim(self, attempt: Attempt, owe: Owe) -> None:
        """At once for a stream, whose pieces the caller sees, and for what waits to be let begin; else it may give way to its outcome."""
        message = self._writer.message(claimed(attempt, self.node, self.mailbox), attempt.step, attempt.trace)
        if attempt.step.stream or not attempt.step.idempotent:
            self._outbox.put(message, owe())
        else:
            attempt.told = self._outbox.put(message, owe(), linger_seconds=CLAIM_LINGERS_SECONDS)

    def _put(self, outcome: StepReleased | StepFailed, step: Step, trace: str | None, owe: Owe) -> None:
        self._outbox.put(self._writer.message(outcome, step, trace), owe())
