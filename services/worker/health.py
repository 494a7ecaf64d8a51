"""Health: why the endpoint, or a model of it, is not asked at present: it has asked for quiet, or its calls fail. And how that ends.

A pause is what an endpoint asks for (`Retry-After`), of one node or of a rate group. Breakers are this worker's own judgement of what came
of its calls; where one is open a probe follows, which never loads a model: one token of a resident one, else a look at what there is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import aclosing
from math import inf
from typing import Protocol

from services.worker.attempt import Attempt
from services.worker.backends.base import Backend, Completion, ModelCall, ModelCallFailed
from services.worker.backends.foreign import guarded
from services.worker.backends.http import TokenBucket
from services.worker.breakers import COUNTED, NODE, BreakerPolicy, Breakers, Called
from services.worker.rate_group import RateGroup
from services.worker.registration import candidates, find
from services.worker.wiring import WorkerContext
from shared.clock import within
from shared.contracts.base import ClaimId, NodeId, StepId
from shared.contracts.chat import MODEL_CALLS, ChatMessage, Operation, Options
from shared.contracts.failure import FailureKind as K
from shared.contracts.node import Node, NodeModel
from shared.contracts.outcome import StepFailed, StepReleased, StepSucceeded
from shared.contracts.step import Step
from shared.telemetry import logs, metrics

log = logs.get(__name__)

OVERLOAD_PAUSE_SECONDS = 1.0
"""Where an endpoint that is full does not say for how long."""
LONGEST_PAUSE_SECONDS = 3_600.0
"""Then it is asked again, whatever it said: a quota may have been raised."""
PAUSED = "the endpoint asks not to be called for a while"
BROKEN = "calls of this node, or of this model on it, fail at present"
_NEWS_SECONDS = 1.0
"""A pause that is longer by less is no news."""
_LOOK_SECONDS = 0.25
_PROBE_ID = StepId("0" * 32)


class _Endpoint(Protocol):
    """What is known of the endpoint."""

    @property
    def models(self) -> Sequence[NodeModel]: ...

    @property
    def reachable(self) -> bool: ...

    def holds(self, model: str, running: Callable[[], Collection[str]]) -> bool: ...


class Health:
    """Of one node's endpoint. `backend` is probed here, and called for nobody."""

    def __init__(self, here: WorkerContext, endpoint: _Endpoint, backend: Backend) -> None:
        settings, self._here, self._endpoint, self._backend = here.settings, here, endpoint, guarded(backend)
        policy = BreakerPolicy(settings.breaker_failures, settings.breaker_seconds, settings.breaker_longest_seconds)
        self.breakers = Breakers(policy)
        self.group = RateGroup(settings.rate_group, here.node, settings.earlier_silent_seconds)
        self.heed: Callable[[], None] = lambda: None
        """Something that was asked until now is not any longer: give back what has not begun."""
        self._bucket = TokenBucket(settings.rate_per_second, settings.rate_burst) if settings.rate_per_second else None
        self._paused_until, self._paused = 0.0, False
        self._opened = asyncio.Event()
        self._shut = frozenset[str]()
        self._now = here.clock.monotonic

    # Pauses, and the rate

    def pause(self, seconds: float) -> None:
        """The endpoint has asked for so much quiet. What is shorter than what it said before changes nothing."""
        seconds = min(seconds, LONGEST_PAUSE_SECONDS)
        more = self._now() + seconds - self._paused_until
        if more <= 0:
            return
        self._paused_until += more
        log.warning("endpoint_paused", node=self._here.node, seconds=round(seconds, 1))
        self._quiet()
        if more > _NEWS_SECONDS:
            self._here.hurry.set()

    def _quiet(self) -> None:
        self._paused = True
        self.heed()
        self._here.node_news.set()
        self._here.places_changed.set()

    def look(self) -> bool:
        """Whether a pause is over since the last look."""
        over = self._paused and not self.pause_seconds
        self._paused = self.pause_seconds > 0
        return over

    @property
    def pause_seconds(self) -> float:
        """How long the endpoint is left alone from now on, as it has asked this node or another one of its group; 0: it is not."""
        if not (self._paused_until or self.group.name):
            return 0.0
        now = self._now()
        return max(0.0, self._paused_until - now, min(self.group.pause_seconds(now), LONGEST_PAUSE_SECONDS))

    def on_node(self, name: NodeId, node: Node | None, written_ms: int) -> None:
        """A record of `nodes` was read, of whatever node."""
        if self.group.on_node(name, node, written_ms, self._now()) and self.pause_seconds:
            self._quiet()

    def on_credits(self, name: NodeId) -> None:
        """Some node has told its places."""
        self.group.on_credits(name, self._now())

    def wait_seconds(self) -> float:
        """Books a call: how long it has to wait, so that all that share the account keep its rate together."""
        now = self._now()
        return 0.0 if self._bucket is None else self._bucket.take(now, self.group.size(now))

    # Steps

    def models(self, step: Step, claim: ClaimId | None = None) -> list[str]:
        """Of the models that the step may be asked of here, in order, those that are asked at present."""
        models, admits = self._endpoint.models, self.breakers.admits
        if not self.breakers.shut:
            return candidates(step, models)
        there = [model for model in models if admits(model.name, claim)]
        return [name for name in candidates(step, there) if admits(find(name, models) or name, claim)]

    def refusal(self, step: Step, claim: ClaimId | None = None) -> str | None:
        """Why the step is not taken; or, where it was claimed and has not begun, is given back."""
        if self.pause_seconds:
            return PAUSED
        if step.operation not in MODEL_CALLS or not self.breakers.shut or self.models(step, claim):
            return None
        return BROKEN

    def begins(self, step: Step, running: Iterable[Attempt]) -> bool:
        """Whether it may be asked beside those of these that run: no load puts a model out of memory that is in use."""
        model = self._asks(step)
        return not model or self._endpoint.holds(model, lambda: {one.model or self._asks(one.step) for one in running if one.calls} - {""})

    def _asks(self, step: Step) -> str:
        """The model that it would be asked of first, as the node spells it; empty of what is no model's."""
        names = self.models(step) if step.operation in MODEL_CALLS else ()
        return (find(names[0], self._endpoint.models) or names[0]) if names else ""

    def begin(self, attempt: Attempt) -> None:
        """It was taken; it may be a trial."""
        if self.breakers.half_open and (names := self.models(attempt.step)):
            self.breakers.begin(attempt.claim, find(names[0], self._endpoint.models) or names[0])
            self._tell()

    def ended(self, attempt: Attempt, outcome: StepSucceeded | StepFailed | StepReleased) -> None:
        """What came of it. Behind each tool there is something else, and who shares a call says nothing that its first does not say."""
        step, now, breakers = attempt.step, self._now(), self.breakers
        asked = attempt.asked_at is not None and attempt.model is not None and not attempt.rides and step.operation in MODEL_CALLS
        if not asked or isinstance(outcome, StepReleased):
            breakers.over(attempt.claim)
        else:
            known = find(attempt.model or "", self._endpoint.models)
            model = known or attempt.model or NODE
            call = Called(step.id, now - (attempt.asked_at or now), attempt.tokens)
            if isinstance(outcome, StepSucceeded):
                breakers.succeeded(attempt.claim, model, call, now)
            elif outcome.failure.kind in COUNTED or (outcome.failure.kind is K.UNKNOWN_MODEL and known):
                breakers.failed(attempt.claim, model, outcome.failure.kind, call, now)
            else:
                breakers.over(attempt.claim)
        self._tell()

    def places(self, free: int) -> int:
        """Of so many what may be offered."""
        return 0 if self.pause_seconds else self.breakers.places(free)

    def reasons(self) -> Iterator[str]:
        """Why no step is taken at present."""
        if not self._endpoint.reachable:
            yield "the model endpoint does not answer"
        if pause := self.pause_seconds:
            yield f"the endpoint asks not to be called for {pause:.0f} s"
        if self.breakers.node.shut:
            yield "calls of the endpoint fail"

    def _tell(self) -> None:
        """Let the cluster know what is shut now, if that has changed, and what waits here."""
        before, self._shut = self._shut, self.breakers.shut
        if self._shut:
            self._opened.set()
        if before == self._shut:
            return
        for name in self._shut ^ before:
            shut = name in self._shut
            (log.warning if shut else log.info)("breaker_open" if shut else "breaker_let_go", node=self._here.node, model=name or None)
        metrics.BREAKERS_OPEN.set(len(self._shut))
        if self._shut - before:
            self.heed()
        for news in (self._here.node_news, self._here.hurry, self._here.places_changed):
            news.set()

    def describe(self, node: Node) -> Node:
        """The node's record with what is said here."""
        pause, own, shut = self.pause_seconds, max(0.0, self._paused_until - self._now()), self._shut
        models = tuple(model.model_copy(update={"broken": True}) if model.name in shut else model for model in node.models)
        told = {"models": models, "broken": NODE in shut, "rate_group": self.group.name}
        return node.model_copy(update=told | {"pause_seconds": pause, "pause_of_group": pause > own})

    # Probes

    async def run(self) -> None:
        """Probe what is open when its back-off is over, for ever; not while nobody is there, or quiet was asked for."""
        async with asyncio.TaskGroup() as probes:
            while True:
                seconds = self.breakers.due_in(self._now())
                if seconds == inf:
                    await self._opened.wait()
                elif seconds > 0:
                    await within(seconds, self._opened.wait())
                elif self._endpoint.reachable and not self.pause_seconds:
                    for name in self.breakers.due(self._now()):
                        probes.create_task(self._probe(name))
                else:
                    await self._here.clock.sleep(_LOOK_SECONDS)
                self._opened.clear()

    async def _probe(self, name: str) -> None:
        """Of a model, or of the node: by one that is in memory, if there is one."""
        called, offered = False, {model.name for model in self._endpoint.models}
        try:
            there = [model for model in await self._backend.models() if model.name in offered and name in (NODE, model.name)]
            works, resident = bool(there), next((model for model in there if model.resident), None)
            if resident is not None:
                called = True
                works = await within(self._here.settings.first_token_timeout_seconds, self._one_token(resident))
        except ModelCallFailed as error:
            works, called = error.kind not in COUNTED and error.kind is not K.UNKNOWN_MODEL, False
            if error.kind is K.OVERLOADED:
                self.pause(error.retry_after_seconds or OVERLOAD_PAUSE_SECONDS)
        except Exception as error:
            log.failure("probe_lost", error, node=self._here.node, model=name or None)
            works = False
        self.breakers.probed(name, works, self._now(), called=called)
        self._tell()

    async def _one_token(self, model: NodeModel) -> None:
        await self._here.clock.sleep(self.wait_seconds())
        embeds = Operation.EMBED.value in model.operations
        asks = {"operation": Operation.EMBED, "texts": ("hi",)} if embeds else {"messages": (ChatMessage(role="user", content="hi"),)}
        step = Step(job="probe", id=_PROBE_ID, home=0, model=model.name, options=Options(max_tokens=1), **asks)
        async with aclosing(self._backend.call(ModelCall(step, model.name))) as pieces:  # type: ignore[type-var]  # as in the runner
            async for piece in pieces:
                if isinstance(piece, Completion):
                    return
