"""The OpenAPI document: paths by hand, schemas from the contracts. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pydantic.json_schema import models_json_schema

from services.ingress.dialects.openai.batches import BatchRequest
from services.ingress.dialects.port import Dialect, Inquiry
from services.ingress.dialects.tutti.requests import JobSubmission
from services.ingress.routes.conversations import MemorySubmission
from services.ingress.routes.declarations import RENDERED, AliasMove, Rendering
from services.ingress.routes.erasure import Erasure, ErasureView
from services.ingress.routes.keys import KeySubmission, KeyView, Rotation
from services.ingress.routes.reviews import ReviewSubmission
from services.ingress.routes.schedules import ScheduleSubmission
from services.ingress.routes.tenants import TenantView
from services.ingress.status.mermaid import MEDIA_TYPE
from services.ingress.status.status import JobStatus
from shared.agents.table import KINDS
from shared.contracts.budget import TenantLimits
from shared.contracts.keys import KeyTerms
from shared.tree import Tree

_REF = "#/components/schemas/{model}"
_PARAMETER = re.compile(r"{[a-z:]+}")
_ID = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}, "description": "Job id."}
_TENANT = {
    "name": "tenant",
    "in": "query",
    "required": False,
    "schema": {"type": "string"},
    "description": "Whose it is, where that is not the caller's own tenant (administrators); as x-tutti-tenant.",
}


def _header(name: str, about: str, kind: str = "string") -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "schema": {"type": kind}, "description": about}


_CALL_HEADERS = [
    _header("x-tutti-class", "interactive, standard or batch."),
    _header("x-tutti-tenant", "Tenant; `default` when absent."),
    _header("x-tutti-deadline-seconds", "Seconds from now after which the answer is worthless.", "number"),
    _header("x-tutti-detach", "`true`: the job goes on when the client disconnects."),
    _header("x-tutti-cache", "What is asked of the cache: `exact; ttl=60; scope=user; no-store; max-age=5; tag=a` (README)."),
    _header("cache-control", "`no-cache`, `no-store`, `max-age=`, for who asks the cache."),
    _header("traceparent", "W3C trace context."),
    _header("Idempotency-Key", "Same key, same body: the same job and result. Another body: 409. 24 h with Redis, else 1 h after the end."),
]
_ERROR_STATUS = {
    "400": "Malformed body, unknown field, unsupported parameter; `context_length_exceeded`: no window holds the messages.",
    "401": "No API key, or an unknown one.",
    "403": "The key may not act for this tenant, or not in this class.",
    "404": "Unknown model (with the known ones) or job.",
    "405": "Not a method of this path; `Allow` tells which are.",
    "408": "The body did not arrive in time.",
    "409": "The Idempotency-Key or id stands for another body; what was said of a review does not count.",
    "413": "Too large, nested too deep, or more tokens than the key's limit ever holds.",
    "415": "A content-encoding other than gzip and deflate.",
    "429": "The key's or the tenant's limit is reached, or the backlog does not allow an answer in time; see Retry-After.",
    "503": "No node for it (with what is missing), or Kafka does not answer; see Retry-After.",
    "504": "The deadline passed.",
}


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


_KEY_NAME = {**_ID, "description": "Name of the key."}


def document(title: str, version: str, dialects: Sequence[Dialect]) -> dict[str, Any]:
    """OpenAPI 3.1."""
    inputs: list[tuple[type[Any], Any]] = [(dialect.request, "validation") for dialect in dialects]
    inputs += [(JobSubmission, "validation"), (JobStatus, "serialization"), (Tree, "serialization")]
    inputs += [*((kind, "validation") for kind in KINDS.values()), (AliasMove, "validation"), (Rendering, "validation")]
    inputs += [
        (BatchRequest, "validation"),
        (ScheduleSubmission, "validation"),
        (ReviewSubmission, "validation"),
        (MemorySubmission, "validation"),
        (TenantLimits, "validation"),
        (KeySubmission, "validation"),
        (KeyTerms, "validation"),
        (Rotation, "validation"),
        (KeyView, "serialization"),
        (TenantView, "serialization"),
        (ErasureView, "serialization"),
        (Erasure, "validation"),
    ]
    _, schemas = models_json_schema(inputs, ref_template=_REF, by_alias=True)
    components = dict(schemas.get("$defs", {})) | {"Problem": _problem_schema()}
    bearer = {"type": "http", "scheme": "bearer", "description": "Only where there are keys (`/v1/keys`, TUTTI_INGRESS__KEYS_FILE)."}
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "description": "One LLM cluster from unequal machines."},
        "paths": {path: ends for dialect in dialects for path, ends in _served(dialect).items()} | _paths(),
        "components": {"schemas": components, "securitySchemes": {"key": bearer}},
        "security": [{"key": []}, {}],
    }


def _problem_schema() -> dict[str, Any]:
    fields = {"code": {"type": ["string", "null"]}, "message": {"type": "string"}, "param": {"type": ["string", "null"]}}
    more = {"type": {"type": "string"}, "missing": {"type": "array", "items": {"type": "string"}}}
    more |= {"retry_after_seconds": {"type": "number"}}
    known = {"known_models": {"type": "array", "items": {"type": "string"}}}
    error = {"type": "object", "required": ["code", "message", "param", "type"], "properties": fields | more | known}
    return {"type": "object", "required": ["error"], "properties": {"error": error}}


def _paths() -> dict[str, Any]:
    jobs = _operation(
        "Submit a job. 202 means that it is durable and will end.",
        {
            "200": _json("It has ended: within `wait`, or before.", _ref("JobStatus")),
            "202": _json("Id, state and where to look.", {"type": "object"}),
        },
        parameters=[*_CALL_HEADERS[:3], *_CALL_HEADERS[4:], _wait()],
        body="JobSubmission",
    )
    return {
        "/v1/jobs": {"post": jobs},
        "/v1/jobs/{id}": {"get": _job_get(), "delete": _job_delete()},
        "/v1/jobs/{id}/events": {"get": _job_events()},
        "/v1/jobs/{id}/tree": {"get": _job_tree()},
        "/v1/responses/{id}": _background(),
        "/v1/responses/{id}/cancel": {"post": _operation("End a response.", _response(), parameters=[_ID])},
        **_batches(),
        "/v1/reviews": {"get": _operation("Texts that wait for people.", {"200": _json("A list.", {"type": "object"})})},
        "/v1/reviews/{id}": _review(),
        "/v1/conversations": {"get": _operation("Conversations that are kept.", {"200": _json("A list.", {"type": "object"})})},
        "/v1/conversations/{id}": _conversation(),
        "/v1/schedules": {"get": _operation("Recurring jobs.", {"200": _json("A list.", {"type": "object"})})},
        "/v1/schedules/{id}": _schedule(),
        "/v1/keys": _keys(),
        "/v1/keys/{id}": _key(),
        "/v1/keys/{id}/rotate": {
            "post": _operation(
                "Make a key anew; the one before holds on for a while.", _shown_key(), parameters=[_KEY_NAME], body="Rotation"
            )
        },
        "/v1/tenants": {"get": _operation("Tenants with limits (administrators).", {"200": _json("A list.", {"type": "object"})})},
        "/v1/tenants/{id}": _tenant(),
        "/v1/tenants/{id}/erase": {"post": _erase()},
        **{path: ends for kind in KINDS for path, ends in _declared(kind).items()},
        "/healthz": {"get": _plain("The process lives.")},
        "/readyz": {"get": _plain("The instance takes jobs; 503 with reasons when it does not.")},
        "/metrics": {"get": _plain("Prometheus metrics.")},
    }


def _served(dialect: Dialect) -> dict[str, Any]:
    """Its call, and what is asked besides."""
    answers = {"200": _json("The answer.", {"type": "object"})}
    call = _operation(dialect.summary, answers, parameters=_CALL_HEADERS, body=dialect.request.__name__)
    return {dialect.path: {"post": call}} | {
        _PARAMETER.sub("{id}", inquiry.path): {inquiry.method.lower(): _inquiry(inquiry)} for inquiry in dialect.inquiries
    }


def _inquiry(asked: Inquiry) -> dict[str, Any]:
    form = {"type": "object" if "json" in asked.media else "string"}
    shown = {"200": {"description": asked.summary, "content": {asked.media: {"schema": form}}}}
    return _operation(asked.summary, shown, parameters=[_ID] if _PARAMETER.search(asked.path) else None)


def _response() -> dict[str, Any]:
    return {"200": _json("The response.", {"type": "object"})}


def _background() -> dict[str, Any]:
    name = [{**_ID, "description": "Response: resp_ and the job's id."}, _TENANT]
    number = {
        "name": "starting_after",
        "in": "query",
        "schema": {"type": "integer"},
        "description": "Of a stream: go on behind this event.",
    }
    stream = {"name": "stream", "in": "query", "schema": {"type": "boolean"}, "description": "Its events instead of the response."}
    shown = _response()
    gone = _operation("Refused: jobs are kept as long as their history.", {}, parameters=name)
    return {"get": _operation("A response as it is now.", shown, parameters=[*name, stream, number]), "delete": gone}


def _batches() -> dict[str, Any]:
    """Files too: objects as OpenAI describes them."""
    one, listed = {"200": _json("As OpenAI's object.", {"type": "object"})}, {"200": _json("A page.", {"type": "object"})}
    file: list[dict[str, Any]] = [{**_ID, "description": "File."}, _TENANT]
    batch: list[dict[str, Any]] = [{**_ID, "description": "Batch."}, _TENANT]
    pages: list[dict[str, Any]] = [
        _TENANT,
        {"name": "after", "in": "query", "schema": {"type": "string"}, "description": "The last id of the page before."},
        {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 10_000}},
    ]
    upload = _operation("Upload a file of purpose batch: JSONL, at most 100 MB; kept 13 days.", one)
    form: dict[str, Any] = {"type": "object", "required": ["file", "purpose"]}
    form |= {"properties": {"file": {"type": "string", "format": "binary"}, "purpose": {"type": "string", "enum": ["batch"]}}}
    upload["requestBody"] = {"required": True, "content": {"multipart/form-data": {"schema": form}}}
    content = {"200": {"description": "Its bytes.", "content": {"application/octet-stream": {"schema": {"type": "string"}}}}}
    return {
        "/v1/files": {"get": _operation("Files.", listed, parameters=pages), "post": upload},
        "/v1/files/{id}": {
            "get": _operation("A file.", one, parameters=file),
            "delete": _operation("Delete a file that was uploaded.", one, parameters=file),
        },
        "/v1/files/{id}/content": {"get": _operation("Its content.", content, parameters=file)},
        "/v1/batches": {
            "get": _operation("Batches.", listed, parameters=pages),
            "post": _operation("Run the lines of a file, in class batch.", one, body="BatchRequest"),
        },
        "/v1/batches/{id}": {"get": _operation("A batch as it is now.", one, parameters=batch)},
        "/v1/batches/{id}/cancel": {"post": _operation("Send no more of its lines; stop those that run.", one, parameters=batch)},
    }


def _schedule() -> dict[str, Any]:
    name = [{**_ID, "description": "Schedule."}, _TENANT]
    shown = {"200": _json("The schedule, and when it runs next.", {"type": "object"})}
    put = _operation("Declare a recurring job.", shown, parameters=name, body="ScheduleSubmission")
    gone = _operation("Remove a recurring job.", {"204": {"description": "Done."}}, parameters=name)
    return {"get": _operation("A recurring job.", shown, parameters=name), "put": put, "delete": gone}


def _review() -> dict[str, Any]:
    name = [{**_ID, "description": "Review: the job's id, a dot, the step's."}, _TENANT]
    shown = {"200": _json("The review and its text.", {"type": "object"})}
    told = {"200": _json("It counts.", {"type": "object"}), "202": _json("Not known yet: ask again.", {"type": "object"})}
    post = _operation("Decide on a review. Said again it changes nothing.", told, parameters=name, body="ReviewSubmission")
    return {"get": _operation("A text that waits for people.", shown, parameters=name), "post": post}


def _conversation() -> dict[str, Any]:
    name: list[dict[str, Any]] = [{**_ID, "description": "Conversation."}, _TENANT]
    told = {"202": _json("Not known yet: look again.", {"type": "object"})}
    shown = {"200": _json("Its turns, the summary, facts and preferences.", {"type": "object"})}
    put = _operation("Set facts and preferences.", shown | told, parameters=name, body="MemorySubmission")
    gone = _operation("Forget a conversation.", {"204": {"description": "Done."}} | told, parameters=name)
    turns = [*name, {"name": "turns", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 1000}}]
    return {"get": _operation("All that is kept of a conversation.", shown, parameters=turns), "put": put, "delete": gone}


def _shown_key() -> dict[str, Any]:
    return {"200": _json("The key's terms; where it was made anew, the key.", _ref("KeyView"))}


def _keys() -> dict[str, Any]:
    made = {"201": _json("The key itself, told once.", _ref("KeyView"))}
    many = _operation("Keys made at run time (administrators).", {"200": _json("A list.", {"type": "object"})})
    return {"get": many, "post": _operation("Make an API key (administrators).", made, body="KeySubmission")}


def _key() -> dict[str, Any]:
    put = _operation("Change a key's terms (administrators).", _shown_key(), parameters=[_KEY_NAME], body="KeyTerms")
    gone = _operation("Revoke a key (administrators).", {"204": {"description": "Done."}}, parameters=[_KEY_NAME])
    return {"get": _operation("A key's terms (administrators).", _shown_key(), parameters=[_KEY_NAME]), "put": put, "delete": gone}


def _tenant() -> dict[str, Any]:
    name = [{**_ID, "description": "Tenant."}]
    declared = {"200": _json("Its limits, and what is granted and used today as far as this instance has seen.", _ref("TenantView"))}
    put = _operation("Declare a tenant's limits (administrators).", declared, parameters=name, body="TenantLimits")
    gone = _operation("Take a tenant's limits away (administrators).", {"204": {"description": "Done."}}, parameters=name)
    return {"get": _operation("A tenant's limits and spending.", declared, parameters=name), "put": put, "delete": gone}


def _erase() -> dict[str, Any]:
    told = {"200": _json("What goes, and what stays for how long.", _ref("ErasureView"))}
    about = 'Erase what is held of a tenant, with `"dry_run": false`; else only tell what would go (administrators).'
    return _operation(about, told, parameters=[{**_ID, "description": "Tenant."}], body="Erasure")


def _declared(kind: str) -> dict[str, Any]:
    name = [{**_ID, "description": f"Name of the {kind}: also name@alias and name@version where it is read."}]
    alias = [{**_ID, "name": "alias", "description": "Alias."}]
    free: dict[str, Any] = {"type": "object"}
    shown, many = {"200": _json("The version, its aliases and its content.", free)}, {"200": _json("A list.", free)}
    one = {
        "get": _operation(f"A {kind}.", shown, parameters=name),
        "put": _operation(
            f"Declare a {kind}; its version becomes latest (administrators).", shown, parameters=name, body=kind.capitalize()
        ),
        "delete": _operation(f"Remove a declared {kind} (administrators).", {"204": {"description": "Done."}}, parameters=name),
    }
    move = _operation("Point an alias to a version (administrators).", shown, parameters=[*name, *alias], body="AliasMove")
    paths = {
        f"/v1/{kind}s": {"get": _operation(f"Every {kind}, declared and built in.", many)},
        f"/v1/{kind}s/{{id}}": one,
        f"/v1/{kind}s/{{id}}/versions": {"get": _operation("Versions and aliases.", many, parameters=name)},
        f"/v1/{kind}s/{{id}}/aliases/{{alias}}": {"put": move},
    }
    if kind in RENDERED:
        text = {"200": _json("The text, its estimated tokens; of an agent also what a job would pin of it.", free)}
        paths[f"/v1/{kind}s/{{id}}/render"] = {
            "post": _operation("The text that a model is given.", text, parameters=name, body="Rendering")
        }
    return paths


def _wait() -> dict[str, Any]:
    about = "Seconds to wait for the end before answering 202."
    return {"name": "wait", "in": "query", "required": False, "schema": {"type": "number", "minimum": 0}, "description": about}


def _job_get() -> dict[str, Any]:
    return _operation("State, steps and result of a job.", {"200": _json("The status.", _ref("JobStatus"))}, parameters=[_ID, _TENANT])


def _job_delete() -> dict[str, Any]:
    answers = {"200": _json("It has ended already.", _ref("JobStatus")), "202": _json("The cancel is on its way.", {"type": "object"})}
    return _operation("Cancel a job.", answers, parameters=[_ID, _TENANT])


def _job_events() -> dict[str, Any]:
    stream = {"200": {"description": "Events, ended by job_settled.", "content": {"text/event-stream": {"schema": {"type": "string"}}}}}
    parameters = [_ID, _TENANT, _header("Last-Event-ID", "Go on after this event.")]
    return _operation("History and streamed text of a job.", stream, parameters=parameters)


def _job_tree() -> dict[str, Any]:
    form = {"name": "format", "in": "query", "required": False, "schema": {"enum": ["json", "mermaid"]}, "description": "Or by Accept."}
    shown = _json("The tree.", _ref("Tree"))
    shown["content"][MEDIA_TYPE] = {"schema": {"type": "string"}}
    return _operation("Steps of a job as a tree, with what became of each.", {"200": shown}, parameters=[_ID, _TENANT, form])


def _plain(summary: str) -> dict[str, Any]:
    return {"summary": summary, "responses": {"200": {"description": summary}}}


def _operation(
    summary: str, answers: dict[str, Any], *, parameters: list[dict[str, Any]] | None = None, body: str | None = None
) -> dict[str, Any]:
    problems = {status: _json(about, _ref("Problem")) for status, about in _ERROR_STATUS.items()}
    for status in ("429", "503"):
        problems[status]["headers"] = _headers(_WHEN_HEADERS)
    operation: dict[str, Any] = {"summary": summary, "parameters": parameters or [], "responses": answers | problems}
    if body is not None:
        for answer in answers.values():
            answer["headers"] = _headers(_ANSWER_HEADERS)
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": _ref(body)}}}
    return operation


def _headers(about: dict[str, str]) -> dict[str, Any]:
    return {name: {"description": text, "schema": {"type": "string"}} for name, text in about.items()}


def _json(about: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": about, "content": {"application/json": {"schema": schema}}}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": _REF.format(model=name)}
