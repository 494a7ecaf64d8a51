"""Measured speeds of each model on this node: exponentially weighted averages. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from services.worker.backends.base import Completion
from shared.contracts.node import NodeModel

WEIGHT = 0.2
"""Of the newest observation."""
FEWEST_TOKENS = 8
"""Shorter measurements say more about overhead than about speed."""
MOST_MODELS = 256
FASTEST = 1e9
"""Of what endpoints report, in tokens a second: what a message can say."""


@dataclass(slots=True)
class _Speed:
    prefill: float | None = None
    decode: float | None = None
    load: float | None = None


class Speeds:
    """Tokens per second and load seconds by model, and the node's decode speed over all slots."""

    def __init__(self) -> None:
        self._models: dict[str, _Speed] = {}
        self.node_decode = 0.0
        """Decode tokens per second of all slots together; 0 until measured."""

    def observe(self, model: str, done: Completion, running: int) -> None:
        """A call ended while `running` calls ran, itself included."""
        speed = self._models.get(model)
        if speed is None:
            if len(self._models) >= MOST_MODELS:
                return
            speed = self._models[model] = _Speed()
        timings, usage = done.timings, done.usage
        if timings.load_ms > 100:  # a resident model reports a few milliseconds
            speed.load = _average(speed.load, timings.load_ms / 1e3)
        read = done.prefilled_tokens if done.prefilled_tokens is not None else usage.prompt_tokens
        if read >= FEWEST_TOKENS and timings.prefill_ms > 0:
            speed.prefill = _average(speed.prefill, read * 1e3 / timings.prefill_ms)
        if usage.completion_tokens >= FEWEST_TOKENS and timings.decode_ms > 0:
            decode = usage.completion_tokens * 1e3 / timings.decode_ms
            speed.decode = _average(speed.decode, decode)
            self.node_decode = _average(self.node_decode or None, decode * running)

    def attach(self, model: NodeModel) -> NodeModel:
        """The model with what was measured of it."""
        speed = self._models.get(model.name)
        if speed is None:
            return model
        return model.model_copy(
            update={
                "prefill_tokens_per_second": speed.prefill,
                "decode_tokens_per_second": speed.decode,
                "load_seconds": speed.load,
            }
        )


def _average(before: float | None, now: float) -> float:
    now = min(now, FASTEST)
    return now if before is None else before + WEIGHT * (now - before)
