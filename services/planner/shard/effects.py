"""Effects: what a round of one fold lets out, and what of it must be acknowledged before positions and jobs may be let go.

Nothing here waits. A record whose dead letter, delay or refused claim is not acknowledged holds back its position; a job whose result,
stops or turn's end are not acknowledged stays in the book, so that a successor sends them again. What can never be sent comes back and is
folded.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial

from services.planner.deciding import attempts, driving
from services.planner.deciding.admission import JobInput, accept
from services.planner.deciding.delayed import must_wait, postpone
from services.planner.draft import Bury, CallerAnswer, Disown, Dispatch, EndLine, EndTurn, Given, KeepEnds, Publish, SendLines, Stop, Tell
from services.planner.history.gate import GatedJob
from services.planner.intake.canonical import onward
from services.planner.intake.large_inputs import Inputs
from services.planner.intake.refusals import Refusals
from services.planner.round import Round
from services.planner.sending.comparing import comparison_of
from services.planner.sending.eager import PATIENCE_SECONDS
from services.planner.sending.messages import of_effect, to_cache
from services.planner.shard.batch_lines import BatchLines
from services.planner.shard.ended_turns import EndedTurns
from services.planner.shard.wiring import Wiring
from services.planner.state.book import Book, internal
from shared.contracts.base import PriorityClass
from shared.contracts.batch import LineEnded
from shared.contracts.cache import CacheLookup
from shared.contracts.event import JobSettled
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.job import HeldJob
from shared.contracts.outcome import CancelRequested, Outcome, StepClaimed, StepFailed
from shared.contracts.step import Step
from shared.errors import InvalidInput, LogError, RecordTooLarge, TooLarge
from shared.inputs import input_of
from shared.kafka.port import Message, Record
from shared.processing.lane import Sent
from shared.processing.owed import OwedPositions
from shared.processing.tries import GivenUp, Tries, place
from shared.telemetry import logs

log = logs.get(__name__)

RESULTS_GATHER_SECONDS = 0.1
LOOKUP_SECONDS = 1.0
"""A lookup that Kafka has not taken by then is of no use."""


class Effects:
    """Of one book; thrown away with it. `wake`: something has come back."""

    def __init__(
        self,
        wiring: Wiring,
        book: Book,
        refusals: Refusals,
        tries: Tries,
        *,
        wake: Callable[[], None],
        still_owner: Callable[[], Awaitable[bool]],
    ) -> None:
        self._outbox, self._topics, self._spawn = wiring.outbox, wiring.topics, wiring.spawn
        self._share = wiring.options.compared_share
        self._tries, self._still_owner = tries, still_owner
        self._book, self._refusals, self._wake = book, refusals, wake
        self.owed = OwedPositions(wake)
        self.inputs = Inputs(wiring, book, self._refuse, wake, self._come_back)
        self._turns, self._lines = EndedTurns(wiring, book.turn_told), BatchLines(wiring, book, self._come_back)
        self._wall, self._now, self._eager = wiring.clock.wall, wiring.clock.monotonic, wiring.eager
        self._returned: list[Callable[[Round], None]] = []
        """What the next round has to fold: what has been written, what could not be sent."""

    # While a round is folded

    def owe(self, record: Record, messages: list[Message]) -> None:
        """Send these; the record counts as done once they are acknowledged."""
        self._outbox.post(messages, self.owed.hold(record.topic, record.offset))

    def send_on(self, record: Record, given: JobInput | CancelRequested, here: int, homes: int) -> bool:
        """Whether the record goes to another home, or as a reference to its own; then it counts as done once it is there.

        Raises TooLarge where it cannot be sent.
        """
        if isinstance(given, JobInput) and given.large:
            hands_on = self._book.policy.patterns.hands_on(given.job.pattern)
            self.inputs.send_on(record, given, input_of(given.job, hands_on=hands_on), self.owed.hold(record.topic, record.offset))
            return True
        elsewhere = onward(record, given, here, homes)
        if elsewhere is not None:
            self.owe(record, [elsewhere])
        return elsewhere is not None

    def _refuse(self, record: Record, why: InvalidInput, priority_class: PriorityClass, job: str, release: Callable[[], None]) -> None:
        self._outbox.post(self._refusals.job(record, why, priority_class, self._wall(), job), release)

    def take_in(self, round_: Round, one: GatedJob) -> None:
        """The job begins, or waits. Raises GivenUp when it can neither, nor be ended."""
        given, book = one.given, self._book
        try:
            self._tries.begin(given.source, None if one.ended or given.id in book.jobs else given.id)
        except GivenUp as error:
            self._tries.begin(place(one.record))
            self._give_up(round_, one, error)
            return
        if one.ended is None and must_wait(book, given, one.record, round_.wall):
            self._postpone(round_, one)
        elif (taken := self._accept(round_, one)) is not None:
            self.owe(one.record, [self._refusals.dead_letter(one.record, taken)])

    def _accept(self, round_: Round, one: GatedJob, given: JobInput | None = None, refused: Failure | None = None) -> InvalidInput | None:
        """A caller of whom no event will tell has his final before the record counts as done: a successor would not know of him."""
        before = len(round_.after)
        taken = accept(round_, given or one.given, one.ended, refused=refused)
        for i in range(before, len(round_.after)):
            effect = round_.after[i]
            if isinstance(effect, CallerAnswer):
                round_.after[i] = replace(effect, release=self.owed.hold(one.record.topic, one.record.offset))
        return taken

    def _give_up(self, round_: Round, one: GatedJob, error: GivenUp) -> None:
        """Taking the job in fails again and again: it ends, and its record is kept.

        Of what it asks nothing is looked at any more, nor written: a successor would fail on it.
        """
        asked = one.given.job
        line = asked.line if isinstance(asked, HeldJob) else None
        bare = HeldJob(id=asked.id, tenant=asked.tenant, prompt="kept in the dead letter only", line=line)
        self._accept(round_, one, replace(one.given, job=bare, written=None), internal())
        self.owe(one.record, [self._refusals.dead_letter(one.record, error)])

    def _postpone(self, round_: Round, one: GatedJob) -> None:
        """Send the job through the delay tiers."""
        message = postpone(round_, one.given, one.record, self._topics)
        release = self.owed.hold(one.record.topic, one.record.offset)
        self._outbox.put(message, partial(self._on_postponed, one, release))

    def _on_postponed(self, one: GatedJob, release: Callable[[], None], result: Sent) -> None:
        if isinstance(result, Exception):
            self._come_back(partial(self._not_postponed, one, release))
        else:
            release()

    def on_outcome(self, round_: Round, record: Record, outcome: Outcome) -> None:
        """Fold it. Of a claim that does not stand nothing is in history: its record counts as done once its stop is acknowledged; that of
        a line's end once an event names it.
        """
        if isinstance(outcome, LineEnded):
            self._book.batches.on_ended(round_, outcome, self.owed.hold(record.topic, record.offset))
            return
        before = len(round_.after)
        attempts.on_outcome(round_, outcome)
        if isinstance(outcome, StepClaimed):
            for i in range(before, len(round_.after)):
                effect = round_.after[i]
                if isinstance(effect, Stop) and effect.control.claim is not None:
                    round_.after[i] = replace(effect, release=self.owed.hold(record.topic, record.offset))

    def _come_back(self, fold: Callable[[Round], None]) -> None:
        self._returned.append(fold)
        self._wake()

    def fold_returned(self, round_: Round) -> None:
        """What has come back since the last round, in that order."""
        self.inputs.look(round_)
        returned, self._returned = self._returned, []
        for fold in returned:
            self._tries.at = None  # nobody is blamed for what another one's return raises
            fold(round_)
        self._tries.at = None

    def _not_sent(self, failed: StepFailed, round_: Round) -> None:
        """No router can be told of the attempt: it has failed."""
        self._tries.at = failed.job
        attempts.on_outcome(round_, failed)

    def _not_postponed(self, one: GatedJob, release: Callable[[], None], round_: Round) -> None:
        """A job that cannot wait in `delays.*` ends at once; its caller is told, its record kept."""
        self._tries.at = one.given.source
        failure = Failure(kind=FailureKind.TOO_LARGE, message="the job, wrapped for its delay, exceeds the size of a record")
        self._accept(round_, one._replace(ended=None), refused=failure)
        round_.after.append(Bury(self._refusals.dead_letter(one.record, TooLarge(failure.message)), release))

    # When it is written

    def dispatch(self, dispatch: Dispatch) -> None:
        """Send an attempt to the routers, or to the node that it is given to; the only effect that may go out beside the append."""
        self._tries.at = dispatch.step.job
        [message] = of_effect(dispatch, self._topics)
        self._tries.at = None
        if dispatch.given is None or dispatch.given.failed:
            self._outbox.put(message, partial(self._on_dispatched, dispatch.step))
            return
        self._eager.sending(dispatch.step.home, dispatch.given)
        fate = partial(self._on_given, dispatch, dispatch.given)
        self._outbox.put(message, fate, again=False, patience_seconds=PATIENCE_SECONDS)

    def look_up(self, lookups: Sequence[CacheLookup]) -> None:
        """Ask the cache, once: the steps' own timers end the wait."""
        for lookup in lookups:
            message = to_cache(self._topics.lookups, lookup, self._topics)
            self._outbox.put(message, again=False, patience_seconds=LOOKUP_SECONDS)

    def _on_given(self, dispatch: Dispatch, given: Given, result: Sent) -> None:
        """The mailbox has it; or the routers get the same attempt, at once. One that was written nevertheless may be run twice."""
        if self._eager.ended(given, dispatch.step, result):
            if dispatch.known:
                driving.given(self._book, self._now(), dispatch.step, (given.node, given.mailbox))
        else:
            given.failed = True
            driving.not_given(self._book, self._now(), dispatch.step)
            self.dispatch(dispatch)
            self._wake()

    def _on_dispatched(self, step: Step, result: Sent) -> None:
        if not isinstance(result, Exception):
            return
        kind = FailureKind.TOO_LARGE if isinstance(result, RecordTooLarge) else FailureKind.UNSUPPORTED
        failure = Failure(kind=kind, message="no router can be told of the step: it is too large, or nobody offers its capability")
        self._come_back(partial(self._not_sent, StepFailed(job=step.job, step=step.id, attempt=step.attempt, failure=failure)))

    def let_out(self, round_: Round) -> None:
        """The round's append is acknowledged."""
        outbox, topics, book = self._outbox, self._topics, self._book
        for dispatch in round_.dispatches:
            if dispatch.given is not None and not dispatch.given.failed and not dispatch.known:
                driving.given(book, self._now(), dispatch.step, (dispatch.given.node, dispatch.given.mailbox))
        book.owe_stops(effect.control.job for effect in round_.after if isinstance(effect, Stop))
        for effect in round_.after:
            match effect:
                case Dispatch():
                    self.dispatch(effect)
                case Publish(settled=settled):
                    self._publish(effect, partial(book.published, settled))
                case CallerAnswer(release=release):
                    outbox.post(of_effect(effect, topics), release)
                case Stop(control=control, release=release):
                    outbox.post(of_effect(effect, topics), partial(book.stopped, control.job, release))
                case Bury(letter=letter, release=release):
                    outbox.post([letter], release)
                case EndTurn():
                    self._turns.tell(effect)
                case EndLine():
                    self._lines.end(effect)
                case KeepEnds():
                    self._lines.keep(effect)
                case SendLines():
                    self._lines.send(effect)
                case Disown() | Tell(sure=False) if not (round_.events or round_.ledger):
                    self._spawn(self._as_owner(effect))
                case _:
                    outbox.post(of_effect(effect, topics))

    def _publish(self, publish: Publish, done: Callable[[], None]) -> None:
        """Where whoever waits learns the end from its event, nobody is in a hurry for the result. The job is out once its comparison is."""
        reply, messages = publish.settled.reply, of_effect(publish, self._topics)
        messages += self._comparison(publish.settled) if self._share else ()
        if reply is not None and reply.reads_events and len(messages) == 1:
            self._outbox.put(messages[0], lambda _: done(), linger_seconds=RESULTS_GATHER_SECONDS)
        else:
            self._outbox.post(messages, done)

    def _comparison(self, settled: JobSettled) -> Sequence[Message]:
        """What a job owes that is compared."""
        job, now = self._book.jobs.get(settled.job), self._now()
        if job is None or job.settled is not settled:
            return ()
        owed = comparison_of(job, self._share, self._topics, lambda name: self._book.knows(name, now))
        return () if owed is None else (owed,)

    async def _as_owner(self, effect: Disown | Tell) -> None:
        """Without an append that was acknowledged in its place this may be a planner that does not know of its successor, nor of whose
        claims these are, nor of a job of his. Renewed, or granted again, they come back.
        """
        try:
            still_owner = await self._still_owner()
        except LogError as error:
            log.warning("not_said_as_owner", reason=error.message)
            return
        if still_owner:
            self._outbox.post(of_effect(effect, self._topics))
