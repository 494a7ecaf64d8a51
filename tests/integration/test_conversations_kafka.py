"""Promise: jobs of one conversation know what was said before, one after the other, on a real Kafka, also when the planner is killed.

How: a conversation over REST and, with `tutti submit`, straight onto Kafka; what a model has read is seen by its count of prompt tokens.
Then the planner dies with turns waiting, older turns are summed up, all of it is exported, and forgotten.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from infra.cli.exits import Exit
from infra.cli.main import main
from infra.native.cluster import LocalCluster
from infra.native.waiting import wait_until
from tests.support.native import StartCluster

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]
WORDS = " and so on" * 20


def tutti(at: LocalCluster, *arguments: str) -> Result:
    environment = {"TUTTI_KAFKA_SERVERS": at.servers, "TUTTI_TOPICS__PREFIX": at.prefix, "TUTTI_URL": at.url}
    return CliRunner().invoke(main, arguments, env=environment, catch_exceptions=False)


def ask(at: LocalCluster, number: int) -> dict[str, Any]:
    body = {"id": f"talk-{number}", "prompt": f"question {number}{WORDS}", "conversation": "talk"}
    found: dict[str, Any] = httpx.post(f"{at.url}/v1/jobs?wait=90", json=body, timeout=120).json()
    assert (found["state"], found["result"]["status"]) == ("settled", "succeeded"), found
    return found["result"]


def export(at: LocalCluster) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(tutti(at, "conversations", "get", "talk", "--json").stdout)
    return found


def test_a_conversation_over_rest_and_kafka(cluster: StartCluster) -> None:
    at = cluster("talk", environment={"TUTTI_PLANNER__CONVERSATION_TOKENS": "400"})
    read = [ask(at, number)["usage"]["prompt_tokens"] for number in range(3)]
    assert read[0] < read[1] < read[2]
    sent = tutti(at, "submit", f"and now?{WORDS}", "--via", "kafka", "--conversation", "talk", "--json")
    assert (sent.exit_code, json.loads(sent.stdout)["usage"]["prompt_tokens"] > read[2]) == (Exit.OK, True), sent.output
    with ThreadPoolExecutor(6) as pool:
        waiting = [pool.submit(ask, at, number) for number in range(3, 9)]
        at.services["planner"].daemon.kill()
        at.services["planner"].start()
        later = [each.result() for each in waiting]
    # A job has its result before its turn has ended: what was said is written behind it.
    assert wait_until(lambda: export(at)["turns"] == 10, 30.0), export(at)
    shown = export(at)
    assert (shown["running"], shown["waiting"]) == (None, 0)
    assert [turn["job"] for turn in shown["messages_of"][:3]] == ["talk-0", "talk-1", "talk-2"]
    assert len({turn["job"] for turn in shown["messages_of"]}) == 10
    assert shown["summary"]
    assert max(result["usage"]["prompt_tokens"] for result in later) < 4 * max(read)
    put = httpx.put(f"{at.url}/v1/conversations/talk", json={"facts": ["Ann is a vegetarian."]}, timeout=30)
    assert (put.status_code, put.json()["facts"]) == (200, ["Ann is a vegetarian."])
    assert tutti(at, "conversations", "delete", "talk").exit_code == Exit.OK
    assert ask(at, 20)["usage"]["prompt_tokens"] <= read[0] + 2
