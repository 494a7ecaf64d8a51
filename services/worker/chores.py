"""Tasks on the node's models that were claimed: one at a time of each lane, beside the slots, so that no answer waits for a pull. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from services.worker.attempt import Attempt
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.tasks import LANES, Lane, RunningTask, TaskProgress

MOST_TASKS = 64
"""Taken and not ended; beyond it they are released."""
SILENT_SECONDS = 900.0
"""A file of a hundred gigabytes is checked for minutes without a word; so is a large model loaded."""
_PARTS = 100


def silent(attempt: Attempt, now: float) -> Failure | None:
    """The failure of a task of which nothing was heard for too long. None of them has a longest time: a pull may take a day."""
    if attempt.asked_at is None or now - max(attempt.asked_at, attempt.progress_at or 0.0) < SILENT_SECONDS:
        return None
    return Failure(kind=FailureKind.MODEL_TIMEOUT, message=f"the endpoint has said nothing for {SILENT_SECONDS:g} s")


class Chores:
    """Waiting tasks in the order of arrival, and those that run."""

    def __init__(self) -> None:
        self._waiting: list[Attempt] = []
        self._running: dict[Lane, Attempt] = {}
        self._told: tuple[RunningTask, ...] = ()
        self.ended: Callable[[Attempt], None] = lambda _: None
        """The node's models may be others now."""

    def __len__(self) -> int:
        return len(self._waiting) + len(self._running)

    @property
    def full(self) -> bool:
        """Nothing more fits."""
        return len(self) >= MOST_TASKS

    def push(self, attempt: Attempt) -> None:
        """Add a claimed attempt."""
        self._waiting.append(attempt)

    def startable(self) -> Iterator[Attempt]:
        """Those that may begin now; they run from then on."""
        for attempt in list(self._waiting):
            lane = _lane(attempt)
            if lane not in self._running:
                self._waiting.remove(attempt)
                self._running[lane] = attempt
                yield attempt

    def remove(self, attempt: Attempt) -> bool:
        """Take one out that waits; False when it does not."""
        waits = attempt in self._waiting
        if waits:
            self._waiting.remove(attempt)
        return waits

    def clear(self) -> list[Attempt]:
        """Take out all that wait."""
        waiting, self._waiting = self._waiting, []
        return waiting

    def done(self, attempt: Attempt) -> None:
        """It has ended, one way or the other."""
        self._running.pop(_lane(attempt), None)
        self.ended(attempt)

    def now(self) -> tuple[RunningTask, ...]:
        """What the Node record says of them."""
        return tuple(_told(attempt) for attempt in (*self._running.values(), *self._waiting))

    def news(self) -> bool:
        """Whether that is something else than at the last look."""
        before, self._told = self._told, self.now()
        return before != self._told


def _lane(attempt: Attempt) -> Lane:
    assert attempt.step.task is not None, "it is a task"
    return LANES[attempt.step.task.action]


def _told(attempt: Attempt) -> RunningTask:
    assert attempt.step.task is not None, "it is a task"
    progress = attempt.progress and coarse(attempt.progress)
    return RunningTask(step=attempt.step.id, action=attempt.step.task.action, model=attempt.step.model, progress=progress)


def coarse(progress: TaskProgress) -> TaskProgress:
    """Rounded down to a hundredth of the whole: a record that is told to all is not written for each megabyte."""
    part = max(1, progress.total // _PARTS)
    return progress.model_copy(
        update={"completed": progress.completed if progress.completed >= progress.total else progress.completed // part * part}
    )
