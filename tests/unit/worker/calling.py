"""How the backend tests make calls and look at what came of them."""

from __future__ import annotations

from typing import Any

from services.worker.backends.base import Backend, Completion, Delta, ModelCall, ModelCallFailed
from shared.contracts.failure import FailureKind
from tests.unit.worker.world import step

TRACE = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


async def ask(backend: Backend, *, model: str = "small", trace: str | None = None, **changes: Any) -> tuple[list[Delta], Completion]:
    """All deltas and the completion of one call."""
    pieces = [piece async for piece in backend.call(ModelCall(step(1, **changes), model, trace))]
    *deltas, completion = pieces
    assert isinstance(completion, Completion)
    assert all(isinstance(delta, Delta) for delta in deltas)
    return deltas, completion  # type: ignore[return-value]


async def failure_of(backend: Backend, *, model: str = "small", **changes: Any) -> ModelCallFailed:
    """The failure that one call ends with."""
    try:
        await ask(backend, model=model, **changes)
    except ModelCallFailed as error:
        return error
    raise AssertionError("the call succeeded")


def is_kind(error: ModelCallFailed, kind: str) -> bool:
    return error.kind is FailureKind(kind)
