"""The node as it is registered on `nodes`: what its endpoint last said, what was measured, when that is news. Probes never load a model.

Which of the node's models a step may be asked of, in order. Pure.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection, Sequence

from services.worker import hardware
from services.worker.backends.base import Backend, BackendProbe, ModelCallFailed
from services.worker.backends.foreign import guarded
from services.worker.seen import Seen
from services.worker.speeds import Speeds
from services.worker.warming import WarmModels
from services.worker.wiring import WorkerContext
from shared.clock import within
from shared.contracts.base import RECORD_BYTES, sentence
from shared.contracts.chat import TOOLS, Operation
from shared.contracts.node import MOST_ADVICE, Advice, Hardware, Node, NodeModel
from shared.contracts.step import Step
from shared.model_names import AUTO, spelling
from shared.placement.advice import ENDPOINT
from shared.placement.filters import ASSUMED_MODELS, crowded
from shared.telemetry import logs
from shared.topics import model_for


def candidates(step: Step, models: Sequence[NodeModel]) -> list[str]:
    """The step's own model first, then its fallbacks that the node has. Empty: the node has nothing suitable.

    `auto` is the first model that can do the operation, a resident one before others. A named model that the node is not known
    to have is still tried when there is no fallback: it may have been pulled a moment ago, and the endpoint's word is what counts.
    """
    known = [name for wanted in step.fallback_models if (name := find(wanted, models))]
    if step.model == AUTO:
        chosen = _suitable(step, models)
        return list(dict.fromkeys([*([chosen] if chosen else []), *known]))
    own = find(step.model, models)
    return list(dict.fromkeys([own, *known] if own else known)) or [step.model]


def find(wanted: str, models: Sequence[NodeModel]) -> str | None:
    """The node's spelling of a model name; `gemma3` and `gemma3:latest` are one model."""
    return spelling(wanted, [model.name for model in models])


def _suitable(step: Step, models: Sequence[NodeModel]) -> str | None:
    able = [model for model in models if step.operation.value in model.operations]
    return next((model.name for model in able if model.resident), able[0].name if able else None)


def served_capabilities(models: Sequence[NodeModel], allowed: Sequence[str]) -> tuple[str, ...]:
    """Of the allowed capabilities those that the models can do: `embed` needs an embedder, `tools` tools, every other one a chat model."""
    operations = {operation for model in models for operation in model.operations}
    return tuple(name for name in allowed if (Operation.TOOL.value if name == TOOLS else model_for(name)) in operations)


log = logs.get(__name__)

MODELS_BYTES = RECORD_BYTES * 3 // 4
"""Of all models in a Node record; the rest is room for what is measured of them."""
_MOST_SHOWN = 20
SPEED_STEP = 1.25
"""A speed is news when it changed by about a quarter."""


class Registration:
    """Facts about the endpoint. `found`: the hardware, unless it is to be looked for."""

    def __init__(self, here: WorkerContext, backend: Backend, speeds: Speeds, found: Hardware | None = None) -> None:
        self.node, self.boot, self.allowed = here.node, here.boot, tuple(here.allowed)
        self.reachable = False
        self.speeds, self.seen = speeds, Seen()
        self._here, self._settings, self._clock, self._backend = here, here.settings, here.clock, guarded(backend)
        self._hardware, self._probe_now = found, asyncio.Event()
        self._probe = BackendProbe()
        self._models: tuple[NodeModel, ...] = ()
        self._missing: tuple[str, ...] = ()
        self._used: dict[str, None] = {}
        """Models in the order in which they were asked last."""
        self._loading: set[str] = set()
        self.asked = WarmModels()
        self._why = ""
        """The endpoint is not to be had, for people."""

    @property
    def models(self) -> tuple[NodeModel, ...]:
        """The models on offer, as of the last probe that was answered."""
        return self._models

    @property
    def simulated(self) -> bool:
        """The endpoint says that its answers are not a real model's."""
        return self._probe.simulated

    @property
    def manages(self) -> bool:
        """The endpoint does to its models what it is told."""
        return self._probe.manages

    @property
    def resident(self) -> tuple[str, ...]:
        """Names of the models in memory."""
        return tuple(model.name for model in self._models if model.resident)

    async def start(self) -> None:
        """Look at the machine, and at the endpoint for the first time."""
        accelerators = self._settings.backend != "in_process"
        found = await asyncio.to_thread(hardware.found, accelerators=accelerators) if self._hardware is None else self._hardware
        self._hardware = hardware.told(found, self._settings)
        await self.refresh()

    async def run(self) -> None:
        """Probe for ever; more often while nobody answers, and soon after a call found nobody."""
        settings, here = self._settings, self._here
        while True:
            seconds = settings.probe_seconds if self.reachable else settings.probe_unreachable_seconds
            if await within(seconds, self._probe_now.wait()):
                self._probe_now.clear()
                if not self.reachable:
                    await self._clock.sleep(settings.probe_unreachable_seconds)
            before = self.reachable
            await self.refresh()
            here.node_news.set()
            if before != self.reachable:
                here.places_changed.set()

    async def refresh(self) -> None:
        """Probe the endpoint. An unreachable one keeps its models: it will be back with them."""
        try:
            self._probe = await self._backend.probe()
            models = await self._backend.models()
        except ModelCallFailed as error:
            self._reached(False, error.message)
            return
        chosen = _fitting([self._priced(model) for model in self._chosen(models)])
        self._models = tuple(model.model_copy(update={"resident": True}) if model.name in self._loading else model for model in chosen)
        self._reached(True, "")

    def _chosen(self, models: Sequence[NodeModel]) -> list[NodeModel]:
        """Those that the settings name, however they spell them; all where they name none."""
        found = {name: find(name, models) for name in self._settings.models}
        missing = tuple(name for name, there in found.items() if there is None)
        if missing and missing != self._missing:
            log.warning("models_not_there", missing=missing, there=[model.name for model in models][:_MOST_SHOWN])
        self._missing = missing
        return [model for model in models if not found or model.name in found.values()]

    def uses(self, model: str) -> None:
        """A call of it begins: it is in memory, or will be, and what is likely to leave for that has left: what was asked longest ago. A
        probe tells the rest, soon after it has answered (`answers`).
        """
        asked = next((known for known in self._models if known.name == model), None)
        if asked is None:
            return
        self.asked.asked(model, self._clock.wall())
        self._used.pop(model, None)
        self._used[model] = None
        if asked.resident:
            return
        order, stays = {name: number for number, name in enumerate(self._used)}, [model]
        for name in sorted(self.resident, key=lambda name: order.get(name, -1), reverse=True):
            if not self._crowded(name, stays):
                stays.append(name)
        self._models = tuple(known.model_copy(update={"resident": known.name in stays}) for known in self._models)
        self._loading.add(model)
        self._here.places_changed.set()

    def loads(self, model: str) -> None:
        """It is being loaded before it is asked for, until `answers`: what is told others counts it, so that none of them loads it, too."""
        self._loading.add(model)
        self._models = tuple(known.model_copy(update={"resident": known.resident or known.name == model}) for known in self._models)
        self._here.node_news.set()

    def holds(self, model: str, running: Callable[[], Collection[str]]) -> bool:
        """Whether a call of it may begin beside calls of these: none of them has to leave memory for it, as far as is known.

        Who runs is looked at last: it is asked for each call that begins, and hundreds may run.
        """
        if self._may_hold_all or any(known.name == model and known.resident for known in self._models):
            return True
        there = running()
        return model in there or not there or not self._crowded(model, there)

    @property
    def _may_hold_all(self) -> bool:
        """What an endpoint holds that neither says so nor is told how many is its own affair."""
        return not (self._settings.most_models or self.manages)

    def _crowded(self, model: str, there: Collection[str]) -> bool:
        if self._may_hold_all:
            return False
        hardware = self._hardware or Hardware()
        places = self._settings.most_models or ASSUMED_MODELS * max(1, len(hardware.gpus))
        sizes = {known.name: known.size_bytes for known in self._models}
        return crowded(model, there, sizes, places, hardware.vram_bytes or hardware.ram_bytes)

    def answers(self, model: str) -> None:
        """A call of it has begun to be answered, or has failed."""
        if model in self._loading:
            self._loading.discard(model)
            self._probe_now.set()

    def _priced(self, model: NodeModel) -> NodeModel:
        price = self._settings.price(model.name)
        return model if price is None else model.model_copy(update=price.model_dump())

    def look(self) -> None:
        """Its models may be others: ask soon."""
        self._probe_now.set()

    def lost(self) -> None:
        """A call found nobody at the endpoint: offer nothing, and look again soon."""
        self._reached(False, "a call found nobody there")
        self._here.node_news.set()
        self._here.places_changed.set()
        self._probe_now.set()

    def _reached(self, reachable: bool, why: str) -> None:
        if reachable != self.reachable:
            (log.info if reachable else log.warning)("endpoint_reachable" if reachable else "endpoint_unreachable", why=why)
        self.reachable, self._why = reachable, why

    def _advice(self) -> tuple[Advice, ...]:
        away = () if self.reachable or not self._why else (Advice(code=ENDPOINT, level="bad", text=_clipped(self._why)),)
        return (*away, *self.seen.advice(self._models, self._clock.monotonic()))[:MOST_ADVICE]

    def record(self, mailbox: int, *, draining: bool, maintenance: bool = False) -> Node:
        """The Node record of this moment."""
        return Node(
            id=self.node,
            boot=self.boot,
            mailbox=mailbox,
            backend=self._probe.kind or self._backend.kind,
            version=self._probe.version,
            simulated=self._probe.simulated,
            slots=self._settings.slots,
            most_models=self._settings.most_models,
            capabilities=served_capabilities(self._models, self.allowed),
            tags=self._settings.tags,
            hardware=(self._hardware or Hardware()).changed(disk_free_bytes=self._probe.disk_free_bytes),
            models=tuple(self.speeds.attach(model) for model in self._models),
            cost_per_hour=self._settings.cost_per_hour,
            draining=draining,
            reachable=self.reachable,
            manages=self.allowed[0] if self.manages and self.allowed else None,
            maintenance=maintenance,
            advice=self._advice(),
            demand=self.asked.told([model.name for model in self._models], self._clock.wall()),
            at=self._clock.wall(),
        )


def _fitting(models: Sequence[NodeModel]) -> tuple[NodeModel, ...]:
    """One of each name, as many as a Node record holds."""
    found: dict[str, NodeModel] = {}
    room = MODELS_BYTES
    for model in models:
        room -= len(model.to_bytes())
        if room < 0:
            log.warning("models_left_out", count=len(models) - len(found), room=MODELS_BYTES)
            break
        found.setdefault(model.name, model)
    return tuple(found.values())


def signature(node: Node) -> Node:
    """The record without what is not news: its time, demand, how long a pause still is, numbers in advice, small changes of speeds."""
    models = tuple(
        model.model_copy(
            update={
                "prefill_tokens_per_second": _coarse(model.prefill_tokens_per_second),
                "decode_tokens_per_second": _coarse(model.decode_tokens_per_second),
                "load_seconds": _coarse(model.load_seconds),
            }
        )
        for model in node.models
    )
    advice = tuple(one if one.code == ENDPOINT else one.model_copy(update={"text": ""}) for one in node.advice)
    return node.model_copy(
        update={"at": 0.0, "pause_seconds": float(node.pause_seconds > 0), "models": models, "advice": advice, "demand": {}}
    )


def _clipped(text: str) -> str:
    return sentence(text)[:320]


def _coarse(value: float | None) -> float | None:
    return round(math.log(value, SPEED_STEP)) if value else None
