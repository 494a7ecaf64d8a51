"""Laws of the classes' shares: bounded waits, shares that converge, no savings of who did not wait."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.contracts.base import CLASSES, PriorityClass
from shared.scheduling.class_shares import AGEING_CAP, AGEING_SECONDS, WEIGHTS, ClassShares, longest_wait

INTERACTIVE, STANDARD, BATCH = PriorityClass
BURST, LARGEST = 2_000.0, 400

pieces = st.lists(
    st.tuples(st.sets(st.sampled_from(CLASSES)), st.tuples(*[st.integers(1, LARGEST)] * 3), st.tuples(*[st.floats(0, 1_000)] * 3)),
    min_size=1,
    max_size=30,
)
"""What waits beside the patient class at each turn, the cost of each class's next piece, and how long it has waited."""


@given(st.sampled_from(CLASSES), st.floats(0.5, 0.95), pieces, st.integers(5, 60))
def test_no_class_waits_longer_than_stated(
    patient: PriorityClass, share: float, script: Sequence[tuple[set[PriorityClass], tuple[int, ...], tuple[float, ...]]], turns: int
) -> None:
    """Between two services of a class that waits all the time the others get at most `longest_wait`, whatever they are."""
    shares = ClassShares(share, BURST)
    bound = longest_wait(patient, interactive_share=share, burst=BURST, largest=LARGEST)
    since = 0.0
    for others, costs, waited in [*script] * turns:
        ages = {c: age for c, age in zip(CLASSES, waited, strict=True) if c is patient or c in others}
        chosen = shares.order(ages)[0]
        cost = costs[CLASSES.index(chosen)]
        shares.served(chosen, cost, ages)
        since = 0.0 if chosen is patient else since + cost
        assert since <= bound


@pytest.mark.parametrize("share", [0.5, 0.8, 0.9])
@pytest.mark.parametrize("costs", [(1, 1, 1), (400, 1, 7), (3, 400, 90), (64, 200, 400)])
def test_shares_converge(share: float, costs: tuple[int, int, int]) -> None:
    """While all wait: interactive its share of the cost, the others 4 to 1 of the rest, whatever a piece of each costs."""
    shares, got = ClassShares(share, 10 * max(costs)), Counter[PriorityClass]()
    ages = dict.fromkeys(CLASSES, 0.0)
    for turn in range(20_000):
        chosen = shares.order(ages)[0]
        cost = costs[CLASSES.index(chosen)]
        shares.served(chosen, cost, ages)
        if turn >= 2_000:
            got[chosen] += cost
    assert got[INTERACTIVE] / sum(got.values()) == pytest.approx(share, abs=0.02)
    assert got[STANDARD] / got[BATCH] == pytest.approx(WEIGHTS[STANDARD] / WEIGHTS[BATCH], rel=0.1)


def test_an_old_class_counts_more_and_never_everything() -> None:
    """Batch that has waited for ever against fresh standard: eight times its weight, so two of three; never all."""
    shares, got = ClassShares(0.9, BURST), Counter[PriorityClass]()
    ages = {STANDARD: 0.0, BATCH: AGEING_SECONDS[BATCH] * 1_000}
    for _ in range(1_200):
        chosen = shares.order(ages)[0]
        shares.served(chosen, 1.0, ages)
        got[chosen] += 1
    assert got[BATCH] / got[STANDARD] == pytest.approx(AGEING_CAP * WEIGHTS[BATCH] / WEIGHTS[STANDARD], rel=0.02)
