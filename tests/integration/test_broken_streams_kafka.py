"""Promise: SIGKILL of a worker in the middle of a stream shows in the client's text neither as a gap nor as a repetition.

What: a client streams over REST; after its first words the worker that writes them is killed, once alone, once together with the planner.
The other worker continues, and the client's text is, to the letter, what the node says when it is asked directly.
How: real Kafka, real processes, simulated nodes of equal seed, which continue an answer that is begun as Ollama does.

    client ◄── ingress ◄─ chunks ── worker-1 ✝     planner ── stream_broken ─► ingress ── stream_position ─► planner
                  ▲                                   └── the same step, attempt 2, with prefix ─► worker-2
                  └────── chunks from there on ─────────────────────────────────────────────────────┘
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from infra.native.cluster import LocalCluster
from tests.support.native import StartCluster

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.timeout(150)]

QUESTION = {"model": "small", "messages": [{"role": "user", "content": "tell me all of it"}]}
NODE = ("--profile", "instant", "--models", "small:1", "--set", "decode_gb_per_second=25", "--set", "answer_tokens=[90,90]")
"""25 words a second: a stream of almost four seconds."""
ENVIRONMENT = {"TUTTI_PLANNER__LEASE_SECONDS": "4", "TUTTI_WORKER__RENEW_SECONDS": "1"}
WORDS_BEFORE = 12


async def _told_directly(session: aiohttp.ClientSession, url: str) -> str:
    async with session.post(f"{url}/api/chat", json=QUESTION | {"stream": False}) as response:
        return str((await response.json())["message"]["content"])


async def _busy_worker(session: aiohttp.ClientSession, urls: list[str]) -> str:
    for number, url in enumerate(urls, 1):
        async with session.get(f"{url}/control") as response:
            if (await response.json())["truth"]["in_flight"]:
                return f"worker-{number}"
    raise AssertionError("no node writes")


async def _scenario(one: LocalCluster, urls: list[str], victims: tuple[str, ...]) -> tuple[str, str, list[Any]]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=90)) as session:
        expected = await _told_directly(session, urls[0])
        text, errors, killed = "", [], False
        async with session.post(f"{one.url}/v1/chat/completions", json=QUESTION | {"stream": True}) as response:
            assert response.status == 200
            async for line in response.content:
                if not line.startswith(b"data: {"):
                    continue
                event = json.loads(line[6:])
                errors += [event["error"]] if "error" in event else []
                text += "".join(choice["delta"].get("content") or "" for choice in event.get("choices", ()))
                if not killed and text.count(" ") >= WORDS_BEFORE:
                    killed = True
                    for name in (await _busy_worker(session, urls), *victims):
                        one.services[name].daemon.kill()
                    for name in victims:
                        await asyncio.to_thread(one.services[name].start)
        assert killed, "the stream was over before anybody could be killed"
        return text, expected, errors


@pytest.mark.parametrize("victims", [(), ("planner",)], ids=["worker", "worker and planner"])
def test_a_killed_workers_stream_is_continued_to_the_letter(cluster: StartCluster, victims: tuple[str, ...]) -> None:
    """One continuous answer."""
    one = cluster(f"broken-{len(victims)}", workers=2, environment=ENVIRONMENT, simulator=NODE)
    urls = [one.services[f"worker-{number}"].environment["TUTTI_WORKER__URL"] for number in (1, 2)]
    text, expected, errors = asyncio.run(_scenario(one, urls, victims))
    assert errors == []
    assert text == expected
