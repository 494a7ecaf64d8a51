"""Choice: which node gets a step. Pure: facts in, decision and its reason out.

Among the nodes that pass the filters and have a place: the least predicted completion
    tokens ahead / measured speed of the node + load time if the model is not resident + prefill + decode of the step itself.
Full scoring, breakers and forecasts come later behind the same interface.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from services.router.demand import MOST_TOKENS, demand_of
from services.router.filters import Candidate, NodeView, Unplaceable, candidates
from services.router.ledger import NodeCredit
from shared.contracts.chat import Operation
from shared.contracts.step import Step


class Chosen(NamedTuple):
    """`model` is spelled as the node spells it. `why` is for people."""

    node: str
    model: str
    why: str
    seconds: float
    """Predicted, from now to the end."""
    account: NodeCredit


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
    least = inf
    for candidate in found:
        if candidate.account.available > 0:
            seconds = _seconds(candidate, prompt, output)
            if chosen is None or seconds < least or (seconds == least and _rank(candidate) < _rank(chosen)):
                chosen, least = candidate, seconds
    if chosen is None:
        return Busy(len(found))
    return Chosen(chosen.node, chosen.model, _why(chosen, least, len(found)), least, chosen.account)


def _rank(candidate: Candidate) -> tuple[int, str, str]:
    """Between equals the emptier node; then by name, so that the choice does not depend on the order of the nodes."""
    return -candidate.account.available, candidate.node, candidate.model


def _split(step: Step) -> tuple[int, int]:
    """Estimated (prompt, output) tokens. An embedding has no output to decode."""
    total = min(MOST_TOKENS, step.estimated_tokens)
    if step.operation is Operation.EMBED:
        return total, 0
    output = min(total, step.options.max_tokens or total // 2)
    return total - output, output


def _seconds(candidate: Candidate, prompt: int, output: int) -> float:
    account = candidate.account
    ahead = min(MOST_TOKENS, account.queued_tokens + account.own_tokens)
    seconds = ahead / (account.decode_tokens_per_second or candidate.decode * candidate.slots) if ahead else 0.0
    if not candidate.resident:
        seconds += candidate.load_seconds
    return seconds + prompt / candidate.prefill + output / candidate.decode


def _why(candidate: Candidate, seconds: float, count: int) -> str:
    account = candidate.account
    load = "resident" if candidate.resident else f"load {candidate.load_seconds:.1f} s"
    return f"{seconds:.2f} s predicted, least of {count}; {account.tokens_ahead} tokens ahead; {load}"
