"""Beliefs: counted once, bounded, fading, forgotten at a word; and who goes by them finds the better model, and a new one."""

from __future__ import annotations

from random import Random

import pytest

from shared.agents.beliefs import NEWEST, Beliefs, Judgement
from shared.agents.suiting import Means, chosen
from shared.contracts.agents import Belief, QueryKind, RatedModel, Team
from shared.contracts.beliefs import KIND, MOST_MODELS, HomeBeliefs
from shared.contracts.step import StepRequest

GOOD, BAD = Judgement("m:1", "code", True), Judgement("m:1", "code", False)
KINDS: tuple[QueryKind, ...] = ("code", "creative")


def counts(beliefs: Beliefs, model: str = "m:1") -> dict[str, tuple[float, float]]:
    return {kind: (round(seen.good, 2), round(seen.bad, 2)) for kind, seen in beliefs.of("acme", model).items()}


def tell(known: Beliefs, *others: Beliefs) -> list[tuple[str, bytes]]:
    entries = list(known.to_tell())
    for other in others:
        for name, value in entries:
            other.on_entry(KIND, name, value)
    return entries


def test_a_settle_event_counts_once_and_homes_are_added_up() -> None:
    """By its own offset: it is met again in replay; and everybody's entries are read by everybody, the teller too."""
    one, two, reader = Beliefs(), Beliefs(), Beliefs()
    one.count(0, 1, 5, (GOOD, BAD))
    one.count(0, 1, 5, (GOOD, BAD))
    two.count(1, 1, 9, (GOOD,))
    tell(one, one, two, reader)
    tell(two, one, two, reader)
    assert counts(one) == counts(two) == counts(reader) == {"code": (1.98, 1.0)}
    assert counts(one, "other:1") == {}
    assert tell(one) == []


def test_a_successor_goes_on_from_what_was_told() -> None:
    """It replays from before the entry's last event: what stands in the entry is not counted again, what is newer is. A late word of the
    one before it, who knew less, changes nothing.
    """
    old, new = Beliefs(), Beliefs()
    old.count(0, 1, 5, (GOOD,))
    late = tell(old, new)
    for offset in (4, 5, 6):
        new.count(0, 10, offset, (GOOD,))
    assert sum(counts(new)["code"]) == pytest.approx(2.0, abs=0.05)
    for name, value in late:
        new.on_entry(KIND, name, value)
    assert sum(counts(new)["code"]) == pytest.approx(2.0, abs=0.05)


def test_a_log_that_was_made_anew_is_counted_from_its_beginning() -> None:
    known = Beliefs()
    known.on_entry(KIND, "0", HomeBeliefs(through=1_000).to_bytes())
    known.count(0, 0, 3, (GOOD,))
    assert counts(known) == {"code": (1.0, 0.0)}


def test_what_is_old_fades_the_same_for_any_number_of_homes() -> None:
    for homes in (1, 6, 24):
        known = Beliefs(homes)
        for offset in range(4 * NEWEST):
            known.count(offset % homes, 0, offset, (GOOD,))
        assert sum(known.of("", "m:1")["code"].model_dump().values()) == pytest.approx(NEWEST, rel=0.05)


def test_a_home_is_bounded_and_least_recently_judged_models_go() -> None:
    known = Beliefs()
    known.count(0, 0, 0, (GOOD,))
    for offset in range(1, 3 * MOST_MODELS):
        known.count(0, 0, offset, (Judgement(f"{'x' * 190}:{offset}", "code", True), *([GOOD] * (offset % 9 == 0))))
    assert len(known.models()) == MOST_MODELS
    assert "m:1" in known.models()
    [(name, value)] = tell(known)
    assert (name, len(HomeBeliefs.model_validate_json(value).models)) == ("0", MOST_MODELS)
    assert len(value) < 64 * 1024


def test_an_administrator_has_it_forgotten() -> None:
    """Of one model, or of all; who counts there tells so, since he may have told of it once more meanwhile."""
    owner, reader = Beliefs(), Beliefs()
    owner.count(0, 0, 1, (GOOD, Judgement("n:latest", "code", True)))
    stale = tell(owner, reader)
    for known in (owner, reader):
        known.on_entry(KIND, "forgotten:n", b"{}")
    assert owner.models() == reader.models() == ["m:1"]
    for known in (owner, reader):
        known.on_entry(KIND, "forgotten", b"{}")
    assert owner.models() == []
    reader_late = Beliefs()
    for name, value in stale:
        reader_late.on_entry(KIND, name, value)
    for name, value in stale:  # his own word of before, which lies behind the record
        owner.on_entry(KIND, name, value)
    tell(owner, reader_late)
    assert owner.models() == reader_late.models() == []
    owner.count(0, 0, 2, (BAD,))
    tell(owner, reader_late)
    assert counts(reader_late) == {"code": (0.0, 1.0)}


def test_sums_stay_within_the_contract() -> None:
    known = Beliefs()
    for home in range(2):
        known.on_entry(KIND, str(home), HomeBeliefs(through=1, models={"m:1": {"code": Belief(good=1e6, bad=1e6)}}).to_bytes())
    assert counts(known) == {"code": (1e6, 1e6)}


@pytest.mark.parametrize(("name", "value"), [("x", b"{}"), ("-1", b'{"through":1}'), ("0", b"odd"), ("0", b'{"through":1,"models":[]}')])
def test_an_odd_entry_changes_nothing(name: str, value: bytes) -> None:
    known = Beliefs()
    known.count(0, 0, 1, (GOOD,))
    with pytest.raises(ValueError, match=r"."):
        known.on_entry(KIND, name, value)
    assert counts(known) == {"code": (1.0, 0.0)}


ASKED = {"code": StepRequest(prompt="Write a python function", model="auto"), "creative": StepRequest(prompt="Write a poem", model="auto")}


def play(seed: int, verdicts: int, changes: int, homes: int = 6) -> list[tuple[float, bool]]:
    """Jobs that choose by what is believed when they are accepted. Of each verdict: (what was lost, was it the better)."""
    chance, known, rates = Random(seed), Beliefs(homes), {("a:1", "code"): 0.8, ("b:1", "code"): 0.5}
    rates |= {("a:1", "creative"): 0.5, ("b:1", "creative"): 0.8}
    found = []
    for number in range(verdicts):
        if number == changes:
            rates = {(("b:1" if model == "a:1" else "a:1"), kind): rate for (model, kind), rate in rates.items()}
        kind = KINDS[number % 2]
        team = Team(rated=tuple(RatedModel(model=model, tier="medium", beliefs=dict(known.of("", model))) for model in ("a:1", "b:1")))
        model = chosen(ASKED[kind], team, Means(), lambda _: chance.random())[0].model
        known.count(chance.randrange(homes), 0, number, (Judgement(model, kind, chance.random() < rates[model, kind]),))
        lost = 0.8 - rates[model, kind]
        found.append((lost, lost == 0.0))
    return found


def test_a_bandit_finds_the_better_model_of_each_kind_and_follows_a_change() -> None:
    """0.8 against 0.5, each model better at one kind; from the 800th verdict on the other one. Means of eight seeds."""
    runs = [play(seed, 1_600, 800) for seed in range(8)]

    def better(begin: int, end: int) -> float:
        return sum(was for run in runs for _, was in run[begin:end]) / len(runs) / (end - begin)

    assert better(200, 800) >= 0.95
    assert better(800, 900) < 0.5, "the rates have changed"
    assert better(1_400, 1_600) >= 0.9
    lost, wrongly = [sum(lost for lost, _ in run[:800]) for run in runs], 0.3 * 800
    assert sum(lost) / len(lost) < 0.1 * wrongly
    assert max(lost) < 0.2 * wrongly
