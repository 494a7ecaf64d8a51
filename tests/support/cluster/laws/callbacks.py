"""Callbacks: each end that somebody is to be told of was taken by its receiver, as it is in history, or lies in the dead letters."""

from __future__ import annotations

from collections.abc import Iterator

from services.ingress.callbacks.rendering import delivery_id
from shared.contracts import ids
from shared.contracts.event import JobSettled
from shared.contracts.result import Result
from tests.support.cluster.violation import Violation
from tests.support.cluster.world import World

LAW = "callbacks"


def owed(world: World) -> Iterator[Result]:
    """Ends of history that somebody wants to be told of, by what was asked for."""
    asked = {job: given[0].job.job.callback for job, given in world.history.jobs().items() if given[0].job is not None}
    for written in world.history.all_valid():
        if isinstance(written.value, JobSettled):
            callback, result = asked.get(written.value.job), written.value.result
            if callback is not None and result.status.value in callback.events:
                yield result


def untold(world: World) -> list[str]:
    """Jobs whose end nobody has taken, and that are no dead letter."""
    return [
        result.job for result in owed(world) if not world.receivers.got[_as_told(result)] and result.job not in world.history.buried_jobs
    ]


def check(world: World) -> Iterator[Violation]:
    """After convergence."""
    for job in untold(world):
        yield Violation(LAW, f"the end of {job} is neither delivered nor a dead letter", job)
    for result in owed(world):
        for identifier, body in world.receivers.got[_as_told(result)]:
            if identifier != delivery_id(result) or body["data"]["status"] != result.status.value:
                yield Violation(LAW, f"what was told of {result.job} is not its end", result.job)
    asked = {_as_told(result) for result in owed(world)}
    for name, taken in world.receivers.got.items():
        if taken and name not in asked:
            yield Violation(LAW, f"somebody was told of {name}, who was not to be")


def _as_told(result: Result) -> str:
    tenant = ids.owner(result.job)
    return ids.public(result.job) + ("" if tenant is None else f"?tenant={tenant}")
