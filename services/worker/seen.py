"""What calls of late have shown of the node, in bounded counters, and the advice that follows. Pure; time is passed in (monotonic seconds).

Three things that only the worker can see: calls that wanted a longer window, loads that throw each other out, and slots that slow all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from services.worker.backends.base import Completion
from shared.contracts.node import Advice, NodeModel
from shared.contracts.step import Step

WINDOW_SECONDS = 3_600.0
"""So long something counts."""
MOST_MODELS = 256
_MOST_LOADS = 512
LOAD_MS = 100.0
"""A resident model reports a few milliseconds."""

FEWEST_LOADS, LOADS_A_MODEL = 10, 3
"""In an hour, from which on loads are too many: in all, and for each of the models that were loaded."""
FEWEST_WANTS = 3
"""Calls in an hour that wanted a longer window."""
FEWEST_CALLS = 8
"""Measured at one width before it is compared."""
SINKS = 0.85
"""All slots together write less than this share of what fewer wrote."""
_WEIGHT = 0.2
_FEWEST_TOKENS = 16
"""Shorter answers say more about overhead than about speed."""


class Load(NamedTuple):
    """A model came into memory."""

    at: float
    model: str
    seconds: float


@dataclass(slots=True)
class NoRoom:
    """Calls of one model that had no room: how many, the most tokens that one wanted."""

    since: float
    calls: int = 0
    most: int = 0


@dataclass(slots=True)
class Width:
    """Calls that ended while about so many ran: tokens a second that all of them wrote together, an average."""

    calls: int = 0
    together: float = 0.0
    running: float = 0.0


class Seen:
    """The counters."""

    def __init__(self) -> None:
        self._loads: deque[Load] = deque(maxlen=_MOST_LOADS)
        self._wanted: dict[str, NoRoom] = {}
        self._widths: dict[str, dict[int, Width]] = {}

    def answered(self, step: Step, model: NodeModel | None, name: str, done: Completion, *, running: int, now: float) -> None:
        """A call of `name` ended while `running` ran, itself included. `model`: as it is registered."""
        timings, usage = done.timings, done.usage
        if timings.load_ms > LOAD_MS:
            self._loads.append(Load(now, name, timings.load_ms / 1e3))
        window = model.window if model is not None else None
        if window and usage.prompt_tokens + (step.options.max_tokens or 0) > window:
            self.refused(name, usage.prompt_tokens + (step.options.max_tokens or 0), now)
        if usage.completion_tokens >= _FEWEST_TOKENS and timings.decode_ms > 0:
            self._count(name, running, usage.completion_tokens * 1e3 / timings.decode_ms)

    def refused(self, name: str, tokens: int, now: float) -> None:
        """A call wanted so many tokens of prompt and answer, and there was no room for them."""
        wanted = self._wanted.get(name)
        if wanted is None or now - wanted.since > WINDOW_SECONDS:
            if wanted is None and len(self._wanted) >= MOST_MODELS:
                return
            wanted = self._wanted[name] = NoRoom(now)
        wanted.calls += 1
        wanted.most = max(wanted.most, tokens)

    def _count(self, name: str, running: int, decode: float) -> None:
        widths = self._widths.get(name)
        if widths is None:
            if len(self._widths) >= MOST_MODELS:
                return
            widths = self._widths[name] = {}
        width = widths.setdefault(max(1, running).bit_length(), Width())
        weight = _WEIGHT if width.calls else 1.0
        width.calls += 1
        width.together += weight * (decode * running - width.together)
        width.running += weight * (running - width.running)

    def advice(self, models: Iterable[NodeModel], now: float) -> tuple[Advice, ...]:
        """Of the models that are there now."""
        known = {model.name: model for model in models}
        found = [swaps([load for load in self._loads if now - load.at <= WINDOW_SECONDS])]
        found += [
            narrow(known[name], wanted) for name, wanted in self._wanted.items() if name in known and now - wanted.since <= WINDOW_SECONDS
        ]
        found += [crowded(name, widths) for name, widths in self._widths.items() if name in known]
        return tuple(one for one in found if one is not None)


def swaps(loads: Sequence[Load]) -> Advice | None:
    """Of an hour's loads: many, of few models."""
    models = {load.model for load in loads}
    if len(loads) < FEWEST_LOADS or len(loads) < LOADS_A_MODEL * len(models):
        return None
    lost = sum(load.seconds for load in loads)
    if len(models) == 1:
        why = "it falls out of memory between calls: raise its keep-alive (TUTTI_WORKER__KEEP_ALIVE)"
    else:
        why = (
            "they throw each other out: offer fewer models here (TUTTI_WORKER__MODELS), or raise OLLAMA_MAX_LOADED_MODELS if memory allows"
        )
    return Advice(code="swaps", level="warn", text=f"{len(loads)} loads of {len(models)} models in an hour took {lost:.0f} s; {why}.")


def narrow(model: NodeModel, wanted: NoRoom) -> Advice | None:
    """A window that calls did not fit into."""
    window = model.window
    if window is None or wanted.calls < FEWEST_WANTS or wanted.most <= window:
        return None
    longer = model.context_length is None or model.context_length > window
    what = (
        f"set num_ctx in TUTTI_WORKER__PROFILES, at most {model.context_length}"
        if longer and model.context_length
        else "take another model"
    )
    text = f"{model.name} has a window of {window} tokens here; {wanted.calls} calls wanted up to {wanted.most}: {what}."
    return Advice(code="window", level="warn", text=text[:320])


def crowded(name: str, widths: Mapping[int, Width]) -> Advice | None:
    """More calls at once that write less together than fewer do."""
    measured = [width for width in widths.values() if width.calls >= FEWEST_CALLS]
    if len(measured) < 2:
        return None
    widest, best = max(measured, key=lambda width: width.running), max(measured, key=lambda width: width.together)
    if widest.running <= best.running or widest.together >= SINKS * best.together:
        return None
    slots = max(1, round(best.running))
    text = (
        f"{name} writes {widest.together:.0f} tokens/s with about {widest.running:.0f} calls at once, and {best.together:.0f} with {slots}:"
        f" set TUTTI_WORKER__SLOTS and OLLAMA_NUM_PARALLEL to {slots}."
    )
    return Advice(code="slots", level="warn", text=text[:320])
