"""StepRequest: no field of it can be forgotten: not on the way to the worker, not in the step's id, not on the way from the job."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shared.contracts.job import HeldJob, Job
from shared.contracts.step import Step, StepRequest
from shared.patterns.single import request_of

SAMPLES: dict[str, Any] = json.loads(Path("schemas/examples/v1/Step.full.json").read_bytes()) | {
    "input_ref": json.loads(Path("schemas/examples/v1/Step.input.json").read_bytes())["input_ref"],
    "context": json.loads(Path("schemas/examples/v1/Step.context.json").read_bytes())["context"],
    "critique": json.loads(Path("schemas/examples/v1/Step.critique.json").read_bytes())["critique"],
    "guard": json.loads(Path("schemas/examples/v1/Step.guard.json").read_bytes())["guard"],
    "task": json.loads(Path("schemas/examples/v1/Step.task.json").read_bytes())["task"],
    "operation": "embed",
    "logprobs": True,
    "agent": "research",
    "capability": "embed",
    "tool_choice": "required",
    "parallel_tool_calls": False,
    "idempotent": False,
}
FIELDS = sorted(StepRequest.model_fields)
OWN = {"agent", "capability", "operation", "messages", "prompt", "texts"}
"""What `single` makes of the job itself; all else it takes as it is."""


def having(name: str) -> StepRequest:
    return StepRequest.model_validate({name: SAMPLES[name]})


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_is_in_the_id(name: str) -> None:
    """A request with another value is another step."""
    assert getattr(having(name), name) != StepRequest.model_fields[name].default, "the example says nothing"
    assert having(name).rendered() != StepRequest().rendered()


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_travels(name: str) -> None:
    """An attempt has what its request has, written and read."""
    request = having(name)
    step = Step(**request.__dict__, job="j", id="5" * 32, home=0)
    assert getattr(Step.model_validate_json(step.to_bytes()), name) == getattr(request, name)
    assert Step.model_validate_json(step.to_bytes(request.content())) == step


@pytest.mark.parametrize("name", sorted((StepRequest.model_fields.keys() & HeldJob.model_fields.keys()) - OWN))
def test_what_a_job_says_its_step_says(name: str) -> None:
    """By name: a field that is added to both needs no line in between."""
    kind = HeldJob if name == "input_ref" else Job
    given = {} if name == "input_ref" else {"prompt": "q", "tools": SAMPLES["tools"]}
    job = kind.model_validate({"operation": "chat"} | given | {name: SAMPLES[name]})
    assert getattr(request_of(job), name) == getattr(job, name)


def test_a_blob_that_was_written_again_is_the_same_input() -> None:
    """The id holds its digest, not where it lies."""
    moved = json.loads(json.dumps(SAMPLES["input_ref"]))
    moved["blob"] |= {"first": 9_000, "last": 9_012, "partition": 1, "written_at": 1.0}
    other = {**moved, "blob": {**moved["blob"], "digest": "f" * 32}}
    rendered = [StepRequest.model_validate({"input_ref": ref}).rendered() for ref in (SAMPLES["input_ref"], moved, other)]
    assert rendered[0] == rendered[1] != rendered[2]


@pytest.mark.parametrize("blob", ["newest", "memory"])
def test_a_context_that_was_written_again_is_the_same_one(blob: str) -> None:
    """So it is with what was said before."""
    moved, other = (json.loads(json.dumps(SAMPLES["context"])) for _ in range(2))
    moved[blob] |= {"first": 9_000, "last": 9_012, "partition": 1, "written_at": 1.0}
    other[blob] |= {"digest": "f" * 32}
    rendered = [StepRequest.model_validate({"context": ref}).rendered() for ref in (SAMPLES["context"], moved, other)]
    assert rendered[0] == rendered[1] != rendered[2]


@pytest.mark.parametrize(
    "most",
    [{"messages": [{"role": "user", "content": "q"}] * 1_000, "system": "s"}, {"texts": ["t"] * 512}, {"prompt": "q", "system": "s"}],
)
def test_whatever_a_job_holds_its_step_may_hold(most: dict[str, Any]) -> None:
    """The planner does not check it again (`valid`); `of_valid` does, in tests."""
    request = request_of(Job.model_validate(most))
    assert StepRequest.model_validate(request.__dict__) == request
