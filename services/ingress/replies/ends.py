"""Ends: who is to be told of a job's end by history itself, under the cluster's own id of the job (of a caller's id: tenant and id).

Each is told once. Of a caller the end may come as a final too: he takes the first, and both are functions of the same settle event. An end
is not kept here: the journal has it, and a planner answers who comes when it is over.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from shared.contracts.event import JobSettled
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.result import Result, Status

Told = Callable[[Result], None]


class Ends:
    """Job → whom to tell. With a limit the oldest job gives way when there are too many: who waits for it is never told."""

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit
        self._open: OrderedDict[str, list[tuple[Told, str | None]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open)

    def jobs(self) -> frozenset[str]:
        """Of which somebody waits for the end."""
        return frozenset(self._open)

    def add(self, job: str, told: Told, digest: str | None = None) -> None:
        """`told` is called once, with the result, when the settle event is read.

        Who waits for another request (`digest`) gets a conflict; he is told nothing where the event does not tell which it was.
        """
        self._open.setdefault(job, []).append((told, digest))
        while self._limit is not None and len(self._open) > self._limit:
            self._open.popitem(last=False)

    def remove(self, job: str, told: Told) -> None:
        """Not interested any longer."""
        waiting = [one for one in self._open.get(job, ()) if one[0] != told]
        if waiting:
            self._open[job] = waiting
        else:
            self._open.pop(job, None)

    def on_settled(self, job: str, event: bytes) -> None:
        """A valid JobSettled was read. Raises ValidationError when it is none."""
        if job in self._open:
            settled = JobSettled.model_validate_json(event)
            for told, digest in self._open.pop(job):
                if digest is None or digest == settled.digest:
                    told(settled.result)
                elif settled.digest:
                    told(_conflict(settled.result))

    def on_result(self, job: str, value: bytes) -> None:
        """Its result was read, which is made of a valid JobSettled. Whose request it was, it does not tell. Raises ValidationError."""
        if waiting := [told for told, digest in self._open.get(job, ()) if digest is None]:
            result = Result.model_validate_json(value)
            for told in waiting:
                self.remove(job, told)
                told(result)


def _conflict(result: Result) -> Result:
    failure = Failure(kind=FailureKind.CONFLICT, message="this id is already used with another body")
    return result.model_copy(update={"status": Status.FAILED, "answer": None, "failure": failure})
