"""What a dialect is: one folder here with a `Dialect` in its `__init__`. A request becomes a Job; an answer, a stream and a problem become
bytes. The routes do the rest, for all dialects alike: admission, submission, waiting, disconnects (`routes/calls`, `routes/inquiries`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, Protocol, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict
from pydantic_core import from_json

from services.ingress.admission.targets import TaskOrder
from services.ingress.http import sse
from services.ingress.http.cache_wishes import shown
from services.ingress.problems import Problem, rendered
from shared.contracts.base import ModelName
from shared.contracts.chat import Answer, Operation
from shared.contracts.job import Job
from shared.contracts.node import Ability
from shared.contracts.tasks import TaskProgress
from shared.contracts.usage import Usage
from shared.errors import Unsupported

T = TypeVar("T")

_NOT_PRINTABLE = re.compile(r"[^\x20-\x7e]")


def _is_there(value: Any) -> bool | None:
    return None if value is None else True


Unread = Annotated[bool | None, BeforeValidator(_is_there, json_schema_input_type=Any)]
"""Whatever it is, only that it is there counts: it is not kept."""


class UnsupportedParameter(Unsupported):
    """The parameter is known but not supported."""

    code = "unsupported_parameter"

    def __init__(self, param: str, message: str | None = None) -> None:
        super().__init__(message or f"{param} is not supported", param=param)


def refuse_unsupported(request: BaseModel, harmless: Mapping[str, tuple[Any, ...]]) -> None:
    """Raises UnsupportedParameter for a parameter of `harmless` with any but its values there, which ask for nothing that would not
    happen anyway.
    """
    for name in request.model_fields_set & harmless.keys():
        value = getattr(request, name)
        if value is not None and value not in harmless[name]:
            shown = value if isinstance(value, bool | int | float) else "..."
            raise UnsupportedParameter(name, f"{name}={shown} is not supported")


def as_many(given: str | Sequence[T]) -> tuple[T | str, ...]:
    """Of what may be one text or several."""
    return (given,) if isinstance(given, str) else tuple(given)


Effort = bool | Literal["low", "medium", "high"] | None
EFFORTS: dict[str | None, Effort] = {
    None: None, "none": False, "minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"
}  # fmt: skip
"""What clients say of how much a model thinks → of the three efforts that one knows which."""


class Strict(BaseModel):
    """Base of what clients send: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Asked(Strict):
    """Base of a request: bytes are parsed into it once."""

    model: ModelName

    def wishes(self) -> Any:
        """What of the request its answer depends on; nothing large."""
        return None

    @property
    def continues(self) -> str | None:
        """The job that it goes on from: of its conversation it is the next turn."""
        return None

    @property
    def later(self) -> bool:
        """Nobody waits: the answer is asked for later."""
        return False


class Terms(NamedTuple):
    """What the ingress adds to a request. `pattern`: where the model's name stands for one."""

    identifier: str
    tenant: str | None
    model: ModelName
    pattern: str | None
    deadline_seconds: float
    conversation: str | None = None
    """Of the job that the request goes on from."""

    def job(self, given: dict[str, Any] | None = None, param: str = "input", **asked: Any) -> Job:
        """With what is the same in all dialects. `given`: what a pattern takes besides, in the field `param`. Raises UnsupportedParameter
        where the model's name stands for none; ValidationError on a bad tenant or model name.
        """
        if self.pattern is None and given:
            raise UnsupportedParameter(param, f"{param} is for models tutti/<pattern>")
        return Job(
            id=self.identifier,
            tenant=self.tenant or "default",
            model=self.model,
            pattern=self.pattern or "single",
            input=given or {},
            deadline_seconds=self.deadline_seconds,
            **asked,
        )

    def embedding(self, texts: tuple[str, ...], **asked: Any) -> Job:
        """The job that embeds them. Raises UnsupportedParameter."""
        if self.pattern is not None:
            raise UnsupportedParameter("model", "a pattern does not embed")
        return self.job(texts=texts, **asked)


class Told(NamedTuple):
    """What an answer is rendered from besides itself. `created`: seconds since 1970; `model`: as the client spelled it; `took()`: seconds
    since the request was read; none where nobody measures.
    """

    job: str
    created: int
    model: ModelName
    wishes: Any
    took: Callable[[], float] = float


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
    """One name that may stand for a model. `window`: the largest, tokens; `simulated`: nothing but simulators answers here.

    Of a model on nodes also its size in bytes, `digest` and `quantisation` where they agree, what it can, and whether some node has it
    loaded; a name that leaves the choice to the cluster has none of these.
    """

    name: str
    available: bool
    window: int | None
    simulated: bool
    size: int = 0
    digest: str = ""
    quantisation: str = ""
    abilities: frozenset[Ability] = frozenset()
    operations: frozenset[str] = frozenset()
    resident: bool = False


class _Known(Protocol):
    """What may be asked for here, now."""

    def all(self) -> list[ModelShown]:
        """Every name."""

    def one(self, name: str) -> ModelShown:
        """Raises Refused (404)."""


class Inquired(NamedTuple):
    """What is asked besides a call: what stands in its path, and its body."""

    known: _Known
    params: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Inquiry:
    """What its clients ask for besides calls: lists of models, versions, estimates. `public`: also without a key; `body`: what is sent."""

    path: str
    summary: str
    render: Callable[[Inquired], bytes]
    method: str = "GET"
    body: type[BaseModel] | None = None
    media: str = "application/json"
    public: bool = False


@dataclass(frozen=True, slots=True)
class TaskDoor:
    """What its clients ask to be done to models. `order(body)`: what that is, and whether its progress is to be streamed."""

    path: str
    summary: str
    body: type[BaseModel]
    order: Callable[[bytes], tuple[TaskOrder, bool]]
    line: Callable[[TaskProgress], bytes]
    last: Callable[[str], bytes]
    """What ends a good stream, by the answer's text."""
    done: Callable[[str], bytes]
    """The same where nothing is streamed."""
    failed: Callable[[Problem], bytes]
    method: str = "POST"
    stream_headers: Sequence[tuple[bytes, bytes]] = ()


@dataclass(frozen=True, slots=True)
class Dialect:
    """`POST path` asks for an answer and waits for it. `heartbeat`: sent while a stream is silent; empty where the format has none.

    `at_once`: of a request that needs no model, its answer, at this instant (seconds since 1970); None of all others.
    """

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
    at_once: Callable[[Any, float], bytes | None] | None = None
    inquiries: Sequence[Inquiry] = ()
    tasks: Sequence[TaskDoor] = ()
    batched: bool = False
    """Its requests may be lines of batches: what it wishes is JSON."""


def functions(tools: Iterable[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    """The caller's tools, in OpenAI's form. Raises UnsupportedParameter of one that is no function, or that has no name to be called by."""
    found = tuple(tools)
    for number, tool in enumerate(found):
        function = tool.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if tool.get("type", "function") != "function" or not isinstance(name, str) or not name.strip():
            raise UnsupportedParameter(f"tools.{number}", "tools are functions, each with a name")
    return found


def named_tools(tools: tuple[dict[str, Any], ...], names: Sequence[str] | None) -> tuple[dict[str, Any], ...]:
    """Those of these names, or all. Raises UnsupportedParameter where one is not there, or there are none."""
    known = [function_name(tool) for tool in tools]
    if not tools or names == [] or not {*(names or ())} <= {*known}:
        raise UnsupportedParameter("tool_choice", f"tool_choice names no tool of `tools`; known: {', '.join(known)[:1_000] or 'none'}")
    return tools if names is None else tuple(tool for tool in tools if function_name(tool) in names)


def function_name(call: Mapping[str, Any]) -> str:
    """Of a tool, or a call, in OpenAI's form; empty where it has none."""
    function = call.get("function")
    return str(function.get("name", "")) if isinstance(function, dict) else ""


def origin(answer: Answer) -> dict[str, Any]:
    """What has answered, as far as its node tells: model, digest and quantisation of its file, node; what its tenant's policies have met,
    each as direction, check, action and count; and of the cache what it tells.
    """
    served = {} if answer.served is None else {"cache": shown(answer.served)}
    return {**_node(answer), **served}


def _node(answer: Answer) -> dict[str, str]:
    flagged = ", ".join(f"{each.direction} {each.check} {each.action} {each.count}" for each in answer.flagged)
    told = {"model": answer.model, "digest": answer.digest, "quantisation": answer.quantisation, "node": answer.node, "flagged": flagged}
    return {name: value for name, value in told.items() if value}


def origin_headers(answer: Answer) -> list[tuple[bytes, bytes]]:
    """The same as `x-tutti-model`, `x-tutti-digest`, `x-tutti-quantisation`, `x-tutti-node`, `x-tutti-flagged`."""
    return [(b"x-tutti-" + name.encode(), _NOT_PRINTABLE.sub("?", value).encode()) for name, value in _node(answer).items()]


def arguments_of(call: Mapping[str, Any]) -> tuple[str, Any]:
    """(name, arguments as an object) of a call in OpenAI's form; of a model that wrote no JSON, nothing."""
    function = call.get("function") or {}
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        try:
            arguments = from_json(arguments)
        except ValueError:
            arguments = {}
    return function.get("name", ""), arguments
