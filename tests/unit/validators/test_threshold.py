"""The threshold of an entry: it keeps the share of wrong answers that it promises, learns from labels, and only ever to the safe side."""

from __future__ import annotations

from math import exp
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.validators.questions.threshold import FEWEST_LABELS, MOST_LABELS, EntryLabel, alike, chance_to_ask, kept

LABELS = st.lists(st.builds(EntryLabel, st.floats(0.5, 1.0), st.booleans()), max_size=MOST_LABELS).map(tuple)
SIMILARITY = st.floats(-1.0, 1.0)


@given(SIMILARITY, LABELS, st.floats(0.5, 1.0), st.sampled_from([0.01, 0.02]))
def test_a_chance_is_one(similarity: float, labels: tuple[EntryLabel, ...], static: float, error: float) -> None:
    assert 0.0 <= chance_to_ask(similarity, labels, static=static, error=error) <= 1.0


@given(SIMILARITY, st.floats(0.5, 1.0))
def test_without_labels_the_static_threshold_decides(similarity: float, static: float) -> None:
    assert chance_to_ask(similarity, (), static=static, error=0.01) == (0.0 if similarity >= static else 1.0)


@given(st.floats(0.5, 1.0), LABELS, st.floats(0.5, 1.0))
def test_one_more_wrong_answer_never_makes_it_bolder(similarity: float, labels: tuple[EntryLabel, ...], static: float) -> None:
    """Of as many labels or more, so that the few do not become enough by it."""
    if len(labels) >= FEWEST_LABELS or len(labels) < FEWEST_LABELS - 1:
        worse = (*labels, EntryLabel(similarity, right=False))
        before = chance_to_ask(similarity, labels, static=static, error=0.01)
        assert chance_to_ask(similarity, worse, static=static, error=0.01) >= before - 1e-6


def test_a_few_labels_are_no_reason_to_serve_below_the_static_threshold() -> None:
    right = tuple(EntryLabel(0.8, right=True) for _ in range(FEWEST_LABELS - 1))
    assert chance_to_ask(0.82, right, static=0.9, error=0.02) == 1.0
    assert chance_to_ask(0.99, (*right, *right, *right, *right), static=1.1, error=0.02) < 1.0


@pytest.mark.parametrize("error", [0.01, 0.02])
def test_of_those_asked_no_more_are_answered_wrong(error: float, capsys: pytest.CaptureFixture[str]) -> None:
    """Entries whose true curves differ, no static threshold: all that is served is served by labels. Seeds 0 to 39."""
    asked = served = wrong = 0
    for seed in range(40):
        random = Random(seed)
        middle, slope, labels = random.uniform(0.6, 0.95), random.choice([15, 30, 60, 100]), tuple[EntryLabel, ...]()
        for _ in range(80):
            similarity = round(min(1.0, max(0.5, random.gauss(0.9, 0.07))), 2)
            right = random.random() < 1 / (1 + exp(-slope * (similarity - middle)))
            asked += 1
            if random.random() < chance_to_ask(similarity, labels, static=1.1, error=error):
                labels = kept(labels, EntryLabel(similarity, right))
            else:
                served, wrong = served + 1, wrong + (not right)
    with capsys.disabled():
        print(f"\nerror {error}: {asked} asked, {served} served, {wrong} wrong", end=" ")  # noqa: T201
    assert served > 0
    assert wrong <= error * asked


def test_labels_are_bounded() -> None:
    labels: tuple[EntryLabel, ...] = ()
    for number in range(100):
        labels = kept(labels, EntryLabel(number / 100, right=True))
    assert len(labels) == MOST_LABELS
    assert labels[-1].similarity == 0.99


def test_answers_are_compared_by_words_and_numbers_before_anything_else() -> None:
    assert alike("It is 5 km.", "it is 5 KM") is True
    assert alike("It is 5 km.", "It is 6 km.") is False
    assert alike("It is 5 km.", "Five... that is, 5 km.") is None
