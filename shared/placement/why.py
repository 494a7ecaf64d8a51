"""Why: a choice in at most a kilobyte, as it travels with its step and stands in the job's history; and in words, for people. Pure.

What is kept can be judged again: what was foreseen of the node that was taken, and of the eight best that were not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from heapq import nsmallest
from operator import attrgetter
from typing import Any

from pydantic import Field, ValidationError
from pydantic_core import to_json

from shared.contracts.base import MOST_EXPLANATION, Contract, Count, Label, ModelName, NodeId, Seconds
from shared.placement.policies.port import Foreseen

MOST_BYTES = MOST_EXPLANATION
MOST_LOSERS = 8
_PARTS = ("wait", "load", "read", "write")
_parts_of = attrgetter(*_PARTS)


class _Loser(Contract):
    """One that was not taken. `end`: predicted seconds, if its prediction counted."""

    node: NodeId
    end: Seconds | None = None
    reason: Label


class _Why(Contract):
    """Seconds from the choice on. `others`: how many more lost, by reason."""

    policy: Label
    node: NodeId
    model: ModelName
    wait: Seconds = 0.0
    load: Seconds = 0.0
    read: Seconds = 0.0
    write: Seconds = 0.0
    losers: tuple[_Loser, ...] = Field(default=(), max_length=MOST_LOSERS)
    others: dict[Label, Count] = Field(default={}, max_length=16)

    @property
    def first(self) -> float:
        """To the first token."""
        return self.wait + self.load + self.read

    @property
    def end(self) -> float:
        return self.first + self.write


def explain(policy: str, chosen: Foreseen, weighed: Sequence[Foreseen], found: int) -> bytes:
    """JSON. `weighed`: all that could have been taken, `found` how many could run the step at all."""
    told: dict[str, Any] = {"policy": policy, "node": chosen.candidate.node, "model": chosen.candidate.model}
    for name, seconds in zip(_PARTS, _parts_of(chosen), strict=True):
        if seconds:
            told[name] = round(seconds, 3)
    if found == 1:
        return to_json(told)
    best = nsmallest(MOST_LOSERS + 1, weighed, key=_rank)
    shown = [seen for seen in best if seen is not chosen][:MOST_LOSERS]
    counts: defaultdict[str, int] = defaultdict(int)
    if len(weighed) > len(shown) + 1:
        known = {id(seen) for seen in (*shown, chosen)}
        for seen in weighed:
            if id(seen) not in known:
                counts[reason(seen, chosen)] += 1
    if found > len(weighed):
        counts["no place"] = found - len(weighed)
    while True:
        losers = [{"node": seen.candidate.node, "end": round(seen.end, 3), "reason": reason(seen, chosen)} for seen in shown]
        text = to_json(told | ({"losers": losers} if losers else {}) | ({"others": counts} if counts else {}))
        if len(text) <= MOST_BYTES or not shown:
            return text
        counts[reason(shown.pop(), chosen)] += 1


def _rank(seen: Foreseen) -> tuple[float, str]:
    return seen.cost, seen.candidate.node


def reason(loser: Foreseen, chosen: Foreseen) -> str:
    """What it lost by, in one word: the part without which it would have been first."""
    if loser.load and loser.end - loser.load < chosen.end:
        return "load"
    if loser.wait and loser.end - loser.wait < chosen.end:
        return "busy"
    return "slower" if loser.end > chosen.end else "policy"


def read(text: bytes | str) -> _Why | None:
    """None where it is none, or of a form that this code does not know."""
    try:
        return _Why.model_validate_json(text)
    except ValidationError:
        return None


def in_short(text: str) -> str:
    """One line for people; what is of another form as it is."""
    why = read(text)
    return text if why is None else in_words(why)[0]


def in_words(why: _Why) -> list[str]:
    """Lines for people."""
    parts = (("waits", why.wait), ("loads", why.load), ("reads", why.read), ("writes", why.write))
    said = ", ".join(f"{word} {seconds:.2f} s" for word, seconds in parts if seconds > 0)
    lines = [f"{why.node} with {why.model}: answer predicted in {why.end:.2f} s ({said}); policy {why.policy}"]
    lines += [f"  not {loser.node}: {loser.reason}" + (f", {loser.end:.2f} s" if loser.end is not None else "") for loser in why.losers]
    if why.others:
        lines.append("  and " + ", ".join(f"{count} {reason}" for reason, count in sorted(why.others.items())))
    return lines
