"""Unclaimed: which steps of a book were sent and are not known to be claimed. Eager dispatch must not pass them (decision 0029). Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from services.planner.draft import Given
from services.planner.job.live import LiveJob
from services.planner.job.open_step import OpenStep, Phase
from shared.contracts.agents import RatedModel
from shared.contracts.base import StepId
from shared.contracts.step import Step

_FEW = 256
"""Entries that are not looked through for those that are over."""


class Mailboxes(Protocol):
    """Where a planner may write steps itself."""

    def give(self, step: Step) -> Given | None:
        """A place for the step, used up by that; None: the routers give it one."""
        ...

    def room_elsewhere(self, step: Step) -> bool:
        """Whether a node that the step does not avoid has a free slot, and its model in memory."""
        ...

    def digest(self, model: str) -> str | None:
        """Of the model's file, where all nodes that have it say the same, or none says anything (empty); else None."""
        ...

    def models(self) -> Mapping[str, RatedModel]:
        """What live nodes tell of their models, by full names, lately; empty where nothing is known."""
        ...


class _Sent(NamedTuple):
    job: str
    step: StepId
    attempt: int
    given: Given | None


class _Line:
    """Those of one capability that go by the routers, or may have to."""

    __slots__ = ("entries", "look_at")

    def __init__(self) -> None:
        self.entries: deque[_Sent] = deque()
        self.look_at = _FEW


class Unclaimed:
    """Entries that are over leave when they are met: the book says so. `find`: the open step of a live job."""

    def __init__(self, find: Callable[[str, StepId], tuple[LiveJob, OpenStep] | None]) -> None:
        self._find = find
        self._slow: dict[str, _Line] = {}
        self._eager: list[tuple[str, _Sent]] = []
        self._look_at = _FEW

    def __len__(self) -> int:
        """Entries, over or not."""
        return len(self._eager) + sum(len(line.entries) for line in self._slow.values())

    def sent(self, job: str, step: OpenStep, given: Given | None) -> None:
        """The attempt that stands goes to the routers, or is `given` to a node."""
        assert step.request is not None, "a sleep is not sent"
        entry = _Sent(job, step.id, step.attempt, given)
        if given is not None:
            self._eager.append((step.request.capability, entry))
            if len(self._eager) >= self._look_at:
                self.doubt()
                self._look_at = max(_FEW, 2 * len(self._eager))
            return
        self._put(step.request.capability, entry)

    def _put(self, capability: str, entry: _Sent) -> None:
        line = self._slow.setdefault(capability, _Line())
        line.entries.append(entry)
        if len(line.entries) >= line.look_at:
            line.entries = deque(filter(self._waits, line.entries))
            line.look_at = max(_FEW, 2 * len(line.entries))

    def doubt(self) -> None:
        """Nodes have told something new: what one of them may have given back counts as on the slow way until its claim is known."""
        there = [(capability, entry) for capability, entry in self._eager if self._stands(entry)]
        self._eager = [(capability, entry) for capability, entry in there if not _doubtful(entry)]
        for capability, entry in there:
            if _doubtful(entry):
                self._put(capability, entry)

    def waits(self, capability: str) -> bool:
        """Whether a step on the slow way would be passed."""
        line = self._slow.get(capability)
        if line is None:
            return False
        while line.entries and not self._waits(line.entries[0]):
            line.entries.popleft()
        return bool(line.entries)

    def _stands(self, entry: _Sent) -> bool:
        found = self._find(entry.job, entry.step)
        return found is not None and found[1].attempt == entry.attempt and found[1].phase is Phase.ASKED

    def _waits(self, entry: _Sent) -> bool:
        """One that lies in a mailbox has its place. One that no node can run is in nobody's way; when one can, it is put here anew."""
        found = self._find(entry.job, entry.step)
        if found is None or found[1].attempt != entry.attempt or found[1].phase is not Phase.ASKED:
            return False
        return entry.given is not None or (found[1].routed is None and not found[1].missing)


def _doubtful(entry: _Sent) -> bool:
    return entry.given is not None and entry.given.use.doubtful
