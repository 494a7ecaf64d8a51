"""A tenant learns nothing of another one's job, schedule or limits: every route answers as of an id that never was, whatever is there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from services.ingress.admission.idempotency import job_id_of
from shared.contracts import event as events
from shared.contracts import ids
from shared.contracts.job import Job
from tests.contract.test_ingress_access import bearer, key, keyed
from tests.support.fake_planner import Script
from tests.support.ingress_world import World, until

JOBS, CHAT = "/v1/jobs", "/v1/chat/completions"
A, B, ROOT = bearer("a"), bearer("b"), bearer("root")
STATES = ("queued", "running", "settled", "settled out of sight")
KINDS = ("own", "key", "made")
"""How A's job has its id: chosen by A, of A's Idempotency-Key, made by the ingress."""


def script(job: Job) -> Script:
    return Script(text=f"the secret of {job.tenant}", hold=job.metadata.get("hold") == "yes", chunks=("the secret",))


@asynccontextmanager
async def apart(path: Path) -> AsyncIterator[World]:
    async with keyed(path, key("a"), key("b"), key("root", admin=True), script=script, journal_jobs=3) as at:
        yield at


async def as_job(at: World, kind: str, state: str) -> str:
    """A's job in this state; returns its id."""
    body: dict[str, Any] = {"prompt": "x", "stream": True, "metadata": {} if state == "settled" else {"hold": "yes"}}
    headers = A | ({"idempotency-key": "invoice-7"} if kind == "key" else {})
    if kind == "own":
        body["id"] = "order-1"
    if state == "queued":
        at.planner.busy = asyncio.Event()
        await at.client.post(JOBS, json={"prompt": "the poll under way ends"}, headers=A)
    submitting = at.client.post(JOBS, json=body, headers=headers)
    job = str((await submitting).json()["id"])
    inside = ids.qualified("a", job)
    if state == "queued":
        return job
    await until(lambda: inside in at.planner.jobs, "its planner has it")
    if state == "settled out of sight":
        await _end_out_of_sight(at, inside)
    else:
        journal = at.ingress.door.journal
        await until(lambda: (found := journal.status(inside)) is not None and found.state == state, state)
    return job


async def _end_out_of_sight(at: World, job: str) -> None:
    """Others push the job's beginning out of memory; then it ends."""
    journal = at.ingress.door.journal
    for number in range(6):
        await at.client.post(JOBS, json={"prompt": f"other {number}"}, headers=A)
    await until(lambda: job not in journal, "evicted")
    seen = at.planner.jobs[job]
    settled = events.JobSettled(epoch=at.planner.epochs[seen.home], job=job, at=1.0, result=at.planner.result(seen), digest=seen.digest)
    await at.planner.send([at.planner.event(seen.home, settled)])
    await until(lambda: job in journal, "its end")


class Seen(NamedTuple):
    """An answer without what differs between any two ids."""

    status: int
    headers: frozenset[str]
    body: Any


def seen(response: httpx.Response, job: str) -> Seen:
    assert "the secret of a" not in response.text
    headers = frozenset(response.headers) - {"content-length"}
    return Seen(response.status_code, headers, _plain(json.loads(response.text), job))


def _plain(value: Any, job: str) -> Any:
    match value:
        case dict():
            return {name: _plain(inner, job) for name, inner in value.items()}
        case list():
            return [_plain(inner, job) for inner in value]
        case str():
            return value.replace(job, "ID")
        case float() | int():
            return 0
        case _:
            return value


Ask = Callable[[httpx.AsyncClient, str], Any]
LOOKS: dict[str, Ask] = {
    "status": lambda client, job: client.get(f"{JOBS}/{job}", headers=B),
    "cancel": lambda client, job: client.delete(f"{JOBS}/{job}", headers=B),
    "events": lambda client, job: client.get(f"{JOBS}/{job}/events", headers=B),
    "events from a cursor": lambda client, job: client.get(f"{JOBS}/{job}/events", headers=B | {"last-event-id": "0.3"}),
    "status as a": lambda client, job: client.get(f"{JOBS}/{job}?tenant=a", headers=B),
    "cancel as a": lambda client, job: client.delete(f"{JOBS}/{job}", headers=B | {"x-tutti-tenant": "a"}),
    "events as a": lambda client, job: client.get(f"{JOBS}/{job}/events?tenant=a", headers=B),
    "tree": lambda client, job: client.get(f"{JOBS}/{job}/tree", headers=B),
    "tree as a chart": lambda client, job: client.get(f"{JOBS}/{job}/tree?format=mermaid", headers=B),
    "tree as a": lambda client, job: client.get(f"{JOBS}/{job}/tree?tenant=a", headers=B),
    "inside name": lambda client, job: client.get(f"{JOBS}/a%2F{job}", headers=B),
}
NEVER = {"own": "order-2", "key": job_id_of("a", "invoice-8"), "made": "j_01JDAAAAAAAAAAAAAAAAAAAAAA"}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("kind", KINDS)
async def test_looking_at_anothers_job_is_looking_at_none(kind: str, state: str, tmp_path: Path) -> None:
    """Status, cancel and events, also under A's name; nothing is cancelled, and A sees its job all the while."""
    async with apart(tmp_path) as at:
        job = await as_job(at, kind, state)
        for name, ask in LOOKS.items():
            there, never = seen(await ask(at.client, job), job), seen(await ask(at.client, NEVER[kind]), NEVER[kind])
            assert there == never, name
            assert there.status in (403, 404), name
        assert at.planner.cancels == {}
        mine = await at.client.get(f"{JOBS}/{job}", headers=A)
        assert (mine.status_code, mine.json()["id"], mine.json()["tenant"]) == (200, job, "a")


SUBMISSIONS: dict[str, tuple[str, dict[str, Any], dict[str, str]]] = {
    "id": (JOBS, {"prompt": "y", "id": "order-1"}, {}),
    "id, waiting": (f"{JOBS}?wait=5", {"prompt": "y", "id": "order-1"}, {}),
    "the same body": (f"{JOBS}?wait=5", {"prompt": "x", "stream": True, "metadata": {}, "id": "order-1"}, {}),
    "key": (JOBS, {"prompt": "y"}, {"idempotency-key": "invoice-7"}),
    "key, waiting": (f"{JOBS}?wait=5", {"prompt": "y"}, {"idempotency-key": "invoice-7"}),
    "key in chat": (CHAT, {"model": "tiny:1", "messages": [{"role": "user", "content": "y"}]}, {"idempotency-key": "invoice-7"}),
    "under its name": (JOBS, {"prompt": "y", "id": "order-1", "tenant": "a"}, {}),
    "the id of its key": (f"{JOBS}?wait=1", {"prompt": "y", "id": job_id_of("a", "invoice-7")}, {}),
}


def _unused(submission: tuple[str, dict[str, Any], dict[str, str]]) -> tuple[str, dict[str, Any], dict[str, str]]:
    """The same with an id or key that nobody has used."""
    path, body, headers = json.loads(json.dumps(submission).replace("order-1", "order-2").replace("invoice-7", "invoice-8"))
    if str(body.get("id", "")).startswith("k_"):
        body["id"] = job_id_of("a", "invoice-8")
    return path, body, headers


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("submission", SUBMISSIONS)
async def test_submitting_under_anothers_id_or_key_is_submitting_under_a_new_one(submission: str, state: str, tmp_path: Path) -> None:
    """B's own job runs, with B's own result, or the id is refused: as if A had never been."""
    async with apart(tmp_path) as at:
        kind = "own" if "order-1" in json.dumps(SUBMISSIONS[submission]) else "key"
        job = await as_job(at, kind, state)
        if at.planner.busy is not None:
            at.planner.busy.set()
        answers = []
        for path, body, headers in (SUBMISSIONS[submission], _unused(SUBMISSIONS[submission])):
            response = await at.client.post(path, json=body, headers=B | headers)
            name = headers.get("idempotency-key")
            made = job_id_of("b", name) if name else str(body["id"])
            answers.append(seen(response, made))
        assert answers[0] == answers[1]
        mine = await at.client.get(f"{JOBS}/{job}", headers=A)
        assert (mine.status_code, mine.json()["tenant"]) == (200, "a")


async def test_two_tenants_use_one_id(tmp_path: Path) -> None:
    """Each has its own job under it: its own status, events, cancel and repetition. People are shown the id as they gave it."""
    async with apart(tmp_path) as at:
        for tenant in ("a", "b"):
            body = {"prompt": "x", "id": "order-1"}
            first = await at.client.post(f"{JOBS}?wait=5", json=body, headers=bearer(tenant))
            again = await at.client.post(JOBS, json=body, headers=bearer(tenant))
            assert first.json()["result"] == again.json()["result"]
            assert first.json()["result"]["answer"]["text"] == f"the secret of {tenant}"
            assert (first.json()["id"], first.json()["result"]["job"], first.headers["x-tutti-job"]) == ("order-1",) * 3
            assert first.headers["location"] == "/v1/jobs/order-1"
            stream = (await at.client.get(f"{JOBS}/order-1/events", headers=bearer(tenant))).text
            assert f"the secret of {tenant}" in stream
            assert "/order-1" not in stream
        assert (await at.client.post(JOBS, json={"prompt": "z", "id": "order-1"}, headers=A)).status_code == 409


async def test_an_administrator_names_the_tenant(tmp_path: Path) -> None:
    """By header or query; the URLs in an answer lead there as they stand. Without a name an id is his own tenant's."""
    async with apart(tmp_path) as at:
        await at.client.post(f"{JOBS}?wait=5", json={"prompt": "x", "id": "order-1"}, headers=A)
        assert (await at.client.get(f"{JOBS}/order-1", headers=ROOT)).status_code == 404
        for path, headers in ((f"{JOBS}/order-1?tenant=a", {}), (f"{JOBS}/order-1", {"x-tutti-tenant": "a"})):
            assert (await at.client.get(path, headers=ROOT | headers)).json()["tenant"] == "a"
        body = {"prompt": "x", "id": "order-9", "tenant": "b", "metadata": {"hold": "yes"}}
        urls = (await at.client.post(JOBS, json=body, headers=ROOT)).json()
        await until(lambda: "b/order-9" in at.planner.jobs, "the job")
        assert (await at.client.get(urls["status_url"], headers=ROOT)).json()["tenant"] == "b"
        assert (await at.client.delete(urls["status_url"], headers=ROOT)).status_code == 202
        await until(lambda: at.planner.cancels == {"b/order-9": at.planner.jobs["b/order-9"].home}, "the cancel is at its home")
        assert "job_settled" in (await at.client.get(urls["events_url"], headers=ROOT)).text
        assert (await at.client.get(f"{JOBS}/order-1?tenant=%0a", headers=ROOT)).status_code == 400


@pytest.mark.parametrize("path", ["/v1/schedules/nightly", "/v1/schedules/nightly?tenant=a"])
async def test_anothers_schedule_is_none(path: str, tmp_path: Path) -> None:
    """Seen, removed and declared as if A had none of this name; the list shows one's own."""
    body = {"cron": "0 3 * * *", "job": {"prompt": "the secret of a"}}
    other = {"cron": "0 4 * * *", "job": {"prompt": "b's"}}
    async with apart(tmp_path) as at:
        await until(at.ingress._declared.tail.caught_up, "the registry is read")
        assert (await at.client.put("/v1/schedules/nightly", json=body, headers=A)).status_code == 200
        never = path.replace("nightly", "weekly")
        for method, content in (("GET", None), ("DELETE", None), ("PUT", other), ("GET", None), ("DELETE", None)):
            answers = [await at.client.request(method, each, json=content, headers=B) for each in (path, never)]
            shown = [json.loads(answer.text or "null") for answer in answers]
            assert answers[0].status_code == answers[1].status_code
            assert _plain(shown[0], "nightly") == _plain(shown[1], "weekly")
        mine = (await at.client.get("/v1/schedules/nightly", headers=A)).json()
        assert (mine["id"], mine["tenant"], mine["cron"]) == ("nightly", "a", "0 3 * * *")
        assert [s["id"] for s in (await at.client.get("/v1/schedules", headers=A)).json()["schedules"]] == ["nightly"]
        assert (await at.client.get("/v1/schedules", headers=B)).json()["schedules"] == []
        assert (await at.client.get("/v1/schedules/nightly?tenant=a", headers=ROOT)).json()["job"]["prompt"] == "the secret of a"


async def test_anothers_limits_are_none(tmp_path: Path) -> None:
    """Whether they are declared or not."""
    async with apart(tmp_path) as at:
        await at.client.put("/v1/tenants/a", json={"calls": 5}, headers=ROOT)
        await until(lambda: "a" in at.ingress.door.tenants.limits, "declared")
        for method, content in (("GET", None), ("PUT", {"calls": 1}), ("DELETE", None)):
            answers = [await at.client.request(method, f"/v1/tenants/{name}", json=content, headers=B) for name in ("a", "nobody")]
            assert {answer.status_code for answer in answers} == {403}
            assert answers[0].json() == answers[1].json()
        assert (await at.client.get("/v1/tenants", headers=B)).status_code == 403
