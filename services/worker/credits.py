"""How free places are shared among routers and planners: by announced backlog, rotating; and what planners may use of them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from shared.contracts.credits import Credits

MAX_BYTES = 512
OTHERS_WAIT = "others wait"


class EagerGate:
    """Which steps that planners have written here themselves are taken. What uses a record of credits from before one was given back is
    given back, too, whatever has changed since: its planner would else pass its own older step.
    """

    def __init__(self, boot: str, others_wait: Callable[[], bool]) -> None:
        """`others_wait`: whether a router is known to have a backlog."""
        self._boot, self._others_wait = boot.encode(), others_wait
        self.sequence = 0
        """Of the newest record of credits."""
        self.opens_at = 0
        """Sequence from which on records of credits may have been used."""

    def refusal(self, used: bytes) -> str | None:
        """Why this step is not taken, if it is not. `used`: header `credits`."""
        boot, _, sequence = used.rpartition(b"/")
        over = boot != self._boot or not sequence.isdigit() or int(sequence) < self.opens_at
        return OTHERS_WAIT if (over and self.opens_at) or self._others_wait() else None

    def gave_back(self) -> None:
        """One was not taken, for whatever reason."""
        self.opens_at = self.sequence + 1


def share(places: int, backlogs: Mapping[str, int], turn: int, planners: Sequence[str] = ()) -> dict[str, int]:
    """Offer all `places`: one each first, so that no router is shut out while places last, the rest by backlog.

    Routers with work come before idle ones; who is first rotates with `turn`, so a single place visits every router.
    Planners come after them: while no router has work, what is left when each router has one place is theirs.
    Largest remainder decides what proportional shares leave over. The sum is `places`, or 0 without routers and planners.
    """
    if planners and not any(backlogs.values()):
        kept = min(places, len(backlogs))
        return {**share(kept, backlogs, turn), **share(places - kept, dict.fromkeys(planners, 0), turn)}
    order = _rotated(sorted(backlogs, key=lambda name: (backlogs[name] == 0, name)), backlogs, turn)
    if not order or places <= 0:
        return {}
    offers = dict.fromkeys(order[:places], 1)
    rest = places - len(offers)
    if rest:
        for name, extra in _proportional(rest, {name: backlogs[name] for name in order}).items():
            offers[name] += extra
    return offers


def _rotated(order: list[str], backlogs: Mapping[str, int], turn: int) -> list[str]:
    busy = [name for name in order if backlogs[name] > 0]
    idle = order[len(busy) :]
    return [names[(turn + index) % len(names)] for names in (busy, idle) if names for index in range(len(names))]


def _proportional(places: int, weights: Mapping[str, int]) -> dict[str, int]:
    total = sum(weights.values())
    exact = {name: places * (weight / total if total else 1 / len(weights)) for name, weight in weights.items()}
    whole = {name: int(value) for name, value in exact.items()}
    left = places - sum(whole.values())
    for name in sorted(exact, key=lambda name: whole[name] - exact[name])[:left]:
        whole[name] += 1
    return whole


def fit(credits_: Credits) -> Credits:
    """The same record in at most 512 bytes: resident models go first, then what is told of, then the smallest offers."""
    while len(credits_.to_bytes()) > MAX_BYTES and (credits_.resident or credits_.told or len(credits_.offers) > 1):
        if credits_.resident:
            credits_ = credits_.model_copy(update={"resident": credits_.resident[:-1]})
        elif credits_.told:
            credits_ = credits_.model_copy(update={"told": {}})
        else:
            credits_ = credits_.model_copy(update={"offers": _without_smallest(credits_.offers)})
    return credits_


def _without_smallest(offers: Mapping[str, int]) -> dict[str, int]:
    smallest = min(offers, key=lambda name: offers[name])
    return {name: places for name, places in offers.items() if name != smallest}
