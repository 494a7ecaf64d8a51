"""Constrained control: what a model decides for a pattern is an instance of a schema, or a typed failure; never a guess.

The schema goes to the backend, whose sampler can write nothing else. What comes back is read strictly, out of fences or words around it
where there are some; what is no valid decision is asked for again with the validator's words, twice, with more room if it was cut off.
Bound every text and list of a `Control` tightly: a weak model writes until the schema makes it stop.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Literal, TypeVar, cast, get_args, get_origin

from pydantic import ConfigDict, Field, ValidationError, create_model

from shared.contracts.base import Contract
from shared.contracts.bounds import explain
from shared.contracts.chat import ChatMessage, FinishReason
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.step import StepRequest
from shared.patterns.context import Context, StepError

AGAIN = 2
"""How often a decision that is none is asked for again."""
ROOM = 512
"""Tokens for a decision, where the request names none; twice as many after one that was cut off."""
_SHOWN = 2_000
"""Characters of a refused answer that its author is shown."""
_STARTS = 16
"""Places at which a JSON object is looked for in an answer."""


class Control(Contract):
    """Base of what a model may decide. Put a bounded `reasoning` before what is decided: it is written first."""

    model_config = ConfigDict(extra="ignore")


Decided = TypeVar("Decided", bound=Control)
Check = Callable[[Any], str | None]
"""What is wrong with a decision that its schema allows, as one sentence for the model; None where nothing is."""


async def decide(ctx: Context, request: StepRequest, kind: type[Decided], check: Check | None = None) -> Decided:
    """What the model decides. Raises StepError (`invalid_output`) when it has not come to a valid decision after `AGAIN` more asks."""
    asked = request.model_copy(update={"format": schema_of(kind), "stream": False})
    asked = _with_room(asked, request.options.max_tokens or ROOM)
    wrong = ""
    for _ in range(AGAIN + 1):
        answer = await ctx.ask(asked)
        found, wrong = read(kind, answer.text, check)
        if found is not None:
            return found
        if answer.finish_reason is FinishReason.LENGTH:
            asked = _with_room(asked, 2 * (asked.options.max_tokens or ROOM))
        refused = (
            ChatMessage(role="assistant", content=answer.text[:_SHOWN]),
            ChatMessage(role="user", content=f"That was refused: {wrong}. Answer again, with the JSON object alone."),
        )
        asked = asked.model_copy(update={"messages": (*request.messages, *refused)})
    raise StepError(Failure(kind=FailureKind.INVALID_OUTPUT, message=f"agent {request.agent} made no valid decision: {wrong}"))


def read(kind: type[Decided], text: str, check: Check | None = None) -> tuple[Decided | None, str]:
    """The decision in this text; or None and what is wrong with it, with nothing of the text in the words."""
    found = first_object(text)
    if found is None:
        return None, "there is no JSON object in it"
    try:
        decided = kind.model_validate(found)
    except ValidationError as error:
        return None, explain(error, "answer", kind.model_fields)
    wrong = check(decided) if check is not None else None
    return (decided, "") if wrong is None else (None, wrong)


def first_object(text: str) -> dict[str, Any] | None:
    """The first JSON object in a text that may have fences, thoughts or an apology around it."""
    decoder, at = json.JSONDecoder(), -1
    for _ in range(_STARTS):
        at = text.find("{", at + 1)
        if at < 0:
            return None
        try:
            found, _ = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            continue
        return cast("dict[str, Any]", found)
    return None


def narrowed(kind: type[Decided], field: str, choices: Sequence[str], most: int | None = None) -> type[Decided]:
    """The same decision, of which this field (a str, or a tuple of them; `subtasks.agent`: of each subtask) can only be one of the choices:
    an enum from live state. `most`: bound of the list that it is, or lies in.
    """
    return cast("type[Decided]", _narrowed(kind, field, tuple(choices), most))


@lru_cache(256)
def _narrowed(kind: type[Control], field: str, choices: tuple[str, ...], most: int | None) -> type[Control]:
    head, _, rest = field.partition(".")
    was = kind.model_fields[head]
    several = get_origin(was.annotation) is tuple
    one = _narrowed(get_args(was.annotation)[0], rest, choices, None) if rest else cast("Any", Literal)[choices]
    bound = Field(min_length=1, max_length=most) if most is not None else was if several else ...
    fields: dict[str, Any] = {head: (cast("Any", tuple)[one, ...] if several else one, bound)}
    return create_model(kind.__name__, __base__=kind, **fields)


def schema_of(kind: type[Control]) -> dict[str, Any]:
    """JSON schema without references, titles and descriptions: what every backend's sampler understands, and no release changes."""
    return cast("dict[str, Any]", _schema_of(kind))


@lru_cache(256)
def _schema_of(kind: type[Control]) -> Any:
    whole = kind.model_json_schema()
    return _plain(whole, whole.get("$defs", {}))


def _plain(part: Any, known: dict[str, Any]) -> Any:
    if isinstance(part, list):
        return [_plain(inner, known) for inner in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        return _plain(known[part["$ref"].rsplit("/", 1)[1]], known)
    names = {"properties"} & part.keys()
    shown = {key: _plain(value, known) for key, value in part.items() if key not in {"$defs", "title", "description", "default", *names}}
    if names:
        shown["properties"] = {name: _plain(value, known) for name, value in part["properties"].items()}
        shown["required"] = list(part["properties"])
    return shown


def _with_room(request: StepRequest, tokens: int) -> StepRequest:
    return request.model_copy(update={"options": request.options.model_copy(update={"max_tokens": tokens})})
