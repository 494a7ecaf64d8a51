"""Ollama's words for what is done to models: pull, delete, copy; where, is tutti's own. Pure.

Without a word on nodes a pull is of one copy (where there is one it is brought up to date), a delete is of all, a copy of all that have it.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field
from pydantic_core import to_json

from services.ingress.admission.targets import TaskOrder
from services.ingress.dialects.ollama.requests import OfOneModel
from services.ingress.dialects.ollama.responses import STREAM_HEADERS, problem
from services.ingress.dialects.port import Strict, TaskDoor, UnsupportedParameter
from services.ingress.problems import Problem
from shared.contracts.base import Capability, ModelName, NodeId, Ordinal
from shared.contracts.tasks import Action, TaskProgress

SUCCESS = {"status": "success"}


class _Somewhere(Strict):
    nodes: tuple[NodeId, ...] = Field(default=(), max_length=256)
    tags: tuple[Capability, ...] = Field(default=(), max_length=16)
    copies: Ordinal | None = None
    all: bool = False
    stream: bool | None = None

    def order(self, action: Action, model: str, **more: Any) -> TaskOrder:
        """Raises ValidationError."""
        where = {name: getattr(self, name) for name in ("nodes", "tags", "copies", "all")}
        return TaskOrder(action=action, model=model, **where, **more)

    @property
    def streamed(self) -> bool:
        """As Ollama has it, unless it is said otherwise."""
        return self.stream is not False


class OllamaPull(OfOneModel, _Somewhere):
    """The body of `POST /api/pull`."""

    insecure: bool | None = None


class OllamaDelete(OfOneModel, _Somewhere):
    """The body of `DELETE /api/delete`."""


class OllamaCopy(_Somewhere):
    """The body of `POST /api/copy`."""

    source: ModelName
    destination: ModelName


def _pull(body: bytes) -> tuple[TaskOrder, bool]:
    asked = OllamaPull.model_validate_json(body)
    if asked.insecure:
        raise UnsupportedParameter("insecure", "insecure registries are the nodes' own matter")
    return asked.order(Action.PULL, asked.asked), asked.streamed


def _delete(body: bytes) -> tuple[TaskOrder, bool]:
    asked = OllamaDelete.model_validate_json(body)
    return asked.order(Action.DELETE, asked.asked), False


def _copy(body: bytes) -> tuple[TaskOrder, bool]:
    asked = OllamaCopy.model_validate_json(body)
    return asked.order(Action.COPY, asked.source, to=asked.destination), False


def line(progress: TaskProgress) -> bytes:
    """One piece of progress. The end of one node's is not that of all."""
    if progress.status == SUCCESS["status"]:
        return to_json({"status": f"{progress.node}: success"}) + b"\n"
    file = {"digest": progress.digest, "total": progress.total, "completed": progress.completed} if progress.total else {}
    return to_json({"status": progress.status, **file, "node": progress.node}, exclude_none=True) + b"\n"


def _last(_: str) -> bytes:
    return to_json(SUCCESS) + b"\n"


def _done(_: str) -> bytes:
    return to_json(SUCCESS)


def _nothing(_: str) -> bytes:
    return b""


def _failed(found: Problem) -> bytes:
    return problem(found) + b"\n"


def _door(path: str, summary: str, **own: Any) -> TaskDoor:
    return TaskDoor(path, summary, line=line, last=_last, failed=_failed, stream_headers=STREAM_HEADERS, **own)


TASKS = (
    _door("/api/pull", "Pull a model to nodes; lines of progress unless `stream` is false.", body=OllamaPull, order=_pull, done=_done),
    _door("/api/copy", "Give a model another name, where it is.", body=OllamaCopy, order=_copy, done=_nothing),
    _door("/api/delete", "Delete a model, wherever it is.", body=OllamaDelete, order=_delete, done=_nothing, method="DELETE"),
)
