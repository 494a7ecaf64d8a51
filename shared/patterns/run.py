"""Run: drives one job's pattern coroutine, without asyncio, by recorded outcomes in recorded order.

First run and re-run are the same by construction: `resume` is called for each accepted outcome in the order of history, and what the
pattern asks for next depends on nothing else. Step ids are derived from the path of calls, so a re-run asks for the same ids.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from shared.contracts.base import StepId
from shared.contracts.chat import Answer
from shared.contracts.conversation import ContextRef
from shared.contracts.critique import TenantPolicy
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.job import Job
from shared.contracts.review import REVIEW_BYTES, Decision, ReviewTerms
from shared.contracts.step import Content, StepRequest
from shared.derived import step_id
from shared.errors import InvalidInput, NonDeterministicPattern
from shared.patterns.context import Ask, Branch, Close, Context, Ended, Gather, Next, Pool, Review, Sleep, StepError
from shared.patterns.conversation import after_recap, as_seen, in_turn
from shared.patterns.policies import under_policies
from shared.patterns.port import Pattern, PatternInput

_LONGEST_SLEEP_SECONDS = 1e9
"""About thirty years: what no instant can hold is the pattern's mistake."""
_CLOSINGS = 8
"""How often a coroutine is closed that awaits again while it is being closed."""


@dataclass(slots=True)
class _Fiber:
    """One coroutine of the pattern: its root, or a branch of a gather."""

    coroutine: Coroutine[Any, Any, Any]
    path: str
    join: _Join | _Crew | None = None
    """The gather or the pool that it is a branch of."""
    slot: int = 0
    source: Branch | None = None
    calls: int = 0
    closed: bool = False
    step: StepId | None = None
    """What it waits for, or `below`, or a crew, or none of them when it is running."""
    below: _Join | None = None
    crews: dict[Pool, _Crew] = field(default_factory=dict)
    """Of the pools that it has awaited."""


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


@dataclass(slots=True)
class _Crew:
    """What runs of a pool, by slot, and what has ended and was not taken yet."""

    fiber: _Fiber
    pool: Pool
    base: str
    keys: list[Any] = field(default_factory=list)
    """By slot, of all that has begun."""
    running: dict[int, _Fiber] = field(default_factory=dict)
    ended: deque[Ended | Exception] = field(default_factory=deque)
    waits: bool = False
    """Its fiber waits for the next end."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the pattern yielded: a step to ask for, a review, or, with neither `request` nor `review`, a sleep. `choice`: of its model."""

    step: StepId
    path: str
    request: StepRequest | None
    seconds: float = 0.0
    size: int = 0
    content: Content | None = None
    """Of the request as it was rendered, the size in bytes."""
    review: ReviewTerms | None = None
    choice: str | None = None


@dataclass(slots=True)
class _Resumption:
    fiber: _Fiber
    value: Any = None
    error: BaseException | None = None


async def _await(command: Ask | Gather | Sleep | Review) -> Any:
    return await command


@dataclass(slots=True)
class Run:
    """One job's pattern in progress."""

    job_id: str
    pattern: Pattern
    job: Job
    context: Context = field(default_factory=Context)
    policies: tuple[TenantPolicy, ...] = ()
    """Of its tenant, as they were when the job was accepted."""
    answer: Answer | None = None
    failure: Failure | None = None
    finished: bool = False
    _wanted: dict[StepId, Wanted] = field(default_factory=dict)
    _waiting: dict[StepId, _Fiber] = field(default_factory=dict)
    _abandoned: list[StepId] = field(default_factory=list)
    _root: _Fiber | None = None

    def start(self, context: ContextRef | None = None, older: ContextRef | None = None) -> None:
        """Run to the first await. Call once. Of a conversation: with this context, once `older` is summed up."""
        if context is not None:
            self.job = in_turn(self.job, context)
        try:
            ask = self.pattern.read(self.job)
        except InvalidInput as error:  # history holds what an older version of the model took
            self._finish(None, error)
            return
        run = self._procedure(ask, older)
        self._root = _Fiber(under_policies(self.context, self.job, self.policies, run) if self.policies else run(self.job), "0")
        self._advance(_Resumption(self._root))

    def _procedure(self, ask: PatternInput, older: ContextRef | None) -> Callable[[Job], Coroutine[Any, Any, Answer]]:
        """The pattern, of the job as it is to see it: what is redacted in its input is read anew."""

        def run(now: Job) -> Coroutine[Any, Any, Answer]:
            return self.pattern.run(self.context, now, ask if now.pattern_input == self.job.pattern_input else self.pattern.read(now))

        return run if older is None else lambda now: after_recap(self.context, as_seen(now), older, run)

    def wanted(self) -> list[Wanted]:
        """What the pattern has yielded and history does not hold yet, in order."""
        return list(self._wanted.values())

    @property
    def wants(self) -> bool:
        """Whether `wanted` has any."""
        return bool(self._wanted)

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

    def resume(self, step: StepId, answer: Answer | Decision | None = None, failure: Failure | None = None) -> None:
        """Go on from this step with its answer, or its failure. A step nobody waits for changes nothing."""
        fiber = self._waiting.pop(step, None)
        if fiber is not None:
            fiber.step = None
            self._advance(_Resumption(fiber, answer, StepError(failure) if failure else None))

    def close(self) -> None:
        """Free the coroutines. The run is over."""
        if self._root is not None:
            self._abandon(self._root)
            self._forget_pools()
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
            elif isinstance(command, Next):
                self._next(fiber, command.pool, todo)
            elif isinstance(command, Close):
                self._dismiss(fiber.crews.get(command.pool), command.pool)
                todo.append(_Resumption(fiber))
            else:
                self._want(fiber, command)
        except Exception as error:
            todo.append(_Resumption(fiber, None, error))

    def _want(self, fiber: _Fiber, command: object) -> None:
        path = f"{fiber.path}.{fiber.calls}"
        fiber.calls += 1
        if isinstance(command, Ask):
            asked = command.request
            named, request, choice = self.context.resolved(asked, path) if self.context.resolves else (asked, asked, None)
            content = named.content()
            rendered = named.rendered(content)
            wanted = Wanted(self._step_id(path, rendered), path, request, size=len(rendered), content=content, choice=choice)
        elif isinstance(command, Sleep):
            if not 0.0 <= command.seconds <= _LONGEST_SLEEP_SECONDS:
                raise ValueError("a sleep is between 0 and 1e9 seconds")
            wanted = Wanted(self._step_id(path, b"sleep"), path, None, command.seconds)
        elif isinstance(command, Review):
            rendered = command.terms.to_bytes()
            if len(rendered) > REVIEW_BYTES:
                raise StepError(Failure(kind=FailureKind.TOO_LARGE, message=f"a review has at most {REVIEW_BYTES} bytes"))
            wanted = Wanted(self._step_id(path, b"review" + rendered), path, None, review=command.terms)
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
        join.branches.extend(_branch(branch, base, join, slot) for slot, branch in enumerate(gather.branches))
        todo.extend(_Resumption(branch) for branch in reversed(join.branches))

    def _next(self, fiber: _Fiber, pool: Pool, todo: list[_Resumption]) -> None:
        crew = fiber.crews.get(pool)
        if crew is None:
            crew = fiber.crews[pool] = _Crew(fiber, pool, f"{fiber.path}.{fiber.calls}")
            fiber.calls += 1
        begun = self._fill(crew)
        crew.waits = True
        self._tell(crew, todo)
        todo.extend(_Resumption(fiber) for fiber in reversed(begun))

    def _tell(self, crew: _Crew, todo: list[_Resumption]) -> None:
        """The next end goes to who waits for it; nothing, where nothing is left."""
        if crew.waits and (crew.ended or not crew.running):
            crew.waits = False
            ended = crew.ended.popleft() if crew.ended else None
            error = ended if isinstance(ended, Exception) else None
            todo.append(_Resumption(crew.fiber, None if error else ended, error))

    def _fill(self, crew: _Crew) -> list[_Fiber]:
        begun: list[_Fiber] = []
        pool, kept = crew.pool, deque[tuple[Any, Branch]]()
        places = pool.width - sum(not isinstance(fiber.source, Sleep | Review) for fiber in crew.running.values())
        while pool.waiting:
            key, branch = pool.waiting.popleft()
            if not isinstance(branch, Sleep | Review):
                if places <= 0:
                    kept.append((key, branch))
                    continue
                places -= 1
            begun.append(_branch(branch, crew.base, crew, len(crew.keys)))
            crew.running[len(crew.keys)] = begun[-1]
            crew.keys.append(key)
        pool.waiting.extend(kept)
        return begun

    def _left(self, crew: _Crew, slot: int, value: Any, error: Exception | None, todo: list[_Resumption]) -> None:
        if crew.running.pop(slot, None) is None:
            return
        failure = error.failure if isinstance(error, StepError) else None
        crew.ended.append(error if error is not None and failure is None else Ended(crew.keys[slot], value, failure))
        self._tell(crew, todo)

    def _forget_pools(self) -> None:
        """Those that nobody awaited, too."""
        for pool in self.context.pools:
            self._dismiss(None, pool)

    def _dismiss(self, crew: _Crew | None, pool: Pool) -> None:
        while pool.waiting:
            _discard(pool.waiting.popleft()[1])
        if crew is not None:
            crew.ended.clear()
            running, crew.running = crew.running, {}
            for fiber in running.values():
                self._abandon(fiber)

    def _ended(self, fiber: _Fiber, value: Any, error: Exception | None, todo: list[_Resumption]) -> None:
        fiber.closed = True
        for pool, crew in fiber.crews.items():
            self._dismiss(crew, pool)
        if fiber.join is None:
            self._finish(value, error)
        elif isinstance(fiber.join, _Crew):
            self._left(fiber.join, fiber.slot, value, error, todo)
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
        for pool, crew in fiber.crews.items():
            self._dismiss(crew, pool)
        if fiber.step is not None:
            del self._waiting[fiber.step]
            self._wanted.pop(fiber.step, None)
            self._abandoned.append(fiber.step)
        _close(fiber.coroutine)
        if fiber.source is not None:
            _discard(fiber.source)

    def _finish(self, value: Any, error: Exception | None) -> None:
        self.finished = True
        self._forget_pools()
        if error is None:
            if isinstance(value, Answer):
                self.answer = value
            else:
                self.failure = Failure(kind=FailureKind.INTERNAL, message="the pattern returned no answer")
        elif isinstance(error, StepError):
            self.failure = error.failure
        else:
            self.failure = Failure(kind=FailureKind.INTERNAL, message=f"the pattern raised {type(error).__name__}")


def _branch(branch: Branch, base: str, join: _Join | _Crew, slot: int) -> _Fiber:
    coroutine = _await(branch) if isinstance(branch, Ask | Gather | Sleep | Review) else branch
    return _Fiber(coroutine, f"{base}/{slot}", join, slot, branch)


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
    elif not isinstance(branch, Ask | Sleep | Review):
        _close(branch)
