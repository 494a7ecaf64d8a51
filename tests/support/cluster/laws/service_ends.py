"""A service ends only when it is told to, or when it says that a new process would do better; never by a defect of its own."""

from __future__ import annotations

from collections.abc import Iterator

from shared.errors import ConfigurationError, ConsumerGaveUp
from tests.support.cluster.violation import Violation
from tests.support.cluster.world import World

LAW = "services end only when told"
_ALLOWED = (ConfigurationError.__name__, ConsumerGaveUp.__name__)


def check(world: World) -> Iterator[Violation]:
    """Over the whole run."""
    for ended in world.ended:
        if not any(name in ended for name in _ALLOWED):
            yield Violation(LAW, ended)
