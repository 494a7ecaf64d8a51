"""The node as it is registered on `nodes`: what its endpoint last said, what was measured, when that is news. Probes never load a model."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

from services.worker import hardware
from services.worker.backends.base import Backend, BackendProbe, ModelCallFailed
from services.worker.backends.foreign import guarded
from services.worker.context import WorkerContext
from services.worker.models import served_capabilities
from services.worker.speeds import Speeds
from shared.clock import within
from shared.contracts.base import RECORD_BYTES
from shared.contracts.node import Hardware, Node, NodeModel
from shared.telemetry import logs

log = logs.get(__name__)

MODELS_BYTES = RECORD_BYTES * 3 // 4
"""Of all models in a Node record; the rest is room for what is measured of them."""
SPEED_STEP = 1.25
"""A speed is news when it changed by about a quarter."""


class Registration:
    """Facts about the endpoint. `found`: the hardware, unless it is to be looked for."""

    def __init__(self, here: WorkerContext, backend: Backend, speeds: Speeds, found: Hardware | None = None) -> None:
        self.node, self.boot, self.allowed = here.node, here.boot, tuple(here.allowed)
        self.reachable = False
        self.speeds = speeds
        self._here, self._settings, self._clock, self._backend = here, here.settings, here.clock, guarded(backend)
        self._hardware, self._probe_now = found, asyncio.Event()
        self._probe = BackendProbe()
        self._models: tuple[NodeModel, ...] = ()

    @property
    def models(self) -> tuple[NodeModel, ...]:
        """The models on offer, as of the last probe that was answered."""
        return self._models

    @property
    def simulated(self) -> bool:
        """The endpoint says that its answers are not a real model's."""
        return self._probe.simulated

    @property
    def resident(self) -> tuple[str, ...]:
        """Names of the models in memory."""
        return tuple(model.name for model in self._models if model.resident)

    async def start(self) -> None:
        """Look at the machine, and at the endpoint for the first time."""
        accelerators = self._settings.backend != "in_process"
        self._hardware = self._hardware or await asyncio.to_thread(hardware.found, accelerators=accelerators)
        await self.refresh()

    async def run(self) -> None:
        """Probe for ever; more often while nobody answers, and soon after a call found nobody."""
        settings, here = self._settings, self._here
        while True:
            seconds = settings.probe_seconds if self.reachable else settings.probe_unreachable_seconds
            if await within(seconds, self._probe_now.wait()):
                self._probe_now.clear()
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
        wanted = self._settings.models
        self._models = _fitting([model for model in models if not wanted or model.name in wanted])
        self._reached(True, "")

    def lost(self) -> None:
        """A call found nobody at the endpoint: offer nothing, and look again soon."""
        self._reached(False, "a call found nobody there")
        self._here.node_news.set()
        self._here.places_changed.set()
        self._probe_now.set()

    def _reached(self, reachable: bool, why: str) -> None:
        if reachable != self.reachable:
            (log.info if reachable else log.warning)("endpoint_reachable" if reachable else "endpoint_unreachable", why=why)
        self.reachable = reachable

    def record(self, mailbox: int, *, draining: bool, pause_seconds: float = 0.0) -> Node:
        """The Node record of this moment."""
        return Node(
            id=self.node,
            boot=self.boot,
            mailbox=mailbox,
            backend=self._probe.kind or self._backend.kind,
            version=self._probe.version,
            simulated=self._probe.simulated,
            slots=self._settings.slots,
            capabilities=served_capabilities(self._models, self.allowed),
            tags=self._settings.tags,
            hardware=self._hardware or Hardware(),
            models=tuple(self.speeds.attach(model) for model in self._models),
            draining=draining,
            reachable=self.reachable,
            pause_seconds=pause_seconds,
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
    """The record without what is not news: its time, how long a pause still is, and small changes of speeds."""
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
    return node.model_copy(update={"at": 0.0, "pause_seconds": float(node.pause_seconds > 0), "models": models})


def _coarse(value: float | None) -> float | None:
    return round(math.log(value, SPEED_STEP)) if value else None
