"""Parties: who may be offered places, by their own announcements: routers, and planners that write into mailboxes themselves. Pure.

The first of what waits is a router's: while one announces a backlog, planners are offered nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from shared.contracts import headers
from shared.contracts.credits import PlannerPresence, RouterPresence
from shared.kafka.port import Message
from shared.topics import Topics

MOST_PARTIES = 1_000
"""That are offered places: as many as a record may name."""
_ENVELOPES = {kind: headers.envelope(kind.model_fields["type"].default) for kind in (RouterPresence, PlannerPresence)}


def presence(said: RouterPresence | PlannerPresence, topics: Topics) -> list[Message]:
    """Tells the workers; and whoever reads credits, that he hears."""
    there = [topic for topic in (topics.presence, topics.credits) if topic not in topics.missing]
    return [Message(topic, said.to_bytes(), name_of(said).encode(), 0, _ENVELOPES[type(said)]) for topic in there]


def name_of(said: RouterPresence | PlannerPresence) -> str:
    """The party's, as credits name it."""
    return said.router if isinstance(said, RouterPresence) else said.planner


@dataclass(slots=True)
class _Router:
    backlog: int
    heard_at: float


class Parties:
    """Those that live. Times are monotonic seconds; who was not heard for `gone_seconds` is gone."""

    def __init__(self, gone_seconds: float) -> None:
        self._gone = gone_seconds
        self._routers: dict[str, _Router] = {}
        self._planners: dict[str, float] = {}

    def on_presence(self, said: RouterPresence | PlannerPresence, now: float) -> bool:
        """Returns whether places should be offered anew at once: a party came or left, or a router has work where it had none."""
        name, known = name_of(said), self._routers if isinstance(said, RouterPresence) else self._planners
        if said.leaving:
            return known.pop(name, None) is not None
        if name not in known and len(self._routers) + len(self._planners) >= MOST_PARTIES:
            return False
        if isinstance(said, PlannerPresence):
            new = name not in self._planners
            self._planners[name] = now
            return new
        before = self._routers.get(name)
        self._routers[name] = _Router(said.backlog, now)
        return before is None or (said.backlog > 0 and before.backlog == 0)

    def backlogs(self, now: float) -> dict[str, int]:
        """Router to announced backlog, those that live, by name."""
        for name in [name for name, router in self._routers.items() if now - router.heard_at > self._gone]:
            del self._routers[name]
        return {name: self._routers[name].backlog for name in sorted(self._routers)}

    def planners(self, now: float) -> list[str]:
        """Those that live, by name."""
        for name in [name for name, heard_at in self._planners.items() if now - heard_at > self._gone]:
            del self._planners[name]
        return sorted(self._planners)

    def others_wait(self, now: float) -> bool:
        """Whether a router that lives has announced a backlog."""
        return any(router.backlog > 0 and now - router.heard_at <= self._gone for router in self._routers.values())
