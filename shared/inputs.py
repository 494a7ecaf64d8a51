"""Inputs above the inline bound: what of a job goes into a blob, what stays in its records, and how a worker puts both together. Pure."""

from __future__ import annotations

from shared.contracts.base import INLINE_BYTES
from shared.contracts.blob import BlobRef
from shared.contracts.chat import Operation
from shared.contracts.job import OF_THE_INPUT, HeldJob, Input, InputRef, Job
from shared.contracts.step import Step
from shared.errors import InvalidRecord, TooLarge
from shared.estimates import fewest_tokens

_REFERENCE_BYTES = 2_048
"""That an InputRef and what tutti fills in may take."""


def input_of(job: Job, *, hands_on: bool) -> Input:
    """What goes into the blob. `hands_on`: of its pattern. Raises TooLarge where a record cannot hold the job without it."""
    if not hands_on:
        raise TooLarge(f"a job of pattern {job.pattern} travels in a record whole; one holds at most {INLINE_BYTES} bytes of it")
    if isinstance(job, HeldJob) and job.input_ref is not None:
        raise TooLarge(f"a job by reference takes more than the {INLINE_BYTES} bytes that a record holds of it")
    rest = len(job.model_copy(update=dict.fromkeys(OF_THE_INPUT)).to_bytes())
    if rest > INLINE_BYTES - _REFERENCE_BYTES:
        raise TooLarge(f"without its input the job has {rest} bytes; a record holds at most {INLINE_BYTES - _REFERENCE_BYTES} of them")
    prompt = job.prompt if job.kind is Operation.GENERATE else None
    # What is in a job was checked when it was read, which of much free JSON costs a second.
    return Input.model_construct(messages=job.turns, prompt=prompt, texts=job.texts or (), format=job.format, tools=job.tools)


def held(job: Job, given: Input, blob: BlobRef) -> HeldJob:
    """The job, its input in the blob."""
    texts = (given.prompt or "", *(message.content for message in given.messages), *given.texts)
    at_once = (max(given.texts, key=len),) if given.texts else texts
    reference = InputRef(
        blob=blob,
        characters=sum(map(len, texts)),
        longest=sum(len(text.encode()) for text in at_once),
        fewest_tokens=fewest_tokens(at_once),
        images=any(message.images for message in given.messages),
        tools=bool(given.tools),
    )
    kept = {name: getattr(job, name) for name in job.model_fields_set & Job.model_fields.keys() - OF_THE_INPUT}
    line = job.line if isinstance(job, HeldJob) else None
    return HeldJob(**{**kept, "operation": job.kind, "input_ref": reference, "line": line})


def whole(step: Step, body: bytes) -> Step:
    """The step with what its blob holds. Raises InvalidRecord when that is no Input."""
    try:
        given = Input.model_validate_json(body)
    except ValueError:
        raise InvalidRecord("the blob is not a step's input") from None
    return step.model_copy(update=given.__dict__)  # by their names: a field of both cannot be forgotten here
