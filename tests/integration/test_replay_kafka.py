"""Promise: a job on a real Kafka is run again as it was; a fork of it asks only for what comes behind; another model makes another job.

How: real processes, a simulated node, `tutti` in front of them; keys, so that nobody forks what is not his.
"""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from infra.cli.exits import Exit
from infra.cli.main import main
from infra.native.cluster import LocalCluster
from tests.support.native import StartCluster

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]


def tutti(at: LocalCluster, *arguments: str, key: str = "root") -> Result:
    environment = {"TUTTI_KAFKA_SERVERS": at.servers, "TUTTI_TOPICS__PREFIX": at.prefix, "TUTTI_URL": at.url, "TUTTI_API_KEY": key}
    return CliRunner().invoke(main, arguments, env=environment, catch_exceptions=False)


def told(at: LocalCluster, *arguments: str) -> Any:
    result = tutti(at, *arguments, "--json")
    assert result.exit_code == Exit.OK, result.output
    return json.loads(result.stdout)


@pytest.fixture
def at(cluster: StartCluster, tmp_path: Path) -> LocalCluster:
    keys = tmp_path / "keys.json"
    entries: list[dict[str, Any]] = [
        {"name": "root", "tenant": "default", "admin": True},
        {"name": "acme", "tenant": "acme"},
        {"name": "globex", "tenant": "globex"},
    ]
    keys.write_text(json.dumps({"keys": [entry | {"digest": sha256(str(entry["name"]).encode()).hexdigest()} for entry in entries]}))
    return cluster("replay", environment={"TUTTI_INGRESS__KEYS_FILE": str(keys)})


def test_a_job_is_replayed_and_forked(at: LocalCluster, tmp_path: Path) -> None:
    """Also of a tenant by its own key; another tenant's key may not."""
    steps = [{"name": "draft", "template": "Draft {input}"}, {"name": "final", "template": "Final {draft}"}]
    body = {"prompt": "of a stone", "pattern": "chain", "input": {"steps": steps}}
    job = httpx.post(f"{at.url}/v1/jobs?wait=60", json=body, headers={"x-api-key": "acme"}, timeout=90).json()
    assert job["result"]["status"] == "succeeded", job
    name = ("jobs", "replay", job["id"], "--tenant", "acme")
    was = told(at, *name)
    assert (was["differences"], was["asked"], [end["agent"] for end in was["ends"]]) == ([], 2, ["draft", "final"])
    same = told(at, *name, "--fork", "2")
    assert same["now"]["answer"]["text"] == same["before"]["answer"]["text"] == job["result"]["answer"]["text"]
    assert (same["now"]["steps"], same["now"]["usage"]["calls"]) == (0, 0)
    rest = told(at, *name, "--fork", "1")
    assert (rest["now"]["status"], rest["now"]["steps"]) == ("succeeded", 1)
    file = tmp_path / "answer"
    file.write_text("a draft of mine")
    other = told(at, *name, "--fork", "1", "--answer", str(file))
    assert (other["now"]["status"], other["now"]["steps"], other["now"]["tenant"]) == ("succeeded", 1, "acme")
    again = told(at, *name, "--model", job["result"]["answer"]["model"])
    assert (again["now"]["pattern"], again["now"]["steps"]) == ("chain", 2)
    replayed = told(at, "jobs", "replay", again["now"]["job"], "--tenant", "acme")
    assert replayed["differences"] == []
    forked = told(at, "jobs", "replay", rest["now"]["job"], "--tenant", "acme")
    assert (forked["differences"], forked["asked"]) == ([], 1)
    refused = tutti(at, *name, "--fork", "1", key="globex")
    assert (refused.exit_code, "may not act for another tenant" in refused.output) == (Exit.USAGE, True)
