"""Versions of events: each is written in the lowest one whose readers do not misread it. A planner that meets a newer one leaves the home
alone; what a reader may ignore needs none.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
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
_HELD: Mapping[str, Mapping[str, int]] = {
    "job_accepted": {
        "team": 4,
        "team.tools": 5,
        "request.conversation": 5,
        "policies": 6,
        "request.callback": 6,  # a planner of before would end the job and tell nobody
        "request.cache": 6,
        "request.line": 6,
        "team.models": 7,  # nodes would be asked for these names
        "team.rated": 7,
    },
    "job_delayed": {"waits.callback": 6},
    "step_answered": {"answer.served": 6},
    "job_settled": {"result.answer.served": 6},
}
"""Of an event of this type that holds this; what has none of it is written as before."""
_PATHS = {kind: tuple((tuple(path.split(".")), version) for path, version in held.items()) for kind, held in _HELD.items()}
_NAMES = {f'"{path.rpartition(".")[2]}":' for path in chain.from_iterable(_HELD.values())} | {f'"{kind}"' for kind in VERSIONS}
_SUSPECT = tuple(sorted(_NAMES - {'"job_accepted"'}))


def version_of(event: Any) -> int:
    """In which this event is written."""
    version = _of(event.type, event)
    return max(version, *map(_of_fact, event.facts)) if event.type == "job_snapshot" and event.facts else version


def _of(kind: str, event: Any) -> int:
    version = VERSIONS.get(kind, 1)
    for path, newer in _PATHS.get(kind, ()):
        if newer > version and _holds(event, path):
            version = newer
    return version


def _of_fact(fact: str) -> int:
    """Of one in a snapshot, as JSON. Most need not be read."""
    if not any(word in fact for word in _SUSPECT):
        return 1
    found = from_json(fact)
    return _of(found["type"], found)


def _holds(found: Any, path: tuple[str, ...]) -> bool:
    """`found`: an event, or its JSON."""
    for name in path:
        found = found.get(name) if type(found) is dict else getattr(found, name, None)
        if not found:
            return False
    return True
