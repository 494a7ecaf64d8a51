"""The sink's promise on real Kafka, with a store of MongoDB's protocol (SecantusDB, a stand-in, where there is no mongod): totals equal
`job-events` exactly.

history ──► job-events ──► sink, killed five times in mid-batch; two at once ──► totals, rows, chain = recount
                                          └──► GET /v1/usage, /v1/audit: a tenant sees its own
"""

from __future__ import annotations

import asyncio
import csv
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path
from random import Random
from secrets import token_hex
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from pymongo import MongoClient

from infra.cli.main import main
from infra.native.paths import StackHome
from infra.native.ports import free_ports
from infra.native.services import ServiceProcess
from infra.native.topics import delete_topics, ensure_topics
from infra.verify.recount import counted
from shared.audit import GENESIS, broken
from shared.clock import SystemClock, until
from shared.kafka.client.aio import AioLog
from shared.kafka.port import TopicPartition
from shared.services import group_of
from shared.topics import Topics, TopicSettings
from tests.support.sink_history import PROMPT, HistoryOfHome, newest_talks, recount, valid_events

pytestmark = [pytest.mark.kafka, pytest.mark.mongo, pytest.mark.timeout(300)]
EVENTS = 150
"""Of each home, in each life of a sink."""
KEYS = {"root": ("default", True), "acme": ("acme", False)}


class Deployment:
    """A topic prefix, a database, histories, and sinks as processes."""

    def __init__(self, servers: str, mongo: str, directory: Path) -> None:
        self.name = f"sink{token_hex(3)}"
        self.servers, self.mongo, self.directory = servers, mongo, directory
        self.topics = Topics(TopicSettings(prefix=f"{self.name}-"))
        homes = self.topics.settings.home_partitions
        self.histories = [HistoryOfHome(Random(home), self.topics, home) for home in range(homes)]
        self.sinks: list[ServiceProcess] = []
        self.keys = directory / "keys.json"
        entries = [
            {"name": name, "digest": sha256(name.encode()).hexdigest(), "tenant": tenant, "admin": admin}
            for name, (tenant, admin) in KEYS.items()
        ]
        self.keys.write_text(json.dumps({"keys": entries}))

    def sink(self) -> ServiceProcess:
        """One more, started."""
        number = len(self.sinks) + 1
        environment = {
            "TUTTI_KAFKA_SERVERS": self.servers,
            "TUTTI_TOPICS__PREFIX": self.topics.settings.prefix,
            "TUTTI_SINK__STORE": self.mongo,
            "TUTTI_SINK__DATABASE": self.name,
            "TUTTI_SINK__KEYS_FILE": str(self.keys),
            "TUTTI_SINK__BATCH_RECORDS": "100",
        }
        made = ServiceProcess("sink", StackHome(self.directory), free_ports(1)[0], environment, str(number), dies_with_parent=True)
        self.sinks.append(made)
        made.start()
        return made

    async def grow(self, count: int) -> None:
        """So many more events of each home."""
        log = AioLog(servers=self.servers, clock=SystemClock())
        producer = await log.producer(client_id="history")
        try:
            for home, history in enumerate(self.histories):
                messages = history.grow(count)
                for first in range(0, len(messages), 200):
                    await producer.append(TopicPartition(self.topics.job_events, home), messages[first : first + 200])
        finally:
            await producer.close()
            await log.close()

    def rows(self, collection: str) -> list[dict[str, Any]]:
        with MongoClient[dict[str, Any]](self.mongo) as client:
            return list(client[self.name][collection].find({}))

    def newest(self) -> dict[int, int]:
        """Home → the last offset that its chain has."""
        found: dict[int, int] = {}
        for row in self.rows("audit"):
            home = int(row["home"].partition(".")[2])
            found[home] = max(found.get(home, -1), *(entry["offset"] for entry in row["entries"].values()))
        return found

    def further(self, than: int) -> bool:
        """Whether more is stored."""
        return sum(self.newest().values()) > than

    async def all_stored(self) -> bool:
        """Whether the group has committed all, which it does once all is stored."""
        wanted = {TopicPartition(self.topics.job_events, home): len(history.messages) for home, history in enumerate(self.histories)}
        log, clock = AioLog(servers=self.servers, clock=SystemClock()), SystemClock()
        admin = await log.admin()
        try:
            last = clock.monotonic() + 120.0
            while clock.monotonic() < last:
                found = await admin.group_offsets(group_of("sink", self.topics.settings.prefix))
                if all(found.get(tp) == end for tp, end in wanted.items()):
                    return True
                await clock.sleep(0.3)
            return False
        finally:
            await admin.close()
            await log.close()

    def check(self) -> None:
        assert counted(self.rows("totals")) == recount([h.messages for h in self.histories])
        ended = [event for h in self.histories for _, event in valid_events(h.messages) if event.type == "job_settled"]
        settled = [row for row in self.rows("usage") if "settled" in row]
        assert sorted((row["job"], row["finished_at"]) for row in settled) == sorted((e.job, e.result.finished_at) for e in ended)
        for home, history in enumerate(self.histories):
            blocks = [row for row in self.rows("audit") if row["home"].endswith(f".{home}")]
            entries = sorted((entry for block in blocks for entry in block["entries"].values()), key=lambda entry: entry["offset"])
            assert [entry["offset"] for entry in entries] == [offset for offset, _ in valid_events(history.messages)]
            assert broken(entries, GENESIS) is None


@pytest.fixture
def deployment(kafka: str, mongo_url: str, tmp_path: Path) -> Iterator[Deployment]:
    made = Deployment(kafka, mongo_url, tmp_path)
    ensure_topics(kafka, made.topics)
    yield made
    for sink in made.sinks:
        sink.stop(5.0)
    delete_topics(kafka, made.topics)


@asynccontextmanager
async def asking(sink: ServiceProcess, key: str) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=sink.url, headers=headers, timeout=30.0) as client:
        yield client


@pytest.mark.faults
async def test_totals_are_exact_after_five_kills(deployment: Deployment) -> None:
    """Each in mid-batch, while more comes; what is read again is counted once. Then what people may ask."""
    random = Random(5)
    for life in range(5):
        sink = deployment.sink()
        before = sum(deployment.newest().values())
        await deployment.grow(EVENTS)
        assert await until(SystemClock(), partial(deployment.further, before), 60.0, 0.05), life
        await SystemClock().sleep(random.uniform(0.0, 0.2))
        sink.daemon.kill()
    await deployment.grow(EVENTS)
    last = deployment.sink()
    assert await deployment.all_stored()
    deployment.check()
    last.await_ready()
    await _answers(deployment, last)
    await _apart(last)


async def test_two_at_once_share_the_homes(deployment: Deployment) -> None:
    """And hand them over, in order and by force."""
    await deployment.grow(200)
    first, second = deployment.sink(), deployment.sink()
    first.await_ready()
    second.await_ready()
    await deployment.grow(200)
    first.stop(10.0)
    third = deployment.sink()
    await deployment.grow(200)
    third.await_ready()
    second.daemon.kill()
    await deployment.grow(200)
    assert await deployment.all_stored()
    deployment.check()


async def _walked(client: httpx.AsyncClient, path: str, limit: int) -> list[dict[str, Any]]:
    """All pages."""
    found: list[dict[str, Any]] = []
    more: dict[str, Any] = {}
    while more.get("before", "") is not None:
        page = (await client.get(path, params={"limit": limit, **more})).json()
        found += page["rows"]
        more["before"] = page["next"]
    return found


async def _answers(deployment: Deployment, sink: ServiceProcess) -> None:
    said = recount([h.messages for h in deployment.histories])
    async with asking(sink, "root") as root:
        found = (await root.get("/v1/usage", params={"by": "tenant,pattern,status,key"})).json()["rows"]
        assert {("jobs", r["tenant"], r["pattern"], r["status"], r["key"]): r["jobs"] for r in found} == {
            key: value for key, value in said.items() if key[0] == "jobs"
        }
        found = (await root.get("/v1/usage", params={"by": "agent,model"})).json()["rows"]
        assert {("answers", r["agent"], r["model"]): r["answers"] for r in found if r["answers"]} == {
            key: value for key, value in said.items() if key[0] == "answers"
        }
        homes = (await root.get("/v1/audit")).json()["homes"]
        assert len(homes) == len(deployment.histories)
        after, entries = -1, []
        while (page := (await root.get("/v1/audit", params={"home": homes[0], "after": after, "limit": 500})).json())["rows"]:
            entries += page["rows"]
            after = page["next"]
        assert [entry["offset"] for entry in entries] == [offset for offset, _ in valid_events(deployment.histories[0].messages)]
        assert broken(entries, GENESIS) is None
        rows = await _walked(root, "/v1/usage/jobs", 40)
        assert len({(row["job"], row["home"], row["life"]) for row in rows}) == len(rows) == len(deployment.rows("usage"))
        events = await _walked(root, "/v1/logs", 400)
        assert len(events) == sum(len(list(valid_events(history.messages))) for history in deployment.histories)
        talks = newest_talks([history.messages for history in deployment.histories])
        told = await _walked(root, "/v1/conversations", 5)
        assert {(row["tenant"], row["conversation"]) for row in told} <= {(tenant, talk) for _, tenant, talk in talks}
        assert sum(turns for turns, gone in talks.values() if not gone) >= sum(row["turns"] for row in told) > 0
        text = (await root.get("/v1/usage/jobs", params={"limit": 1000})).text
        assert PROMPT not in text
        job = json.loads(text)["rows"][0]
        one = (await root.get(f"/v1/usage/jobs/{job['job']}", params={"tenant": job["tenant"]})).json()["rows"]
        assert one[0]["job"] == job["job"]
        top = (await root.get("/v1/top", params={"minutes": 60, "by": "model"})).json()["rows"]
        assert top
        metrics = (await root.get("/metrics")).text
        assert "tutti_usage_jobs_total{" in metrics
        assert PROMPT not in metrics


async def _apart(sink: ServiceProcess) -> None:
    """Another tenant's data is in no answer; what is asked oddly is refused by name."""
    async with asking(sink, "acme") as acme:
        for path, params in {"/v1/usage": {"by": "tenant"}, "/v1/usage/jobs": {}, "/v1/top": {"minutes": "60", "by": "tenant"}}.items():
            rows = (await acme.get(path, params=params)).json()["rows"]
            assert rows
            assert {row["tenant"] for row in rows} == {"acme"}, path
            refused = await acme.get(path, params={**params, "tenant": "globex"})
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "tenant_not_allowed")
        home = (await acme.get("/v1/audit")).json()["homes"][0]
        rows = (await acme.get("/v1/audit", params={"home": home})).json()["rows"]
        assert rows
        assert {row["tenant"] for row in rows} == {"acme"}
        for path in ("/v1/nodes/history", "/v1/dead-letters"):
            assert (await acme.get(path)).status_code == 403
        assert (await acme.get("/v1/usage/jobs/globex%2Fh0-1")).status_code == 404
    async with asking(sink, "nobody") as nobody:
        for path in ("/v1/usage", "/v1/usage/jobs", "/v1/usage/jobs/a", "/v1/top", "/v1/audit", "/v1/nodes/history", "/v1/dead-letters"):
            assert (await nobody.get(path)).status_code == 401, path
    async with asking(sink, "root") as root:
        for query in ("by=color", "by=model,status", "from=yesterday", "odd=1", "by="):
            answer = await root.get(f"/v1/usage?{query}")
            code = "unknown_field" if query == "odd=1" else "invalid_input"
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, code), query
        assert (await root.get("/v1/usage/jobs?limit=0")).status_code == 400
        assert (await root.get("/v1/none")).status_code == 404
        assert (await root.get("/v1/usage/jobs/none")).status_code == 404


def test_commands(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """`tutti usage`, `top`, `audit`: tables, CSV, JSON; a chain that was tampered with is found, and so is one that Kafka contradicts."""
    asyncio.run(deployment.grow(120))
    sink = deployment.sink()
    assert asyncio.run(deployment.all_stored())
    sink.await_ready()
    for name, value in {
        "TUTTI_SINK_URL": sink.url, "TUTTI_API_KEY": "root", "TUTTI_KAFKA_SERVERS": deployment.servers,
        "TUTTI_TOPICS__PREFIX": deployment.topics.settings.prefix,
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)

    def tutti(*arguments: str, code: int = 0) -> str:
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == code, done.output
        return done.output

    assert json.loads(tutti("usage", "--by", "tenant", "--json"))
    assert tutti("usage", "--by", "agent,model", "--csv").startswith("agent,model,answers")
    assert "acme" in tutti("usage")
    rows = list(csv.DictReader(tutti("usage", "--jobs", "--csv", "--limit", "7", "--status", "succeeded").splitlines()))
    assert {row["status"] for row in rows} == {"succeeded"}
    assert "globex" in tutti("top", "--minutes", "60")
    assert "grouped" in tutti("usage", "--by", "colour", code=2)
    heads = [line.split()[-1] for line in tutti("audit", "verify", "--events").splitlines() if ":" in line]
    assert len(heads) == len(deployment.histories)
    asyncio.run(deployment.grow(20))
    assert asyncio.run(deployment.all_stored())
    tutti("audit", "verify", "--head", heads[0])
    entries = [json.loads(line) for line in tutti("audit", "export").splitlines()]
    assert len(entries) == sum(1 for h in deployment.histories for _ in valid_events(h.messages))
    with MongoClient[dict[str, Any]](deployment.mongo) as client:
        block = client[deployment.name]["audit"].find_one({"block": 0}) or {}
        offset = sorted(map(int, block["entries"]))[3]
        client[deployment.name]["audit"].update_one({"_id": block["_id"]}, {"$set": {f"entries.{offset}.status": "succeeded "}})
    assert f"offset {offset}" in tutti("audit", "verify", code=1)
    monkeypatch.setenv("TUTTI_API_KEY", "nobody")
    assert "not known" in tutti("usage", code=2)
