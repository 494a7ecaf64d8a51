"""Breakers: whether a node, and each model of it, is asked at present, by what came of its calls. Pure; times are monotonic seconds.

closed ──failures──► open ──back-off──► probing ──works──► half-open ──its one step succeeds──► closed
                       ▲                   └─────fails────────┐ └───────────fails─┐
                       └───────────────(a longer back-off)────┴───────────────────┘

A worker alone sees all outcomes of its endpoint, so breakers are its own; others read what they are. Slowness is no failure, nor is what
the request itself is to blame for: a step counts once, however often it is tried, and a tenant whose steps alone fail where others'
succeed opens nothing once a call of the worker's own has succeeded.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import Enum
from math import inf

from shared.contracts.failure import FailureKind as K

COUNTED = frozenset({K.NODE_UNREACHABLE, K.MODEL_ERROR, K.MODEL_TIMEOUT, K.BROKEN_STREAM})
"""Failures that are the endpoint's; `UNKNOWN_MODEL` is where the node has told that it has the model."""
FAST_SECONDS = 0.05
"""A failure without a token that took less, or less than this share of what a success usually takes, is suspiciously fast."""
FAST_SHARE = 0.1
_WEIGHT = 0.2
"""Of the newest success in what one usually takes."""
_MOST_OPENED = 16
MOST_MODELS = 256
MOST_TENANTS = 64
SPARED_SECONDS = 60.0
"""So long a tenant's failures count for nothing when a call of the worker's own has shown that the model works; and so long another
tenant's success speaks for the model.
"""
NODE = ""
"""Names the node where else a model is named."""


class BreakerState(Enum):
    """`OPEN` waits for the end of its back-off, then is `PROBING`."""

    CLOSED = "closed"
    OPEN = "open"
    PROBING = "probing"
    HALF_OPEN = "half-open"


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """`failures` in a row open, or half as many that come suspiciously fast, since such a node takes more steps than any other; two
    models that open in a row open the node. Seconds of the first back-off, doubled each time up to `longest`.
    """

    failures: int = 3
    first_seconds: float = 1.0
    longest_seconds: float = 60.0

    @property
    def heavy(self) -> float:
        """Of what opens by two."""
        return self.failures / 2

    def back_off(self, opened: int) -> float:
        """After the breaker has opened for the `opened`th time in a row, seconds."""
        return min(self.longest_seconds, self.first_seconds * 2.0 ** min(opened - 1, 32))


@dataclass(frozen=True, slots=True)
class Called:
    """What is known of a call that has ended: whose, for how long it ran (seconds), and whether anything came of it."""

    step: str
    tenant: str
    seconds: float = inf
    tokens: int = 0


@dataclass(slots=True)
class Breaker:
    """Of one node or model. `trial`: the claim of the one step that a half-open breaker lets through."""

    policy: BreakerPolicy
    state: BreakerState = BreakerState.CLOSED
    strikes: float = 0.0
    """Of failures since it was closed, halved by each success."""
    opened: int = 0
    """Times it opened, less one for each success since: a breaker that closes and opens again goes on where it was."""
    until: float = -inf
    trial: str | None = None
    usual_seconds: float | None = None
    _struck: dict[str, str] = field(default_factory=dict)
    """Step → tenant, of the strikes that count."""
    _served: OrderedDict[str, float] = field(default_factory=OrderedDict)
    """Tenant → its last success, of the last two tenants."""
    _accused: str | None = None
    """The one tenant by whose steps it has opened while others' succeeded."""
    _spared: dict[str, float] = field(default_factory=dict)

    @property
    def shut(self) -> bool:
        """Nothing more may be given to it at present."""
        return self.state in (BreakerState.OPEN, BreakerState.PROBING) or self.trial is not None

    def admits(self, claim: str | None) -> bool:
        """Whether a step may be taken, or the claimed one go on."""
        return not self.shut or (claim is not None and claim == self.trial)

    def succeeded(self, call: Called, now: float) -> None:
        """A call has ended well."""
        if self.state is not BreakerState.CLOSED:
            return  # begun before it opened: the trial is judged apart
        self.strikes /= 2
        self.opened = max(0, self.opened - 1)
        self._struck.clear()
        if call.seconds < inf:
            self.usual_seconds = (
                call.seconds if self.usual_seconds is None else self.usual_seconds + 0.2 * (call.seconds - self.usual_seconds)
            )
        self._served[call.tenant] = now
        self._served.move_to_end(call.tenant)
        if len(self._served) > 2:
            self._served.popitem(last=False)

    def failed(self, call: Called, now: float) -> bool:
        """A call has failed, by the endpoint's fault; whether that opens it, and for more than one tenant's steps."""
        if self.state is not BreakerState.CLOSED or call.step in self._struck or now < self._spared.get(call.tenant, -inf):
            return False
        self._struck[call.step] = call.tenant
        self.strikes += self.policy.heavy if self._is_fast(call) else 1.0
        if self.strikes < self.policy.failures:
            return False
        whose = set(self._struck.values())
        others = any(now - at < SPARED_SECONDS for tenant, at in self._served.items() if tenant not in whose)
        accused = whose.pop() if len(whose) == 1 and others else None
        self.open(now, accused)
        return accused is None

    def _is_fast(self, call: Called) -> bool:
        return not call.tokens and call.seconds < max(FAST_SECONDS, FAST_SHARE * (self.usual_seconds or 0.0))

    def strike(self, model: str, now: float) -> None:
        """Of a node: the breaker of this model has opened."""
        if self.state is BreakerState.CLOSED and model not in self._struck:
            self._struck[model] = ""
            self.strikes += self.policy.heavy
            if self.strikes >= self.policy.failures:
                self.open(now)

    def open(self, now: float, accused: str | None = None) -> None:
        """From now on nothing is given to it. Where one tenant's steps alone are against it, it is probed at once."""
        self.state, self.trial, self._accused = BreakerState.OPEN, None, accused
        self.strikes = 0.0
        self._struck.clear()
        self.opened = min(self.opened + 1, _MOST_OPENED)
        self.until = now if accused is not None else now + self.policy.back_off(self.opened)

    def probed(self, works: bool, now: float, *, called: bool) -> None:
        """What a probe came to. `called`: the model was really asked, so a single tenant's failures are its own."""
        accused = self._accused
        if not works:
            self.open(now)
        elif called and accused is not None:
            self._close()
            self.opened = max(0, self.opened - 1)
            self._spared = {tenant: at for tenant, at in self._spared.items() if now < at}
            if len(self._spared) < MOST_TENANTS:
                self._spared[accused] = now + SPARED_SECONDS
        else:
            self.state, self._accused = BreakerState.HALF_OPEN, None

    def tried(self, well: bool | None, now: float) -> None:
        """The trial has ended: well, by the endpoint's fault, or (None) in a way that says nothing."""
        self.trial = None
        if well:
            self._close()
        elif well is not None:
            self.open(now)

    def _close(self) -> None:
        self.state, self._accused = BreakerState.CLOSED, None


class Breakers:
    """Those of a node and its models, by the names that the node gives them."""

    def __init__(self, policy: BreakerPolicy) -> None:
        self._policy = policy
        self.node = Breaker(policy)
        self._models: OrderedDict[str, Breaker] = OrderedDict()
        self._trials: dict[str, tuple[str, ...]] = {}
        """Claim → model, or node, whose trial it is."""

    @property
    def shut(self) -> frozenset[str]:
        """The models that are not asked at present; with `NODE` none is."""
        return frozenset(name for name, breaker in self._all() if breaker.shut)

    @property
    def half_open(self) -> bool:
        """Whether the next step may be a trial."""
        return any(breaker.state is BreakerState.HALF_OPEN and breaker.trial is None for _, breaker in self._all())

    def admits(self, model: str, claim: str | None = None) -> bool:
        """Whether a step for this model may be taken, or the claimed one go on."""
        breaker = self._models.get(model)
        return self.node.admits(claim) and (breaker is None or breaker.admits(claim))

    def places(self, free: int) -> int:
        """Of so many what may be offered."""
        if self.node.shut:
            return 0
        return min(free, 1) if self.node.state is BreakerState.HALF_OPEN else free

    def begin(self, claim: str, model: str) -> None:
        """A step was taken for this model. Where it, or the node, is half-open, that is the trial."""
        tries = tuple(name for name, breaker in self._pair(model) if breaker.state is BreakerState.HALF_OPEN and breaker.trial is None)
        for name in tries:
            self._of(name).trial = claim
        if tries:
            self._trials[claim] = tries

    def _pair(self, model: str) -> Iterator[tuple[str, Breaker]]:
        yield NODE, self.node
        if model in self._models:
            yield model, self._models[model]

    def _of(self, name: str) -> Breaker:
        if name == NODE:
            return self.node
        breaker = self._models.get(name)
        if breaker is None:
            breaker = self._models[name] = Breaker(self._policy)
            if len(self._models) > MOST_MODELS:
                self._models.pop(next((n for n, b in self._models.items() if b.state is BreakerState.CLOSED), name))
        return breaker

    def succeeded(self, claim: str, model: str, call: Called, now: float) -> None:
        """An attempt has its answer."""
        self._judge_trials(claim, {NODE, model}, True, now)
        self.node.succeeded(call, now)
        self._of(model).succeeded(call, now)

    def failed(self, claim: str, model: str, kind: K, call: Called, now: float) -> None:
        """An attempt has failed by the endpoint's fault. Nobody there: that is the node's, whatever the model."""
        named = {NODE} if kind is K.NODE_UNREACHABLE else {NODE, model}
        self._judge_trials(claim, named, False, now)
        if kind is K.NODE_UNREACHABLE:
            self.node.failed(call, now)
        elif self._of(model).failed(call, now):
            self.node.strike(model, now)

    def over(self, claim: str) -> None:
        """An attempt has ended in a way that says nothing of the endpoint."""
        self._judge_trials(claim, frozenset(), None, 0.0)

    def _judge_trials(self, claim: str, of: AbstractSet[str], well: bool | None, now: float) -> None:
        for name in self._trials.pop(claim, ()):
            breaker = self._of(name)
            if breaker.trial == claim:
                breaker.tried(well if name in of else None, now)

    def due_in(self, now: float) -> float:
        """Seconds until the next back-off ends; inf when nothing is open."""
        opened = [breaker.until for _, breaker in self._all() if breaker.state is BreakerState.OPEN]
        return max(0.0, min(opened) - now) if opened else inf

    def due(self, now: float) -> list[str]:
        """Those that are to be probed now, each until `probed` is told of it."""
        found = [name for name, breaker in self._all() if breaker.state is BreakerState.OPEN and breaker.until <= now]
        for name in found:
            self._of(name).state = BreakerState.PROBING
        return found

    def probed(self, name: str, works: bool, now: float, *, called: bool) -> None:
        """What a probe of this model, or of the node, came to; `called`: a model was really asked."""
        breaker = self._of(name)
        if breaker.state is BreakerState.PROBING:
            breaker.probed(works, now, called=called)

    def _all(self) -> Iterator[tuple[str, Breaker]]:
        yield NODE, self.node
        yield from self._models.items()
