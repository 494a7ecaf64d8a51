"""Versions of events: each is written in the lowest one whose readers do not misread it. A planner that meets a newer one leaves the home
alone; what a reader may ignore needs none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json

NEWEST = 7
"""That this code reads."""
REVIEWS = ("review_opened", "review_decided", "review_escalated", "review_withdrawn")
VERSIONS: Mapping[str, int] = {
    "job_accepted": 2,  # may hold asks
    "job_snapshot": 2,  # of such a one
    "taken_ahead": 3,  # may be all that a successor finds of a job
    **dict.fromkeys(REVIEWS, 4),
    **dict.fromkeys(("turn_begun", "conversation_changed"), 5),
    "batch_changed": 6,
}
"""By type; 1 where it is not named."""
_Held = Mapping[str, "int | _Held"]
_HELD: Mapping[str, _Held] = {
    "job_accepted": {
        "team": {
            "": 4,
            "tools": 5,
            "models": 7,  # nodes would be asked for these names
            "rated": 7,
        },
        "policies": 6,
        "request": {
            "conversation": 5,
            "callback": 6,  # a planner of before would end the job and tell nobody
            "cache": 6,
            "line": 6,
        },
    },
    "job_delayed": {"waits": {"callback": 6}},
    "step_answered": {"answer": {"served": 6}},
    "job_settled": {"result": {"answer": {"served": 6}}},
}
"""Of an event of this type that holds this (`""`: anything of it); what has none of it is written as before."""


def version_of(event: Any) -> int:
    """In which this event is written."""
    kind: str = event.type
    version, held = VERSIONS.get(kind, 1), _HELD.get(kind)
    if held is not None:
        version = max(version, _of(event, held))
    return max(version, *map(_of_fact, event.facts)) if kind == "job_snapshot" and event.facts else version


def _of(found: Any, held: _Held) -> int:
    """`found`: an event, a part of it, or the JSON of one of them."""
    version, fields = 1, found if type(found) is dict else found.__dict__
    for name, needs in held.items():
        part = fields.get(name) if name else found
        if part or (part is not None and name in _THOUGH_EMPTY):
            version = max(version, needs if isinstance(needs, int) else _of(part, needs))
    return version


def _of_fact(fact: str) -> int:
    """Of one in a snapshot, as JSON. Most need not be read."""
    if not any(word in fact for word in _SUSPECT):
        return 1
    found = from_json(fact)
    return max(VERSIONS.get(found["type"], 1), _of(found, _HELD.get(found["type"], {})))


_THOUGH_EMPTY = frozenset({"cache"})  # it says by being there that the cache is asked
_SUSPECT = (
    '"team":', '"policies":', '"conversation":', '"callback":', '"cache":', '"line":', '"served":', '"review_', '"turn_begun"',
)  # fmt: skip
