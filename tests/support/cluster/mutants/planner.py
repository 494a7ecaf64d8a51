"""Bugs planted in the planner's decisions: timers, claims, retries, stops, ids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import Any

import pytest

from services.planner import kept
from services.planner.deciding import attempts, driving
from services.planner.deciding.admission import JobInput
from services.planner.handlers import JobReader
from services.planner.history.recovery import Replay
from services.planner.intake.refusals import Refusals
from services.planner.job.open_step import Phase
from services.planner.round import Round
from services.planner.shard import effects
from services.planner.shard.effects import Effects
from services.planner.shard.home import Home
from services.planner.state import dates, kept_ids
from services.planner.state.kept_ids import KeptIds
from services.planner.state.recent_ids import RecentIds
from shared import derived
from shared.contracts.outcome import CancelRequested, ClaimsRenewed
from shared.patterns import run as pattern_run
from shared.processing.owed import OwedPositions
from shared.scheduling import retry
from tests.support.cluster.faults import FaultMix
from tests.support.cluster.laws import stops
from tests.support.cluster.mutants.kept import holding_nothing
from tests.support.cluster.mutants.mixes import CALM, CRASHES, OUTLIVED, SMALL, UNKNOWN

Patching = pytest.MonkeyPatch


def step_id_without_input(patching: Patching) -> None:
    original = derived.step_id
    patching.setattr(pattern_run, "step_id", lambda *given: original(*given[:-1], b""))  # type: ignore[call-arg]


def _timers_without_fence(patching: Patching) -> None:
    def fire(self: Home, round_: Round) -> None:
        for job in self._book.timers.pop_due(round_.now):
            attempts.on_due(round_, job)

    def fold(self: Home) -> Round:
        round_ = Round.of(self._book, self._wiring.clock.wall(), self._wiring.clock.monotonic())
        fire(self, round_)
        original_fire, Home._fire_timers = Home._fire_timers, lambda *_: None  # type: ignore[method-assign]
        try:
            rest = original(self)
        finally:
            Home._fire_timers = original_fire  # type: ignore[method-assign]
        for job, events in rest.events.items():
            round_.events.setdefault(job, []).extend(events)
            before = len(round_.events[job]) - len(events)
            round_.lies |= {(job, index + before): lies for (group, index), lies in rest.lies.items() if group == job}
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
            step.leased_until = step.due_at

    patching.setattr(Replay, "_rearm", rearm)


def _deadline_armed_anew(patching: Patching) -> None:
    original = Replay._resume

    def resume(self: Replay, job: Any) -> None:
        original(self, job)
        job.deadline_due = self._round.now + self._book.policy.deadline_seconds[job.accepted.priority_class]
        if job.settled is None:
            self._book.arm(job)

    patching.setattr(Replay, "_resume", resume)


def _defaults_by_the_clock_at_take_over(patching: Patching) -> None:
    original = dates.begin

    def begin(job: Any, round_: Round, age_seconds: float) -> None:
        original(job, round_, age_seconds)
        job.deadline_due = round_.now + (job.accepted.deadline_at - round_.wall)

    patching.setattr(dates, "begin", begin)


def _claim_timeout_from_planning(patching: Patching) -> None:
    original = driving._sent

    def sent(round_: Round, job: Any, step: Any, dispatch: Any) -> Any:
        made = original(round_, job, step, dispatch)
        step.due_at = round_.now + round_.book.policy.claim_timeout_seconds
        step.routed = ("nobody", 0)  # what is not routed has no timeout: it is only sent again
        return made

    patching.setattr(driving, "_sent", sent)


def commands_lost(patching: Patching) -> None:
    original = Replay._rearm

    def rearm(self: Replay, job: Any, step: Any) -> None:
        original(self, job, step)
        if step.phase is Phase.ASKED and self._round.dispatches:
            self._round.dispatches.pop()

    patching.setattr(Replay, "_rearm", rearm)


def _late_outcome_of_a_stream(patching: Patching) -> None:
    patching.setattr(attempts, "acceptable", lambda step, *_: step.request is not None)


def _lost_stops_stay_lost(patching: Patching) -> None:
    """Workers of before: a renewed claim that nobody knows cannot be answered."""
    original = attempts._ON[ClaimsRenewed]

    def on_renewed(round_: Round, outcome: ClaimsRenewed) -> None:
        original(round_, outcome.model_copy(update={"mailbox": None}))

    patching.setitem(attempts._ON, ClaimsRenewed, on_renewed)


def _any_claim_stands(patching: Patching) -> None:
    _lost_stops_stay_lost(patching)
    patching.setattr(attempts, "may_claim", lambda *_: True)


def _nothing_is_stopped(patching: Patching) -> None:
    patching.setattr(Round, "stop", lambda *_: None)


def _stops_die_with_the_planner(patching: Patching) -> None:
    _lost_stops_stay_lost(patching)
    patching.setattr(Replay, "_stop_lost", lambda *_: None)
    original = Replay.finish

    def finish(self: Replay) -> None:
        for job in self._book.jobs.values():
            for step in job.abandoned.values():
                step.stopped = True
        original(self)

    patching.setattr(Replay, "_stop_all", lambda *_: None)
    patching.setattr(Replay, "finish", finish)


def _stops_of_refused_claims_not_awaited(patching: Patching) -> None:
    _lost_stops_stay_lost(patching)

    def on_outcome(self: Effects, round_: Round, record: Any, outcome: Any) -> None:
        attempts.on_outcome(round_, outcome)

    patching.setattr(Effects, "on_outcome", on_outcome)


def _retried_for_ever(patching: Patching) -> None:
    original = retry.decide
    patching.setattr(attempts, "decide", lambda kind, _, policy, unit: original(kind, 1, policy, unit))


def _retried_beyond_the_limit_of_calls(patching: Patching) -> None:
    patching.setattr(attempts, "retry_refusal", lambda *_: None)


def _attempts_do_not_rise(patching: Patching) -> None:
    original = driving.retry

    def retry(round_: Round, job: Any, step: Any) -> None:
        step.attempt -= 1
        original(round_, job, step)

    patching.setattr(driving, "retry", retry)


def _settled_ids_forgotten(patching: Patching) -> None:
    patching.setattr(RecentIds, "find", lambda *_: None)


def _recent_ids_not_kept(patching: Patching) -> None:
    holding_nothing(patching, "ids")
    patching.setattr(KeptIds, "_tidy", lambda *_: None)
    patching.setattr(KeptIds, "_again", lambda *_: False)


def _kept_ids_forgotten(patching: Patching) -> None:
    """Groups are small here, so that there are some in a run."""
    patching.setattr(kept_ids, "GROUP_IDS", 2)
    patching.setattr(kept_ids, "DISTANCE", 8)
    patching.setattr(KeptIds, "restore", lambda *_: None)


def _at_home_wherever_it_lies(patching: Patching) -> None:
    patching.setattr(effects, "onward", lambda *_: None)


def _forwarded_before_it_is_acknowledged(kind: type[Any]) -> Callable[[Patching], None]:
    def patch(patching: Patching) -> None:
        original = Effects.send_on

        def send_on(self: Effects, record: Any, given: Any, here: int, homes: int) -> bool:
            if not isinstance(given, kind):
                return original(self, record, given, here, homes)
            with pytest.MonkeyPatch.context() as unheld:
                unheld.setattr(OwedPositions, "hold", lambda *_: lambda: None)
                return original(self, record, given, here, homes)

        patching.setattr(Effects, "send_on", send_on)

    return patch


def _sent_with_an_instant(patching: Patching) -> None:
    original = driving._sent

    def sent(round_: Round, job: Any, step: Any, dispatch: Any) -> Any:
        made = original(round_, job, step, dispatch)
        if made.step.seconds_left is None:
            return made
        instant = made.step.model_copy(update={"deadline_at": round_.wall + made.step.seconds_left, "seconds_left": None})
        return replace(made, step=instant)

    patching.setattr(driving, "_sent", sent)


def _old_only_by_distance(patching: Patching) -> None:
    patching.setattr(kept, "OLDEST_SECONDS", inf)


def _poison_swallowed(patching: Patching) -> None:
    patching.setattr(Refusals, "job", lambda *_: [])


def _job_ids_by_chance(patching: Patching) -> None:
    numbers = iter(range(10**9))
    patching.setattr(JobReader, "derived_id", lambda *_: f"j_chance{next(numbers)}")


MUTANTS: dict[str, dict[str, Any]] = {
    "zombie's timers firing": {
        "patch": _timers_without_fence,
        "breaks": "a timer fires after every outcome that was there",
        "seed": 1,
        "mix": FaultMix(pause=2.0, pause_seconds=(3.0, 5.5), **SMALL),
    },
    "timers armed from old times at take-over": {
        "patch": _timers_from_old_times,
        "breaks": "nothing is given up before its time",
        "seed": 2,
        # Handed over at once: after a longer absence the log holds renewals, and they arm the lease anew.
        "mix": FaultMix(stop=1.0, only=("planner",), jobs=30, seconds=20.0),
        "kinds": {"cancelled": 1.0},
    },
    "deadlines re-armed at take-over": {
        "patch": _deadline_armed_anew,
        "breaks": "deadlines hold",
        "seed": 3,
        "mix": FaultMix(kill=1.5, down_seconds=(15.0, 20.0), only=("router",), rebalance=0.4, jobs=20, seconds=25.0),
        "kinds": {"deadline": 1.0},
    },
    "default deadlines by the clock of who takes over": {
        "patch": _defaults_by_the_clock_at_take_over,
        "breaks": "nothing is given up before its time",
        "seed": 1,
        "mix": FaultMix(skew_seconds=600.0, kill=0.6, only=("planner",), jobs=30, seconds=20.0),
        "kinds": {"nowhere": 1.0},
    },
    "claim timeout started at planning instead of routing": {
        "patch": _claim_timeout_from_planning,
        "breaks": "nothing is given up before its time",
        "seed": 0,
        "mix": FaultMix(jobs=40, seconds=3.0),
    },
    "commands lost at a crash": {"patch": commands_lost, "breaks": "unfinished", "mix": CRASHES},
    "a late outcome accepted": {
        "patch": _late_outcome_of_a_stream,
        "breaks": "streams go on from one attempt",
        "seed": 2,
        "mix": FaultMix(pause=0.7, pause_seconds=(6.0, 12.0), only=("worker",), jobs=8, seconds=25.0),
        "kinds": {"story": 1.0},
    },
    "any claim stands": {
        "patch": _any_claim_stands,
        "breaks": "what nobody wants is stopped",
        "seed": 1,
        "mix": FaultMix(doubly_routed=0.6, **SMALL),
        "kinds": {"single": 1.0, "cancelled": 1.0},
        "laws": (stops.check_times,),
    },
    "nothing is stopped": {
        "patch": _nothing_is_stopped,
        "breaks": "what nobody wants is stopped",
        "mix": CALM,
        "kinds": {"cancelled": 1.0},
        "laws": (stops.check_times,),
    },
    "stops die with the planner": {
        "patch": _stops_die_with_the_planner,
        "breaks": "what nobody wants is stopped",
        "seed": 0,
        "mix": CRASHES,
        "kinds": {"cancelled": 1.0},
    },
    "stops of refused claims not awaited": {
        "patch": _stops_of_refused_claims_not_awaited,
        "breaks": "what nobody wants is stopped",
        "seed": 12,
        "mix": CRASHES,
        "kinds": {"cancelled": 1.0},
    },
    "retried for ever": {"patch": _retried_for_ever, "breaks": "limits hold", "mix": FaultMix(model_error=0.6, attempts=2, **SMALL)},
    "retried beyond the limit of calls": {
        "patch": _retried_beyond_the_limit_of_calls,
        "breaks": "limits hold",
        "mix": FaultMix(broken_stream=0.6, **SMALL),
        "kinds": {"limited": 1.0},
    },
    "attempts do not rise": {
        "patch": _attempts_do_not_rise,
        "breaks": "attempts_not_increasing",
        "mix": FaultMix(model_error=0.3, **SMALL),
    },
    "settled ids forgotten": {"patch": _settled_ids_forgotten, "breaks": "accepted_twice", "mix": CALM, "kinds": {"again": 1.0}},
    "ids forgotten long ago": {"patch": _settled_ids_forgotten, "breaks": "accepted_twice", "mix": OUTLIVED, "kinds": {"again": 1.0}},
    "recent ids not kept": {
        "patch": _recent_ids_not_kept,
        "breaks": "accepted_twice",
        "mix": FaultMix(kill=1.0, down_seconds=(0.0, 0.5), **SMALL),
        "kinds": {"again": 1.0, "single": 1.0},
    },
    "an id is at home wherever it lies": {
        "patch": _at_home_wherever_it_lies,
        "breaks": "offsets pass no unfinished work",
        "mix": CALM,
        "kinds": {"again": 1.0},
    },
    "sent home and committed before it is there": {
        "patch": _forwarded_before_it_is_acknowledged(JobInput),
        "breaks": "offsets pass no unfinished work",
        "mix": UNKNOWN,
        "kinds": {"again": 1.0, "elsewhere": 1.0},
        "seed": 1,
    },
    "a cancel sent home and committed before it is there": {
        "patch": _forwarded_before_it_is_acknowledged(CancelRequested),
        "breaks": "offsets pass no unfinished work",
        "seed": 20,
        "mix": UNKNOWN,
        "kinds": {"cancelled": 1.0, "elsewhere": 1.0},
    },
    "default deadlines sent as instants": {
        "patch": _sent_with_an_instant,
        "breaks": "nothing is given up before its time",
        "mix": FaultMix(skew_seconds=600.0, **SMALL),
        "kinds": {"nowhere": 1.0},
    },
    "jobs outlived by their log": {
        "patch": _old_only_by_distance,
        "breaks": "the watermark passes nothing that recovery needs",
        "mix": OUTLIVED,
        "kinds": {"nowhere": 2.0, "single": 1.0},
    },
    "ledgers and last runs outlived by their log": {
        "patch": _old_only_by_distance,
        "breaks": "the watermark passes nothing that recovery needs",
        "mix": OUTLIVED,
        "kinds": {"metered": 1.0, "scheduled": 1.0},
    },
    "remembered ids forgotten at take-over": {
        "patch": _kept_ids_forgotten,
        "breaks": "accepted_twice",
        "mix": FaultMix(kill=1.0, down_seconds=(0.0, 0.5), only=("planner",), jobs=60, seconds=16.0),
        "kinds": {"again": 1.0, "single": 1.0},
        "seed": 10,
    },
    "poison swallowed": {
        "patch": _poison_swallowed,
        "breaks": "lost",
        "mix": CALM,
        "kinds": {"poison": 1.0, "single": 1.0},
    },
    "job ids by chance": {"patch": _job_ids_by_chance, "breaks": "lost", "mix": CALM},
}
