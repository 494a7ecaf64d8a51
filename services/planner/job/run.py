"""Run: drives one job's pattern coroutine, without asyncio, by recorded outcomes in recorded order.

First run and re-run are the same by construction: `resume` is called for each accepted outcome in the order of history, and what the
pattern asks for next depends on nothing else. Step ids are derived from the path of calls, so a re-run asks for the same ids.

Derived identifiers: the same input always gives the same id, so that redelivery and re-runs cannot double anything.
"""

from __future__ import annotations

from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from shared.contracts.base import StepId
from shared.contracts.chat import Answer
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.headers import Origin
from shared.contracts.job import Job
from shared.contracts.step import Content, StepRequest
from shared.errors import InvalidInput, NonDeterministicPattern
from shared.murmur import Endings
from shared.patterns.context import Ask, Branch, Context, Gather, Sleep, StepError
from shared.patterns.port import Pattern

_SEPARATOR = b"\x1f"
_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
_PAIRS = tuple(a + b for a in _ALPHABET for b in _ALPHABET)
"""RFC 4648 base 32, two characters at a time: `base64.b32encode` takes ten times as long."""
_ENDINGS = Endings([_PAIRS[7 * number & 1023] + pair for number, pair in enumerate(_PAIRS)])


def job_id(cluster: str, lies: Origin, homes: int) -> str:
    """Id of a job that came without one: from where its record lies, so a redelivered record is the same job; it is at home there.

    The cluster id and the timestamp keep a re-created topic from repeating ids.
    """
    text = f"{cluster}\x1f{lies.topic}\x1f{lies.partition}\x1f{lies.offset}\x1f{lies.timestamp}"
    return derived("j_", text, lies.partition % homes, homes)


def derived(prefix: str, text: str, home: int, homes: int) -> str:
    """An id of 26 characters after the prefix (of two): 110 bits of the text's hash, and an ending by which this is its home."""
    number = int.from_bytes(blake2b(text.encode(), digest_size=15).digest())
    head = prefix + "".join([_PAIRS[number >> shift & 1023] for shift in range(110, 9, -10)])
    return _ENDINGS.complete(head, number & 1023, home, homes)


def step_id(job: str, pattern: str, version: int, path: str, rendered: bytes) -> StepId:
    """128 bits, hex, from the job, the pattern and its version, the path of calls (which counts iterations) and the rendered input."""
    head = _SEPARATOR.join((job.encode(), pattern.encode(), b"%d" % version, path.encode(), b""))
    return StepId(blake2b(head + rendered, digest_size=16).hexdigest())


_LONGEST_SLEEP_SECONDS = 1e9
"""About thirty years: what no instant can hold is the pattern's mistake."""
_CLOSINGS = 8
"""How often a coroutine is closed that awaits again while it is being closed."""


@dataclass(slots=True)
class _Fiber:
    """One coroutine of the pattern: its root, or a branch of a gather."""

    coroutine: Coroutine[Any, Any, Any]
    path: str
    join: _Join | None = None
    """The gather that it is a branch of."""
    slot: int = 0
    source: Branch | None = None
    calls: int = 0
    closed: bool = False
    step: StepId | None = None
    """What it waits for, or `below`, or neither when it is running."""
    below: _Join | None = None


@dataclass(slots=True)
class _Join:
    """A fiber that waits for its branches."""

    fiber: _Fiber
    branches: list[_Fiber]
    results: list[Any]
    quorum: int | None
    succeeded: int = 0
    failed: int = 0
    first_error: BaseException | None = None
    done: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the pattern yielded: a step to ask for, or a sleep when `request` is None."""

    step: StepId
    path: str
    request: StepRequest | None
    seconds: float = 0.0
    size: int = 0
    """Bytes of the rendered request."""
    content: Content | None = None
    """The request's, as it was rendered."""


@dataclass(slots=True)
class _Resumption:
    fiber: _Fiber
    value: Any = None
    error: BaseException | None = None


async def _await(command: Ask | Gather | Sleep) -> Any:
    return await command


@dataclass(slots=True)
class Run:
    """One job's pattern in progress."""

    job_id: str
    pattern: Pattern
    job: Job
    context: Context = field(default_factory=Context)
    answer: Answer | None = None
    failure: Failure | None = None
    finished: bool = False
    _wanted: dict[StepId, Wanted] = field(default_factory=dict)
    _waiting: dict[StepId, _Fiber] = field(default_factory=dict)
    _abandoned: list[StepId] = field(default_factory=list)
    _root: _Fiber | None = None

    def start(self) -> None:
        """Run to the first await. Call once."""
        try:
            ask = self.pattern.read(self.job)
        except InvalidInput as error:  # history holds what an older version of the model took
            self._finish(None, error)
            return
        self._root = _Fiber(self.pattern.run(self.context, self.job, ask), "0")
        self._advance(_Resumption(self._root))

    def wanted(self) -> list[Wanted]:
        """What the pattern has yielded and history does not hold yet, in order."""
        return list(self._wanted.values())

    def record(self, step: StepId) -> Wanted:
        """History holds this ask. Raises NonDeterministicPattern when the pattern did not ask for it."""
        wanted = self._wanted.pop(step, None)
        if wanted is None:
            raise NonDeterministicPattern(f"history asks for step {step}, the pattern does not")
        return wanted

    def take_abandoned(self) -> list[StepId]:
        """Steps nobody waits for any more since the last call."""
        abandoned, self._abandoned = self._abandoned, []
        return abandoned

    def still_wants(self, step: StepId) -> bool:
        """Whether the pattern wants this step and history does not hold it yet."""
        return step in self._wanted

    def resume(self, step: StepId, answer: Answer | None = None, failure: Failure | None = None) -> None:
        """Go on from this step with its answer, or its failure. A step nobody waits for changes nothing."""
        fiber = self._waiting.pop(step, None)
        if fiber is not None:
            fiber.step = None
            self._advance(_Resumption(fiber, answer, StepError(failure) if failure else None))

    def close(self) -> None:
        """Free the coroutines. The run is over."""
        if self._root is not None:
            self._abandon(self._root)
        self._abandoned.clear()
        self.finished = True

    def _advance(self, first: _Resumption) -> None:
        todo = [first]
        while todo:
            now = todo.pop()
            if now.fiber.closed:
                continue
            try:
                coroutine = now.fiber.coroutine
                command = coroutine.throw(now.error) if now.error is not None else coroutine.send(now.value)
            except StopIteration as stop:
                self._ended(now.fiber, stop.value, None, todo)
            except Exception as error:
                self._ended(now.fiber, None, error, todo)
            else:
                self._command(now.fiber, command, todo)

    def _command(self, fiber: _Fiber, command: object, todo: list[_Resumption]) -> None:
        """Begin what the fiber awaits. What cannot be begun is the pattern's error, raised where it awaits."""
        try:
            if isinstance(command, Gather):
                self._spread(fiber, command, todo)
            else:
                self._want(fiber, command)
        except Exception as error:
            todo.append(_Resumption(fiber, None, error))

    def _want(self, fiber: _Fiber, command: object) -> None:
        path = f"{fiber.path}.{fiber.calls}"
        fiber.calls += 1
        if isinstance(command, Ask):
            content = command.request.content()
            rendered = command.request.rendered(content)
            wanted = Wanted(self._step_id(path, rendered), path, command.request, size=len(rendered), content=content)
        elif isinstance(command, Sleep):
            if not 0.0 <= command.seconds <= _LONGEST_SLEEP_SECONDS:
                raise ValueError("a sleep is between 0 and 1e9 seconds")
            wanted = Wanted(self._step_id(path, b"sleep"), path, None, command.seconds)
        else:
            raise TypeError(f"a pattern may await only its context, not {type(command).__name__}")
        fiber.step = wanted.step
        self._wanted[wanted.step] = wanted
        self._waiting[wanted.step] = fiber

    def _step_id(self, path: str, rendered: bytes) -> StepId:
        return step_id(self.job_id, self.pattern.name, self.pattern.version, path, rendered)

    def _spread(self, fiber: _Fiber, gather: Gather, todo: list[_Resumption]) -> None:
        if not gather.branches:
            todo.append(_Resumption(fiber, []))
            return
        if gather.quorum is not None and not 1 <= gather.quorum <= len(gather.branches):
            _discard(gather)
            raise ValueError(f"a quorum of {gather.quorum} of {len(gather.branches)} branches")
        base = f"{fiber.path}.{fiber.calls}"
        fiber.calls += 1
        fiber.below = join = _Join(fiber, [], [None] * len(gather.branches), gather.quorum)
        for slot, branch in enumerate(gather.branches):
            coroutine = _await(branch) if isinstance(branch, Ask | Gather | Sleep) else branch
            join.branches.append(_Fiber(coroutine, f"{base}/{slot}", join, slot, branch))
        todo.extend(_Resumption(branch) for branch in reversed(join.branches))

    def _ended(self, fiber: _Fiber, value: Any, error: Exception | None, todo: list[_Resumption]) -> None:
        fiber.closed = True
        if fiber.join is None:
            self._finish(value, error)
        else:
            self._joined(fiber.join, fiber.slot, value, error, todo)

    def _joined(self, join: _Join, slot: int, value: Any, error: Exception | None, todo: list[_Resumption]) -> None:
        if join.done:
            return
        if error is None:
            join.results[slot] = value
            join.succeeded += 1
        else:
            join.failed += 1
            join.first_error = join.first_error or error
        needed = join.quorum if join.quorum is not None else len(join.branches)
        if join.succeeded >= needed:
            self._resolve(join, todo, None)
        elif len(join.branches) - join.failed < needed:
            self._resolve(join, todo, join.first_error)

    def _resolve(self, join: _Join, todo: list[_Resumption], error: BaseException | None) -> None:
        join.done = True
        for branch in join.branches:
            self._abandon(branch)
        join.fiber.below = None
        todo.append(_Resumption(join.fiber, join.results, error))

    def _abandon(self, fiber: _Fiber) -> None:
        """Close a fiber, what is below it first; its open steps are wanted by nobody."""
        if fiber.closed:
            return
        fiber.closed = True
        if fiber.below is not None:
            for branch in fiber.below.branches:
                self._abandon(branch)
        if fiber.step is not None:
            del self._waiting[fiber.step]
            self._wanted.pop(fiber.step, None)
            self._abandoned.append(fiber.step)
        _close(fiber.coroutine)
        if fiber.source is not None:
            _discard(fiber.source)

    def _finish(self, value: Any, error: Exception | None) -> None:
        self.finished = True
        if error is None:
            if isinstance(value, Answer):
                self.answer = value
            else:
                self.failure = Failure(kind=FailureKind.INTERNAL, message="the pattern returned no answer")
        elif isinstance(error, StepError):
            self.failure = error.failure
        else:
            self.failure = Failure(kind=FailureKind.INTERNAL, message=f"the pattern raised {type(error).__name__}")


def _close(coroutine: Coroutine[Any, Any, Any]) -> None:
    """Close, whatever the pattern does about it: its error has no job left to concern, and the home must go on."""
    for _ in range(_CLOSINGS):
        with suppress(Exception):
            coroutine.close()
            return


def _discard(branch: Branch) -> None:
    """Close the coroutines of a branch that was never begun."""
    if isinstance(branch, Gather):
        for inner in branch.branches:
            _discard(inner)
    elif not isinstance(branch, Ask | Sleep):
        _close(branch)
