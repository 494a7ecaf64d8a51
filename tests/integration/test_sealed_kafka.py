"""Promise: with cluster keys nothing that a user has written, or a model has answered, lies readable in Kafka; keys change while everything
runs; an erased tenant's records open for nobody.

How: services as processes on a real broker answer every kind of job; then all bytes of the broker's folder are looked through. What a
foreign producer wrote in the clear is found by the same eyes, once, where he put it.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from infra.cli.main import main
from infra.native.cluster import LocalCluster
from infra.native.paths import StackHome
from infra.native.ports import free_ports
from infra.native.services import ServiceProcess
from infra.native.waiting import wait_until
from shared.clock import SystemClock
from shared.contracts.base import PriorityClass
from shared.contracts.headers import envelope
from shared.contracts.job import Job
from shared.kafka.client.aio import AioLog
from shared.kafka.port import Message, Record, TopicPartition, Unreadable, tenant_of
from shared.processing.tail import stretches
from shared.sealing.cipher import new_key, written
from shared.sealing.sealed_log import SealedLog, sealed
from shared.settings import ClusterSettings
from tests.support.native import KAFKA_FOLDERS
from tests.support.sealing import keys_file

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]
PROMPT, ASIDE, CLEAR = "Zaubernusszweig", "Quittenmarmelade", "Kiefernzapfenkrone"
"""Words of prompts; the last one's producer seals nothing."""


class Place:
    def __init__(self, at: LocalCluster, file: Path) -> None:
        self.at, self.file = at, file
        self.answers: list[str] = []

    def ask(self, path: str, body: dict[str, Any]) -> Any:
        response = httpx.post(f"{self.at.url}{path}", json=body, timeout=60)
        assert response.status_code < 300, response.text
        return response

    def job(self, **body: Any) -> str:
        found = self.ask("/v1/jobs?wait=60", body).json()
        assert (found["state"], found["result"]["status"]) == ("settled", "succeeded"), found
        self.answers.append(found["result"]["answer"]["text"])
        return str(found["id"])

    def tutti(self, *words: str) -> Result:
        environment = {"TUTTI_KAFKA_SERVERS": self.at.servers, "TUTTI_TOPICS__PREFIX": self.at.prefix, "TUTTI_URL": self.at.url}
        return CliRunner().invoke(main, words, env=environment | {"TUTTI_SEALING__KEYS_FILE": str(self.file)}, catch_exceptions=False)

    def log(self) -> SealedLog:
        settings = ClusterSettings.model_validate({"sealing": {"keys_file": str(self.file)}})
        return sealed(AioLog(self.at.servers, SystemClock()), settings, SystemClock(), self.at.topics)

    def lies_in(self, word: str) -> set[str]:
        """Topics in whose files this stands, of all that the broker has on disk of this cluster and for itself; but for indices, which hold
        numbers only, in 20 MiB a partition.
        """
        [folder] = KAFKA_FOLDERS
        walked = [Path(root) / name for root, _, names in os.walk(folder / "data") for name in names]  # passes over what goes meanwhile
        mine = [path for path in walked if path.parent.name.startswith((self.at.prefix, "__")) and not path.suffix.endswith("index")]
        assert len(mine) > 100
        files = {path: _bytes(path) for path in mine}
        return {path.parent.name.rpartition("-")[0].removeprefix(self.at.prefix) for path, said in files.items() if word.encode() in said}


def _bytes(path: Path) -> bytes:
    """Nothing where it has gone meanwhile: topics of other tests on this broker are being deleted."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


@pytest.fixture(scope="module")
def place(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    if not KAFKA_FOLDERS:
        pytest.skip("the broker's folder is not here")
    directory = tmp_path_factory.mktemp("sealed")
    file = keys_file(directory)
    environment = {"TUTTI_SEALING__KEYS_FILE": str(file), "TUTTI_LOG_LEVEL": "info"}
    at = LocalCluster(kafka, "sealed", directory / "cluster", nodes=[{"TUTTI_WORKER__BACKEND": "in_process"}], environment=environment)
    try:
        yield Place(at.start(), file)
    finally:
        print(at.log_ends())
        at.stop()


def test_nothing_that_was_said_lies_readable_in_kafka(place: Place) -> None:
    chat = {"model": "auto", "messages": [{"role": "user", "content": f"{PROMPT} plain"}]}
    place.answers.append(place.ask("/v1/chat/completions", chat).json()["choices"][0]["message"]["content"])
    streamed = place.ask("/v1/chat/completions", chat | {"stream": True}).text
    pieces = [json.loads(line[6:]) for line in streamed.splitlines() if line.startswith("data: {")]
    place.answers.append("".join(piece["choices"][0]["delta"].get("content") or "" for piece in pieces if piece["choices"]))
    place.job(prompt=f"{PROMPT} large " * 8_000)  # by a blob
    for number in range(2):
        place.job(prompt=f"{PROMPT} turn {number}", conversation="talk", tenant="acme")
    place.job(prompt=f"{PROMPT} vote", pattern="vote")
    place.job(prompt=f"{PROMPT} later", not_before=SystemClock().wall() + 1.2)
    schedule = {"cron": "0 3 * * *", "job": {"prompt": f"{PROMPT} nightly"}}
    assert httpx.put(f"{place.at.url}/v1/schedules/nightly", json=schedule, timeout=30).status_code < 300
    sent = place.tutti("submit", f"{PROMPT} by kafka", "--via", "kafka", "--json")
    assert sent.exit_code == 0, sent.output
    asyncio.run(_in_the_clear(place))
    assert place.lies_in(PROMPT) == set()
    assert all(len(answer) > 12 for answer in place.answers)
    for answer in {*place.answers}:
        assert place.lies_in(answer[:40]) == set()
    assert place.lies_in(CLEAR) == {"jobs.standard"}  # these eyes see, and the planner sealed what it wrote of it
    verified = place.tutti("verify")
    assert verified.exit_code == 0, verified.output


async def _in_the_clear(place: Place) -> None:
    """A foreign producer's job, and its result as a reader with the keys has it."""
    log = AioLog(place.at.servers, SystemClock())
    producer = await log.producer(client_id="foreign")
    job = Job(id="foreign", prompt=f"{CLEAR} {ASIDE}")
    await producer.send(Message(place.at.topics.jobs(PriorityClass.STANDARD), job.to_bytes(), b"foreign", None, envelope("job")))
    await producer.close()
    await _results_with(place, b"foreign")


async def _results_with(place: Place, job: bytes) -> list[Record]:
    """As soon as this job's is among them: a result follows the event that answers the job's caller."""
    async with asyncio.timeout(30):
        while True:
            found = await _results(place)
            if job in {record.key for record in found}:
                return found
            await SystemClock().sleep(0.2)


async def _results(place: Place) -> list[Record]:
    log = place.log()
    consumer = await log.consumer(client_id="reader", fetch_max_wait_ms=50)
    try:
        partitions = [TopicPartition(place.at.topics.results, number) for number in range(6)]
        ends = await consumer.end_offsets(partitions)
        return [record async for records in stretches(consumer, {tp: (0, end) for tp, end in ends.items()}) for record in records]
    finally:
        await consumer.close()
        await log.close()


def test_the_cluster_key_changes_while_everything_runs(place: Place) -> None:
    place.job(prompt=f"{PROMPT} before")  # its tenant's key is wrapped anew
    old, new = place.file.read_text(), written(new_key()) + "\n"
    made = place.tutti("seals", "make-key", str(place.file))
    assert made.exit_code == 0
    place.file.write_text(new + old)
    assert "data keys are wrapped anew" in place.tutti("seals", "rotate").output
    place.job(prompt=f"{PROMPT} a tenant's first", tenant="globex")  # its key is made by whoever reads the file then
    place.file.write_text(new)
    rows = json.loads(place.tutti("seals", "status", "--json").stdout)
    assert [(row["place"], row["data_keys"] > 2) for row in rows] == [("first: it wraps", True)], rows
    planner = place.at.services["planner"]
    planner.daemon.kill()
    planner.start()
    place.job(prompt=f"{PROMPT} afterwards")
    assert place.lies_in(PROMPT) == set()


def test_who_lacks_the_cluster_key_is_not_ready_and_says_why(place: Place, tmp_path: Path) -> None:
    environment = {"TUTTI_KAFKA_SERVERS": place.at.servers, "TUTTI_TOPICS__PREFIX": place.at.prefix}
    wrong = environment | {"TUTTI_SEALING__KEYS_FILE": str(keys_file(tmp_path))}
    service = ServiceProcess("planner", StackHome(tmp_path), free_ports(1)[0], wrong, "wrong", dies_with_parent=True)
    service.start()
    try:
        assert wait_until(lambda: "data keys are wrapped by cluster keys" in (service.reason() or ""), 30.0, every_seconds=0.2), (
            service.reason()
        )
        place.job(prompt=f"{PROMPT} goes on")
    finally:
        service.stop(5.0)


def test_an_erased_tenants_records_open_for_nobody(place: Place) -> None:
    job = place.job(prompt=f"{PROMPT} to be erased", tenant="acme", id="erased-1")
    told = place.ask("/v1/tenants/acme/erase", {"dry_run": True}).json()
    assert told["goes"][-1] == {"what": told["goes"][-1]["what"], "count": 1}
    key = f"acme/{job}".encode()
    before = {record.key: record for record in asyncio.run(_results_with(place, key))}
    assert tenant_of(before[key]) == "acme"
    place.ask("/v1/tenants/acme/erase", {"dry_run": False})
    after = asyncio.run(_results(place))
    dark = {record.key for record in after if isinstance(record, Unreadable)}
    assert key in dark
    assert dark == {key for key, record in before.items() if tenant_of(record) == "acme"}
    planner = place.at.services["planner"]
    planner.daemon.kill()
    planner.start()
    place.job(prompt=f"{PROMPT} others go on")
    place.job(prompt=f"{PROMPT} and so may it", tenant="acme")
    verified = place.tutti("verify", "--json")
    counts = json.loads(verified.stdout)["counts"]
    assert (verified.exit_code, counts["shredded"] > len(dark)) == (0, True), verified.output
