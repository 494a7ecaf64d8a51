"""Which of the node's models a step may be asked of, in order. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from shared.contracts.node import NodeModel
from shared.contracts.step import Step
from shared.model_names import AUTO, spelling


def candidates(step: Step, models: Sequence[NodeModel]) -> list[str]:
    """The step's own model first, then its fallbacks that the node has. Empty: the node has nothing suitable.

    `auto` is the first model that can do the operation, a resident one before others. A named model that the node is not known
    to have is still tried when there is no fallback: it may have been pulled a moment ago, and the endpoint's word is what counts.
    """
    known = [name for wanted in step.fallback_models if (name := find(wanted, models))]
    if step.model == AUTO:
        chosen = _suitable(step, models)
        return list(dict.fromkeys([*([chosen] if chosen else []), *known]))
    own = find(step.model, models)
    return list(dict.fromkeys([own, *known] if own else known)) or [step.model]


def find(wanted: str, models: Sequence[NodeModel]) -> str | None:
    """The node's spelling of a model name; `gemma3` and `gemma3:latest` are one model."""
    return spelling(wanted, [model.name for model in models])


def _suitable(step: Step, models: Sequence[NodeModel]) -> str | None:
    able = [model for model in models if step.operation.value in model.operations]
    return next((model.name for model in able if model.resident), able[0].name if able else None)


def served_capabilities(models: Sequence[NodeModel], allowed: Sequence[str]) -> tuple[str, ...]:
    """Of the allowed capabilities those that the models can do: `embed` needs an embedder, every other one a chat model."""
    operations = {operation for model in models for operation in model.operations}
    return tuple(name for name in allowed if ("embed" if name == "embed" else "chat") in operations)
