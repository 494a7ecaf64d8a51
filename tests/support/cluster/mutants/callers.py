"""Bugs planted in how callers are told the end of their jobs."""

from __future__ import annotations

from typing import Any

import pytest

from services.ingress.handlers import Door
from services.ingress.replies.assembly import StreamAssembly
from services.ingress.replies.ends import Ends
from services.ingress.replies.waiters import Waiters
from services.ingress.status.events_reader import EventsReader
from services.planner.deciding import admission
from services.planner.round import Round
from services.planner.shard.effects import Effects
from shared.epochs import EpochFilter
from tests.support.cluster.faults import FaultMix
from tests.support.cluster.laws.callers import LAW

Patching = pytest.MonkeyPatch
CALLERS = {"keyed": 3.0, "chat": 1.0}
RESTARTS = FaultMix(kill=0.4, down_seconds=(0.0, 1.0), only=("ingress",), jobs=40, seconds=20.0)


def _begins_at_the_end(patching: Patching) -> None:
    """Nothing that was read or committed before says whose epoch is in force."""

    async def committed(self: EventsReader) -> dict[Any, Any]:
        return {}

    patching.setattr(EventsReader, "_committed", committed)
    patching.setattr(EventsReader, "_begin", lambda *places: places[-1])


def a_guess_is_good_enough(patching: Patching) -> None:
    patching.setattr(EpochFilter, "established", property(lambda self: self.epoch is not None))


def _knows_no_job(patching: Patching) -> None:
    """An ingress whose memory is full: every repeat goes to the planner."""

    async def known(*_: Any) -> None:
        return None

    patching.setattr(Door, "known", known)


def _a_repeat_is_not_answered(patching: Patching) -> None:
    _knows_no_job(patching)
    patching.setattr(admission, "_answer_again", lambda *_: None)


def _asks_for_no_final(patching: Patching) -> None:
    _begins_at_the_end(patching)
    patching.setattr(EventsReader, "established", lambda *_: True)


def _an_end_is_swallowed(patching: Patching) -> None:
    """A register that knows the job takes no second end of it, also for who came later."""
    _knows_no_job(patching)
    original_settled, original_final = Ends.on_settled, Waiters.on_final
    known: set[str] = set()

    def on_settled(self: Ends, job: str, event: bytes) -> None:
        known.add(job)
        original_settled(self, job, event)

    def on_final(self: Waiters, final: Any) -> None:
        if final.result.job not in known:
            original_final(self, final)

    patching.setattr(Ends, "on_settled", on_settled)
    patching.setattr(Waiters, "on_final", on_final)


def finals_are_not_waited_for(patching: Patching) -> None:
    def accept(self: Effects, round_: Any, one: Any, given: Any = None, refused: Any = None) -> Any:
        return admission.accept(round_, given or one.given, one.ended, refused=refused)

    patching.setattr(Effects, "_accept", accept)


def joins_append_nothing(patching: Patching) -> None:
    patching.setattr(Round, "join", lambda *_: None)


def _an_end_drops_what_is_under_way(patching: Patching) -> None:
    original = StreamAssembly.finish

    def finish(self: StreamAssembly, answer: Any) -> None:
        original(self, answer.model_copy(update={"text": answer.text[: self.characters]}))

    patching.setattr(StreamAssembly, "finish", finish)


MUTANTS: dict[str, dict[str, Any]] = {
    "an ingress that knows no epoch asks for no final": {"patch": _asks_for_no_final, "breaks": LAW, "mix": RESTARTS, "kinds": CALLERS},
    "a repeat of an ended id is not answered": {
        "patch": _a_repeat_is_not_answered,
        "breaks": LAW,
        "mix": RESTARTS,
        "kinds": CALLERS,
    },
    "a register swallows a later caller's end": {"patch": _an_end_is_swallowed, "breaks": LAW, "mix": RESTARTS, "kinds": CALLERS},
    "the end of a stream drops what is under way": {
        "patch": _an_end_drops_what_is_under_way,
        "breaks": LAW,
        "mix": FaultMix(delivery_seconds=0.6, jobs=20, seconds=8.0),
        "kinds": CALLERS,
    },
}
