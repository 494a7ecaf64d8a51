"""The OpenAPI document: paths by hand, schemas from the contracts. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pydantic.json_schema import models_json_schema

from services.ingress.admission.targets import TaskOrder
from services.ingress.dialects.openai.batches import BatchRequest
from services.ingress.dialects.openai.response_requests import PREFIX
from services.ingress.dialects.port import Dialect, Inquiry, TaskDoor
from services.ingress.dialects.tutti.requests import JobSubmission
from services.ingress.http.openapi_parts import (
    CALL_HEADERS,
    EVENTS,
    FAILURE_STATUS,
    REF,
    TENANT_ASKED,
    Components,
    as_json,
    header,
    named,
    operation,
    problem_form,
    problem_schema,
    ref,
)
from services.ingress.routes.conversations import MemorySubmission
from services.ingress.routes.declarations import RENDERED, AliasMove, Rendering
from services.ingress.routes.erasure import Erasure, ErasureView
from services.ingress.routes.keys import KeySubmission, KeyView, Rotation
from services.ingress.routes.nodes import MaintenanceSubmission
from services.ingress.routes.reviews import ReviewSubmission
from services.ingress.routes.schedules import ScheduleSubmission
from services.ingress.routes.tenants import TenantView
from services.ingress.status.mermaid import MEDIA_TYPE
from services.ingress.status.status import JobStatus
from shared.agents.table import KINDS
from shared.contracts.agents import ALIAS, NAME
from shared.contracts.base import ID, SCHEDULE, TENANT
from shared.contracts.budget import TenantLimits
from shared.contracts.chat import Operation
from shared.contracts.keys import KeyTerms
from shared.placement.roster import ShownNode
from shared.tree import Tree

PARAMETER = re.compile(r"{[a-z:]+}")
"""Of a path, as routes name it."""
_JOB = [named("Job id."), TENANT_ASKED]
_KEY_NAME = named("Name of the key.", TENANT)
_RESPONSE = named("Response: resp_ and the job's id.", PREFIX + ID)


def document(title: str, version: str, dialects: Sequence[Dialect]) -> dict[str, Any]:
    """OpenAPI 3.1."""
    inputs: list[tuple[type[Any], Any]] = [(dialect.request, "validation") for dialect in dialects]
    inputs += [(asked.body, "validation") for dialect in dialects for asked in dialect.inquiries if asked.body is not None]
    inputs += [(task.body, "validation") for dialect in dialects for task in dialect.tasks]
    inputs += [(TaskOrder, "validation"), (JobSubmission, "validation"), (JobStatus, "serialization"), (Tree, "serialization")]
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
        (ShownNode, "serialization"),
        (MaintenanceSubmission, "validation"),
        (ErasureView, "serialization"),
        (Erasure, "validation"),
    ]
    _, schemas = models_json_schema(inputs, ref_template=REF, by_alias=True, schema_generator=Components)
    components = dict(schemas.get("$defs", {})) | {problem_form(dialect.problem): problem_schema(dialect.problem) for dialect in dialects}
    bearer = {"type": "http", "scheme": "bearer", "description": "Only where there are keys (`/v1/keys`, TUTTI_INGRESS__KEYS_FILE)."}
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "description": "One LLM cluster from unequal machines."},
        "paths": {path: ends for dialect in dialects for path, ends in _served(dialect).items()} | _paths(),
        "components": {"schemas": components, "securitySchemes": {"key": bearer}},
        "security": [{"key": []}, {}],
    }


def _paths() -> dict[str, Any]:
    jobs = operation(
        "Submit a job. 202 means that it is durable and will end.",
        {
            "200": as_json("It has ended: within `wait`, or before.", ref("JobStatus")),
            "202": as_json("Id, state and where to look.", {"type": "object"}),
        },
        parameters=[*CALL_HEADERS[:3], *CALL_HEADERS[4:], _wait()],
        body="JobSubmission",
    )
    tasks = operation(
        "Do something to a model on nodes (operators): pull, delete, copy, load, unload, pin, unpin. A durable job, as any.",
        {"202": as_json("The job's id, and where it is done.", {"type": "object"})},
        body="TaskOrder",
    )
    return {
        "/v1/model-tasks": {"post": tasks},
        "/v1/jobs": {"post": jobs},
        "/v1/jobs/{id}": {"get": _job_get(), "delete": _job_delete()},
        "/v1/jobs/{id}/events": {"get": _job_events()},
        "/v1/jobs/{id}/tree": {"get": _job_tree()},
        "/v1/responses/{id}": _background(),
        "/v1/responses/{id}/cancel": {"post": operation("End a response.", _response(), parameters=[_RESPONSE, TENANT_ASKED])},
        **_batches(),
        "/v1/reviews": {"get": operation("Texts that wait for people.", {"200": as_json("A list.", {"type": "object"})})},
        "/v1/reviews/{id}": _review(),
        "/v1/conversations": {"get": operation("Conversations that are kept.", {"200": as_json("A list.", {"type": "object"})})},
        "/v1/conversations/{id}": _conversation(),
        "/v1/schedules": {"get": operation("Recurring jobs.", {"200": as_json("A list.", {"type": "object"})})},
        "/v1/schedules/{id}": _schedule(),
        "/v1/keys": _keys(),
        "/v1/keys/{id}": _key(),
        "/v1/keys/{id}/rotate": {
            "post": operation(
                "Make a key anew; the one before holds on for a while.", _shown_key(), parameters=[_KEY_NAME], body="Rotation"
            )
        },
        **_nodes(),
        "/v1/tenants": {"get": operation("Tenants with limits (administrators).", {"200": as_json("A list.", {"type": "object"})})},
        "/v1/tenants/{id}": _tenant(),
        "/v1/tenants/{id}/erase": {"post": _erase()},
        **{path: ends for kind in KINDS for path, ends in _declared(kind).items()},
        "/healthz": {"get": _plain("The process lives.")},
        "/readyz": {"get": _plain("The instance takes jobs; 503 with reasons when it does not.")},
        "/metrics": {"get": _plain("Prometheus metrics.")},
    }


def _served(dialect: Dialect) -> dict[str, Any]:
    """Its call, and what is asked besides."""
    answer = as_json("The answer.", {"type": "object"})
    if dialect.operation is not Operation.EMBED:
        media = dict(dialect.stream_headers)[b"content-type"].decode().partition(";")[0]
        answer["content"] |= EVENTS if media in EVENTS else {media: {"schema": {"type": "string"}}}
    call = operation(dialect.summary, {"200": answer}, parameters=CALL_HEADERS, body=dialect.request.__name__, render=dialect.problem)
    problems = {status: as_json(about, ref(problem_form(dialect.problem))) for status, about in FAILURE_STATUS.items()}
    call["responses"] = problems | call["responses"]
    done = {task.path: {task.method.lower(): _task(task, dialect)} for task in dialect.tasks}
    return (
        {dialect.path: {"post": call}}
        | done
        | {PARAMETER.sub("{id}", asked.path): {asked.method.lower(): _inquiry(asked, dialect)} for asked in dialect.inquiries}
    )


def _task(task: TaskDoor, dialect: Dialect) -> dict[str, Any]:
    content: dict[str, Any] = {"content": {"application/json": {"schema": {}}, "application/x-ndjson": {"schema": {}}}}
    shown = {"200": {"description": task.summary} | (content if task.done("") else {})}
    return operation(task.summary, shown, body=task.body.__name__, render=dialect.problem)


def _inquiry(asked: Inquiry, dialect: Dialect) -> dict[str, Any]:
    form = {"type": "object" if "json" in asked.media else "string"}
    shown = {"200": {"description": asked.summary, "content": {asked.media: {"schema": form}}}}
    parameters = [named("Name.", ".+")] if PARAMETER.search(asked.path) else None
    body = None if asked.body is None else asked.body.__name__
    return operation(asked.summary, shown, parameters=parameters, body=body, render=dialect.problem)


def _response() -> dict[str, Any]:
    return {"200": as_json("The response.", {"type": "object"})}


def _background() -> dict[str, Any]:
    name = [_RESPONSE, TENANT_ASKED]
    number = {
        "name": "starting_after",
        "in": "query",
        "schema": {"type": "integer"},
        "description": "Of a stream: go on behind this event.",
    }
    stream = {"name": "stream", "in": "query", "schema": {"type": "boolean"}, "description": "Its events instead of the response."}
    shown = _response()
    shown["200"]["content"] |= EVENTS
    gone = operation("Refused: jobs are kept as long as their history.", {}, parameters=name)
    return {"get": operation("A response as it is now.", shown, parameters=[*name, stream, number]), "delete": gone}


def _batches() -> dict[str, Any]:
    """Files too: objects as OpenAI describes them."""
    one, listed = {"200": as_json("As OpenAI's object.", {"type": "object"})}, {"200": as_json("A page.", {"type": "object"})}
    file: list[dict[str, Any]] = [named("File."), TENANT_ASKED]
    batch: list[dict[str, Any]] = [named("Batch."), TENANT_ASKED]
    pages: list[dict[str, Any]] = [
        TENANT_ASKED,
        {"name": "after", "in": "query", "schema": {"type": "string"}, "description": "The last id of the page before."},
        {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 10_000}},
    ]
    form: dict[str, Any] = {"type": "object", "required": ["file", "purpose"]}
    form |= {"properties": {"file": {"type": "string", "format": "binary"}, "purpose": {"type": "string", "enum": ["batch"]}}}
    about = "Upload a file of purpose batch: JSONL, at most 100 MB; kept 13 days."
    upload = operation(about, one, content={"multipart/form-data": {"schema": form}})
    content = {"200": {"description": "Its bytes.", "content": {"application/octet-stream": {"schema": {"type": "string"}}}}}
    return {
        "/v1/files": {"get": operation("Files.", listed, parameters=pages), "post": upload},
        "/v1/files/{id}": {
            "get": operation("A file.", one, parameters=file),
            "delete": operation("Delete a file that was uploaded.", one, parameters=file),
        },
        "/v1/files/{id}/content": {"get": operation("Its content.", content, parameters=file)},
        "/v1/batches": {
            "get": operation("Batches.", listed, parameters=pages),
            "post": operation("Run the lines of a file, in class batch.", one, body="BatchRequest"),
        },
        "/v1/batches/{id}": {"get": operation("A batch as it is now.", one, parameters=batch)},
        "/v1/batches/{id}/cancel": {"post": operation("Send no more of its lines; stop those that run.", one, parameters=batch)},
    }


def _schedule() -> dict[str, Any]:
    name = [named("Schedule.", SCHEDULE), TENANT_ASKED]
    shown = {"200": as_json("The schedule, and when it runs next.", {"type": "object"})}
    put = operation("Declare a recurring job.", shown, parameters=name, body="ScheduleSubmission")
    gone = operation("Remove a recurring job.", {"204": {"description": "Done."}}, parameters=name)
    return {"get": operation("A recurring job.", shown, parameters=name), "put": put, "delete": gone}


def _review() -> dict[str, Any]:
    name = [named("Review: the job's id, a dot, the step's."), TENANT_ASKED]
    shown = {"200": as_json("The review and its text.", {"type": "object"})}
    told = {"200": as_json("It counts.", {"type": "object"}), "202": as_json("Not known yet: ask again.", {"type": "object"})}
    post = operation("Decide on a review. Said again it changes nothing.", told, parameters=name, body="ReviewSubmission")
    return {"get": operation("A text that waits for people.", shown, parameters=name), "post": post}


def _conversation() -> dict[str, Any]:
    name: list[dict[str, Any]] = [named("Conversation."), TENANT_ASKED]
    told = {"202": as_json("Not known yet: look again.", {"type": "object"})}
    shown = {"200": as_json("Its turns, the summary, facts and preferences.", {"type": "object"})}
    put = operation("Set facts and preferences.", shown | told, parameters=name, body="MemorySubmission")
    gone = operation("Forget a conversation.", {"204": {"description": "Done."}} | told, parameters=name)
    turns = [*name, {"name": "turns", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 1000}}]
    return {"get": operation("All that is kept of a conversation.", shown, parameters=turns), "put": put, "delete": gone}


def _shown_key() -> dict[str, Any]:
    return {"200": as_json("The key's terms; where it was made anew, the key.", ref("KeyView"))}


def _keys() -> dict[str, Any]:
    made = {"201": as_json("The key itself, told once.", ref("KeyView"))}
    many = operation("Keys made at run time (administrators).", {"200": as_json("A list.", {"type": "object"})})
    return {"get": many, "post": operation("Make an API key (administrators).", made, body="KeySubmission")}


def _key() -> dict[str, Any]:
    put = operation("Change a key's terms (administrators).", _shown_key(), parameters=[_KEY_NAME], body="KeyTerms")
    gone = operation("Revoke a key (administrators).", {"204": {"description": "Done."}}, parameters=[_KEY_NAME])
    return {"get": operation("A key's terms (administrators).", _shown_key(), parameters=[_KEY_NAME]), "put": put, "delete": gone}


def _nodes() -> dict[str, Any]:
    name, one = [named("Node.")], {"200": as_json("The node, its state and advice.", ref("ShownNode"))}
    many = operation("Nodes, with hardware, models, state and advice (operators).", {"200": as_json("A list.", {"type": "object"})})
    put = operation(
        "Take a node out of service (operators).",
        {"200": as_json("Since when, and by whom.", {"type": "object"})},
        parameters=name,
        body="MaintenanceSubmission",
    )
    back = operation("Take a node back into service (operators).", {"204": {"description": "Done."}}, parameters=name)
    return {
        "/v1/nodes": {"get": many},
        "/v1/nodes/{id}": {"get": operation("A node (operators).", one, parameters=name)},
        "/v1/nodes/{id}/maintenance": {"put": put, "delete": back},
    }


def _tenant() -> dict[str, Any]:
    name = [named("Tenant.", TENANT)]
    declared = {"200": as_json("Its limits, and what is granted and used today as far as this instance has seen.", ref("TenantView"))}
    put = operation("Declare a tenant's limits (administrators).", declared, parameters=name, body="TenantLimits")
    gone = operation("Take a tenant's limits away (administrators).", {"204": {"description": "Done."}}, parameters=name)
    return {"get": operation("A tenant's limits and spending.", declared, parameters=name), "put": put, "delete": gone}


def _erase() -> dict[str, Any]:
    told = {"200": as_json("What goes, and what stays for how long.", ref("ErasureView"))}
    about = 'Erase what is held of a tenant, with `"dry_run": false`; else only tell what would go (administrators).'
    return operation(about, told, parameters=[named("Tenant.", TENANT)], body="Erasure")


def _declared(kind: str) -> dict[str, Any]:
    read = [named(f"Name of the {kind}, name@alias, or name@version.", f"{NAME}(?:@{ALIAS})?")]
    name, alias = [named(f"Name of the {kind}.", NAME)], [named("Alias.", ALIAS, "alias")]
    free: dict[str, Any] = {"type": "object"}
    shown, many = {"200": as_json("The version, its aliases and its content.", free)}, {"200": as_json("A list.", free)}
    one = {
        "get": operation(f"A {kind}.", shown, parameters=read),
        "put": operation(
            f"Declare a {kind}; its version becomes latest (administrators).", shown, parameters=name, body=KINDS[kind].__name__
        ),
        "delete": operation(f"Remove a declared {kind} (administrators).", {"204": {"description": "Done."}}, parameters=name),
    }
    move = operation("Point an alias to a version (administrators).", shown, parameters=[*name, *alias], body="AliasMove")
    paths = {
        f"/v1/{kind}s": {"get": operation(f"Every {kind}, declared and built in.", many)},
        f"/v1/{kind}s/{{id}}": one,
        f"/v1/{kind}s/{{id}}/versions": {"get": operation("Versions and aliases.", many, parameters=name)},
        f"/v1/{kind}s/{{id}}/aliases/{{alias}}": {"put": move},
    }
    if kind in RENDERED:
        text = {"200": as_json("The text, its estimated tokens; of an agent also what a job would pin of it.", free)}
        paths[f"/v1/{kind}s/{{id}}/render"] = {
            "post": operation("The text that a model is given.", text, parameters=read, body="Rendering")
        }
    return paths


def _wait() -> dict[str, Any]:
    about = "Seconds to wait for the end before answering 202."
    return {"name": "wait", "in": "query", "required": False, "schema": {"type": "number", "minimum": 0}, "description": about}


def _job_get() -> dict[str, Any]:
    return operation("State, steps and result of a job.", {"200": as_json("The status.", ref("JobStatus"))}, parameters=_JOB)


def _job_delete() -> dict[str, Any]:
    answers = {"200": as_json("It has ended already.", ref("JobStatus")), "202": as_json("The cancel is on its way.", {"type": "object"})}
    return operation("Cancel a job.", answers, parameters=_JOB)


def _job_events() -> dict[str, Any]:
    stream = {"200": {"description": "Events, ended by job_settled.", "content": EVENTS}}
    parameters = [*_JOB, header("Last-Event-ID", "Go on after this event.")]
    return operation("History and streamed text of a job.", stream, parameters=parameters)


def _job_tree() -> dict[str, Any]:
    form = {"name": "format", "in": "query", "required": False, "schema": {"enum": ["json", "mermaid"]}, "description": "Or by Accept."}
    shown = as_json("The tree.", ref("Tree"))
    shown["content"][MEDIA_TYPE] = {"schema": {"type": "string"}}
    return operation("Steps of a job as a tree, with what became of each.", {"200": shown}, parameters=[*_JOB, form])


def _plain(summary: str) -> dict[str, Any]:
    return {"summary": summary, "responses": {"200": {"description": summary}}}
