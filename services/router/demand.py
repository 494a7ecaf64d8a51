"""Demand: what a step asks of a node, as one hashable value. Steps of equal demand can be given to the same nodes. Pure."""

from __future__ import annotations

from typing import NamedTuple

from shared.contracts.step import Step


class Demand(NamedTuple):
    """`model` may be `auto`; the fallbacks are tried in order when no live node has it. Bytes and tokens are 0 when not asked for."""

    capability: str
    operation: str
    model: str
    fallback_models: tuple[str, ...] = ()
    avoid: tuple[str, ...] = ()
    min_vram_bytes: int = 0
    min_context: int = 0
    tags: tuple[str, ...] = ()
    node: str | None = None


AUTO = "auto"


def demand_of(step: Step) -> Demand:
    """The demand of `step`."""
    needs = step.needs
    return Demand(
        step.capability,
        step.operation.value,
        step.model,
        step.fallback_models,
        step.avoid,
        needs.min_vram_bytes or 0,
        needs.min_context or 0,
        needs.tags,
        needs.node,
    )


def canonical(model: str) -> str:
    """Ollama's full name: without a tag `latest` is meant."""
    return model if ":" in model else model + ":latest"
