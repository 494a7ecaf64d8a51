"""Keeping models in memory that nobody waits for: those that are pinned here, copies that their cards ask for, and what is likely to be
asked for within the hour. Each worker looks at the live nodes and decides for itself (`placement.copies`).

Only while nothing runs or waits here, and nothing speaks against calls: a pause, an open breaker, a drain, the owner. What was asked for of
late, or is kept itself, is never put out; for what is merely likely nothing is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from services.worker.backends.base import Backend, ModelCallFailed
from services.worker.handlers import AttemptManager
from services.worker.registration import Registration, find
from services.worker.warming import hour_of
from services.worker.watch import Watch
from services.worker.wiring import WorkerContext
from shared.agents.cards import cards_of
from shared.agents.table import Declarations
from shared.contracts.agents import ModelCard
from shared.contracts.node import Node
from shared.contracts.tasks import PIN, Pin
from shared.placement import copies
from shared.processing.registry import OnEntry
from shared.telemetry import logs

log = logs.get(__name__)

PATIENCE_SECONDS = 30.0
"""So long each node whose turn it is may take, before it is the next one's."""
AGAIN_SECONDS, LONGEST_SECONDS = 60.0, 3_600.0
"""Between two loads of a model here; doubled by each that fails."""
MOST_PINS = 256


class Keeping:
    """Of one node. `backend`: what has no `warm` loads nothing at a word."""

    def __init__(self, here: WorkerContext, registration: Registration, attempts: AttemptManager, watch: Watch, backend: Backend) -> None:
        self._here, self._registration, self._attempts, self._watch = here, registration, attempts, watch
        self._warm: Any = getattr(backend, "warm", None)
        self._pinned: set[str] = getattr(backend, "pinned", set())
        self._cards = Declarations()
        self.kinds: Mapping[str, OnEntry] = {"card": self._cards.on_entry, PIN: self._on_pin}
        """Of the registry's entries."""
        self._short: dict[str, float] = {}
        """Since when too few nodes have a model that this one could load, monotonic seconds."""
        self._not_before: dict[str, float] = {}
        self._failures: dict[str, int] = {}

    def _on_pin(self, _kind: str, name: str, value: bytes | None) -> None:
        """An entry of the registry. Raises ValueError when it is not valid."""
        node, _, model = name.partition("/")
        if node != self._here.node:
            return
        if value is None:
            self._pinned.discard(model)
        elif len(self._pinned) < MOST_PINS:
            Pin.model_validate_json(value)
            self._pinned.add(model)

    def _live(self) -> list[Node]:
        return self._watch.live(self._here.settings.earlier_silent_seconds)

    def _idle(self) -> bool:
        health, attempts = self._attempts.health, self._attempts
        return not (attempts.closings or health.pause_seconds or health.breakers.shut or len(attempts.leases))

    async def run(self) -> None:
        """Look for ever, one load at a time."""
        if self._warm is None:
            return
        settings, clock = self._here.settings, self._here.clock
        await clock.sleep(settings.earlier_silent_seconds)  # by then who lives is known
        others = [node for node in self._live() if node.id != self._here.node]
        told = others if self._watch.earlier is None else [self._watch.earlier]
        self._registration.asked.adopt([node.demand for node in told], clock.wall())
        while True:
            if self._registration.reachable and self._idle() and (model := self.due(clock.monotonic(), clock.wall())):
                await self._load(model)
            await clock.sleep(settings.probe_seconds)

    async def _load(self, model: str) -> None:
        seconds = AGAIN_SECONDS
        try:
            await self._warm(model)
            self._failures.pop(model, None)
        except ModelCallFailed as error:
            failed = self._failures[model] = min(10, self._failures.get(model, 0) + 1)
            seconds = min(AGAIN_SECONDS * 2**failed, LONGEST_SECONDS)
            if error.retry_after_seconds:
                self._attempts.health.pause(error.retry_after_seconds)
            log.warning("model_not_loaded", model=model, reason=error.kind.value)
        self._not_before[model] = self._here.clock.monotonic() + seconds
        self._registration.look()

    def due(self, now: float, wall: float) -> str | None:
        """The model that is to be loaded here now, or told to stay."""
        nodes = self._live()
        me = next((node for node in nodes if node.id == self._here.node), None)
        if me is None:
            return None
        nodes = [me := me.changed(models=self._registration.models), *(node for node in nodes if node.id != me.id)]
        cards = {model: count for card in self._declared() if (count := card.copies) and (model := find(card.model, me.models))}
        kept = {*cards, *(model.name for model in me.models if model.name in self._pinned)}
        missed = {model.name for model in me.models if not model.resident and self._may(me, model.name, kept, wall)}
        free = [model.name for model in me.models if self._not_before.get(model.name, now) <= now]
        for name in free:
            if name in self._pinned and name in missed:
                return name
        for name in free:
            if name in cards and (
                copies.keeps(name, me.id, nodes, cards[name]) or (name in missed and self._turn(name, nodes, cards[name], now))
            ):
                return name
        if self._here.settings.warms:
            fits = [model.name for model in me.models if model.name in free and not model.resident and copies.finds_place(me, model)]
            return next((name for name in fits if self._turn(name, nodes, copies.wanted(name, nodes, hour_of(wall)), now)), None)
        return None

    def _turn(self, model: str, nodes: Sequence[Node], wanted: int, now: float) -> bool:
        turn = copies.turn(model, self._here.node, nodes, wanted)
        if turn is None:
            self._short.pop(model, None)
            return False
        return now - self._short.setdefault(model, now) >= turn * PATIENCE_SECONDS

    def _may(self, me: Node, model: str, kept: set[str], wall: float) -> bool:
        """It finds a place, or what may have to leave for it is missed by nobody."""
        own = next(known for known in me.models if known.name == model)
        there = [known.name for known in me.models if known.resident]
        return copies.finds_place(me, own) or not any(name in kept or self._registration.asked.used(name, wall) for name in there)

    def _declared(self) -> list[ModelCard]:
        found = [found.body for found in cards_of(self._cards).latest.values()]
        return [card for card in found if isinstance(card, ModelCard)]
