"""Hybrid: what is foreseen decides. Three rules, each with its reason measured (decision 0062).

1. A node with a place, by the step's time there, and more the fuller the node is: calls slow one another, and bursts want all slots.
2. Where that would mean a load, a busy node may be waited for; and a model keeps its place for some loads' time while steps wait for it.
   So steps of a model are run together: fewer loads for all, and what loads cost stays below a fixed share. Where there is room a load
   counts the less the more its model is asked for: all who come after need not wait either, else a machine would stay cold for ever.
3. Batch steps also wait for a faster node than there is, where they would be done earlier: the last of many does not lie on the slowest.

Nobody waits longer for a better node than it would have taken on the one that it had.
"""

from __future__ import annotations

from collections.abc import Sequence

from shared.contracts.base import PriorityClass
from shared.placement.filters import Candidate
from shared.placement.policies.port import Foreseen, Moment, PlaceRequest, foresee

QUANTUM = 8.0
"""Loads' time that a model keeps its place while steps wait for it: of a node that always works, loads take less than a ninth."""
HORIZON_SECONDS = 30.0
"""A model that is asked for once in this time is as good as sure to be needed again."""
HANDED_OVER_SECONDS = 0.1
"""From a router's word that steps wait there to places that are offered to it."""
SHARED_SECONDS = 1.0
"""What is left of a load that so many share is no reason to wait."""
LOSS = 3.0
"""Loads' time that such a model's loss costs: another load, who waits for that, and who waits behind it."""


def pick(found: Sequence[Candidate], ask: PlaceRequest, moment: Moment) -> list[Foreseen]:
    """Those with a place, and those that are worth waiting for."""
    batch = ask.priority_class is PriorityClass.BATCH
    weighed: list[Foreseen] = []
    ready = False
    for candidate in found:
        account = candidate.account
        if account.available > 0:
            seen = foresee(candidate, ask, moment)
            if seen.load:
                seen = _with_loss(seen, candidate, moment)
            elif not batch and account.active:
                cost = seen.cost + (seen.read + seen.write) * account.active / candidate.slots
                seen = Foreseen(cost, *seen[1:])  # half of what `_replace` costs
            ready |= seen.now and (not seen.load or seen.cost - seen.read - seen.write < SHARED_SECONDS)
            weighed.append(seen)
        elif account.spare > 0 and moment.now < ask.until:
            weighed.append(elsewhere(candidate, ask, moment))
    if (not ready or batch) and moment.now < ask.until:
        for candidate in found:
            account = candidate.account
            if account.available <= 0 and account.running and not account.spare:
                seen = foresee(candidate, ask, moment)
                weighed.append(_with_loss(seen, candidate, moment) if seen.load else seen)
    return weighed


def elsewhere(candidate: Candidate, ask: PlaceRequest, moment: Moment) -> Foreseen:
    """Its free places are offered to others: one comes here soon after it is known that somebody waits here."""
    seen = foresee(candidate, ask, moment)
    full = candidate.account.running / candidate.slots
    cost = HANDED_OVER_SECONDS + seen.load + (seen.read + seen.write) * (1.0 + full)
    return seen._replace(cost=cost, wait=HANDED_OVER_SECONDS, now=False)


def _with_loss(seen: Foreseen, candidate: Candidate, moment: Moment) -> Foreseen:
    """A model that is put out of memory will have to be loaded again, as surely as it is in demand; until it had its time it stays.
    Where none is, the load is shared with those who are likely to come after.
    """
    account = candidate.account
    if not candidate.crowded:
        others = moment.heat.get(candidate.model, 0.0) * HORIZON_SECONDS + moment.shared.get(candidate.model, 0)
        return Foreseen(seen.cost - seen.load + seen.load / (1.0 + others), *seen[1:])
    load, left, heat = candidate.load_seconds, 0.0, 1.0
    if candidate.slots > 1 and len(account.resident) == 1:  # all that runs is its own, and ends first: no swap under a call
        drain = account.empty_in(moment.now)
        longer = max(0.0, drain - seen.wait)
        seen = seen._replace(cost=seen.cost + longer, wait=seen.wait + longer)
        load += drain
    for model in account.resident:
        if model in moment.wanted:
            left = max(left, QUANTUM * load - (moment.now - account.loaded_at[model]))
        heat = min(heat, moment.heat.get(model, 0.0) * HORIZON_SECONDS)
    if left > 0:
        return seen._replace(cost=seen.cost + left, wait=seen.wait + left, now=False)
    return seen._replace(cost=seen.cost + LOSS * load * heat)
