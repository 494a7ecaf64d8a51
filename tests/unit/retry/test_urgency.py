"""Laws of the deadline rule: it only raises, by what is measured, and the nearer the deadline the higher."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shared.contracts.base import CLASSES, PriorityClass
from shared.scheduling.urgency import FACTOR, ExpectedSeconds, raised

INTERACTIVE, STANDARD, BATCH = PriorityClass
classes = st.sampled_from(CLASSES)
seconds = st.floats(0, 1e6)
measured = st.fixed_dictionaries(dict.fromkeys(CLASSES, seconds))


@given(classes, st.floats(-1e6, 1e6), measured)
def test_a_class_is_kept_or_raised(given_class: PriorityClass, left: float, found: dict[PriorityClass, float]) -> None:
    """Never lowered; raised exactly over the classes that would take too long."""
    served_as = raised(given_class, left, found.__getitem__)
    passed = CLASSES[CLASSES.index(served_as) + 1 : CLASSES.index(given_class) + 1]
    assert CLASSES.index(served_as) <= CLASSES.index(given_class)
    assert all(left < FACTOR * found[c] for c in passed)
    assert served_as is INTERACTIVE or left >= FACTOR * found[served_as]


@given(classes, st.floats(-1e6, 1e6), st.floats(0, 1e6), measured)
def test_nearer_is_never_lower(given_class: PriorityClass, left: float, less: float, found: dict[PriorityClass, float]) -> None:
    """As the deadline comes nearer the class can only rise: computed anew it never goes to and fro."""
    later = raised(given_class, left - less, found.__getitem__)
    assert CLASSES.index(later) <= CLASSES.index(raised(given_class, left, found.__getitem__))


def test_nothing_known_raises_nothing_with_time_left() -> None:
    """A cluster that has measured nothing keeps to the classes."""
    assert raised(BATCH, 0.1, ExpectedSeconds().of) is BATCH


@given(classes, st.lists(seconds, min_size=1, max_size=50))
def test_the_expectation_lies_within_what_was_seen(c: PriorityClass, seen: list[float]) -> None:
    """An average, and one class's times are not another's."""
    expected = ExpectedSeconds()
    for one in seen:
        expected.learn(c, one)
    assert min(seen) - 1e-3 <= expected.of(c) <= max(seen) + 1e-3
    assert all(expected.of(other) == 0.0 for other in CLASSES if other is not c)
