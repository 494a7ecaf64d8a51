"""`tutti usage`, `top`, `audit`, `logs`, `conversations list --used` in front of a sink's API over a store in memory."""

from __future__ import annotations

import csv
import io
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import uvicorn
from click.testing import CliRunner

from infra.cli.main import main
from services.sink.port import AUDIT, NODES, TOTALS, USAGE
from services.sink.query_api import build_api
from shared.access import Access
from shared.clock import ManualClock, SystemClock
from tests.unit.sink.stored import stored


@pytest.fixture
def sink(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    store = stored()
    wall = SystemClock().wall()
    for row in store.documents[USAGE].values():
        row.update(at=wall - 5, settled=5, finished_at=wall)
    for total in store.documents[TOTALS].values():
        total["day"] = datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%d")
    for block in store.documents[AUDIT].values():
        for entry in block["entries"].values():
            entry.update(at_ms=int(1e3 * wall) - 60_000 + entry["offset"], job="acme/j1" if entry["tenant"] == "acme" else "globex/j1")
        block.update(from_ms=int(1e3 * wall) - 60_000, to_ms=int(1e3 * wall))
    store.documents[NODES]["n"] = {"node": "n1", "from_ms": 1, "to_ms": 5, "slots": 2, "models": ["m:1b"], "reachable": False}
    clock = ManualClock(wall)
    server = uvicorn.Server(uvicorn.Config(build_api(store, Access(clock), clock, queries=2), port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.01)
    monkeypatch.setenv("TUTTI_SINK_URL", f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}")
    yield
    server.should_exit = True
    thread.join()


def told(*arguments: str) -> Any:
    result = CliRunner().invoke(main, [*arguments, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.usefixtures("sink")
def test_what_happened_is_told_oldest_first() -> None:
    """Of all, of a tenant, of one job; and what nodes said."""
    assert [row["offset"] for row in told("logs", "--events")] == list(range(6))
    assert [row["offset"] for row in told("logs", "--events", "-n", "2")] == [4, 5]
    assert {row["tenant"] for row in told("logs", "--events", "--tenant", "acme")} == {"acme"}
    assert told("logs", "--events", "--since", "1s") == []
    assert [row["offset"] for row in told("logs", "--job", "j1", "--tenant", "acme")] == [0, 2, 4]
    assert [(row["node"], row["what"]) for row in told("logs", "--nodes")] == [("n1", "unreachable")]


@pytest.mark.usefixtures("sink")
def test_usage_by_key_and_conversation() -> None:
    """As a table, JSON and CSV; rows of jobs in pages."""
    assert told("usage", "--by", "conversation")[0]["jobs"] == 6
    assert [(row["key"], row["jobs"]) for row in told("usage", "--by", "key")] == [("", 8)]
    assert len(told("usage", "--jobs", "--limit", "1")) == 1
    assert len(told("usage", "--jobs")) == 2
    result = CliRunner().invoke(main, ["usage", "--by", "tenant,conversation", "--csv"])
    assert {row["tenant"] for row in csv.DictReader(io.StringIO(result.stdout))} == {"acme", "globex"}


@pytest.mark.usefixtures("sink")
def test_conversations_and_what_they_used() -> None:
    """Used last first."""
    assert [(row["tenant"], row["turns"], row["prompt_tokens"]) for row in told("conversations", "list", "--used")] == [
        ("acme", 3, 10),
        ("globex", 3, 20),
    ]
    assert "talk" in CliRunner().invoke(main, ["conversations", "list", "--used"]).output
