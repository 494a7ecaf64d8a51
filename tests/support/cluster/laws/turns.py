"""Turns: of one conversation's jobs never two run at once, none begins twice, they begin in the order of their serials, and what each
that succeeded has said is added once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise

from shared.contracts.conversation import ConversationChanged, TurnBegun
from shared.contracts.event import JobAccepted, JobSettled
from shared.contracts.result import Status
from tests.support.cluster.violation import Violation
from tests.support.cluster.world import World

LAW = "turns"
Name = tuple[str, str]


def check(world: World) -> Iterator[Violation]:
    """Over every valid event; the end of what runs is not waited for."""
    named: dict[str, Name] = {}
    begun: dict[str, tuple[float, int]] = {}
    settled: dict[str, tuple[float, Status]] = {}
    known: dict[Name, ConversationChanged] = {}
    for written in world.history.all_valid():
        event = written.value
        if isinstance(event, JobAccepted) and event.request.conversation is not None:
            named[event.job] = (event.request.tenant, event.request.conversation)
        elif isinstance(event, TurnBegun):
            if event.job in begun:
                yield Violation(LAW, f"turn {event.turn} of a job that had begun", event.job)
            begun[event.job] = (written.at, event.turn)
        elif isinstance(event, JobSettled):
            settled[event.job] = (written.at, event.result.status)
        elif isinstance(event, ConversationChanged):
            known[event.tenant, event.conversation] = event
    yield from _one_by_one(named, begun, settled)
    yield from _added(named, begun, settled, known)


def _one_by_one(
    named: dict[str, Name], begun: dict[str, tuple[float, int]], settled: dict[str, tuple[float, Status]]
) -> Iterator[Violation]:
    turns: dict[Name, list[tuple[float, int, str]]] = defaultdict(list)
    for job, (at, turn) in begun.items():
        turns[named[job]].append((at, turn, job))
    for of_one in turns.values():
        for (_, earlier, one), (at, later, other) in pairwise(sorted(of_one)):
            if one not in settled or settled[one][0] > at:
                yield Violation(LAW, f"it began before {one} had ended", other)
            if later <= earlier:
                yield Violation(LAW, f"turn {later} began after turn {earlier}", other)


def _added(
    named: dict[str, Name],
    begun: dict[str, tuple[float, int]],
    settled: dict[str, tuple[float, Status]],
    known: dict[Name, ConversationChanged],
) -> Iterator[Violation]:
    said: dict[Name, int] = defaultdict(int)
    for job in begun:
        said[named[job]] += job in settled and settled[job][1] is Status.SUCCEEDED
    for name, count in said.items():
        last = known.get(name)
        if last is None or last.ended != count or last.current is not None or last.waiting:
            yield Violation(LAW, f"conversation {name}: {count} turns succeeded, its owner knows {last and last.ended}", "")
