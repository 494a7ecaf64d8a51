"""Conversations by REST: what is kept is shown to its tenant, facts and preferences are set, and it is forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from services.ingress.routes import telling
from shared.contracts import ids
from shared.contracts.chat import Answer, ChatMessage
from shared.contracts.conversation import Asker, ConversationChanged, Memory
from shared.conversations import memory_size, size_of, turn_of
from shared.murmur import place
from tests.contract.test_ingress_access import bearer, key, keyed
from tests.support.ingress_world import World, until

A, B, ROOT = bearer("a"), bearer("b"), bearer("root")
PATH = "/v1/conversations/trip"


@asynccontextmanager
async def talked(path: Path, turns: int = 3) -> AsyncIterator[World]:
    """A has a conversation with so many turns, a summary and a fact."""
    async with keyed(path, key("a"), key("b"), key("root", admin=True)) as at:
        blobs, newest = at.ingress.door.blobs, None
        for number in range(turns):
            said = (ChatMessage(role="user", content=f"question {number}"),)
            turn = turn_of(f"a/job-{number}", 1.0 + number, said, Answer(text=f"the secret of a, {number}"), newest)
            newest = await blobs.store("a", turn.to_bytes())
        memory = Memory(summary="of the secret of a", facts=("a fact",))
        kept = await blobs.store("a", memory.to_bytes())
        known = ConversationChanged(
            epoch=0,
            tenant="a",
            conversation="trip",
            at=5.0,
            ended=turns,
            newest=newest,
            recent=(size_of(turn),),
            memory=kept,
            memory_size=memory_size(memory),
            current=Asker(job="a/job-9", home=0, turn=7),
            waiting=(Asker(job="a/job-10", home=0),),
        )
        home = place(ids.under("a", "trip").encode(), at.topics.settings.home_partitions)
        await at.planner.send(at.planner.converse(known, home))
        await until(lambda: at.ingress.door.events.conversations.get("a", "trip") is not None, "the conversation")
        yield at


def code(response: Any) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


async def test_what_is_kept_is_shown(tmp_path: Path) -> None:
    """Turns oldest first, the summary, facts and preferences, who runs and how many wait; the newest turns alone, if asked."""
    async with talked(tmp_path) as at:
        [listed] = (await at.client.get("/v1/conversations", headers=A)).json()["conversations"]
        assert (listed["id"], listed["tenant"], listed["turns"], listed["running"], listed["waiting"]) == ("trip", "a", 3, "job-9", 1)
        shown = (await at.client.get(PATH, headers=A)).json()
        assert {**shown, **listed} == shown
        assert (shown["summary"], shown["facts"], shown["preferences"], shown["more"]) == ("of the secret of a", ["a fact"], [], False)
        assert [turn["job"] for turn in shown["messages_of"]] == ["job-0", "job-1", "job-2"]
        assert [m["content"] for m in shown["messages_of"][0]["messages"]] == ["question 0", "the secret of a, 0"]
        less = (await at.client.get(f"{PATH}?turns=1", headers=A)).json()
        assert ([turn["job"] for turn in less["messages_of"]], less["more"]) == (["job-2"], True)
        assert code(await at.client.get(f"{PATH}?turns=0", headers=A)) == (400, "invalid_query")
        assert at.ingress.door.bodies.held == 0


async def test_facts_and_preferences_are_set(tmp_path: Path) -> None:
    """What is left out stays; a conversation that is not there begins; what is not valid is told with its field."""
    async with talked(tmp_path) as at:
        put = await at.client.put(PATH, json={"preferences": ["short answers"]}, headers=A)
        assert (put.status_code, put.json()["facts"], put.json()["preferences"]) == (200, ["a fact"], ["short answers"])
        assert (await at.client.put(PATH, json={"facts": []}, headers=A)).json()["facts"] == []
        shown = (await at.client.get(PATH, headers=A)).json()
        assert (shown["summary"], shown["facts"], shown["preferences"]) == ("of the secret of a", [], ["short answers"])
        assert (await at.client.put(PATH, json={"facts": []}, headers=A)).status_code == 200, "the same again"
        assert (await at.client.put("/v1/conversations/new", json={"facts": ["x"]}, headers=A)).status_code == 200
        assert (await at.client.get("/v1/conversations/new", headers=A)).json()["facts"] == ["x"]
        for body in ({"fact": ["x"]}, {"facts": ["x" * 501]}, {"facts": ["x"] * 65}, {"facts": [""]}, {"facts": ["x" * 490] * 9}):
            assert (await at.client.put(PATH, json=body, headers=A)).status_code == 400
        assert (await at.client.put("/v1/conversations/-odd", json={"facts": []}, headers=A)).status_code == 400


async def test_of_two_who_write_at_once_one_is_told(tmp_path: Path) -> None:
    """Nothing that was written is lost in silence."""
    async with talked(tmp_path) as at:
        bodies = ({"facts": ["one"]}, {"facts": ["two"]})
        answers = await asyncio.gather(*(at.client.put(PATH, json=body, headers=A) for body in bodies))
        assert sorted(answer.status_code for answer in answers) in ([200, 200], [200, 409])
        kept = (await at.client.get(PATH, headers=A)).json()["facts"]
        assert kept in [answer.json()["facts"] for answer in answers if answer.status_code == 200]


async def test_it_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """204 once its owner says so, 202 while nothing is known."""
    async with talked(tmp_path) as at:
        monkeypatch.setattr(telling, "WAIT_SECONDS", 0.05)
        at.planner.deaf = True
        assert (await at.client.delete(PATH, headers=A)).status_code == 202
        assert (await at.client.put(PATH, json={"facts": []}, headers=A)).status_code == 202
        at.planner.deaf = False
        monkeypatch.setattr(telling, "WAIT_SECONDS", 5.0)
        assert (await at.client.delete(PATH, headers=A)).status_code == 204
        assert code(await at.client.get(PATH, headers=A)) == (404, "not_found")
        assert code(await at.client.delete(PATH, headers=A)) == (404, "not_found")
        assert (await at.client.get("/v1/conversations", headers=A)).json()["conversations"] == []


async def test_anothers_conversation_is_none(tmp_path: Path) -> None:
    """Also under the other's name; one's own of the same name is another one."""
    async with talked(tmp_path) as at:
        for path in (PATH, f"{PATH}?tenant=a"):
            never = path.replace("trip", "never")
            for method in ("GET", "DELETE"):
                there = await at.client.request(method, path, headers=B)
                none = await at.client.request(method, never, headers=B)
                assert (there.status_code, there.json()) == (none.status_code, none.json())
                assert there.status_code in (403, 404)
        assert (await at.client.get("/v1/conversations", headers=B)).json()["conversations"] == []
        assert (await at.client.put(f"{PATH}?tenant=a", json={"facts": ["b was here"]}, headers=B)).status_code == 403
        assert (await at.client.put(PATH, json={"facts": ["of b"]}, headers=B)).status_code == 200
        assert (await at.client.get(PATH, headers=B)).json()["summary"] == ""
        assert (await at.client.get(PATH, headers=A)).json()["facts"] == ["a fact"]
        assert (await at.client.get(f"{PATH}?tenant=a", headers=ROOT)).json()["facts"] == ["a fact"]


async def test_chats_and_jobs_name_it(tmp_path: Path) -> None:
    """By the body of either; a name that is none, or an embedding in a conversation, is refused with the field."""
    async with talked(tmp_path) as at:
        said = [{"role": "user", "content": "and then?"}]
        body = {"model": "tiny:1", "messages": said, "conversation": "trip"}
        assert (await at.client.post("/v1/chat/completions", json=body, headers=A)).status_code == 200
        assert (await at.client.post("/v1/jobs?wait=5", json={"prompt": "x", "conversation": "trip"}, headers=A)).status_code == 200
        assert {seen.job.conversation for seen in at.planner.jobs.values()} == {"trip"}
        odd = await at.client.post("/v1/jobs", json={"prompt": "x", "conversation": "no spaces"}, headers=A)
        assert (odd.status_code, "conversation" in odd.json()["error"]["message"]) == (400, True)
        embed = await at.client.post("/v1/jobs", json={"texts": ["x"], "conversation": "trip"}, headers=A)
        assert (embed.status_code, "conversation" in embed.json()["error"]["message"]) == (400, True)
