"""The audit chain: whatever is changed, taken out or put in is found."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from shared.audit import GENESIS, broken, home_name, linked

TEXT = st.text(max_size=5)


def chain(values: list[str]) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    before = GENESIS
    for offset, value in enumerate(values):
        entry: dict[str, Any] = {"offset": offset, "type": value, "at_ms": 1_700_000_000_000}
        before = entry["chain"] = linked(before, entry)
        entries.append(entry)
    return entries


@given(st.lists(TEXT, min_size=1, max_size=8), st.data())
def test_every_change_breaks_it(values: list[str], data: st.DataObject) -> None:
    """A field, a missing entry but the last, two in another order; whose the job is, is not part of it."""
    entries = chain(values)
    assert broken(entries, GENESIS) is None
    assert broken(entries[1:]) is None
    assert broken([entry | {"tenant": "t"} for entry in entries], GENESIS) is None
    which = data.draw(st.integers(0, len(entries) - 1))
    changed = [dict(entry) for entry in entries]
    changed[which]["type"] += "x"
    assert broken(changed, GENESIS) == f"the entry at offset {which} does not follow the one before it"
    if which < len(entries) - 1:
        assert broken(entries[:which] + entries[which + 1 :], GENESIS) is not None
        assert broken([*entries[:which], entries[which + 1], entries[which], *entries[which + 2 :]], GENESIS) is not None


def test_a_topic_made_anew_is_another_home() -> None:
    """By its id."""
    assert home_name("a", 1) == home_name("a", 1)
    assert len({home_name("a", 1), home_name("b", 1), home_name("a", 2)}) == 3
