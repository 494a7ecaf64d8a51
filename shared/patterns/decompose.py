"""decompose: a plan of subtasks that need each other, done as far side by side as it allows, then one answer over them.

When: a task has parts that can be done apart: several look-ups and a comparison, a report of sections.
Not when: each step needs all before it (chain), or one good call does it (single): a plan costs a call and can be wrong.
Options: `nodes` (at most so many subtasks, 5), `width` (at once, 8), `depth` (longest row of subtasks, 4), `splits` (how often a subtask
that failed is planned anew, 1), `replans` (how often the answer may ask for more, 1), `agent` (coordinator, who plans), `worker_agents`
(who may be given a subtask).
Cost: 2 + subtasks (+ 1 a replan's decision, + 2 a split or replan); depth 2 + the plan's critical path.
Try: tutti submit --pattern decompose "Compare Mars and Venus: size, air, a day."

    prompt ─► plan ─┬─► a ──────────┐
                    ├─► b ─► c(a,b) ┼─► answer
                    └─► d ──────────┘
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import Field, StringConstraints

from shared.contracts.agents import Reference
from shared.contracts.base import Label
from shared.contracts.chat import Answer, ChatMessage
from shared.contracts.failure import Failure
from shared.contracts.job import Job
from shared.contracts.limits import Limits
from shared.contracts.step import StepRequest
from shared.framing import NO_ORDERS, TOLD, framed
from shared.patterns.chain import job_input
from shared.patterns.context import Context, Pool, StepError, stop_at_limit, text_of
from shared.patterns.control import Control, decide, narrowed
from shared.patterns.port import Pattern, PatternInput
from shared.patterns.single import request_of
from shared.patterns.tool_use import ask_with_tools

_PLAN = """Split the task below into at most {nodes} small subtasks that can be done apart. Give each a short id, who does it, what is \
to be done in one or two sentences, and in `needs` the ids of the subtasks whose results it must read first (empty where it needs none). \
Do not answer the task."""
_READ = f"Results of other subtasks. {NO_ORDERS}"
_ANSWER = "Answer the task, using the results above where they are right. Say what is missing where something failed."
_MORE = "Can the task be answered well from the results above, or is a part of it missing?"
Id = Annotated[str, StringConstraints(min_length=1, max_length=16)]


class DecomposeInput(PatternInput):
    """Bounds of the plan, and who makes it."""

    nodes: int = Field(default=5, ge=2, le=24)
    width: int = Field(default=8, ge=1, le=24)
    depth: int = Field(default=4, ge=1, le=12)
    splits: int = Field(default=1, ge=0, le=3)
    replans: int = Field(default=1, ge=0, le=3)
    agent: Reference = "coordinator"
    worker_agents: tuple[Reference, ...] = Field(default=("research", "reasoning", "creative", "code"), min_length=1, max_length=16)


class _Subtask(Control):
    """A node of the plan."""

    id: Id
    agent: Label
    task: str = Field(min_length=1, max_length=400)
    needs: tuple[Id, ...] = Field(default=(), max_length=4)


class Plan(Control):
    """What the coordinator decides."""

    subtasks: tuple[_Subtask, ...] = Field(min_length=1, max_length=24)


class _Enough(Control):
    """Whether the results are enough."""

    enough: bool
    missing: str = Field(default="", max_length=300)


def faults(plan: Plan, ask: DecomposeInput, known: Sequence[str] = ()) -> str | None:
    """All that is wrong with a plan, in one sentence. `known`: ids of earlier plans, which may be needed and not used again."""
    ids = [node.id for node in plan.subtasks]
    wrong = [f"the id {name} is used twice" for name in sorted({*ids} & {*known} | {name for name in ids if ids.count(name) > 1})]
    wrong += [f"{node.id} needs {name}, which is no subtask" for node in plan.subtasks for name in node.needs if name not in {*ids, *known}]
    if len(ids) > ask.nodes:
        wrong.append(f"there are {len(ids)} subtasks; at most {ask.nodes} are allowed")
    if not wrong:
        rows = _rows(plan)
        if rows is None:
            wrong.append("some subtasks need each other in a circle")
        elif rows > ask.depth:
            wrong.append(f"{rows} subtasks wait for each other in a row; at most {ask.depth} may")
    return "; ".join(wrong[:8]) or None


def _rows(plan: Plan) -> int | None:
    """Length of the longest row of subtasks that wait for each other; None where they do in a circle."""
    left, level = {node.id: {*node.needs} for node in plan.subtasks}, 0
    while left:
        ready = {name for name, needs in left.items() if not needs & left.keys()}
        if not ready:
            return None
        left = {name: needs for name, needs in left.items() if name not in ready}
        level += 1
    return level


class _Work:
    """Subtasks under way: each begins when all that it needs has ended well; of one that failed, only what needs it is given up."""

    def __init__(self, ctx: Context, job: Job, ask: DecomposeInput) -> None:
        self._ctx, self._job, self._ask = ctx, job, ask
        self._pool: Pool = ctx.pool(ask.width)
        self.nodes: dict[str, _Subtask] = {}
        self.done: dict[str, str] = {}
        self.failed: dict[str, Failure] = {}
        self._waiting: dict[str, _Subtask] = {}

    async def run(self, plan: Plan) -> None:
        """Until all of the plan has ended, or cannot begin."""
        self._waiting = {node.id: node for node in plan.subtasks}
        self.nodes |= self._waiting
        self._begin()
        while (ended := await self._pool.next()) is not None:
            if ended.failure is None:
                self.done[ended.key] = ended.value
            else:
                stop_at_limit(ended.failure)
                self.failed[ended.key] = ended.failure
            self._begin()

    def _begin(self) -> None:
        for name in [name for name, node in self._waiting.items() if all(need in self.done for need in node.needs)]:
            self._pool.add(name, self._do(self._waiting.pop(name)))

    async def _do(self, node: _Subtask) -> str:
        """The subtask's text. One that fails is planned anew, as subtasks of its own, `splits` times."""
        read = {name: self.done[name] for name in node.needs}
        try:
            request = _request(self._ctx, self._job, node.agent, node.task, read)
            return text_of(await ask_with_tools(self._ctx, node.agent, request), "a subtask")
        except StepError as error:
            stop_at_limit(error.failure)
            if not self._ask.splits:
                raise
        inner = self._ask.model_copy(update={"splits": self._ask.splits - 1, "nodes": min(3, self._ask.nodes)})
        plan = await _plan(self._ctx, self._job, inner, node.task, read)
        work = _Work(self._ctx, self._job, inner)
        await work.run(plan)
        if not work.done:
            raise StepError(next(iter(work.failed.values())))
        return "\n".join(work.done.values())[:TOLD]

    def told(self) -> dict[str, str]:
        """What the answer reads, in the plans' order: results, and what there is none of."""
        return {name: self.done.get(name, "(failed)" if name in self.failed else "(not begun)") for name in self.nodes}


async def decompose(ctx: Context, job: Job, ask: DecomposeInput) -> Answer:
    """The answer over all results; of the single call where nobody makes a plan that can be worked off."""
    task = job_input(job)
    work = _Work(ctx, job, ask)
    try:
        await work.run(await _plan(ctx, job, ask, task, {}))
        for _ in range(ask.replans):
            verdict = await decide(ctx, _request(ctx, job, ask.agent, f"{task}\n\n{_MORE}", work.told()), _Enough)
            if verdict.enough:
                break
            await work.run(await _plan(ctx, job, ask, f"{task}\n\nStill missing: {verdict.missing}", work.told()))
    except StepError as error:
        stop_at_limit(error.failure)
    if not work.done:
        return await ctx.ask(request_of(job))
    request = _request(ctx, job, ask.agent, f"{task}\n\n{_ANSWER}", work.told(), plain=True)
    return await ctx.ask(request.model_copy(update={"stream": job.stream}))


async def _plan(ctx: Context, job: Job, ask: DecomposeInput, task: str, known: Mapping[str, str]) -> Plan:
    """Raises StepError when there is no valid one after two more asks."""
    request = _request(ctx, job, ask.agent, f"{_PLAN.format(nodes=ask.nodes)}\n\nTask: {task}", known)
    kind = narrowed(Plan, "subtasks.agent", ask.worker_agents, ask.nodes)
    return await decide(ctx, request, kind, lambda plan: faults(plan, ask, tuple(known)))


def _request(ctx: Context, job: Job, agent: str, task: str, read: Mapping[str, str], *, plain: bool = False) -> StepRequest:
    content = "\n".join((_READ, *(framed(name, text) for name, text in read.items()), "", task)) if read else task
    return ctx.request(job, agent, ChatMessage(role="user", content=content), **({"format": None} if plain else {}))


def likely_calls(job: Job, ask: DecomposeInput) -> Sequence[int]:
    """The plan, its subtasks, what is missing, the answer."""
    return [600, *[400] * ask.nodes, *[ask.nodes * 1_000] * (1 + min(1, ask.replans))]


DECOMPOSE = Pattern(
    "decompose", 1, decompose, DecomposeInput, likely_calls=likely_calls, limits=Limits(calls=64, steps=96, depth=8, width=24)
)
