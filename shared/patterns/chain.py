"""chain: ordered steps, each a template over the job's input and earlier answers, each with a gate.

When: the way to the answer is known beforehand: extract, then translate, then check.
Not when: the way depends on what is found (maestro, decompose), or the steps do not need each other (map).
Options: `steps`, each with `name`, `template`, and as it needs `system`, `model`, `options`, `format`, `gate`.
Cost: one call a step, and one a repair that its gate asks for; depth as many.

    prompt ─► step 1 ─► gate ─► step 2 ─► gate ─► answer
                ▲         │
                └─ repair ┘

A template names its inputs in braces, `{input}` or an earlier step's name; `{{` and `}}` are braces. They are substituted once: braces
inside an answer are text. A text that fails its gate is asked for again with the reason, `repairs` times, then the job fails.

An answer by reference is not read here: it can be the chain's own, but no later step's input, and no gate can judge more of it than that it
is not empty.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from shared.contracts.base import Count, JsonObject, ModelName, Ordinal
from shared.contracts.bounds import is_json
from shared.contracts.chat import Answer, ChatMessage, Options
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.job import Job
from shared.contracts.step import StepRequest
from shared.patterns.context import Context, StepError, chat
from shared.patterns.port import Pattern, PatternInput

MOST_CHARACTERS = 200_000
"""Of a rendered template; checked before it is rendered, since a few placeholders can name a long answer many times."""
_LACKS = "the answer does not contain the required text"
_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([a-z][a-z0-9_]*)\}|[{}]")


class Gate(PatternInput):
    """A pure check on a chain step's text. A text that fails is asked for again `repairs` times, then the job fails."""

    not_empty: bool = True
    min_chars: Count | None = None
    max_chars: Ordinal | None = None
    contains: str | None = Field(default=None, max_length=1_000)
    json_object: bool = False
    repairs: int = Field(default=1, ge=0, le=5)


class ChainStep(PatternInput):
    """One step of a chain. `template` names its inputs in braces: `{input}` (the job's), or an earlier step's name."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,31}$", max_length=32)
    template: str = Field(min_length=1, max_length=32_000)
    system: str | None = Field(default=None, max_length=32_000)
    model: ModelName | None = None
    options: Options | None = None
    format: Literal["json"] | JsonObject | None = None
    gate: Gate = Gate()


class ChainInput(PatternInput):
    """Names are unique, and every template names only what is there before it."""

    steps: tuple[ChainStep, ...] = Field(min_length=1, max_length=12)

    @model_validator(mode="after")
    def _follows(self) -> Self:
        known = {"input"}
        for step in self.steps:
            if step.name in known:
                raise ValueError(f"the step name {step.name} is used twice")
            unknown = sorted(names_in(step.template) - known)
            if unknown:
                raise ValueError(f"step {step.name} names {unknown[0]}, which no earlier step makes")
            known.add(step.name)
        return self


_OPEN = Gate(not_empty=False, repairs=0)


def names_in(template: str) -> set[str]:
    """The inputs that a template names."""
    return {m.group(1) for m in _PLACEHOLDER.finditer(template) if m.group(1)}


def render(template: str, values: Mapping[str, str]) -> str:
    """Substitute once, in one pass. A single brace that names nothing stays as it is."""

    def replace(match: re.Match[str]) -> str:
        name = match.group(1)
        if name is not None:
            return values[name]
        return match.group(0)[0]

    return _PLACEHOLDER.sub(replace, template)


def rendered_length(template: str, values: Mapping[str, str]) -> int:
    """Characters of the rendered template, at most."""
    return len(template) + sum(len(values[m.group(1)]) for m in _PLACEHOLDER.finditer(template) if m.group(1))


def gate_reason(gate: Gate, text: str) -> str | None:
    """Why the text does not pass; None when it passes. Holds nothing of the job's texts: it may end up in logs."""
    if gate.not_empty and not text.strip():
        return "the answer is empty"
    if gate.min_chars is not None and len(text) < gate.min_chars:
        return f"the answer has fewer than {gate.min_chars} characters"
    if gate.max_chars is not None and len(text) > gate.max_chars:
        return f"the answer has more than {gate.max_chars} characters"
    if gate.contains is not None and gate.contains not in text:
        return _LACKS
    if gate.json_object and not (text.lstrip().startswith("{") and is_json(text)):
        return "the answer is not a JSON object"
    return None


def job_input(job: Job) -> str:
    """What `{input}` stands for: the prompt, or the last user message."""
    if job.prompt is not None:
        return job.prompt
    users = [m.content for m in job.messages or () if m.role == "user"]
    return users[-1] if users else ""


def _request(job: Job, step: ChainStep, prompt: str, *, stream: bool) -> StepRequest:
    messages: tuple[ChatMessage, ...] = (ChatMessage(role="user", content=prompt),)
    system = step.system or job.system
    if system:
        messages = (ChatMessage(role="system", content=system), *messages)
    return chat(
        job,
        messages,
        agent=step.name,
        model=step.model or job.model,
        options=step.options or job.options,
        format=step.format,
        stream=stream,
    )


def _reads(steps: tuple[ChainStep, ...], number: int) -> bool:
    """Whether the text that this step answers is looked at here: by its gate, or for a later step."""
    step = steps[number]
    judged = step.gate.model_copy(update={"repairs": 0, "not_empty": False}) != _OPEN
    return judged or any(step.name in names_in(later.template) for later in steps[number + 1 :])


async def _pass(ctx: Context, job: Job, steps: tuple[ChainStep, ...], number: int, prompt: str, *, stream: bool) -> Answer:
    step = steps[number]
    asked = prompt
    for _ in range(step.gate.repairs + 1):
        answer = await ctx.ask(_request(job, step, asked, stream=stream))
        if answer.blob is not None:
            if not _reads(steps, number):
                return answer
            message = f"chain step {step.name}: its answer of {answer.blob.size} bytes is too large to go on with"
            raise StepError(Failure(kind=FailureKind.TOO_LARGE, message=message))
        reason = gate_reason(step.gate, answer.text)
        if reason is None:
            return answer
        told = f"the answer does not contain {step.gate.contains!r}" if reason == _LACKS else reason
        asked = f"{prompt}\n\nYour last answer was refused: {told}. Answer again."
    raise StepError(Failure(kind=FailureKind.GATE_FAILED, message=f"chain step {step.name}: {reason}"))


async def chain(ctx: Context, job: Job, ask: ChainInput) -> Answer:
    """The last step's answer."""
    values = {"input": job_input(job)}
    answer = Answer()
    for number, step in enumerate(ask.steps):
        # Only a last step without repairs can be streamed: what a gate may refuse must not reach the caller first.
        stream = job.stream and number == len(ask.steps) - 1 and step.gate == _OPEN
        if rendered_length(step.template, values) > MOST_CHARACTERS:
            message = f"chain step {step.name}: its prompt would exceed {MOST_CHARACTERS} characters"
            raise StepError(Failure(kind=FailureKind.TOO_LARGE, message=message))
        answer = await _pass(ctx, job, ask.steps, number, render(step.template, values), stream=stream)
        values[step.name] = answer.text
        ctx.best(answer)
    return answer


def likely_calls(job: Job, ask: ChainInput) -> Sequence[int]:
    """A call a step, each with its template."""
    return [len(step.template) for step in ask.steps]


CHAIN = Pattern("chain", 1, chain, ChainInput, likely_calls=likely_calls)
