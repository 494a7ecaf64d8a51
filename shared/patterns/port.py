"""What a pattern is: a name, a version, a model of its input, and a coroutine over the context."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Any

from pydantic import ConfigDict, ValidationError

from shared.contracts.base import Contract
from shared.contracts.bounds import explain
from shared.contracts.chat import Answer, Operation
from shared.contracts.job import Job
from shared.contracts.limits import Limits
from shared.errors import InvalidInput
from shared.patterns.context import Context


class UnknownPattern(InvalidInput):
    """There is no such pattern."""

    code = "unknown_pattern"
    param = "pattern"


class PatternInput(Contract):
    """Base of each pattern's input: what it needs besides the job's prompt or messages. This one takes nothing."""

    model_config = ConfigDict(extra="forbid", model_title_generator=lambda kind: kind.__name__.lstrip("_"))


def _one_call(job: Job, ask: PatternInput) -> Sequence[int]:
    return (0,)


@cache
def _bare(kind: type[PatternInput]) -> PatternInput | None:
    """The input of a job that gives none; None where something is required."""
    return None if any(field.is_required() for field in kind.model_fields.values()) else kind()


_NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Pattern:
    """`version` is pinned when a job is accepted; a change of what the coroutine asks for is a new version beside the old one.

    `run(ctx, job, ask)`: `ask` is the job's `input` as an instance of this pattern's `input`.
    `hands_on`: the job's own input goes into one step unread, so that it may be of any operation, and lie in a blob.
    `likely_calls(job, ask)`: of each call that a job without accident makes, how many characters its prompt has besides the job's input.
    `operated`: only who may operate the cluster asks for it.
    `limits`: of a job that names none itself, before the cluster's own; what is not said here is the cluster's.
    """

    name: str
    version: int
    run: Callable[[Context, Job, Any], Coroutine[Any, Any, Answer]]
    input: type[PatternInput] = PatternInput
    hands_on: bool = False
    likely_calls: Callable[[Job, Any], Sequence[int]] = _one_call
    limits: Limits = _NO_LIMITS
    operated: bool = False

    def read(self, job: Job) -> PatternInput:
        """The job's input. Raises InvalidInput (`unsupported`); InvalidInput, with nothing of the input in its words."""
        given, bare = job.pattern_input, _bare(self.input)
        if not self.hands_on and job.kind is Operation.EMBED:
            raise InvalidInput(f"pattern {self.name} takes a prompt or messages, no texts to embed", param="input")
        if job.tools and not self.hands_on:
            raise InvalidInput(
                f"pattern {self.name} takes no tools of its caller's: leave them out, or the pattern", code="unsupported", param="tools"
            )
        if not given and bare is not None:  # nearly every job: nothing is read anew
            return bare
        try:
            return self.input.model_validate(given)
        except ValidationError as error:
            raise InvalidInput(explain(error, f"{self.name} input", self.input.model_fields), param="input") from None

    @property
    def takes_bare_prompt(self) -> bool:
        """Whether a job without `input` is a valid one."""
        return _bare(self.input) is not None


def demands_named(ask: Contract, usual: str) -> Iterator[tuple[str, ...]]:
    """Each model that the input and what it holds name (`model`, `models`), with those that may stand in for it (`fallback_models`): for
    `usual` where a part names only these.
    """
    if not ask.__dict__:  # most jobs'
        return
    parts = {name: value if isinstance(value, tuple) else (value,) for name, value in ask}
    model, others, each = (
        [part for part in parts.get(name, ()) if isinstance(part, str)] for name in ("model", "fallback_models", "models")
    )
    if model or others:
        yield (*(model or [usual]), *others)
    yield from ((name,) for name in each)
    for part in chain.from_iterable(parts.values()):
        if isinstance(part, Contract):
            yield from demands_named(part, usual)


def agents_named(ask: Contract) -> Iterator[str]:
    """Every agent that the input refers to: the fields `agent`, `agents`, and those that end in `_agent` or `_agents`."""
    return _named(ask, lambda field: f"_{field}".endswith(("_agent", "_agents")))


def prompts_named(ask: Contract) -> Iterator[str]:
    """Every prompt that the input refers to: the fields `prompt_ref`, and those that end in `_prompt_ref`."""
    return _named(ask, lambda field: f"_{field}".endswith("_prompt_ref"))


def tools_named(ask: Contract) -> Iterator[str]:
    """Every server-side tool that the input refers to: the fields `tool`, `tools`, and those that end in `_tool` or `_tools`."""
    return _named(ask, lambda field: f"_{field}".endswith(("_tool", "_tools")))


def _named(ask: Contract, wanted: Callable[[str], bool]) -> Iterator[str]:
    """The texts of these fields, of the input and of what it holds."""
    for name, value in ask:
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, Contract):
                yield from _named(part, wanted)
            elif isinstance(part, str) and wanted(name):
                yield part
