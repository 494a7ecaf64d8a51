"""`tutti blobs get`: from a record of `results`, or a reference, to the body."""

from __future__ import annotations

import asyncio
import json

import pytest
from click.testing import CliRunner

from infra.cli.cluster import Edge
from infra.cli.exits import Exit
from infra.cli.main import main
from shared.clock import LoopClock
from shared.contracts.blob import BlobRef
from shared.contracts.chat import Answer
from shared.contracts.result import Result, Status
from shared.kafka.memory.memory import MemoryLog
from shared.processing.blobs import Blobs
from shared.processing.provision import ensure_topics
from shared.topics import Topics

BODY = Answer(text="y" * 100_000).to_bytes()


def stored() -> tuple[MemoryLog, BlobRef]:
    log = MemoryLog()

    async def store() -> BlobRef:
        await ensure_topics(log, Topics())
        return await Blobs(log, LoopClock(), Topics(), service="test", instance="t").store("acme", BODY)

    return log, asyncio.run(store())


def test_the_body_comes_out_as_it_was_written() -> None:
    """By the whole record on standard input, or the bare reference and a tenant; never under another tenant."""
    log, ref = stored()
    answer = Answer(model="m", blob=ref)
    result = Result(job="j", tenant="acme", status=Status.SUCCEEDED, answer=answer, accepted_at=0, finished_at=0)
    bare = ref.to_bytes().decode()

    def run(*arguments: str, given: bytes | None = None) -> tuple[int, bytes]:
        edge = Edge(open_log=lambda _settings, _clock: log)
        done = CliRunner().invoke(main, ["blobs", "get", *arguments], obj=edge, input=given)
        return done.exit_code, done.stdout_bytes

    assert run(given=result.to_bytes()) == (Exit.OK, BODY)
    assert run(json.dumps({"type": "job_settled", "result": json.loads(result.to_bytes())})) == (Exit.OK, BODY)
    assert run(bare, "--tenant", "acme") == (Exit.OK, BODY)
    assert run(bare)[0] == Exit.NOT_FOUND


@pytest.mark.parametrize("given", ["", "nonsense", "[1]", "{}", '{"answer": {"text": "hello"}}', '{"blob": {"digest": "no"}}'])
def test_what_names_no_blob_is_a_wrong_use(given: str) -> None:
    """One line, exit code 2."""
    done = CliRunner().invoke(main, ["blobs", "get"], obj=Edge(open_log=lambda _settings, _clock: MemoryLog()), input=given)
    assert done.exit_code == Exit.USAGE
    assert done.stderr.startswith("tutti: RECORD ")
