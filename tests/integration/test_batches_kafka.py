"""Promise: of a batch every line is run once and has one row, and the counts are right, on a real Kafka, though planner and ingress are
killed in the middle of it; and it is there when they have come back.
"""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from infra.native.waiting import wait_until
from tests.support.native import StartCluster

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.timeout(240)]
LINES, BAD = 600, 7
CHAT: Any = "/v1/chat/completions"


def line(number: int) -> str:
    body = {
        "messages": [{"role": "user", "content": f"question {number}"}],
        "max_tokens": 4,
        **({"temperature": 9} if number < BAD else {}),
    }
    return json.dumps({"custom_id": f"c{number}", "method": "POST", "url": CHAT, "body": body})


def test_every_line_once_whatever_dies(cluster: StartCluster) -> None:
    at = cluster("batch", environment={"TUTTI_PLANNER__BATCH_LINES": "64"})
    client = openai.OpenAI(base_url=f"{at.url}/v1", api_key="any", max_retries=20)
    file = client.files.create(file=("in.jsonl", "\n".join(map(line, range(LINES))).encode()), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h", metadata={"of": "a test"})

    def counts() -> tuple[int, int, int]:
        now = client.batches.retrieve(batch.id).request_counts
        assert now is not None
        return now.total, now.completed, now.failed

    for share, service in ((0.1, "planner"), (0.3, "ingress"), (0.5, "planner")):
        assert wait_until(lambda: counts()[1] >= LINES * share, 60.0), counts()  # noqa: B023
        at.services[service].daemon.kill()
        at.services[service].start()
        at.services[service].await_ready()
    assert wait_until(lambda: client.batches.retrieve(batch.id).status == "completed", 90.0), client.batches.retrieve(batch.id)
    assert counts() == (LINES, LINES - BAD, BAD)
    batch = client.batches.retrieve(batch.id)
    assert batch.output_file_id is not None
    assert batch.error_file_id is not None
    good, bad = (
        [json.loads(row) for row in client.files.content(name).text.splitlines()] for name in (batch.output_file_id, batch.error_file_id)
    )
    assert sorted(row["custom_id"] for row in good) == sorted(f"c{number}" for number in range(BAD, LINES))
    assert {row["custom_id"]: row["response"]["status_code"] for row in bad} == {f"c{number}": 400 for number in range(BAD)}
    assert len({row["response"]["request_id"] for row in good}) == LINES - BAD
    assert [found.id for found in client.batches.list()] == [batch.id]
