"""Conversations of one home: what a turn is given, what its end adds, what is refused, and what is forgotten."""

from __future__ import annotations

from typing import Any

import pytest

from services.planner.conversations import granting
from services.planner.conversations.owner import TIMER, ConversationPolicy, Conversations
from services.planner.draft import Draft, Tell
from shared.contracts.blob import BlobRef
from shared.contracts.conversation import (
    MOST_WAITING,
    RECENT,
    ConversationChanged,
    ConversationDropped,
    ConversationSet,
    EndedTurn,
    Portion,
    TurnAsked,
    TurnEnded,
    TurnGranted,
    TurnRefused,
)
from tests.unit.planner.desk import appended

DAY = 86_400.0
OF = {"tenant": "t", "conversation": "c"}


def blob(number: int) -> BlobRef:
    return BlobRef(digest=f"{number:032x}", partition=0, first=number, last=number, chunks=1, size=10, written_at=1.0)


def portion(tokens: int = 10, since: float = 0.0) -> Portion:
    return Portion(turns=1, characters=4 * tokens, longest=4 * tokens, fewest_tokens=tokens, since=since)


class Owner:
    """One home's conversations, each round acknowledged."""

    def __init__(self, **policy: Any) -> None:
        self.timers: dict[str, float] = {}
        self.talks = Conversations(ConversationPolicy(**policy), self.timers.__setitem__)
        self.now, self.epoch, self.events = 100.0, 7, list[ConversationChanged]()

    def hear(self, *told: Any, due: str | None = None) -> list[Tell]:
        round_ = Draft(self.epoch, 1_000_000.0 + self.now, self.now)
        for message in told:
            self.talks.on_message(round_, message)
        if due is not None:
            self.talks.on_due(round_, due)
        self.talks.kept.flush(round_)
        self.events += map(ConversationChanged.model_validate_json, appended(round_, len(self.events) + 1))
        return [effect for effect in round_.after if isinstance(effect, Tell)]

    def ask(self, job: str) -> TurnGranted | TurnRefused | None:
        told = self.hear(TurnAsked(**OF, job=job, home=3))
        assert all(tell.home == 3 for tell in told)
        return told[0].outcome if told else None  # type: ignore[return-value]

    def end(self, job: str, turn: int | None, tokens: int | None = 10, **more: Any) -> list[Tell]:
        ended = None if tokens is None else EndedTurn(newest=blob(turn or 0), size=portion(tokens, 1_000_000.0 + self.now), **more)
        return self.hear(TurnEnded(**OF, job=job, turn=turn, ended=ended))

    def turn(self, job: str, tokens: int = 10, **more: Any) -> TurnGranted:
        granted = self.ask(job)
        assert isinstance(granted, TurnGranted)
        self.end(job, granted.turn, tokens, **more)
        return granted

    @property
    def known(self) -> ConversationChanged:
        found = self.talks.get("t", "c")
        assert found is not None
        return found


def test_serials_grow_also_over_epochs() -> None:
    owner = Owner()
    turns = [owner.turn(f"j{number}").turn for number in range(3)]
    owner.epoch = 100
    turns.append(owner.turn("later").turn)
    assert turns == [8, 9, 10, 101]


def test_an_ask_that_comes_again_changes_nothing() -> None:
    """Of the job that has the turn: the same grant; of one that waits: silence."""
    owner = Owner()
    first, again = owner.ask("a"), owner.ask("a")
    assert first == again
    assert owner.ask("b") is owner.ask("b") is None
    assert [one.job for one in owner.known.waiting] == ["b"]
    assert len(owner.events) == 2


def test_the_context_grows_by_a_turn_and_keeps_its_form() -> None:
    """What is granted is as large as an event as it was, however much was said."""
    owner = Owner(tokens=10**6)
    sizes = [len(owner.turn(f"j{number}", 2_000).to_bytes()) for number in range(100)]
    granted = owner.ask("next")
    assert isinstance(granted, TurnGranted)
    assert granted.context is not None
    assert (granted.context.turns, granted.context.fewest_tokens, granted.older) == (100, 200_000, None)
    assert max(sizes[10:]) - min(sizes[10:]) < 40
    assert max(len(event.to_bytes()) for event in owner.events) < 1_200


def test_beyond_the_bound_the_newest_stay_within_half_of_it() -> None:
    owner = Owner(tokens=100)
    for number in range(7):
        owner.turn(f"j{number}", 20)
    granted = owner.ask("next")
    assert isinstance(granted, TurnGranted)
    assert granted.context is not None
    assert granted.older is not None
    assert (granted.context.skip, granted.context.turns, granted.older.skip, granted.older.turns) == (0, 2, 2, 5)
    owner.end("next", granted.turn, 20, keeps=2, memory=blob(500), memory_size=Portion(characters=40), based_on=None)
    assert (owner.known.older.turns, len(owner.known.recent), owner.known.memory) == (0, 3, blob(500))
    assert owner.known.ended == 8


def test_one_turn_larger_than_the_bound_is_summed_up_whole() -> None:
    owner = Owner(tokens=100)
    owner.turn("large", 5_000)
    granted = owner.ask("next")
    assert isinstance(granted, TurnGranted)
    assert granted.older is not None
    assert granted.context is not None
    assert (granted.context.turns, granted.older.turns) == (0, 1)


def test_old_turns_and_too_many_are_summed_up() -> None:
    """Blobs do not lie for ever; a chain is not read for ever."""
    owner = Owner(tokens=10**6, ttl_seconds=30 * DAY)
    owner.turn("old")
    owner.now += 8 * DAY
    granted = owner.ask("next")
    assert isinstance(granted, TurnGranted)
    assert granted.older is not None
    many = Owner(tokens=10**6)
    for number in range(granting.MOST_TURNS + 1):
        many.turn(f"j{number}", 1)
    granted = many.ask("next")
    assert isinstance(granted, TurnGranted)
    assert granted.older is not None
    assert granted.older.turns == granting.MOST_TURNS + 1 - RECENT


def test_a_summary_of_an_older_memory_leaves_nothing_out() -> None:
    """Somebody has set facts meanwhile: these stand, and the turns are summed up again."""
    owner = Owner(tokens=100)
    for number in range(7):
        owner.turn(f"j{number}", 20)
    granted = owner.ask("next")
    assert isinstance(granted, TurnGranted)
    owner.hear(ConversationSet(**OF, memory=blob(600), memory_size=Portion()))
    owner.end("next", granted.turn, 20, keeps=2, memory=blob(500), memory_size=Portion(), based_on=None)
    assert (owner.known.memory, owner.known.older.turns, len(owner.known.recent)) == (blob(600), 4, RECENT)
    owner.hear(ConversationSet(**OF, memory=blob(700), memory_size=Portion(), based_on=f"{500:032x}"))
    assert owner.known.memory == blob(600), "based on one that never was"


def test_too_many_wait_and_too_many_are_kept() -> None:
    owner = Owner(most=2, most_of_tenant=1)
    for number in range(MOST_WAITING + 1):
        owner.ask(f"j{number:02}")
    refused = owner.ask("one-more")
    assert isinstance(refused, TurnRefused)
    assert refused.limit == "conversation.waiting"
    [other] = owner.hear(TurnAsked(tenant="t", conversation="d", job="j", home=3))
    assert isinstance(other.outcome, TurnRefused)
    assert other.outcome.limit == "conversations"
    assert owner.hear(TurnAsked(tenant="u", conversation="c", job="j", home=3))[0].outcome.type == "turn_granted"


def test_what_is_unused_is_forgotten_and_what_is_used_is_not() -> None:
    owner = Owner(ttl_seconds=DAY)
    owner.turn("j")
    key = f"{TIMER}t/c"
    assert owner.timers[key] == owner.now + DAY
    owner.now += DAY / 2
    owner.hear(due=key)
    owner.ask("runs")
    owner.now += 2 * DAY
    owner.hear(due=key)
    assert [event.gone for event in owner.events[-1:]] == [False]
    owner.end("runs", None, None)
    owner.now += DAY
    owner.hear(due=key)
    assert [event.gone for event in owner.events[-1:]] == [True]
    assert (len(owner.talks), owner.talks.kept.lowest) == (0, None)


def test_a_grant_is_sent_again_until_its_turn_has_ended() -> None:
    owner = Owner(grant_seconds=15.0)
    granted = owner.ask("j")
    key = f"{TIMER}t/c"
    for _ in range(3):
        owner.now += 15.0
        [tell] = owner.hear(due=key)
        assert tell.outcome == granted
    assert isinstance(granted, TurnGranted)
    owner.end("j", granted.turn)
    owner.now += 15.0
    assert owner.hear(due=key) == []


@pytest.mark.parametrize("waits", [False, True])
def test_a_deletion_holds_for_the_turn_on_its_way(waits: bool) -> None:
    """What it says is not kept; whoever waits goes on with nothing before him."""
    owner = Owner()
    owner.turn("before")
    granted = owner.ask("runs")
    if waits:
        owner.ask("waits")
    owner.hear(ConversationDropped(**OF))
    assert owner.known.newest is None
    assert isinstance(granted, TurnGranted)
    told = owner.end("runs", granted.turn)
    if not waits:
        assert owner.talks.get("t", "c") is None
        assert owner.events[-1].gone
        return
    assert isinstance(told[0].outcome, TurnGranted)
    assert told[0].outcome.context is None


def test_a_successor_knows_all_of_it() -> None:
    """From the newest event; it grants again what was granted, and counts on how long nothing was said."""
    owner = Owner(ttl_seconds=DAY)
    owner.turn("j")
    granted = owner.ask("runs")
    owner.ask("waits")
    heir = Owner(ttl_seconds=DAY)
    heir.talks.kept.restore(owner.events[-1], 5, 1_000.0)
    round_ = Draft(0, 1_000_200.0, 50.0)
    heir.talks.resume(round_, to_monotonic=-950.0)
    assert heir.talks.get("t", "c") == owner.known
    assert [tell.outcome for tell in round_.after if isinstance(tell, Tell)] == [granted]
    assert heir.talks.kept.lowest == 5
