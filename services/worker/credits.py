"""How free places are shared among routers: by announced backlog, rotating. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from shared.contracts.credits import Credits

MAX_BYTES = 512
MOST_ROUTERS = 1_000
"""Routers that are offered places: as many as a record may name."""


@dataclass(slots=True)
class _Router:
    backlog: int
    heard_at: float


class Routers:
    """The routers that live, by their own announcements. Times are monotonic seconds."""

    def __init__(self, gone_seconds: float) -> None:
        self._gone = gone_seconds
        self._known: dict[str, _Router] = {}

    def on_presence(self, router: str, backlog: int, now: float, *, leaving: bool = False) -> bool:
        """Returns whether places should be offered anew at once: a router came, or has work where it had none."""
        if leaving:
            return self._known.pop(router, None) is not None
        before = self._known.get(router)
        if before is None and len(self._known) >= MOST_ROUTERS:
            return False
        self._known[router] = _Router(backlog, now)
        return before is None or (backlog > 0 and before.backlog == 0)

    def backlogs(self, now: float) -> dict[str, int]:
        """Router to announced backlog, those that live, by name."""
        for name in [name for name, router in self._known.items() if now - router.heard_at > self._gone]:
            del self._known[name]
        return {name: self._known[name].backlog for name in sorted(self._known)}


def share(places: int, backlogs: Mapping[str, int], turn: int) -> dict[str, int]:
    """Offer all `places`: one each first, so that no router is shut out while places last, the rest by backlog.

    Routers with work come before idle ones; who is first rotates with `turn`, so a single place visits every router.
    Largest remainder decides what proportional shares leave over. The sum is `places`, or 0 without routers.
    """
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
