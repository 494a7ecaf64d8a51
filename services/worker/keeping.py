"""Keeping models in memory that nobody waits for: those that are pinned here, copies that their cards ask for, and what is likely to be
asked for within the hour. Each worker looks at the live nodes and decides for itself (`placement.copies`).

Only while nothing runs or waits here, and nothing speaks against calls: a pause, an open breaker, a drain, the owner. What was asked for of
late, or is kept itself, is never put out; for what is merely likely nothing is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.worker.attempt import Attempt
from services.worker.backends.base import Backend, ModelCallFailed
from services.worker.handlers import AttemptManager
from services.worker.registration import Registration, find
from services.worker.warming import RECENT_SECONDS, hour_of
from services.worker.watch import Watch
from services.worker.wiring import WorkerContext
from shared.agents.cards import cards_of
from shared.agents.table import Declarations
from shared.clock import within
from shared.contracts.agents import ModelCard
from shared.contracts.failure import FailureKind
from shared.contracts.node import Node
from shared.contracts.tasks import PIN, Action, Pin
from shared.model_names import canonical
from shared.placement import copies
from shared.processing.registry import OnEntry
from shared.telemetry import logs

log = logs.get(__name__)

PATIENCE_SECONDS = 30.0
"""So long each node whose turn it is may take, before it is the next one's."""
AGAIN_SECONDS, LONGEST_SECONDS = 60.0, 3_600.0
"""Between two loads of a model here; doubled by each that fails, or that has not stayed so long: something else puts it out."""
GONE_SECONDS = 3_600.0
"""What a node was asked for is asked of others when it is gone: so long its word counts."""
MOST_PINS = 256

_Asked = tuple[str, bool]
"""A model, and whether a card asks for it; else it is likely to be asked for."""


class Keeping:
    """Of one node. `backend`: what has no `warm` loads nothing at a word."""

    def __init__(self, here: WorkerContext, registration: Registration, attempts: AttemptManager, watch: Watch, backend: Backend) -> None:
        self._here, self._registration, self._attempts, self._watch = here, registration, attempts, watch
        self._warm: Any = getattr(backend, "warm", None)
        self._unload: Any = getattr(backend, "unload", None)
        self._pinned: set[str] = getattr(backend, "pinned", set())
        self._cards = Declarations()
        self.kinds: Mapping[str, OnEntry] = {"card": self._cards.on_entry, PIN: self._on_pin}
        """Of the registry's entries."""
        self._short: dict[_Asked, float] = {}
        """Since when too few nodes have a model that this one could load, monotonic seconds, as of the last look."""
        self._looked_at = 0.0
        self._not_before: dict[str, float] = {}
        self._stays_until: dict[str, float] = {}
        """Of one in memory: then it is told to stay again."""
        self._loads: dict[str, int] = {}
        """That failed or did not last, one after the other."""

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
            try:
                if self._registration.reachable and self._idle() and (model := self.due(clock.monotonic(), clock.wall())):
                    await self._load(model)
            except Exception as error:  # what is kept in memory is worth no worker
                log.failure("models_not_kept", error)
            await clock.sleep(settings.probe_seconds)

    def on_task(self, attempt: Attempt) -> None:
        """A task on a model has ended. What an administrator puts out is not loaded here before somebody asks for it, for a time."""
        if attempt.step.task is not None and attempt.step.task.action is Action.UNLOAD:
            self._not_before[attempt.model or attempt.step.model] = self._here.clock.monotonic() + RECENT_SECONDS
        self._registration.look()

    async def _load(self, model: str) -> None:
        fresh, failed, registration = model not in self._registration.resident, False, self._registration
        registration.loads(model)
        try:
            if not await within(self._here.settings.first_token_timeout_seconds, self._warm(model)):
                raise ModelCallFailed(FailureKind.MODEL_TIMEOUT, "the model was not loaded in time")
        except ModelCallFailed as error:
            failed = True
            if error.retry_after_seconds:
                self._attempts.health.pause(error.retry_after_seconds)
            log.warning("model_not_loaded", model=model, reason=error.kind.value)
        finally:
            registration.answers(model)
        now, seconds = self._here.clock.monotonic(), AGAIN_SECONDS
        if fresh or failed:
            loads = self._loads[model] = min(10, self._loads.get(model, 0) + 1)
            seconds = min(AGAIN_SECONDS * 2 ** (loads - 1), LONGEST_SECONDS)
            self._not_before[model] = now + seconds
        self._stays_until[model] = now + (seconds if failed else AGAIN_SECONDS)
        if fresh and self._attempts.closings and self._unload is not None:  # its memory is wanted: it came after all had left
            await within(AGAIN_SECONDS, self._unload(model))
            registration.look()

    def due(self, now: float, wall: float) -> str | None:
        """The model that is to be loaded here now, or told to stay."""
        nodes = self._live()
        me = next((node for node in nodes if node.id == self._here.node), None)
        if me is None:
            return None
        nodes = [me := me.changed(models=self._registration.models), *(node for node in nodes if node.id != me.id)]
        able, calls = copies.by_model(nodes), copies.expected(self._watch.live(GONE_SECONDS), hour_of(wall))
        cards = {model: count for card in self._declared() if (count := card.copies) and (model := find(card.model, me.models))}
        wanted = {(model, True): count for model, count in cards.items()}
        if self._here.settings.warms:
            likely = {model.name: copies.wanted(calls[full], able[full]) for model in me.models if (full := canonical(model.name)) in calls}
            wanted |= {(model, False): count for model, count in likely.items() if count}
        kept = {*cards, *(model.name for model in me.models if model.name in self._pinned)}
        missed = {model.name for model in me.models if model.name in kept and not model.resident and self._may(me, model.name, kept, wall)}
        fits = {model.name for model in me.models if (model.name, False) in wanted and not model.resident and copies.finds_place(me, model)}
        free = self._free(me, now)
        turns = self._turns(able, wanted, now)
        for name in free:
            if name in self._pinned and name in missed:
                return name
        for (name, by_card), count in wanted.items():
            may = (name, by_card) in turns and name in (missed if by_card else fits)
            if name in free and (may or copies.keeps(me.id, able[canonical(name)], count)):
                return name
        return None

    def _free(self, me: Node, now: float) -> list[str]:
        """What may be loaded now, or told to stay. What was not put out for as long as it could have been has stayed."""
        over = {model.name for model in me.models if self._not_before.get(model.name, now) <= now}
        for model in me.models:
            if model.resident and model.name in over:
                self._loads.pop(model.name, None)
        return [
            model.name for model in me.models if (self._stays_until.get(model.name, now) <= now if model.resident else model.name in over)
        ]

    def _turns(self, able: Mapping[str, copies.Able], wanted: Mapping[_Asked, int], now: float) -> set[_Asked]:
        """Of what is wanted that whose turn it is here. After a time without a look what was short then says nothing."""
        turns = {
            asked: turn
            for asked, count in wanted.items()
            if (turn := copies.turn(self._here.node, able[canonical(asked[0])], count)) is not None
        }
        before = self._short if now - self._looked_at <= PATIENCE_SECONDS else {}
        self._short, self._looked_at = {asked: before.get(asked, now) for asked in turns}, now
        return {asked for asked, turn in turns.items() if now - self._short[asked] >= turn * PATIENCE_SECONDS}

    def _may(self, me: Node, model: str, kept: set[str], wall: float) -> bool:
        """It finds a place, or what may have to leave for it is missed by nobody."""
        own = next(known for known in me.models if known.name == model)
        there = [known.name for known in me.models if known.resident]
        return copies.finds_place(me, own) or not any(name in kept or self._registration.asked.used(name, wall) for name in there)

    def _declared(self) -> list[ModelCard]:
        found = [found.body for found in cards_of(self._cards).latest.values()]
        return [card for card in found if isinstance(card, ModelCard)]
