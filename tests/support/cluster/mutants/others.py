"""Bugs planted in router, worker and delay, and in what a planner tells."""

from __future__ import annotations

import asyncio
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from services.delay.held import HeldRecords
from services.planner.history.takeover import Superseded
from services.planner.intake.refusals import Refusals
from services.planner.round import Round
from services.planner.shard import homes
from services.router import routing, unplaced
from services.router.dispatcher import Dispatcher
from services.worker.handlers import AttemptManager
from services.worker.health import Health
from services.worker.lease_log import LeaseLog
from services.worker.mailbox_reader import MailboxReader
from services.worker.slots import Slots
from shared.contracts import headers
from shared.kafka.port import Appended
from shared.placement.ledger import NodeCredit
from shared.processing.delays import next_hop
from shared.processing.intake import Intake
from shared.processing.outbox import Outbox
from tests.support.cluster.faults import FaultMix
from tests.support.cluster.laws import service_ends, stops, told
from tests.support.cluster.mutants.mixes import CALM, SMALL

Patching = pytest.MonkeyPatch


def _silent_on_a_finished_attempt(patching: Patching) -> None:
    original = AttemptManager.on_step

    def on_step(self: AttemptManager, step: Any, *more: Any, **said: Any) -> None:
        if self.leases.finished(step) is None:
            original(self, step, *more, **said)

    patching.setattr(AttemptManager, "on_step", on_step)


def _credit_used_twice(patching: Patching) -> None:
    original = NodeCredit.take

    def take(self: NodeCredit) -> None:
        original(self)
        self.available += 1

    patching.setattr(NodeCredit, "take", take)


def _router_commits_before_it_has_told(patching: Patching) -> None:
    original = Dispatcher.close

    def close(self: Dispatcher, closing: Any) -> None:
        if closing.window is not None:
            closing.window.finish(closing.offset)
        original(self, closing._replace(window=_Finished()))

    patching.setattr(Dispatcher, "close", close)


def _router_commits_before_it_knows(patching: Patching) -> None:
    """What is given is finished, whatever becomes of it."""
    original = Dispatcher._on_given

    def on_given(self: Dispatcher, placed: Any, sending: Any, result: Any) -> None:
        if isinstance(result, Appended):
            placed.entry.finish()
        original(self, placed, sending, result)

    patching.setattr(Dispatcher, "_on_given", on_given)


def _routed_dropped_by_what_is_read(patching: Patching) -> None:
    patching.setattr(NodeCredit, "told_of", lambda self, capability: (0, self.read.get(capability, 0)))


def _told_before_it_is_acknowledged(patching: Patching) -> None:
    patching.setattr(MailboxReader, "told", lambda self: {name: (0, at) for name, at in self.positions().items()})


def _windows_kept_from_another_owner(patching: Patching) -> None:
    async def overtaken(_: Intake) -> tuple[()]:
        return ()

    patching.setattr(Intake, "_overtaken", overtaken)


class _Finished:
    """A window to which nothing matters any more."""

    lost = False

    def finish(self, offset: int) -> None:
        return None


def _dropped_at_a_tier_boundary(patching: Patching) -> None:
    original = HeldRecords.take

    def take(self: HeldRecords, now: float, limit: int) -> Any:
        return [w for w in original(self, now, limit) if w.due_at <= now or next_hop(w.due_at, now) != "1s"]

    patching.setattr(HeldRecords, "take", take)


def _delay_commits_before_it_forwards(patching: Patching) -> None:
    original = HeldRecords.add

    def add(self: HeldRecords, waiter: Any) -> None:
        waiter.finish()
        waiter.window = _Finished()
        original(self, waiter)

    patching.setattr(HeldRecords, "add", add)


def _forwarded_once(patching: Patching) -> None:
    original = Outbox._is_settled

    def is_settled(self: Outbox, lane: Any, entry: Any, result: Any) -> bool:
        return original(self, lane, entry, Appended("", 0, 0) if self._service == "delay" else result)

    patching.setattr(Outbox, "_is_settled", is_settled)


def _waits_count_before_they_are_waited(patching: Patching) -> None:
    def decide(*given: Any) -> Any:
        fate = unplaced.decide(*given)
        if isinstance(fate, unplaced.Leaves):
            counted = fate.step.unplaced_seconds + fate.seconds
            return unplaced.Leaves(fate.step.model_copy(update={"unplaced_seconds": counted}), fate.seconds)
        return fate

    patching.setattr(routing, "unplaced", SimpleNamespace(decide=decide, deadline=unplaced.deadline))


def _worker_commits_before_it_has_told(patching: Patching) -> None:
    patching.setattr(MailboxReader, "_owe", lambda *_: lambda _: None)


def _more_than_its_slots(patching: Patching) -> None:
    def take(self: Slots, _: float) -> None:
        self.busy += 1

    patching.setattr(Slots, "free", property(lambda _: 10))
    patching.setattr(Slots, "take", take)


def _deaf_to_losing_claims(patching: Patching) -> None:
    original = AttemptManager.on_stop

    def on_stop(self: AttemptManager, stop: Any) -> None:
        if stop.claim is None:
            original(self, stop)

    patching.setattr(AttemptManager, "on_stop", on_stop)


def _stop_forgotten_for_what_is_not_read_yet(patching: Patching) -> None:
    original = LeaseLog.of_step
    patching.setattr(LeaseLog, "of_step", lambda self, step: tuple(a for a in original(self, step) if a.task is None))


def _a_home_for_each_odd_outcome(patching: Patching) -> None:
    def outcome(*_: Any) -> Any:
        raise Superseded("begin anew")

    patching.setattr(Refusals, "outcome", outcome)


def _swallowed(kind: bytes, patching: Patching) -> None:
    """Of what is refused these come to nothing."""
    original = Refusals.job

    def job(self: Refusals, record: Any, *why: Any) -> Any:
        cancels = headers.find(record.headers, headers.TYPE) == b"cancel"
        named = kind == b"cancel" if cancels else kind in (record.value or b"")
        return [] if named else original(self, record, *why)

    patching.setattr(Refusals, "job", job)


def _ends_without_a_cause(patching: Patching) -> None:
    original = Round.settle

    def settle(self: Round, job: Any, status: Any, failure: Any, answer: Any) -> None:
        original(self, job, status, failure and failure.model_copy(update={"missing": ()}), answer)

    patching.setattr(Round, "settle", settle)


def _cancelled_once(patching: Patching) -> None:
    async def ended(*tasks: asyncio.Task[Any]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    patching.setattr(homes, "ended", ended)


MUTANTS: dict[str, dict[str, Any]] = {
    "a pause that was asked for is ignored": {
        "patch": lambda patching: patching.setattr(Health, "pause", lambda *_: None),
        "breaks": "who asks to be left alone is",
        "mix": FaultMix(model_error=0.5, retry_after_seconds=8, **SMALL),
    },
    "an odd record is tried for ever": {
        "patch": _a_home_for_each_odd_outcome,
        "breaks": "converges",
        "seed": 4,
        "mix": FaultMix(odd=3.0, **SMALL),
    },
    "a refused record of a live id is swallowed": {
        "patch": partial(_swallowed, b'"promt"'),
        "breaks": "lost",
        "mix": CALM,
        "kinds": {"misspelt": 1.0},
    },
    "a job without a node ends without a cause": {
        "patch": _ends_without_a_cause,
        "breaks": told.LAW,
        "mix": FaultMix(jobs=6, seconds=4.0),
        "kinds": {"nowhere": 1.0},
    },
    "a cancel of nothing is swallowed": {
        "patch": partial(_swallowed, b"cancel"),
        "breaks": "lost",
        "mix": CALM,
        "kinds": {"misspelt": 1.0},
    },
    "a wait counted before it is waited": {
        "patch": _waits_count_before_they_are_waited,
        "breaks": "nothing is given up before its time",
        "mix": FaultMix(jobs=6, seconds=4.0),
        "kinds": {"nowhere": 1.0},
    },
    "worker silent on a finished attempt": {
        "patch": _silent_on_a_finished_attempt,
        "breaks": "offsets pass no unfinished work",
        "seed": 0,
        "mix": FaultMix(duplicated=0.5, delivery_seconds=0.6, **SMALL),
    },
    "a cancellation that was lost is not repeated": {
        "patch": _cancelled_once,
        "breaks": service_ends.LAW,
        "mix": FaultMix(rebalance=2.0, call_seconds=1.5, lost_cancellations=0.9, **SMALL),
        "seed": 16,
    },
    "a credit used twice": {
        "patch": _credit_used_twice,
        "breaks": "everything is bounded",
        "mix": FaultMix(jobs=100, seconds=2.0),
        "kinds": {"single": 1.0},
        "seed": 6,
    },
    "router commits before it has told": {
        "patch": _router_commits_before_it_has_told,
        "breaks": "offsets pass no unfinished work",
        "mix": FaultMix(send_seconds=0.4, lost=0.1, **SMALL),
    },
    "router commits before it knows": {
        "patch": _router_commits_before_it_knows,
        "breaks": "offsets pass no unfinished work",
        "mix": FaultMix(send_seconds=0.4, lost=0.1, **SMALL),
    },
    "routed dropped by what is read": {
        "patch": _routed_dropped_by_what_is_read,
        "breaks": "offsets pass no unfinished work",
        "mix": FaultMix(send_seconds=0.4, lost=0.1, **SMALL),
    },
    "worker tells of what is not acknowledged": {
        "patch": _told_before_it_is_acknowledged,
        "breaks": "offsets pass no unfinished work",
        "mix": FaultMix(send_seconds=0.4, lost=0.1, **SMALL),
    },
    "a window kept that another owner has left behind": {
        "patch": _windows_kept_from_another_owner,
        "breaks": "offsets never go back",
        "seed": 10,
        "mix": FaultMix(pause=0.5, pause_seconds=(7.0, 9.0), only=("router",), jobs=40, seconds=20.0),
    },
    "a delayed message dropped at a tier boundary": {
        "patch": _dropped_at_a_tier_boundary,
        "breaks": "unfinished",
        "mix": CALM,
        "kinds": {"delayed": 1.0},
    },
    "delay commits before it forwards": {
        "patch": _delay_commits_before_it_forwards,
        "breaks": "offsets pass no unfinished work",
        "mix": CALM,
        "kinds": {"delayed": 1.0},
    },
    "delayed messages are forwarded once": {
        "patch": _forwarded_once,
        "breaks": "lost",
        "mix": FaultMix(lost=0.2, **SMALL),
        "kinds": {"delayed": 1.0},
    },
    "worker commits before it has told": {
        "patch": _worker_commits_before_it_has_told,
        "breaks": "offsets pass no unfinished work",
        "mix": FaultMix(send_seconds=0.4, lost=0.1, **SMALL),
    },
    "more than its slots": {
        "patch": _more_than_its_slots,
        "breaks": "everything is bounded",
        "seed": 3,
        "mix": FaultMix(doubly_routed=0.9, jobs=60, seconds=2.0),
    },
    "deaf to losing claims": {
        "patch": _deaf_to_losing_claims,
        "breaks": "what nobody wants is stopped",
        "mix": FaultMix(doubly_routed=0.6, **SMALL),
        "kinds": {"single": 1.0, "cancelled": 1.0},
        "laws": (stops.check_times,),
        "seed": 2,
    },
    "a running generation is not stopped": {
        "patch": _stop_forgotten_for_what_is_not_read_yet,
        "breaks": "what nobody wants is stopped",
        "mix": CALM,
        "kinds": {"cancelled": 1.0},
        "laws": (stops.check_times,),
    },
}
