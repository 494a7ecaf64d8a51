"""Parts of the OpenAPI document: parameters, answers, problems, in the forms that are checked and rendered elsewhere. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from pydantic.json_schema import GenerateJsonSchema
from pydantic_core.core_schema import ModelSchema

from services.ingress.http.exchange import IDEMPOTENCY_KEY, MAX_DEADLINE_SECONDS
from services.ingress.problems import STATUS_OF_FAILURE, Problem, rendered
from shared.contracts.base import ID, TENANT, PriorityClass

REF = "#/components/schemas/{model}"


class Components(GenerateJsonSchema):
    """Clients generate code by these names: that a part of a request is one module's own is nothing to them."""

    def normalize_name(self, name: str) -> str:
        return super().normalize_name(name.lstrip("_"))

    def model_schema(self, schema: ModelSchema) -> dict[str, Any]:
        form = super().model_schema(schema)
        return form | {"title": form["title"].lstrip("_")}


_OF_TENANT = {"type": "string", "pattern": f"^{TENANT}$"}


def header(name: str, about: str, **form: Any) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "schema": {"type": "string"} | form, "description": about}


def named(about: str, pattern: str = ID, name: str = "id") -> dict[str, Any]:
    """What a path names; `pattern`: what such names are."""
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "pattern": f"^{pattern}$"}, "description": about}


TENANT_ASKED = {
    "name": "tenant",
    "in": "query",
    "required": False,
    "schema": _OF_TENANT,
    "description": "Whose it is, where that is not the caller's own tenant (administrators); as x-tutti-tenant.",
}


EVENTS = {"text/event-stream": {"schema": {"type": "object", "required": ["data"], "properties": {"data": {"type": "string"}}}}}
"""Of each event what there is: its data, and its name and id where it has one."""
_SECONDS = {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_DEADLINE_SECONDS}
CALL_HEADERS = [
    header("x-tutti-class", "How urgent it is.", enum=[each.value for each in PriorityClass]),
    header("x-tutti-tenant", "Tenant; `default` when absent.", **_OF_TENANT),
    header("x-tutti-deadline-seconds", "Seconds from now after which the answer is worthless.", **_SECONDS),
    header("x-tutti-detach", "`true`: the job goes on when the client disconnects."),
    header("x-tutti-cache", "What is asked of the cache: `exact; ttl=60; scope=user; no-store; max-age=5; tag=a` (README)."),
    header("cache-control", "`no-cache`, `no-store`, `max-age=`, for who asks the cache."),
    header("traceparent", "W3C trace context."),
    header(
        "Idempotency-Key",
        "Same key, same body: the same job and result. Another body: 409. 24 h with Redis, else 1 h after the end.",
        pattern=f"^{IDEMPOTENCY_KEY}$",
    ),
]
_ERROR_STATUS = {
    "400": "Malformed body, unknown field, unsupported parameter; `context_length_exceeded`: no window holds the messages.",
    "401": "No API key, or an unknown one.",
    "403": "The key may not act for this tenant, or not in this class.",
    "404": "Unknown model (with the known ones) or job.",
    "405": "Not a method of this path; `Allow` tells which are.",
    "409": "The Idempotency-Key or id stands for another body; what was said of a review does not count.",
    "429": "The key's or the tenant's limit is reached, or the backlog does not allow an answer in time; see Retry-After.",
    "500": "Something went wrong inside tutti.",
    "503": "No node for it (with what is missing), or Kafka does not answer; see Retry-After.",
}
_BODY_STATUS = {
    "408": "The body did not arrive in time.",
    "413": "Too large, nested too deep, or more tokens than the key's limit ever holds.",
    "415": "A content-encoding other than gzip and deflate.",
}
FAILURE_STATUS = {str(status): "Why the job has failed: `code` names the kind of failure." for status in STATUS_OF_FAILURE.values()} | {
    "499": "The job was cancelled.",
    "504": "The deadline passed.",
}
"""Of who waits for an answer."""


_ANSWER_HEADERS = {
    "x-tutti-job": "Job id.",
    "x-tutti-model": "The model that answered; of a stream in the field `tutti` of its last chunk, as are the next three.",
    "x-tutti-digest": "Of the model's file, where its node tells it.",
    "x-tutti-quantisation": "Of the model's file, where its node tells it.",
    "x-tutti-node": "The node that answered.",
    "x-tutti-place": "While it waits for a node: its place in line, 1 is the next (`/v1/jobs`; setting `places`).",
    "x-tutti-start-seconds": "With it, where that can be said: when it is likely to start.",
    "idempotent-replayed": "`true`: the job was known before (`/v1/jobs`).",
    "x-ratelimit-limit-requests": "What the key's bucket holds; of tokens: x-ratelimit-limit-tokens.",
    "x-ratelimit-remaining-requests": "What is left; of tokens, estimated before and settled after: x-ratelimit-remaining-tokens.",
    "x-ratelimit-reset-requests": "Until it is full again, for example 1m30s; of tokens: x-ratelimit-reset-tokens.",
}
_WHEN_HEADERS = {"Retry-After": "Whole seconds, rounded up.", "retry-after-ms": "Of a key's limit: exactly."}


def problem_schema(render: Callable[[Problem], bytes]) -> dict[str, Any]:
    """Of what a dialect makes of a problem: by one that says everything, and one that says nothing, which has what is always there."""
    full = Problem(503, "code", "message", "param", 1.0, {"known_models": ["a"], "missing": ["a"]})
    return _form_of(*(json.loads(render(problem)) for problem in (full, Problem(400, "code", "message"))))


def _form_of(full: Any, bare: Any) -> dict[str, Any]:
    kinds: dict[type, str] = {str: "string", float: "number", bool: "boolean", type(None): "null"}
    match full:
        case dict():
            properties = {name: _form_of(value, bare.get(name, value)) for name, value in full.items()}
            return {"type": "object", "required": sorted(bare), "properties": properties}
        case list():
            return {"type": "array", "items": {"type": "string"}}
        case _:
            return {"type": sorted({kinds[type(full)], kinds[type(bare)]})}


def problem_form(render: Callable[[Problem], bytes]) -> str:
    """The name of a dialect's form of problems: OpenAI's and tutti's own has none before it."""
    return f"{'' if render is rendered else render.__module__.split('.')[-2].capitalize()}Problem"


def operation(
    summary: str,
    answers: dict[str, Any],
    *,
    parameters: list[dict[str, Any]] | None = None,
    body: str | None = None,
    content: dict[str, Any] | None = None,
    render: Callable[[Problem], bytes] = rendered,
) -> dict[str, Any]:
    """`body`: the schema of what is sent, as JSON; `content`: what is sent in another form."""
    content = content if body is None else {"application/json": {"schema": ref(body)}}
    told = _ERROR_STATUS if content is None else _ERROR_STATUS | _BODY_STATUS
    problems = {status: as_json(about, ref(problem_form(render))) for status, about in told.items()}
    for status in ("429", "503"):
        problems[status]["headers"] = _headers(_WHEN_HEADERS)
    operation: dict[str, Any] = {"summary": summary, "parameters": parameters or [], "responses": answers | problems}
    if body is not None:
        for answer in answers.values():
            answer["headers"] = _headers(_ANSWER_HEADERS)
    if content is not None:
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _headers(about: dict[str, str]) -> dict[str, Any]:
    return {name: {"description": text, "schema": {"type": "string"}} for name, text in about.items()}


def as_json(about: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": about, "content": {"application/json": {"schema": schema}}}


def ref(name: str) -> dict[str, Any]:
    return {"$ref": REF.format(model=name)}
