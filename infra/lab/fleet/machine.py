"""Machine: one simulated Ollama whose calls are computed, not spoken: the rules of `simulators.ollama.scheduler`, the speeds of
`simulators.ollama.inference`, but an event a phase instead of one a token. So a day's trace takes seconds.

Writing sequences share the machine (`decode_sharing`) and are slowed while any prompt is read; each call's pace has its own jitter.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from infra.lab.fleet.timeline import Timeline
from infra.lab.simulators.ollama.memory import Footprint, needed_bytes, place, slowdown
from infra.lab.simulators.ollama.parameters import GIGABYTE, ModelParameters, Parameters


@dataclass(slots=True, eq=False)
class Call:
    """What is asked of one model. `ended` is called once; times are the timeline's."""

    model: str
    prompt: int
    output: int
    ended: Callable[[Call], None]
    asked_at: float = 0.0
    load_seconds: float = 0.0
    read_at: float = 0.0
    first_at: float | None = None
    ended_at: float = 0.0
    failed: bool = False
    pace: float = 1.0
    left: float = 0.0
    """Tokens that are still to be written."""


@dataclass(slots=True, eq=False)
class Loaded:
    """A model in memory. `calls`: under way, or waiting for its load."""

    model: ModelParameters
    footprint: Footprint
    ready: bool = False
    calls: int = 0
    used_at: float = 0.0


class Machine:
    """`begin` a call; its `ended` is called when it is over. `loads`: models brought into memory so far."""

    def __init__(self, parameters: Parameters, timeline: Timeline, random: Random) -> None:
        self._node, self._timeline, self._random = parameters, timeline, random
        self._models = {model.name: model for model in parameters.models}
        self.loaded: dict[str, Loaded] = {}
        self.loads = self.blocked = 0
        """Models brought into memory so far; how often one had to wait there for others' calls to end."""
        self.alive = True
        self.slow = 1.0
        """Times as long as it would take."""
        self.fails_after: float | None = None
        """Seconds after which each call fails, while it does."""
        self.busy_seconds = 0.0
        self._pending: deque[Call] = deque()
        self._loading = False
        self._reading: set[Call] = set()
        self._writing: dict[Call, Loaded] = {}
        self._at = 0.0
        self._plan = 0
        self._cached: dict[str, int] = {}
        self._life = 0

    # What is asked

    def begin(self, call: Call) -> None:
        """PlaceRequest; a call of a machine that is not there fails."""
        call.asked_at = self._timeline.now
        call.pace = 1.0 + self._node.jitter * (2.0 * self._random.random() - 1.0)
        if not self.alive or self.fails_after is not None:
            self._after(self.fails_after or 0.001, lambda: self._end(call, failed=True))
            return
        there = self.loaded.get(call.model)
        if there is not None:
            there.calls += 1
            if there.ready:
                self._read(call, there)
                return
        self._pending.append(call)
        self._serve()

    def stop(self, call: Call) -> None:
        """Somebody has hung up: it ends at the next token, without an answer."""
        if call in self._writing:
            self._advance()
            self._release(self._writing.pop(call))
            self._replan()

    def die(self) -> None:
        """Everything is gone; whoever asks hears nothing of what ran."""
        self._life += 1
        self._advance()
        self.alive, self._loading = False, False
        self.loaded.clear()
        self._reading.clear()
        self._writing.clear()
        self._pending.clear()

    def unload(self, name: str) -> None:
        """Out of memory, if it is idle."""
        there = self.loaded.get(name)
        if there is not None and not there.calls:
            del self.loaded[name]

    def load(self, name: str) -> None:
        """Into memory, without a question: as a call that writes nothing."""
        self.begin(Call(name, 0, 0, lambda _: None))

    # Loads: one at a time, the head of the line first

    def _serve(self) -> None:
        while self._pending and not self._loading:
            call = self._pending[0]
            there = self.loaded.get(call.model)
            if there is not None:
                self._pending.popleft()
                if there.ready:
                    self._read(call, there)
                    continue
                self._pending.appendleft(call)
                return
            model = self._models[call.model]
            footprint = self._place(model)
            if footprint is None:
                if not self._evict():
                    self.blocked += 1
                    return
                continue
            self._begin_load(model, footprint)

    def _place(self, model: ModelParameters) -> Footprint | None:
        if len(self.loaded) >= self._node.max_loaded_models:
            return None
        parallel = 1 if model.serial else self._node.num_parallel
        needed = needed_bytes(model, parallel, min(self._node.default_context, model.context_length))
        return place(needed, self._node, (there.footprint for there in self.loaded.values()))

    def _evict(self) -> bool:
        """The idle one that was used longest ago; False while all are busy."""
        idle = [there for there in self.loaded.values() if not there.calls]
        if not idle:
            return False
        del self.loaded[min(idle, key=lambda there: (there.used_at, there.model.name)).model.name]
        return True

    def _begin_load(self, model: ModelParameters, footprint: Footprint) -> None:
        self.loads += 1
        self._loading = True
        there = self.loaded[model.name] = Loaded(model, footprint)
        for call in self._pending:
            there.calls += call.model == model.name
        seconds = self._load_seconds(model)

        def loaded() -> None:
            self._loading = False
            there.ready = True
            ready = [call for call in self._pending if call.model == model.name]
            self._pending = deque(call for call in self._pending if call.model != model.name)
            for call in ready:
                call.load_seconds = seconds
                self._read(call, there)
            self._serve()

        self._after(seconds, loaded)

    def _load_seconds(self, model: ModelParameters) -> float:
        cached = self._cached.pop(model.name, None) is not None
        self._cached[model.name] = model.weights_bytes
        while len(self._cached) > 1 and sum(self._cached.values()) > self._node.ram_gb * GIGABYTE / 2:
            self._cached.pop(next(iter(self._cached)))
        rate = self._node.cached_load_gb_per_second if cached else self._node.load_gb_per_second
        return self.slow * (self._node.load_fixed_seconds + model.size_gb / rate)

    # Reading and writing

    def _read(self, call: Call, there: Loaded) -> None:
        self._advance()
        call.read_at = self._timeline.now
        self._reading.add(call)
        self._replan()
        speed = (there.model.prefill_tokens_per_second or 1.0) / slowdown(there.footprint, self._node)
        self._after(self.slow * call.pace * call.prompt / speed, lambda: self._write(call, there))

    def _write(self, call: Call, there: Loaded) -> None:
        self._advance()
        self._reading.discard(call)
        call.first_at, call.left = self._timeline.now, float(call.output)
        self._writing[call] = there
        self._replan()

    def _token_seconds(self, call: Call, there: Loaded) -> float:
        share = float(max(1, len(self._writing)) ** self._node.decode_sharing)
        busy = 1.0 / (1.0 - self._node.prefill_interference) if self._reading else 1.0
        speed = there.model.decode_tokens_per_second or 1.0
        return self.slow * slowdown(there.footprint, self._node) * share * busy * call.pace / speed

    def _advance(self) -> None:
        """What was written since the last look."""
        elapsed, self._at = self._timeline.now - self._at, self._timeline.now
        if self._reading or self._writing or self._loading:
            self.busy_seconds += elapsed
        if elapsed > 0:
            for call, there in self._writing.items():
                call.left -= elapsed / self._token_seconds(call, there)

    def _replan(self) -> None:
        """When the next one ends, if nothing changes before."""
        self._plan += 1
        plan = self._plan
        if self._writing:
            seconds = min(max(0.0, call.left) * self._token_seconds(call, there) for call, there in self._writing.items())
            self._after(seconds, lambda: self._look(plan))

    def _look(self, plan: int) -> None:
        if plan != self._plan:
            return
        self._advance()
        over = [call for call in self._writing if call.left <= 1e-6]
        for call in over:
            self._release(self._writing.pop(call))
        self._replan()
        for call in over:
            self._end(call)
        self._serve()

    def _release(self, there: Loaded) -> None:
        there.calls -= 1
        there.used_at = self._timeline.now

    def _end(self, call: Call, *, failed: bool = False) -> None:
        call.ended_at, call.failed = self._timeline.now, failed
        call.ended(call)

    def _after(self, seconds: float, act: Callable[[], None]) -> None:
        life = self._life
        self._timeline.after(seconds, lambda: act() if life == self._life else None)
