"""Breakers: whether a node, and each model of it, is asked at present, by what came of its calls. Pure; times are monotonic seconds.

closed ──failures──► open ──► probing ──a call of the worker's own works──► closed
                      ▲          ├──nothing could be called──► half-open ──one step succeeds──► closed
                      └─back-off─┴──fails                          └──fails──► open

A worker alone sees all outcomes of its endpoint, so breakers are its own; others read what they are. Slowness is no failure. What a
request is to blame for must stop nobody else: kinds that are the request's do not count; a step counts once, however often it is tried;
where a model has just been seen to work, by a call that was nobody's, more failures are needed to open it again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
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
CLEARED_SECONDS = 60.0
"""So long it is remembered that a call of the worker's own has worked."""
MOST_CLEARED = 4
MOST_STRUCK = 256
"""Steps of which it is remembered that they have failed."""
MOST_MODELS = 256
_WEIGHT = 0.2
"""Of the newest success in what one usually takes."""
_MOST_OPENED = 16
_NONE = frozenset[str]()
NODE = ""
"""Names the node where else a model is named."""


class BreakerState(Enum):
    """`OPEN` waits until it is due, then is `PROBING`."""

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
        return min(self.longest_seconds, self.first_seconds * 2.0 ** (opened - 1))


@dataclass(frozen=True, slots=True)
class Called:
    """What is known of a call that has ended: of which step, for how long it ran (seconds), and whether anything came of it."""

    step: str
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
    """When it is probed next; once it has opened that is at once, and again after the back-off."""
    trial: str | None = None
    usual_seconds: float | None = None
    _rests_until: float = -inf
    _cleared: int = 0
    _cleared_at: float = -inf
    _struck: OrderedDict[str, None] = field(default_factory=OrderedDict)
    """Steps that have failed since the last success."""

    @property
    def shut(self) -> bool:
        """Nothing more may be given to it at present."""
        return self.state in (BreakerState.OPEN, BreakerState.PROBING) or self.trial is not None

    def admits(self, claim: str | None) -> bool:
        """Whether a step may be taken, or the claimed one go on."""
        return not self.shut or (claim is not None and claim == self.trial)

    def succeeded(self, call: Called) -> None:
        """A call has ended well."""
        if self.state is not BreakerState.CLOSED:
            return  # begun before it opened: the trial is judged apart
        self.strikes /= 2
        self.opened = max(0, self.opened - 1)
        self._struck.clear()
        if call.seconds < inf:
            usual = call.seconds if self.usual_seconds is None else self.usual_seconds
            self.usual_seconds = usual + _WEIGHT * (call.seconds - usual)

    def failed(self, call: Called, now: float) -> bool:
        """A call has failed, by the endpoint's fault; whether that opens it."""
        if self.state is not BreakerState.CLOSED or self._met(call.step):
            return False
        return self._strike(self.policy.heavy if self._is_fast(call) else 1.0, now)

    def strike(self, model: str, now: float) -> None:
        """Of a node: the breaker of this model has opened."""
        if self.state is BreakerState.CLOSED and not self._met(model):
            self._strike(self.policy.heavy, now)

    def _met(self, step: str) -> bool:
        """Whether it has failed here before."""
        if step in self._struck:
            return True
        self._struck[step] = None
        if len(self._struck) > MOST_STRUCK:
            self._struck.popitem(last=False)
        return False

    def _is_fast(self, call: Called) -> bool:
        return not call.tokens and call.seconds < max(FAST_SECONDS, FAST_SHARE * (self.usual_seconds or 0.0))

    def _strike(self, weight: float, now: float) -> bool:
        self.strikes += weight
        if now - self._cleared_at >= CLEARED_SECONDS:
            self._cleared = 0
        if self.strikes < self.policy.failures * 2**self._cleared:
            return False
        self._open(now)
        self.until = now
        return True

    def _open(self, now: float) -> None:
        """From now on nothing is given to it."""
        self.state, self.strikes = BreakerState.OPEN, 0.0
        self.opened = min(self.opened + 1, _MOST_OPENED)
        self.until = self._rests_until = now + self.policy.back_off(self.opened)

    def probed(self, works: bool, now: float, *, called: bool) -> None:
        """What a probe came to. `called`: the model was really asked. Else it may be tried, but not before it has rested."""
        if not works:
            self._cleared = 0
        if works and called:
            self.state = BreakerState.CLOSED
            self._cleared, self._cleared_at = min(self._cleared + 1, MOST_CLEARED), now
        elif now < self._rests_until:
            self.state, self.until = BreakerState.OPEN, self._rests_until
        elif works:
            self.state = BreakerState.HALF_OPEN
        else:
            self._open(now)

    def tried(self, step: str, well: bool | None, now: float) -> None:
        """The trial has ended: well, by the endpoint's fault, or (None) in a way that says nothing."""
        self.trial = None
        if well:
            self.state = BreakerState.CLOSED
        elif well is not None and not self._met(step):
            self._open(now)
            self.until = now  # it may have loaded the model, so that this can be asked itself


class Breakers:
    """Those of a node and its models, by the names that the node gives them."""

    def __init__(self, policy: BreakerPolicy) -> None:
        self._policy = policy
        self.node = Breaker(policy)
        self._models: OrderedDict[str, Breaker] = OrderedDict()
        self.not_closed: dict[str, Breaker] = {}
        """Those of which anything need be asked: mostly none."""
        self._trials: dict[str, tuple[str, ...]] = {}
        """Claim → model, or node, whose trial it is."""

    @property
    def shut(self) -> frozenset[str]:
        """The models that are not asked at present; with `NODE` none is."""
        return frozenset(name for name, breaker in self.not_closed.items() if breaker.shut) if self.not_closed else _NONE

    @property
    def half_open(self) -> bool:
        """Whether the next step may be a trial."""
        return any(one.state is BreakerState.HALF_OPEN and one.trial is None for one in self.not_closed.values())

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
        self._judge_trials(claim, {NODE, model}, call.step, True, now)
        self.node.succeeded(call)
        self._of(model).succeeded(call)

    def failed(self, claim: str, model: str, kind: K, call: Called, now: float) -> None:
        """An attempt has failed by the endpoint's fault. Nobody there: that is the node's, whatever the model."""
        named = {NODE} if kind is K.NODE_UNREACHABLE else {NODE, model}
        self._judge_trials(claim, named, call.step, False, now)
        if kind is K.NODE_UNREACHABLE:
            self.node.failed(call, now)
        elif self._of(model).failed(call, now):
            self.node.strike(model, now)
        self._look_at(named | {NODE})

    def over(self, claim: str) -> None:
        """An attempt has ended in a way that says nothing of the endpoint."""
        self._judge_trials(claim, frozenset(), "", None, 0.0)

    def _judge_trials(self, claim: str, of: AbstractSet[str], step: str, well: bool | None, now: float) -> None:
        for name in self._trials.pop(claim, ()):
            breaker = self._of(name)
            if breaker.trial == claim:
                breaker.tried(step, well if name in of else None, now)
                self._look_at({name})

    def due_in(self, now: float) -> float:
        """Seconds until the next back-off ends; inf when nothing is open."""
        opened = [one.until for one in self.not_closed.values() if one.state is BreakerState.OPEN]
        return max(0.0, min(opened) - now) if opened else inf

    def due(self, now: float) -> list[str]:
        """Those that are to be probed now, each until `probed` is told of it."""
        found = [name for name, one in self.not_closed.items() if one.state is BreakerState.OPEN and one.until <= now]
        for name in found:
            self._of(name).state = BreakerState.PROBING
        return found

    def probed(self, name: str, works: bool, now: float, *, called: bool) -> None:
        """What a probe of this model, or of the node, came to; `called`: a model was really asked."""
        breaker = self._of(name)
        if breaker.state is BreakerState.PROBING:
            breaker.probed(works, now, called=called)
            self._look_at({name})

    def _look_at(self, names: Iterable[str]) -> None:
        for name in names:
            breaker = self._of(name)
            if breaker.state is BreakerState.CLOSED:
                self.not_closed.pop(name, None)
            else:
                self.not_closed[name] = breaker
