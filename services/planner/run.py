"""Run: drives one job's pattern coroutine, without asyncio, by recorded outcomes in recorded order.

First run and re-run are the same by construction: `resume` is called for each accepted outcome in the order of history, and what the
pattern asks for next depends on nothing else. Step ids are derived from the path of calls, so a re-run asks for the same ids.
"""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from services.planner.context import Ask, Context, Gather, Sleep, StepError, StepRequest
from services.planner.ids import step_id
from services.planner.patterns.port import Pattern
from shared.contracts.base import StepId
from shared.contracts.chat import Answer
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.job import Job
from shared.errors import NonDeterministicPattern


@dataclass(slots=True)
class _Fiber:
    """One coroutine of the pattern: its root, or a branch of a gather."""

    coroutine: Coroutine[Any, Any, Any]
    path: str
    join: _Join | None = None
    slot: int = 0
    calls: int = 0
    closed: bool = False


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


@dataclass(slots=True)
class _Resumption:
    fiber: _Fiber
    value: Any = None
    error: BaseException | None = None


async def _await(ask: Ask) -> Answer:
    return await ask


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

    def start(self) -> None:
        """Run to the first await. Call once."""
        self._advance(_Resumption(_Fiber(self.pattern.run(self.context, self.job), "0")))

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
        if fiber is not None and not fiber.closed:
            self._advance(_Resumption(fiber, answer, StepError(failure) if failure else None))

    def close(self) -> None:
        """Free the coroutines. The run is over."""
        for fiber in self._waiting.values():
            self._close(fiber)
        self._waiting.clear()
        self._wanted.clear()
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
        if isinstance(command, Gather):
            self._spread(fiber, command, todo)
            return
        path = f"{fiber.path}.{fiber.calls}"
        fiber.calls += 1
        if isinstance(command, Ask):
            wanted = Wanted(self._step_id(path, command.request.rendered()), path, command.request)
        elif isinstance(command, Sleep):
            wanted = Wanted(self._step_id(path, b"sleep"), path, None, command.seconds)
        else:
            todo.append(_Resumption(fiber, None, TypeError(f"a pattern may await only its context, not {type(command).__name__}")))
            return
        self._wanted[wanted.step] = wanted
        self._waiting[wanted.step] = fiber

    def _step_id(self, path: str, rendered: bytes) -> StepId:
        return step_id(self.job_id, self.pattern.name, self.pattern.version, path, rendered)

    def _spread(self, fiber: _Fiber, gather: Gather, todo: list[_Resumption]) -> None:
        base = f"{fiber.path}.{fiber.calls}"
        fiber.calls += 1
        join = _Join(fiber, [], [None] * len(gather.branches), gather.quorum)
        for slot, branch in enumerate(gather.branches):
            coroutine = _await(branch) if isinstance(branch, Ask) else branch
            join.branches.append(_Fiber(coroutine, f"{base}/{slot}", join, slot))
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
        todo.append(_Resumption(join.fiber, join.results, error))

    def _abandon(self, branch: _Fiber) -> None:
        """Close a branch and everything below it; its open steps are wanted by nobody."""
        if branch.closed:
            return
        below = branch.path + "."
        for step, fiber in list(self._waiting.items()):
            if fiber is branch or fiber.path.startswith(below):
                del self._waiting[step]
                self._wanted.pop(step, None)
                self._abandoned.append(step)
                self._close(fiber)
        self._close(branch)

    @staticmethod
    def _close(fiber: _Fiber) -> None:
        fiber.closed = True
        fiber.coroutine.close()

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
