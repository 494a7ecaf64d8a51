"""Who waits at an ingress for an answer is told his job's one end, once: what history holds, or why there is no job. Nobody waits for ever,
and what a stream has shown at its end is the answer.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator

from services.ingress.app import Ingress
from shared.contracts.chat import Answer
from shared.contracts.event import JobSettled
from shared.contracts.failure import FailureKind
from shared.contracts.result import Result, Status
from shared.kafka.port import TopicPartition
from shared.processing.blobs import key_of
from tests.support.cluster.rest import Request
from tests.support.cluster.violation import Violation
from tests.support.cluster.world import World

LAW = "callers are told the end"
_NO_JOB = {FailureKind.CONFLICT, FailureKind.INVALID_JOB, FailureKind.TOO_LARGE, FailureKind.INTERNAL}
"""Of what was refused before it became a job no event tells."""


def check(world: World) -> Iterator[Violation]:
    """After convergence."""
    ends: defaultdict[str, list[Result]] = defaultdict(list)
    for written in world.history.all_valid():
        if isinstance(written.value, JobSettled):
            ends[written.value.job].append(written.value.result)
    seen: set[int] = set()
    for caller, result in world.told:
        if id(caller) in seen:
            yield Violation(LAW, f"a caller of {caller.job} was told twice", caller.job)
        seen.add(id(caller))
        if not any(_same(result, end) for end in ends[caller.job]) and not (result.failure and result.failure.kind in _NO_JOB):
            yield Violation(LAW, f"a caller of {caller.job} was told {result.status}, which history does not hold", caller.job)
    for name, ingress in world.services(Ingress).items():
        for caller in ingress.door.waiters.callers():
            if not caller.ended:
                yield Violation(LAW, f"a caller of {caller.job} still waits at {name}", caller.job)
    for request in world.requests:
        job = request.answer.headers.get("x-tutti-job", "")
        texts = [_text_of(world, end) for end in ends[job] if end.status is Status.SUCCEEDED]
        shown = _shown(request)
        if shown is not None and shown not in texts:
            yield Violation(LAW, f"the stream of {job} ended with {len(shown)} characters; the answer has {[*map(len, texts)]}", job)


def _same(told: Result, end: Result) -> bool:
    """Of an answer by reference the caller has the text. Who cancelled a delayed job, and when, is told anew each time that it comes."""
    if told.status is Status.CANCELLED is end.status:
        return True
    by_reference = end.answer is not None and end.answer.blob is not None
    return told.model_copy(update={"answer": end.answer}) == end and (by_reference or told.answer == end.answer)


def _text_of(world: World, end: Result) -> str:
    """Of an answer by reference what the reference names."""
    assert end.answer is not None, "it has succeeded"
    if (ref := end.answer.blob) is None:
        return end.answer.text
    records = world.log.existing(TopicPartition(world.topics.blobs, ref.partition)).records
    key = key_of(end.tenant, ref.digest)
    body = b"".join(record.value or b"" for record in records if ref.first <= record.offset <= ref.last and record.key == key)
    return Answer.model_validate_json(body).text


def _shown(request: Request) -> str | None:
    """The text of a stream that came to a good end; None of everything else."""
    answer = request.answer
    if not answer.complete or not answer.body.endswith(b"data: [DONE]\n\n") or b'"error"' in answer.body:
        return None
    lines = [line[6:] for line in answer.body.split(b"\n\n") if line.startswith(b"data: {")]
    return "".join(choice["delta"].get("content") or "" for line in lines for choice in json.loads(line).get("choices", ()))
