"""Promise: a worker that is told its agents takes their steps and no others, on a real Kafka, by whatever way jobs come.

How: two workers of real processes, one of research, one of chat; jobs over REST and, with `tutti submit`, straight onto Kafka.
"""

from __future__ import annotations

import json

import httpx
import pytest
from click.testing import CliRunner, Result

from infra.cli.exits import Exit
from infra.cli.main import main
from infra.native.cluster import LocalCluster
from tests.support.native import StartCluster

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]


def tutti(at: LocalCluster, *arguments: str) -> Result:
    environment = {"TUTTI_KAFKA_SERVERS": at.servers, "TUTTI_TOPICS__PREFIX": at.prefix}
    return CliRunner().invoke(main, arguments, env=environment, catch_exceptions=False)


def test_agents_have_workers_of_their_own(cluster: StartCluster) -> None:
    """REST and Kafka alike: research by its worker, chat by the other; what the cluster has not is refused, with what it has."""
    at = cluster("agents", nodes=[{"TUTTI_WORKER__AGENTS": "research,code"}, {"TUTTI_WORKER__AGENTS": "chat"}])
    for capability, node in (("research", "agents-node-1"), ("chat", "agents-node-2")):
        job = httpx.post(f"{at.url}/v1/jobs?wait=60", json={"prompt": "a", "capability": capability}, timeout=90).json()
        assert (job["state"], job["result"]["answer"]["node"]) == ("settled", node), job
        sent = tutti(at, "submit", "a", "--via", "kafka", "--capability", capability, "--json")
        assert (sent.exit_code, json.loads(sent.stdout)["answer"]["node"]) == (Exit.OK, node), sent.output
    served = {node["id"]: node["capabilities"] for node in json.loads(tutti(at, "nodes", "--json").stdout)}
    assert served == {"agents-node-1": ["research", "code"], "agents-node-2": ["chat"]}
    refused = httpx.post(f"{at.url}/v1/jobs", json={"prompt": "a", "capability": "cooking"}, timeout=30)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "unknown_capability")
    assert "it offers chat, code, " in refused.json()["error"]["message"]
    for way in ((), ("--stream",), ("--no-wait",)):
        assert tutti(at, "submit", "a", "--via", "kafka", "--capability", "cooking", *way).exit_code == Exit.USAGE
