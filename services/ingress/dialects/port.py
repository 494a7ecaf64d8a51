"""What a dialect is: one folder here with a `Dialect` in its `__init__`. A request becomes a Job; an answer, a stream and a problem become
bytes. The routes do the rest, for all dialects alike: admission, submission, waiting, disconnects (`routes/calls`, `routes/models`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from pydantic import BaseModel

from services.ingress.http import sse
from services.ingress.http.cache_wishes import shown
from services.ingress.problems import Problem, rendered
from shared.contracts.base import ModelName
from shared.contracts.chat import Answer, Operation
from shared.contracts.job import Job
from shared.contracts.usage import Usage

_NOT_PRINTABLE = re.compile(r"[^\x20-\x7e]")


class Asked(BaseModel):
    """Base of a request: bytes are parsed into it once, unknown fields refused by the dialect's own class."""

    model: ModelName

    def wishes(self) -> Any:
        """What of the request its answer depends on; nothing large."""
        return None


class Terms(NamedTuple):
    """What the ingress adds to a request. `pattern`: where the model's name stands for one."""

    identifier: str
    tenant: str | None
    model: ModelName
    pattern: str | None
    deadline_seconds: float


class Told(NamedTuple):
    """What an answer is rendered from besides itself. `created`: seconds since 1970; `model`: as the client spelled it."""

    job: str
    created: int
    model: ModelName
    wishes: Any


class StreamWriter(Protocol):
    """One stream. Each method returns bytes for the body."""

    @property
    def begun(self) -> bool:
        """The first chunk has been rendered."""

    def begin(self, model: str | None, simulated: bool) -> bytes:
        """The first chunk: from now on the model that answers is known."""

    def text(self, text: str) -> bytes:
        """New text."""

    def thinking(self, text: str) -> bytes:
        """New thinking."""

    def last(self, answer: Answer, consumed: Usage) -> bytes:
        """What ends the stream; the first chunk too where nothing came before."""

    def failed(self, found: Problem) -> bytes:
        """An error after the stream began, and its end."""


class ModelShown(NamedTuple):
    """One name in the list of models. `window`: the largest, tokens; `simulated`: nothing but simulators answers here."""

    name: str
    available: bool
    window: int | None
    simulated: bool


@dataclass(frozen=True, slots=True)
class ListForm:
    """Where the models are listed, and one of them (None: nowhere); how both are rendered."""

    path: str
    one_path: str | None
    all: Callable[[Sequence[ModelShown]], bytes]
    one: Callable[[ModelShown], bytes]


@dataclass(frozen=True, slots=True)
class Dialect:
    """`POST path` asks for an answer and waits for it. `heartbeat`: sent while a stream is silent; empty where the format has none."""

    path: str
    summary: str
    request: type[Asked]
    to_job: Callable[[Any, Terms], Job]
    answer: Callable[[Told, Answer, Usage], bytes]
    stream: Callable[[Told], StreamWriter]
    operation: Operation = Operation.CHAT
    problem: Callable[[Problem], bytes] = rendered
    stream_headers: Sequence[tuple[bytes, bytes]] = tuple(sse.HEADERS)
    heartbeat: bytes = sse.HEARTBEAT
    models: ListForm | None = None


def origin(answer: Answer) -> dict[str, Any]:
    """What has answered, as far as its node tells: model, digest and quantisation of its file, node; and of the cache what it tells."""
    served = {} if answer.served is None else {"cache": shown(answer.served)}
    return {**_node(answer), **served}


def _node(answer: Answer) -> dict[str, str]:
    told = {"model": answer.model, "digest": answer.digest, "quantisation": answer.quantisation, "node": answer.node}
    return {name: value for name, value in told.items() if value}


def origin_headers(answer: Answer) -> list[tuple[bytes, bytes]]:
    """The same as `x-tutti-model`, `x-tutti-digest`, `x-tutti-quantisation`, `x-tutti-node`."""
    return [(b"x-tutti-" + name.encode(), _NOT_PRINTABLE.sub("?", value).encode()) for name, value in _node(answer).items()]
