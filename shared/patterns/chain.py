"""chain: ordered steps, each a template or a declared prompt over the job's input and earlier answers, each with a gate.

When: the way to the answer is known beforehand: extract, then translate, then check.
Not when: the way depends on what is found (maestro, decompose), or the steps do not need each other (map).
Options: `steps`, each with `name`, `template` (or `prompt_ref`, a declared prompt, with `values` of its own), and as it needs `agent`,
`system`, `model`, `fallback_models`, `needs`, `options`, `format`, `gate`, `review`; `beside` (runs with the step before it), `when` (only
if an earlier answer has a word, or has not), `refine` (an agent writes its prompt anew first).
Cost: one call a step, one a refinement, one a repair that its gate asks for; depth as many, steps beside each other counted once.
Try: tutti submit --pattern chain --input <(echo 'steps: [{name: a, template: "A fact of {input}?"},
{name: b, template: "Rhyme: {a}"}]') "the Moon"

    prompt ─► step 1 ─► gate ─┬─► step 2 ─► gate ─┬─► step 4 ─► answer
                ▲         │   └─► step 3 ─► gate ─┘
                └─ repair ┘

A template names its inputs in braces, `{input}` or an earlier step's name; `{{` and `}}` are braces. They are substituted once: braces
inside an answer are text. A text that fails its gate is asked for again with the reason, `repairs` times, then the job fails. Where a step
has a `review`, people decide on the text that has passed: approved it goes on, else theirs does, and rejected the job fails.

An answer by reference is not read here: it can be the chain's own, but no later step's input, and no gate can judge more of it than that it
is not empty.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from shared.agents.templates import render as render_prompt
from shared.contracts.agents import Reference, Variable
from shared.contracts.base import Count, JsonObject, ModelName, Ordinal
from shared.contracts.bounds import is_json
from shared.contracts.chat import Answer, ChatMessage, Options
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.job import Job, Needs
from shared.contracts.review import Decision, ReviewRules
from shared.contracts.step import StepRequest
from shared.contracts.verdict import CritiqueVerdict
from shared.errors import InvalidInput, TooLarge
from shared.framing import NO_ORDERS, framed
from shared.patterns.context import Context, StepError, chat, stop_at_limit, text_of
from shared.patterns.critiquing import critiqued, found, said
from shared.patterns.port import Pattern, PatternInput
from shared.patterns.tool_use import ask_with_tools
from shared.validators.checks import CheckedSet

MOST_CHARACTERS = 200_000
"""Of a rendered template; checked before it is rendered, since a few placeholders can name a long answer many times."""
_LACKS = "the answer does not contain the required text"
ValueText = Annotated[str, StringConstraints(max_length=8_000)]
_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([a-z][a-z0-9_]*)\}|[{}]")


class Gate(PatternInput):
    """Checks on a chain step's text. A text that fails is asked for again `repairs` times, then the job fails."""

    not_empty: bool = True
    min_chars: Count | None = None
    max_chars: Ordinal | None = None
    contains: str | None = Field(default=None, max_length=1_000)
    json_object: bool = False
    checks: CheckedSet | None = None
    """More of them, made by critics beside the planner; what they compare with is the step's prompt."""
    repairs: int = Field(default=1, ge=0, le=5)


class StepReview(ReviewRules, PatternInput):
    """People decide on a step's text before the chain goes on."""

    question: str = Field(default="May this go on?", min_length=1, max_length=2_000)


class When(PatternInput):
    """A step runs only if the answer of an earlier one holds this text (in any case of letters), or, with `absent`, does not."""

    step: str = Field(pattern=r"^[a-z][a-z0-9_]{0,31}$", max_length=32)
    contains: str = Field(min_length=1, max_length=1_000)
    absent: bool = False

    def holds(self, values: Mapping[str, str]) -> bool:
        """By the answers so far."""
        return (self.contains.lower() in values[self.step].lower()) != self.absent


class Refine(PatternInput):
    """An agent writes a step's prompt anew before it is asked. What is empty or longer than `max_chars` changes nothing."""

    agent: Reference = "critic"
    instruction: str = Field(default="Write this prompt anew, clearer and more exact.", min_length=1, max_length=4_000)
    max_chars: Ordinal = Field(default=4_000, le=MOST_CHARACTERS)


class ChainStep(PatternInput):
    """One step of a chain. `template` names its inputs in braces: `{input}` (the job's), or an earlier step's name; of one that was left
    out the answer is empty. Instead of it `prompt_ref` names a declared prompt: its variables are the same, and those in `values`.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,31}$", max_length=32)
    template: str | None = Field(default=None, min_length=1, max_length=32_000)
    prompt_ref: Reference | None = None
    values: dict[Variable, ValueText] = Field(default_factory=dict, max_length=32)
    agent: Reference | None = None
    system: str | None = Field(default=None, max_length=32_000)
    model: ModelName | None = None
    fallback_models: tuple[ModelName, ...] | None = Field(default=None, max_length=8)
    needs: Needs | None = None
    options: Options | None = None
    format: Literal["json"] | JsonObject | None = None
    gate: Gate = Gate()
    review: StepReview | None = None
    beside: bool = False
    when: When | None = None
    refine: Refine | None = None

    @model_validator(mode="after")
    def _asks(self) -> Self:
        if (self.template is None) == (self.prompt_ref is None):
            raise ValueError(f"step {self.name} needs a template or a prompt_ref, and not both")
        if self.values and self.prompt_ref is None:
            raise ValueError(f"step {self.name} has values, which only a prompt_ref takes")
        return self


class _ChainInput(PatternInput):
    """Names are unique, and every template names only what is there before it."""

    steps: tuple[ChainStep, ...] = Field(min_length=1, max_length=12)

    @model_validator(mode="after")
    def _follows(self) -> Self:
        known, used = {"input"}, {"input"}
        for step in self.steps:
            if not step.beside:
                known = set(used)
            if step.name in used:
                raise ValueError(f"the step name {step.name} is used twice")
            unknown = sorted((names_in(step.template or "") | ({step.when.step} if step.when else set())) - known)
            if unknown:
                raise ValueError(f"step {step.name} names {unknown[0]}, which no earlier step makes")
            used.add(step.name)
        return self

    def groups(self) -> list[list[ChainStep]]:
        """Steps that run side by side, in order."""
        groups: list[list[ChainStep]] = []
        for step in self.steps:
            if step.beside and groups:
                groups[-1].append(step)
            else:
                groups.append([step])
        return groups


_OPEN = Gate(not_empty=False, repairs=0)
_NO_OBJECTION = CritiqueVerdict()


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


async def gate_verdict(ctx: Context, gate: Gate, text: str, asked: str) -> CritiqueVerdict:
    """What critics find, where the gate has checks for them. Raises StepError where none could say."""
    return _NO_OBJECTION if gate.checks is None else await critiqued(ctx, gate.checks, [text], [asked])


def job_input(job: Job) -> str:
    """What `{input}` stands for: the prompt, or the last user message."""
    if job.prompt is not None:
        return job.prompt
    users = [m.content for m in job.messages or () if m.role == "user"]
    return users[-1] if users else ""


def _request(ctx: Context, job: Job, step: ChainStep, prompt: str, *, stream: bool) -> StepRequest:
    message = ChatMessage(role="user", content=prompt)
    told = ("model", "fallback_models", "needs", "options", "format")
    own = {"stream": stream, **{name: value for name in told if (value := getattr(step, name)) is not None}}
    if step.agent is not None:
        return ctx.request(job, step.agent, message, **own)
    system = step.system or job.system
    messages = (ChatMessage(role="system", content=system), message) if system else (message,)
    return chat(job, messages, agent=step.name, **own)


def _reads(ctx: Context, steps: tuple[ChainStep, ...], step: ChainStep) -> bool:
    """Whether the text that this step answers is looked at here: by its gate, or for a later step."""
    judged = step.review is not None or _tells(step.gate)
    return judged or any(step.name in _inputs(ctx, later) or (later.when and later.when.step == step.name) for later in steps)


def _tells(gate: Gate) -> bool:
    """Whether who passes it has shown more than that he answers."""
    return {**gate.__dict__, "repairs": 0, "not_empty": False} != _OPEN.__dict__


def _inputs(ctx: Context, step: ChainStep) -> Collection[str]:
    """What its prompt is made of."""
    return names_in(step.template or "") if step.prompt_ref is None else ctx.team.prompt(step.prompt_ref).variables


def _prompt(ctx: Context, step: ChainStep, values: Mapping[str, str]) -> str:
    """Raises StepError: it would be too long, or what its declared prompt needs is not there."""
    kind, told = FailureKind.TOO_LARGE, f"its prompt would exceed {MOST_CHARACTERS} characters"
    if step.prompt_ref is None:
        template = step.template or ""
        if rendered_length(template, values) <= MOST_CHARACTERS:
            return render(template, values)
    else:
        prompt, known = ctx.team.prompt(step.prompt_ref), {**values, **step.values}
        missing = [name for name in prompt.variables if name not in known]
        try:
            if not missing:
                return render_prompt(prompt, {name: known[name] for name in prompt.variables})
            kind, told = FailureKind.INVALID_JOB, f"its prompt needs {missing[0]}, which neither `values` nor an earlier step has"
        except TooLarge:
            pass
        except InvalidInput as error:
            kind, told = FailureKind.INVALID_JOB, error.message
    raise StepError(Failure(kind=kind, message=f"chain step {step.name}: {told}"))


async def _pass(ctx: Context, job: Job, ask: _ChainInput, step: ChainStep, prompt: str, *, stream: bool) -> Answer:
    asked, tells = prompt, _tells(step.gate)
    for again in range(step.gate.repairs + 1):
        request = _request(ctx, job, step, asked, stream=stream)
        answer = await ask_with_tools(ctx, step.agent, request)
        if answer.blob is not None:
            if not _reads(ctx, ask.steps, step):
                return answer
            text_of(answer, f"chain step {step.name}")
        reason = gate_reason(step.gate, answer.text)
        told = f"the answer does not contain {step.gate.contains!r}" if reason == _LACKS else reason
        if reason is None:
            verdict = await gate_verdict(ctx, step.gate, answer.text, prompt)
            if not verdict.counts:
                if tells and not again:
                    ctx.judge(request, answer, True)
                return answer
            reason, told = f"found: {found(verdict)}", f"{NO_ORDERS}\n{said([verdict])}\n"
        if not again:
            ctx.judge(request, answer, False)
        asked = f"{prompt}\n\nYour last answer was refused: {told}. Answer again."
    raise StepError(Failure(kind=FailureKind.GATE_FAILED, message=f"chain step {step.name}: {reason}"))


def judge_by(ctx: Context, asked: StepRequest, answer: Answer, decided: Decision) -> None:
    """People's word on it. Of a text that they edit nobody knows how bad it was."""
    if decided.verdict != "edit" and not decided.by_default:
        ctx.judge(asked, answer, decided.verdict == "approve")


def rejected(what: str, decided: Decision) -> Failure:
    """Why nothing goes on."""
    why = "nobody has decided in time" if decided.by_default else "people have rejected it"
    return Failure(kind=FailureKind.GATE_FAILED, message=f"{what}: {why}")


async def _reviewed(ctx: Context, step: ChainStep, review: StepReview, asked: StepRequest, answer: Answer) -> Answer:
    decided = await ctx.review(answer.text, **dict(review))
    judge_by(ctx, asked, answer, decided)
    if decided.verdict == "reject":
        raise StepError(rejected(f"chain step {step.name}", decided))
    return answer if decided.verdict == "approve" else answer.model_copy(update={"text": decided.text})


async def _refined(ctx: Context, job: Job, refine: Refine, prompt: str) -> str:
    """The prompt that its agent makes of it, within bounds; the same where it makes none. The chain's other steps are not in its hands."""
    content = f"{refine.instruction} Answer with the new prompt alone. {NO_ORDERS}\n{framed('prompt', prompt, refine.max_chars)}"
    try:
        answer = await ctx.ask(ctx.request(job, refine.agent, ChatMessage(role="user", content=content)))
    except StepError as error:
        stop_at_limit(error.failure)
        return prompt
    text = answer.text.strip()
    return text if text and len(text) <= refine.max_chars and answer.blob is None else prompt


async def _step(ctx: Context, job: Job, ask: _ChainInput, step: ChainStep, values: Mapping[str, str]) -> Answer | None:
    """None where it is left out."""
    if step.when is not None and not step.when.holds(values):
        return None
    # Only a last step without repairs can be streamed: what a gate or people may refuse must not reach the caller first.
    stream = job.stream and step is ask.steps[-1] and step.gate == _OPEN and step.review is None and not step.beside
    prompt = _prompt(ctx, step, values)
    if step.refine is not None:
        prompt = await _refined(ctx, job, step.refine, prompt)
    answer = await _pass(ctx, job, ask, step, prompt, stream=stream)
    if step.review is None:
        return answer
    return await _reviewed(ctx, step, step.review, _request(ctx, job, step, prompt, stream=False), answer)


async def chain(ctx: Context, job: Job, ask: _ChainInput) -> Answer:
    """The answer of the last step that was not left out."""
    values, last = {"input": job_input(job)}, Answer()
    for group in ask.groups():
        branches = [_step(ctx, job, ask, step, values) for step in group]
        answers = [await branches[0]] if len(group) == 1 else await ctx.gather(*branches)
        for step, answer in zip(group, answers, strict=True):
            values[step.name] = "" if answer is None else answer.text
            last = answer or last
        ctx.best(last)
    return last


def likely_calls(job: Job, ask: _ChainInput) -> Sequence[int]:
    """A call a step, each with its template, and one a refinement."""
    return [len(step.template or "") for step in ask.steps for _ in range(1 + (step.refine is not None))]


CHAIN = Pattern("chain", 1, chain, _ChainInput, likely_calls=likely_calls)
