"""Bugs planted in the planner."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from services.planner import attempts, home, snapshots
from services.planner import run as pattern_run
from services.planner import watermark as watermarks
from services.planner.appender import Appender
from services.planner.book import Book
from services.planner.handlers import JobRecord
from services.planner.home import Home
from services.planner.live import Phase
from services.planner.outbox import Outbox
from services.planner.recovery import Replay, Validity
from services.planner.refusals import Refusals
from services.planner.round import Publish, Round
from services.planner.settled import SettledIds
from services.planner.takeover import TakeOver
from services.planner.watermark import UNACKNOWLEDGED
from services.planner.writer import EventWriter
from shared.contracts import headers
from shared.contracts.event import PlannerStarted
from shared.errors import LogError, SendFailed
from shared.kafka.port import Message
from shared.kafka.watched import WatchedConsumer
from tests.support.cluster.faults import FaultMix
from tests.support.cluster.laws import stops

Patching = pytest.MonkeyPatch
SMALL = {"jobs": 20, "seconds": 8.0}
CALM = FaultMix(**SMALL)
KILLS = FaultMix(kill=1.0, down_seconds=(0.0, 2.0), send_seconds=0.2, ack_seconds=0.3, posthumous=0.7, **SMALL)
CRASHES = FaultMix(kill=0.25, down_seconds=(0.0, 1.0), send_seconds=0.4, ack_seconds=0.4, only=("planner",), jobs=30, seconds=24.0)
"""Rare enough that the successor owns the partitions, six seconds after each."""
ZOMBIES = FaultMix(pause=1.2, pause_seconds=(7.0, 12.0), send_seconds=0.3, ack_seconds=0.3, **SMALL)
UNKNOWN = FaultMix(unacknowledged=0.1, lost=0.1, ack_seconds=0.2, **SMALL)


def _epoch_by_generation(patching: Patching) -> None:
    """The epoch is the group's generation; whoever has an older one is stale."""

    original_init = Appender.__init__

    async def start(self: TakeOver) -> int:
        wiring = self._wiring
        generation = wiring.consumer._inner._generation  # type: ignore[attr-defined]
        event = PlannerStarted(nonce=str(generation), planner=wiring.instance)
        message = Message(self._events.topic, event.to_bytes(), None, self._number, headers.envelope(event.type))
        offset = await wiring.writer.append(self._events, [message])
        if offset < 0:
            raise SendFailed
        made = _Offset(offset)
        made.generation = generation
        return made

    class _Offset(int):
        generation: int

    def set_epoch(self: Book, value: int) -> None:
        self.__dict__["_epoch"] = value

    def get_epoch(self: Book) -> int:
        value = self.__dict__["_epoch"]
        return value.generation if isinstance(value, _Offset) else value

    def init(self: Appender, wiring: Any, partition: Any, book: Book) -> None:
        original_init(self, wiring, partition, book)
        self.expected = int(book.__dict__["_epoch"]) + 1

    def admits(self: Validity, offset: int, event: Any) -> bool:
        if isinstance(event, PlannerStarted):
            self._epoch = int(event.nonce)
            return False
        return self._epoch is None or event.epoch >= self._epoch

    patching.setattr(TakeOver, "_start", start)
    patching.setattr(Book, "epoch", property(get_epoch, set_epoch), raising=False)
    patching.setattr(Appender, "__init__", init)
    patching.setattr(Validity, "admits", admits)


def _a_gap_means_stop(patching: Patching) -> None:
    async def inspect(self: Appender, base: int) -> None:
        await asyncio.Event().wait()

    patching.setattr(Appender, "_inspect", inspect)


def _a_gap_means_nothing(patching: Patching) -> None:
    async def inspect(self: Appender, base: int) -> None:
        return None

    patching.setattr(Appender, "_inspect", inspect)


def offset_minus_one_is_good(patching: Patching) -> None:
    original = EventWriter.append

    async def append(self: EventWriter, partition: Any, messages: Any) -> int:
        base = await original(self, partition, messages)
        return _expected.get(partition, base) if base < 0 else base

    _expected: dict[Any, int] = {}
    original_send = Appender._send

    async def send(self: Appender, batch: Any, begins: Any) -> None:
        _expected[self._partition] = self.expected
        await original_send(self, batch, begins)

    patching.setattr(EventWriter, "append", append)
    patching.setattr(Appender, "_send", send)


def _watermark_past_an_unpublished_result(patching: Patching) -> None:
    def passable(job: Any, inputs: Any) -> bool:
        return job.settled is not None and job.accepted.source_offset < inputs.get(job.source_topic, 0)

    patching.setattr(watermarks, "passable", passable)


def _watermark_on_the_next_record(patching: Patching) -> None:
    original = home.watermark

    def watermark(book: Book, inputs: Any, last_own: int) -> Any:
        offset, forgettable = original(book, inputs, last_own)
        return (offset + 1 if offset == last_own else offset), forgettable

    patching.setattr(home, "watermark", watermark)


def _watermark_past_a_record_to_be_read_again(patching: Patching) -> None:
    def passable(job: Any, inputs: Any) -> bool:
        return job.settled is not None and job.published

    async def commit(self: WatchedConsumer, offsets: Any) -> None:
        await self._inner.commit({tp: o for tp, o in offsets.items() if "job-events" in tp.topic} or offsets)
        await asyncio.sleep(0.2)
        await self._inner.commit(offsets)

    patching.setattr(watermarks, "passable", passable)
    patching.setattr(WatchedConsumer, "commit", commit)


def _commit_before_append(patching: Patching) -> None:
    original = Home._write

    async def write(self: Home, round_: Round) -> None:
        self._positions = dict(self._folded)
        await original(self, round_)

    patching.setattr(Home, "_write", write)


def step_id_without_input(patching: Patching) -> None:
    original = pattern_run.step_id
    patching.setattr(pattern_run, "step_id", lambda *given: original(*given[:-1], b""))


def append_sent_again(patching: Patching) -> None:
    original = EventWriter.append

    async def append(self: EventWriter, partition: Any, messages: Any) -> int:
        while True:
            try:
                return await original(self, partition, messages)
            except LogError:
                await asyncio.sleep(0.05)

    patching.setattr(EventWriter, "append", append)


def _round_cut_in_two(patching: Patching) -> None:
    original = EventWriter.append

    async def append(self: EventWriter, partition: Any, messages: Any) -> int:
        half = len(messages) // 2
        if not half:
            return await original(self, partition, messages)
        base = await original(self, partition, messages[:half])
        await original(self, partition, messages[half:])
        return base

    patching.setattr(EventWriter, "append", append)


def _published_before_acknowledged(patching: Patching) -> None:
    original = Home._write

    async def write(self: Home, round_: Round) -> None:
        for effect in round_.after:
            if isinstance(effect, Publish):
                self._wiring.outbox.post(home.of_effect(effect, self._wiring.topics), self._published(effect.settled))
        await original(self, round_)

    patching.setattr(Home, "_write", write)


def _results_sent_once(patching: Patching) -> None:
    patching.setattr(Outbox, "_unsent", staticmethod(lambda *_: False))


def _timers_without_fence(patching: Patching) -> None:
    def fire(self: Home, round_: Round) -> None:
        for job in self._book.timers.pop_due(round_.now):
            attempts.on_due(self._book, round_, job)

    def fold(self: Home) -> Round:
        round_ = Round(self._wiring.clock.wall(), self._wiring.clock.monotonic())
        fire(self, round_)
        original_fire, Home._fire_timers = Home._fire_timers, lambda *_: None  # type: ignore[method-assign]
        try:
            rest = original(self)
        finally:
            Home._fire_timers = original_fire  # type: ignore[method-assign]
        for job, events in rest.events.items():
            round_.events.setdefault(job, []).extend(events)
            if job in rest.firsts:
                round_.firsts[job] = rest.firsts[job] + len(round_.events[job]) - len(events)
        round_.dispatches += rest.dispatches
        round_.after += rest.after
        return round_

    original = Home._fold
    patching.setattr(Home, "_fold", fold)


def _timers_from_old_times(patching: Patching) -> None:
    original = Replay._rearm

    def rearm(self: Replay, job: Any, step: Any) -> None:
        original(self, job, step)
        if step.claim is not None:
            step.due_at = self._round.now + max(0.0, job.accepted.at + step.claim.lease_seconds - self._round.wall)

    patching.setattr(Replay, "_rearm", rearm)


def _deadline_armed_anew(patching: Patching) -> None:
    original = Replay._resume

    def resume(self: Replay, job: Any) -> None:
        job.deadline_due = self._round.now + self._book.policy.deadline_seconds[job.accepted.priority_class]
        original(self, job)

    patching.setattr(Replay, "_resume", resume)


def _claim_timeout_from_planning(patching: Patching) -> None:
    original = Book.dispatch

    def dispatch(self: Book, round_: Round, job: Any, step: Any) -> Any:
        made = original(self, round_, job, step)
        step.due_at = round_.now + self.policy.claim_timeout_seconds
        return made

    patching.setattr(Book, "dispatch", dispatch)


def _snapshot_counts_before_its_acknowledgement(patching: Patching) -> None:
    original = snapshots.write

    def write(book: Book, round_: Round, job: Any, name: str) -> None:
        original(book, round_, job, name)
        job.first_offset = UNACKNOWLEDGED

    patching.setattr(snapshots, "write", write)


def commands_lost(patching: Patching) -> None:
    original = Replay._rearm

    def rearm(self: Replay, job: Any, step: Any) -> None:
        original(self, job, step)
        if step.phase is Phase.ASKED and self._round.dispatches:
            self._round.dispatches.pop()

    patching.setattr(Replay, "_rearm", rearm)


def _late_outcome_of_a_stream(patching: Patching) -> None:
    patching.setattr(attempts, "acceptable", lambda step, *_: step.request is not None)


def _any_claim_stands(patching: Patching) -> None:
    patching.setattr(attempts, "may_claim", lambda *_: True)


def _nothing_is_stopped(patching: Patching) -> None:
    patching.setattr(Book, "stop", lambda *_: None)


def _stops_die_with_the_planner(patching: Patching) -> None:
    patching.setattr(Replay, "_stop_all", lambda *_: None)


def _retried_for_ever(patching: Patching) -> None:
    original = attempts.decide
    patching.setattr(attempts, "decide", lambda kind, _, policy, unit: original(kind, 1, policy, unit))


def _retried_beyond_the_limit_of_calls(patching: Patching) -> None:
    patching.setattr(attempts, "retry_refusal", lambda *_: None)


def _attempts_do_not_rise(patching: Patching) -> None:
    original = Book.retry

    def retry(self: Book, round_: Round, job: Any, step: Any) -> None:
        step.attempt -= 1
        original(self, round_, job, step)

    patching.setattr(Book, "retry", retry)


def _settled_ids_forgotten(patching: Patching) -> None:
    patching.setattr(SettledIds, "find", lambda *_: None)


def _recent_ids_not_read_back(patching: Patching) -> None:
    async def nothing(*_: Any) -> None:
        return None

    patching.setattr(home, "read_back", nothing)


def _poison_swallowed(patching: Patching) -> None:
    patching.setattr(Refusals, "job", lambda *_: [])


def _job_ids_by_chance(patching: Patching) -> None:
    numbers = iter(range(10**9))
    patching.setattr(JobRecord, "derived_id", lambda *_: f"j_chance{next(numbers)}")


MUTANTS: dict[str, dict[str, Any]] = {
    "epoch by generation instead of offset": {"patch": _epoch_by_generation, "mix": CALM},
    "a gap always means stop": {"patch": _a_gap_means_stop, "seed": 3, "mix": ZOMBIES},
    "a gap means nothing": {"patch": _a_gap_means_nothing, "seed": 3, "mix": ZOMBIES},
    "offset -1 taken as good": {
        "patch": offset_minus_one_is_good,
        "seed": 6,
        "mix": FaultMix(
            pause=1.5, pause_seconds=(7.0, 9.0), send_seconds=0.3, offset_unknown=0.3, only=("planner",), jobs=40, seconds=20.0
        ),
    },
    "watermark past an unpublished result": {
        "patch": _watermark_past_an_unpublished_result,
        "mix": FaultMix(lost=0.2, ack_seconds=0.4, **SMALL),
    },
    "a watermark on a record whose epoch a reader cannot know": {"patch": _watermark_on_the_next_record, "mix": CALM},
    "inputs and watermark committed apart": {"patch": _watermark_past_a_record_to_be_read_again, "mix": CALM},
    "commit before append": {"patch": _commit_before_append, "mix": FaultMix(ack_seconds=0.4, send_seconds=0.4, **SMALL)},
    "re-sent append after a new producer": {"patch": append_sent_again, "mix": UNKNOWN},
    "a round cut in two": {"patch": _round_cut_in_two, "seed": 2, "mix": ZOMBIES},
    "publish before the settle event is acknowledged": {"patch": _published_before_acknowledged, "mix": UNKNOWN},
    "results sent once": {"patch": _results_sent_once, "mix": UNKNOWN},
    "zombie's timers firing": {
        "patch": _timers_without_fence,
        "mix": FaultMix(pause=2.0, pause_seconds=(3.0, 5.5), **SMALL),
    },
    "timers armed from old times at take-over": {
        "patch": _timers_from_old_times,
        "seed": 1,
        "mix": KILLS,
        "kinds": {"cancelled": 1.0, "chain": 1.0},
    },
    "deadlines re-armed at take-over": {
        "patch": _deadline_armed_anew,
        "seed": 5,
        "mix": FaultMix(kill=1.5, down_seconds=(15.0, 20.0), only=("router",), rebalance=0.4, jobs=20, seconds=25.0),
        "kinds": {"deadline": 1.0},
    },
    "claim timeout started at planning instead of routing": {
        "patch": _claim_timeout_from_planning,
        "seed": 1,
        "mix": FaultMix(jobs=40, seconds=3.0),
    },
    "watermark before the snapshot's ack": {
        "patch": _snapshot_counts_before_its_acknowledgement,
        "seed": 1,
        "mix": FaultMix(ack_seconds=0.4, send_seconds=0.4, tight=True, **SMALL),
        "kinds": {"cancelled": 1.0, "single": 2.0},
    },
    "commands lost at a crash": {"patch": commands_lost, "seed": 4, "mix": CRASHES},
    "a late outcome accepted": {
        "patch": _late_outcome_of_a_stream,
        "seed": 2,
        "mix": FaultMix(pause=0.7, pause_seconds=(6.0, 12.0), only=("worker",), jobs=8, seconds=25.0),
        "kinds": {"story": 1.0},
    },
    "any claim stands": {
        "patch": _any_claim_stands,
        "seed": 1,
        "mix": FaultMix(doubly_routed=0.6, **SMALL),
        "kinds": {"single": 1.0, "cancelled": 1.0},
        "laws": (stops.check_times,),
    },
    "nothing is stopped": {"patch": _nothing_is_stopped, "mix": CALM, "kinds": {"cancelled": 1.0}, "laws": (stops.check_times,)},
    "stops die with the planner": {"patch": _stops_die_with_the_planner, "mix": CRASHES, "kinds": {"cancelled": 1.0}},
    "retried for ever": {"patch": _retried_for_ever, "mix": FaultMix(model_error=0.6, attempts=2, **SMALL)},
    "retried beyond the limit of calls": {
        "patch": _retried_beyond_the_limit_of_calls,
        "mix": FaultMix(broken_stream=0.6, **SMALL),
        "kinds": {"limited": 1.0},
    },
    "attempts do not rise": {"patch": _attempts_do_not_rise, "mix": FaultMix(model_error=0.3, **SMALL)},
    "settled ids forgotten": {"patch": _settled_ids_forgotten, "mix": CALM, "kinds": {"again": 1.0}},
    "recent ids not read back at take-over": {
        "patch": _recent_ids_not_read_back,
        "mix": FaultMix(kill=1.0, down_seconds=(0.0, 0.5), **SMALL),
        "kinds": {"again": 1.0, "single": 1.0},
    },
    "poison swallowed": {"patch": _poison_swallowed, "mix": CALM, "kinds": {"poison": 1.0, "single": 1.0}},
    "job ids by chance": {"patch": _job_ids_by_chance, "mix": CALM},
}
