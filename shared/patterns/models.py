"""models: what is done to a model on nodes: pulled, deleted, copied, loaded, unloaded, pinned. Operators ask for it, by `tutti models`.

When: nodes are to have, or keep in memory, other models than they do. `/v1/model-tasks` chooses the nodes, and asks for this.
Not when: a model is to answer: nodes load what they are asked for by themselves.
Options: `action`, `name` (of the model, as its nodes spell it), `to` (of a copy), `nodes` (each with the capability by which it is told).
Cost: no call of a model; a step a node, all side by side, none in a slot.
Try: tutti models pull all-minilm --all  # on an Ollama (make ollama)

    action ─┬─► node ─┬─► what was done
            └─► node ─┘

What was cut off in the middle goes on: a node keeps what it has of a file. A node that is away is waited for, as long as the job may take.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from pydantic import Field, model_validator

from shared.contracts.base import Capability, ModelName, NodeId
from shared.contracts.chat import Answer, Operation
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.job import Job, Needs
from shared.contracts.limits import Limits
from shared.contracts.step import StepRequest
from shared.contracts.tasks import Action, ModelTask
from shared.patterns.context import Context, StepError, explained
from shared.patterns.port import Pattern, PatternInput

MOST_TARGETS = 256
ROUNDS, PAUSE_SECONDS = 5, 30.0
"""How often a task whose node, network or registry failed is begun anew, each time with the attempts of a step; and the pause before."""
_GOES_ON = frozenset({
    FailureKind.MODEL_ERROR, FailureKind.MODEL_TIMEOUT, FailureKind.BROKEN_STREAM, FailureKind.NODE_UNREACHABLE, FailureKind.NODE_LOST,
    FailureKind.LEASE_EXPIRED, FailureKind.UNCLAIMED, FailureKind.OVERLOADED, FailureKind.INTERNAL,
})  # fmt: skip


class Target(PatternInput):
    """A node, and the capability by which it is told (`Node.manages`)."""

    node: NodeId
    capability: Capability = "chat"


class _ModelsInput(PatternInput):
    """What is done, and where."""

    action: Action
    name: ModelName
    to: ModelName | None = None
    nodes: tuple[Target, ...] = Field(min_length=1, max_length=MOST_TARGETS)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.to is None) == (self.action is Action.COPY):
            raise ValueError("`to` is the new name of a copy, and of nothing else")
        if len({target.node for target in self.nodes}) < len(self.nodes):
            raise ValueError("a node is named once")
        return self


async def models(ctx: Context, job: Job, ask: _ModelsInput) -> Answer:
    """What was done, by node. It fails where it failed on one, once all have ended."""
    ctx.baseline = None  # no model has part in it
    ends = await ctx.in_time(None, *(_on(ctx, job, ask, target) for target in ask.nodes), width=MOST_TARGETS)
    told = {target.node: end.message if isinstance(end, Failure) else end for target, end in zip(ask.nodes, ends, strict=True)}
    failed = [end for end in ends if isinstance(end, Failure)]
    if failed:
        where = "; ".join(f"{node}: {said}" for node, said in told.items() if said != "done")[:2_000]
        message = f"{ask.action.value} {ask.name} failed on {len(failed)} of {len(ends)} nodes: {where}"
        raise StepError(failed[0].model_copy(update={"message": message}))
    return explained(Answer(text=f"{ask.action.value} {ask.name}: done on {', '.join(told)}"), nodes=told)


async def _on(ctx: Context, job: Job, ask: _ModelsInput, target: Target) -> str:
    request = StepRequest(
        agent="models",
        capability=target.capability,
        operation=Operation.MANAGE,
        model=ask.name,
        task=ModelTask(action=ask.action, to=ask.to),
        needs=Needs(node=target.node),
        stream=job.stream,
    )
    for left in reversed(range(ROUNDS)):
        try:
            await ctx.ask(request)
            break
        except StepError as error:
            if not left or error.failure.kind not in _GOES_ON:
                raise
            await ctx.sleep(PAUSE_SECONDS)
    return "done"


def likely_calls(_: Job, __: _ModelsInput) -> Sequence[int]:
    """None of a model."""
    return ()


MODELS = Pattern(
    "models", 1, models, _ModelsInput, likely_calls=likely_calls, operated=True, limits=Limits(steps=2 * ROUNDS * MOST_TARGETS, attempts=10)
)
