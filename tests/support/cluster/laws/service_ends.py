"""A service ends only when it is told to, never by a defect of its own; and once faults are over it becomes ready again."""

from __future__ import annotations

from collections.abc import Iterator

from shared.errors import ConfigurationError
from tests.support.cluster.violation import Violation
from tests.support.cluster.world import World

LAW = "services end only when told"
READY = "services become ready again"


def check(world: World) -> Iterator[Violation]:
    """Over the whole run, and at its end."""
    for ended in world.ended:
        if ConfigurationError.__name__ not in ended:
            yield Violation(LAW, ended)
    yield from unready(world)


def unready(world: World) -> Iterator[Violation]:
    """Who is not, and why."""
    for name, instance in world.instances.items():
        if reasons := instance.service.readiness().reasons:
            yield Violation(READY, f"{name}: {'; '.join(reasons)}")
