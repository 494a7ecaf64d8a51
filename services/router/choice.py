"""Choice: which node gets a step. Pure: facts in, decision and its reason out.

Among the nodes that pass the filters and have a place: the least predicted completion
    tokens ahead / measured speed of the node + load time if the model is not resident + prefill + decode of the step itself.
Full scoring, breakers and forecasts come later behind the same interface.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.router.demand import demand_of
from services.router.filters import Candidate, NodeView, Unplaceable, candidates
from services.router.ledger import Account
from shared.contracts.chat import Operation
from shared.contracts.step import Step

ASSUMED_DECODE = 20.0
ASSUMED_PREFILL = 200.0
"""Tokens per second of a model that was never measured: a small machine."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """`model` is spelled as the node spells it. `why` is for people."""

    node: str
    model: str
    why: str
    seconds: float
    """Predicted, from now to the end."""
    account: Account


@dataclass(frozen=True, slots=True)
class Busy:
    """`candidates` (node, model) pairs could run it, none has a place for this router."""

    candidates: int


Choice = Chosen | Busy | Unplaceable


def choose(step: Step, nodes: Sequence[NodeView], now: float) -> Choice:
    """The node for `step` among the live `nodes` at `now` (monotonic seconds; nothing depends on it yet)."""
    found = candidates(demand_of(step), nodes)
    return found if isinstance(found, Unplaceable) else best(found, step)


def best(found: Sequence[Candidate], step: Step) -> Chosen | Busy:
    """The candidate with a place that is predicted to be done first; equals are told apart by free places, then by name."""
    prompt, output = _split(step)
    chosen: Candidate | None = None
    least: tuple[float, int, str] | None = None
    for candidate in found:
        free = candidate.account.available
        if free > 0:
            key = (_seconds(candidate, prompt, output), -free, candidate.node)
            if least is None or key < least:
                chosen, least = candidate, key
    if chosen is None or least is None:
        return Busy(len(found))
    return Chosen(chosen.node, chosen.model, _why(chosen, least[0], len(found)), least[0], chosen.account)


def _split(step: Step) -> tuple[int, int]:
    """Estimated (prompt, output) tokens. An embedding has no output to decode."""
    total = step.estimated_tokens
    if step.operation is Operation.EMBED:
        return total, 0
    output = min(total, step.options.max_tokens or total // 2)
    return total - output, output


def _seconds(candidate: Candidate, prompt: int, output: int) -> float:
    account = candidate.account
    decode = candidate.decode or ASSUMED_DECODE
    seconds = account.tokens_ahead / (account.decode_tokens_per_second or decode * candidate.slots)
    if not candidate.resident:
        seconds += candidate.load_seconds
    return seconds + prompt / (candidate.prefill or ASSUMED_PREFILL) + output / decode


def _why(candidate: Candidate, seconds: float, count: int) -> str:
    account = candidate.account
    load = "resident" if candidate.resident else f"load {candidate.load_seconds:.1f} s"
    return f"{seconds:.2f} s predicted, least of {count}; {account.tokens_ahead} tokens ahead; {load}"
