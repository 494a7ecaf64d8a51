"""Reviews over REST: who sees them, what a decision is answered with, and that a new instance knows those that are open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.ingress.routes import telling
from shared.contracts import event as events
from shared.contracts.base import StepId
from shared.contracts.review import ReviewEscalated, ReviewWithdrawn
from shared.kafka.port import TopicPartition
from shared.services import group_of
from tests.contract.test_ingress_access import bearer, key, keyed
from tests.support.fake_planner import STEP, Script
from tests.support.ingress_world import World, opening, running, until

A, A2, B, ROOT = bearer("a"), bearer("a2"), bearer("b"), bearer("root")
TEXT = "the secret of a"


@asynccontextmanager
async def asked(path: Path, **terms: Any) -> AsyncIterator[tuple[World, str, str]]:
    """A's job waits for people: the world, the job's id, the review's path."""
    keys = (key("a"), key("a2", tenant="a"), key("b"), key("root", admin=True))
    async with keyed(path, *keys, script=lambda _: Script(hold=True)) as at:
        await at.client.post("/v1/jobs", json={"prompt": "x", "id": "order-1"}, headers=A)
        await until(lambda: "a/order-1" in at.planner.jobs, "its planner has it")
        await at.planner.ask("a/order-1", TEXT, **terms)
        await until(lambda: at.ingress.door.events.reviews.get("a/order-1", STEP) is not None, "the review")
        yield at, "a/order-1", f"/v1/reviews/order-1.{STEP}"


async def say(at: World, path: str, headers: dict[str, str] = A, verdict: str = "approve", **more: Any) -> httpx.Response:
    shown = (await at.client.get(path, headers=headers)).json()
    body = {"verdict": verdict, "digest": shown.get("digest", "0" * 32), **more}
    return await at.client.post(path, json=body, headers=headers)


def code(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


async def test_a_review_is_seen_and_decided(tmp_path: Path) -> None:
    """With its text; who decides is told that it counts, and once more when he says it again; then it is open no longer."""
    async with asked(tmp_path) as (at, _, path):
        [listed] = (await at.client.get("/v1/reviews", headers=A2)).json()["reviews"]
        shown = (await at.client.get(path, headers=A2)).json()
        assert shown == {**listed, "artefact": TEXT}
        assert (listed["id"], listed["state"], listed["tenant"], listed["question"]) == (f"order-1.{STEP}", "open", "a", "good?")
        first, again = await say(at, path, A2, "edit", text="better"), await say(at, path, A2, "edit", text="better")
        assert first.json() == again.json()
        assert (first.status_code, first.json()["heard"], first.json()["decision"]["by"]) == (200, True, ["a2"])
        assert len(at.planner.given) == 1, "the second was known to count"
        assert (await at.client.get("/v1/reviews", headers=A)).json()["reviews"] == []
        assert (await at.client.get(path, headers=A)).json()["artefact"] == TEXT


async def test_who_is_not_heard_is_told_why(tmp_path: Path) -> None:
    """He comes too late, has looked at another text, is not asked, or has said otherwise."""
    async with asked(tmp_path, assignees=("a", "a2"), quorum=2) as (at, _, path):
        assert code(await say(at, path, ROOT | {"x-tutti-tenant": "a"})) == (403, "not_assigned")
        assert code(await say(at, path, digest="0" * 32)) == (409, "review_changed")
        assert (await say(at, path)).json()["state"] == "open"
        assert code(await say(at, path, verdict="edit", text="other")) == (409, "already_decided")
        assert (await say(at, path, A2)).json()["decision"]["by"] == ["a", "a2"]
        assert code(await say(at, path, A2, "reject")) == (409, "review_over")
    async with asked(tmp_path) as (at, job, path):
        await at.planner.release(job)
        await until(lambda: not list(at.ingress.door.events.reviews), "the end")
        assert code(await say(at, path)) == (409, "review_over")


async def test_of_two_at_once_one_is_heard(tmp_path: Path) -> None:
    """The other is told so."""
    async with asked(tmp_path) as (at, _, path):
        answers = await asyncio.gather(say(at, path), say(at, path, A2, "reject"))
        assert sorted(answer.status_code for answer in answers) == [200, 409]


async def test_what_is_not_known_in_time_is_202(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked again it is told."""
    monkeypatch.setattr(telling, "WAIT_SECONDS", 0.05)
    async with asked(tmp_path) as (at, _, path):
        at.planner.deaf = True
        waiting = await say(at, path)
        assert (waiting.status_code, waiting.json().get("heard"), waiting.json()["state"]) == (202, None, "open")
        at.planner.deaf = False
        monkeypatch.setattr(telling, "WAIT_SECONDS", 5.0)
        assert (await say(at, path)).status_code == 200


async def test_more_people_are_asked_by_an_event_and_none_by_another(tmp_path: Path) -> None:
    async with asked(tmp_path, assignees=("a",), escalate_to=("a2",), escalate_after_seconds=1.0) as (at, job, path):
        assert (await at.client.get("/v1/reviews?mine=true", headers=A2)).json()["reviews"] == []
        seen = at.planner.jobs[job]
        of = {"epoch": at.planner.epochs[seen.home], "job": job, "at": 1.0, "step": StepId(STEP)}
        await at.planner.send([at.planner.event(seen.home, ReviewEscalated(**of))])
        mine = lambda: at.client.get("/v1/reviews?mine=true", headers=A2)
        async with asyncio.timeout(5):
            while not (await mine()).json()["reviews"]:
                pass
        await at.planner.send([at.planner.event(seen.home, ReviewWithdrawn(**of))])
        await until(lambda: not list(at.ingress.door.events.reviews), "withdrawn")
        assert code(await say(at, path, A2)) == (409, "review_over")


async def test_anothers_review_is_none(tmp_path: Path) -> None:
    """Seen, listed and decided on as if A had none; nothing reaches its planner."""
    async with asked(tmp_path) as (at, _, path):
        for there in (path, f"{path}?tenant=a"):
            never = there.replace("order-1", "order-2")
            for method, body in (("GET", None), ("POST", {"verdict": "approve", "digest": "0" * 32})):
                answers = [await at.client.request(method, each, json=body, headers=B) for each in (there, never)]
                assert answers[0].status_code in (403, 404)
                assert answers[0].json() == answers[1].json()
                assert TEXT not in answers[0].text
        assert (await at.client.get("/v1/reviews", headers=B)).json()["reviews"] == []
        assert len((await at.client.get("/v1/reviews", headers=ROOT)).json()["reviews"]) == 1
        assert at.planner.given == []


@pytest.mark.parametrize("snapshot", [False, True])
async def test_a_new_instance_knows_what_is_open(snapshot: bool, tmp_path: Path) -> None:
    """From the planners' watermark on, however far back it lies; also from a snapshot. The text is read where it lies."""
    async with asked(tmp_path) as (at, job, path):
        home = at.planner.jobs[job].home
        opened = at.planner.reviews[job, STEP].opened.model_copy(update={"artefact": TEXT})
        of = {"epoch": opened.epoch, "job": job, "at": 1.0, "snapshot": "s", "part": 0, "parts": 1}
        place = 0
        if snapshot:
            place = await at.planner.send([at.planner.event(home, events.JobSnapshot(**of, facts=(opened.to_bytes().decode(),)))])
        at.log.group(group_of("planner", "")).offsets[TopicPartition(at.topics.job_events, home)] = place
        await at.planner.send([at.planner.event(home, events.CallerJoined(epoch=opened.epoch, job="other", at=1.0)) for _ in range(5)])
        other = opening(at, "other", keys_file=at.ingress.door.settings.keys_file, events_lookback=0)
        async with running(other) as client:
            await until(lambda: other.door.events.reviews.get(job, STEP) is not None, "the review")
            other.door.journal._entries.clear()
            known = other.door.events.reviews.get(job, STEP)
            assert known is not None
            assert (known.offset == place) is snapshot
            assert (await client.get(path, headers=A)).json()["artefact"] == TEXT
