"""Bugs planted in what is taken ahead of the position: the bitmap and the watermark (the rules of tests/model/test_look_ahead.py)."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from services.planner.draft import Draft
from services.planner.history.takeover import TakeOver
from services.planner.state.taken import Offsets, TakenRecords, unpacked
from shared.contracts.taken import TakenAhead
from tests.support.cluster.faults import FaultMix
from tests.support.cluster.mutants.kept import LAW, SLOW, holding_nothing

Patching = pytest.MonkeyPatch


def _bitmap_counts_before_its_acknowledgement(patching: Patching) -> None:
    original = TakenRecords.add

    def add(self: TakenRecords, draft: Draft, event: TakenAhead, group: str | None = None) -> None:
        original(self, draft, event, group)
        self._covered[event.topic] = Offsets(event.base, unpacked(event.bits))

    patching.setattr(TakenRecords, "add", add)


def below_the_base_is_not_taken(patching: Patching) -> None:
    original = TakeOver._done

    async def done(self: TakeOver, book: Any, inputs: dict[str, int], topic_ids: Any) -> dict[str, Offsets]:
        committed = dict(inputs)
        found = await original(self, book, inputs, topic_ids)
        inputs.update(committed)
        return {topic: Offsets(0, offsets.bits << offsets.base) for topic, offsets in found.items()}

    patching.setattr(TakeOver, "_done", done)


def bitmap_without_its_id(patching: Patching) -> None:
    """It counts in whatever topic has this name."""
    original = TakeOver._done

    async def done(self: TakeOver, book: Any, inputs: Any, topic_ids: Any) -> dict[str, Offsets]:
        known = {topic.partition("@")[0]: book.taken.known(topic) for topic in book.taken.things}
        found = await original(self, book, inputs, topic_ids)
        return found | {topic: offsets for topic, offsets in known.items() if offsets is not None}

    patching.setattr(TakeOver, "_done", done)


BACKLOG = {"crowd": 1.0}
MUTANTS: dict[str, dict[str, Any]] = {
    "watermark before the bitmap's acknowledgement": {
        "patch": _bitmap_counts_before_its_acknowledgement,
        "breaks": LAW,
        "mix": FaultMix(tight=True, jobs=6, seconds=6.0, **SLOW),
        "kinds": BACKLOG,
        "seed": 1,
    },
    "bitmap not kept by the watermark": {
        "patch": partial(holding_nothing, what="taken offsets"),
        "breaks": LAW,
        "mix": FaultMix(tight=True, jobs=6, seconds=6.0, **SLOW),
        "kinds": BACKLOG,
    },
}
