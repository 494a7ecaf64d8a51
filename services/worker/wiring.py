"""WorkerContext: what all parts of one worker share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from services.worker.settings import WorkerSettings
from shared.clock import Clock
from shared.errors import ConfigurationError
from shared.settings import ClusterSettings
from shared.topics import Topics


def always() -> bool:
    """Every change matters."""
    return True


class _PlacesChanged(asyncio.Event):
    """An event that whoever waits may let pass: nobody is woken by what does not matter."""

    matters: Callable[[], bool] = staticmethod(always)

    def set(self) -> None:
        if self.matters():
            super().set()


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """`boot`: this life of the node. `allowed`: the capabilities that it may serve."""

    settings: WorkerSettings
    topics: Topics
    clock: Clock
    node: str
    boot: str
    allowed: Sequence[str]
    dead_boot: str = ""
    """The boot before this one, if whoever started this one saw its process end."""
    places_changed: _PlacesChanged = field(default_factory=_PlacesChanged)
    """Set by whoever changes places, position or the running count."""
    node_news: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by whoever changes what the Node record says."""
    hurry: asyncio.Event = field(default_factory=asyncio.Event)
    """Set besides where others go on doing the wrong thing until they read it."""

    @classmethod
    def of(cls, settings: WorkerSettings, topics: Topics, clock: Clock, random: Random, process: ClusterSettings) -> WorkerContext:
        """A boot without a name draws one. Raises ConfigurationError for agents that the cluster does not have."""
        boot = process.boot or f"{random.getrandbits(48):012x}"
        known = topics.settings.capabilities
        if unknown := [name for name in settings.agents if name not in known]:
            raise ConfigurationError(f"TUTTI_WORKER__AGENTS: {', '.join(unknown)}: this cluster has {', '.join(known)}")
        allowed = [name for name in known if not settings.agents or name in settings.agents]
        return cls(settings, topics, clock, settings.node_id(), boot, allowed, process.dead_boot)
