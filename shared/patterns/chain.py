"""chain: ordered steps, each a template over the job's input and earlier answers, each with a gate.

A template names its inputs in braces, `{input}` or an earlier step's name; `{{` and `}}` are braces. They are substituted once: braces
inside an answer are text. A text that fails its gate is asked for again with the reason, `repairs` times, then the job fails.

An answer by reference is not read here: it can be the chain's own, but no later step's input, and no gate can judge more of it than that it
is not empty.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from shared.contracts.bounds import is_json
from shared.contracts.chat import Answer, ChatMessage, Operation
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.job import ChainStep, Gate, Job
from shared.contracts.step import StepRequest
from shared.patterns.context import Context, StepError
from shared.patterns.port import Pattern

MOST_CHARACTERS = 200_000
"""Of a rendered template; checked before it is rendered, since a few placeholders can name a long answer many times."""
_OPEN = Gate(not_empty=False, repairs=0)
_LACKS = "the answer does not contain the required text"
_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([a-z][a-z0-9_]*)\}|[{}]")


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


def check(job: Job) -> str | None:
    """Names are unique and every template names only what is there before it."""
    known = {"input"}
    for step in job.chain:
        if step.name in known:
            return f"chain step name {step.name} is used twice"
        unknown = sorted(names_in(step.template) - known)
        if unknown:
            return f"chain step {step.name} names {unknown[0]}, which no earlier step makes"
        known.add(step.name)
    return None


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
    return StepRequest.of(
        job,
        agent=step.name,
        capability=job.capability or "chat",
        operation=Operation.CHAT,
        model=step.model or job.model,
        messages=messages,
        prompt=None,
        texts=(),
        options=step.options or job.options,
        format=step.format,
        tools=(),
        stream=stream,
    )


def _reads(job: Job, number: int) -> bool:
    """Whether the text that this step answers is looked at here: by its gate, or for a later step."""
    step = job.chain[number]
    judged = step.gate.model_copy(update={"repairs": 0, "not_empty": False}) != _OPEN
    return judged or any(step.name in names_in(later.template) for later in job.chain[number + 1 :])


async def _pass(ctx: Context, job: Job, number: int, prompt: str, *, stream: bool) -> Answer:
    step = job.chain[number]
    asked = prompt
    for _ in range(step.gate.repairs + 1):
        answer = await ctx.ask(_request(job, step, asked, stream=stream))
        if answer.blob is not None:
            if not _reads(job, number):
                return answer
            message = f"chain step {step.name}: its answer of {answer.blob.size} bytes is too large to go on with"
            raise StepError(Failure(kind=FailureKind.TOO_LARGE, message=message))
        reason = gate_reason(step.gate, answer.text)
        if reason is None:
            return answer
        told = f"the answer does not contain {step.gate.contains!r}" if reason == _LACKS else reason
        asked = f"{prompt}\n\nYour last answer was refused: {told}. Answer again."
    raise StepError(Failure(kind=FailureKind.GATE_FAILED, message=f"chain step {step.name}: {reason}"))


async def chain(ctx: Context, job: Job) -> Answer:
    """The last step's answer."""
    values = {"input": job_input(job)}
    answer = Answer()
    for number, step in enumerate(job.chain):
        # Only a last step without repairs can be streamed: what a gate may refuse must not reach the caller first.
        stream = job.stream and number == len(job.chain) - 1 and step.gate == _OPEN
        if rendered_length(step.template, values) > MOST_CHARACTERS:
            message = f"chain step {step.name}: its prompt would exceed {MOST_CHARACTERS} characters"
            raise StepError(Failure(kind=FailureKind.TOO_LARGE, message=message))
        answer = await _pass(ctx, job, number, render(step.template, values), stream=stream)
        values[step.name] = answer.text
        ctx.best(answer)
    return answer


CHAIN = Pattern("chain", 1, chain, check)
