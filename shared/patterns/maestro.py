"""maestro: a coordinator that plans, gives work to specialists round by round, and answers when a critic finds the results good enough.

When: a task needs several skills (look up, reason, write, program), and which of them next depends on what is found.
Not when: the parts are known beforehand (decompose, chain), or one call does it: `skip_team` asks that first.
Options: `rounds` (4), `width` (instructions a round, 2), `stalls` (rounds without progress until the plan is made anew, 3), `replans` (2),
`skip_team` (a single answer that passes the critic is the answer, true), `agents` (specialists: research, reasoning, creative, code),
`agent` (coordinator), `judge` (`agent`: critic, `model`, `rubric`, `accept`).
Cost: 2 calls where the single answer passes; else + 1 plan + rounds * (1 + width) + 1 a replan + 2 (critic, answer); depth 5 + 2 * rounds.
Try: tutti submit --pattern maestro "Plan a day in Paris, and say what it costs."

    prompt ─► single ─► critic ─► answer
                           └─► facts, plan ─► ledger ─┬─► specialist ─┬─► ledger ─► … ─► critic ─► answer
                                                      └─► specialist ─┘
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from pydantic import Field, model_validator

from shared.contracts.agents import Reference
from shared.contracts.base import Label
from shared.contracts.chat import Answer, ChatMessage, Options
from shared.contracts.job import Job
from shared.contracts.limits import Limits
from shared.contracts.step import StepRequest
from shared.framing import NO_ORDERS, framed
from shared.patterns.chain import job_input
from shared.patterns.comparison import Spent
from shared.patterns.context import Context, StepError, explained, stop_at_limit
from shared.patterns.control import Control, Decided, decide, narrowed
from shared.patterns.judging import Grade, Judge, judged, readable
from shared.patterns.port import Pattern, PatternInput
from shared.patterns.samples import question
from shared.patterns.single import request_of
from shared.patterns.tool_use import ask_with_tools
from shared.validators.checks import Checks, faults, plain

TOLD = 2_000
"""Characters of one result that others read; of all results: `_ALL`, the newest."""
_ALL = 12_000
_ROOM = 512
_SINGLE, _CRITIC, _TEAM, _ROUND = 0.35, 0.1, 0.35, 0.15
"""Of the job's whole time, what each may take: the single answer, its critic, the team, and of that one round's specialists."""
_PLAN = """{data}Plan how a team does the task above. Do not do it. Say in a few words what is given, what must be looked up, what must be \
derived, what can only be guessed; then the plan, and whom of the team it needs:
{team}"""
_LEDGER = """{plan}
{data}Decide how to go on, each with a few words of reason: is the task done by the results? Does the work go in circles? Is there \
progress (yes, if nothing was tried yet)? Then give the next orders: who does what, in one or two sentences that can be understood alone. \
Give more than one only where they do not need each other."""
_WORK = "{data}Your part of the task above: {instruction}"
_ANSWER = "{data}Answer the task, from these results where they are right. Say what is missing."


class _MaestroInput(PatternInput):
    """Who is in the team, and its bounds."""

    rounds: int = Field(default=4, ge=1, le=20)
    width: int = Field(default=2, ge=1, le=4)
    stalls: int = Field(default=3, ge=1, le=10)
    replans: int = Field(default=2, ge=0, le=5)
    skip_team: bool = True
    agents: tuple[Reference, ...] = Field(default=("research", "reasoning", "creative", "code"), min_length=1, max_length=12)
    agent: Reference = "coordinator"
    judge: Judge = Judge()

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if {self.agent, self.judge.agent} & {*self.agents}:
            raise ValueError("the coordinator and the critic are no specialists: they give no work to themselves")
        if len({*self.agents}) < len(self.agents):
            raise ValueError("an agent is named twice")
        return self


class _TaskLedger(Control):
    """The task ledger: what is known, and the plan."""

    given: str = Field(default="", max_length=160)
    look_up: str = Field(default="", max_length=160)
    derive: str = Field(default="", max_length=160)
    guesses: str = Field(default="", max_length=160)
    plan: str = Field(min_length=1, max_length=320)
    team: tuple[Label, ...] = Field(min_length=1, max_length=12)


class _Assignment(Control):
    """What one specialist is to do."""

    agent: Label
    instruction: str = Field(min_length=1, max_length=240)


class _ProgressLedger(Control):
    """The progress ledger of one round."""

    done_reason: str = Field(default="", max_length=80)
    done: bool
    looping_reason: str = Field(default="", max_length=80)
    looping: bool
    progress_reason: str = Field(default="", max_length=80)
    progress: bool
    orders: tuple[_Assignment, ...] = Field(min_length=1, max_length=4)


class _Team:
    """The team at work. What is found stands here, so that it is there when the time is over."""

    def __init__(self, ctx: Context, job: Job, ask: _MaestroInput) -> None:
        self._ctx, self._job, self._ask, self._task = ctx, job, ask, job_input(job)
        self._facts: _TaskLedger | None = None
        self._given: set[tuple[str, str]] = set()
        self._idle: set[str] = set()
        self._last: set[str] = set()
        self._critique = ""
        self._noted = ctx.best_answer is not None
        self.results: list[tuple[str, str]] = []
        """Headline and text, in the order of the orders."""
        self.orders: list[dict[str, Any]] = []
        self.rounds = self.stalls = self.replans = 0
        self.passed = False
        self.stopped = "late"

    async def run(self) -> None:
        """Until the critic passes the results, all plans have stalled, or the rounds are over. Raises StepError of the coordinator's."""
        self._facts = await self._plan()
        while self.rounds < self._ask.rounds:
            self.rounds += 1
            ledger = await self._ledger(self._facts)
            if ledger.done and self.results and await self._approved():
                self.stopped, self.passed = "passed", True
                return
            orders = self._new(ledger.orders)
            self._idle = set() if ledger.progress else self._idle | self._last
            stalled = ledger.looping or not ledger.progress or len(orders) < len(ledger.orders) or (ledger.done and not self.results)
            self.stalls = self.stalls + 1 if stalled else max(0, self.stalls - 1)
            if self.stalls < self._ask.stalls:
                if orders:
                    await self._work(orders)
            elif self.replans < self._ask.replans and self.rounds < self._ask.rounds:
                self.replans, self.stalls, self._idle, self._last = self.replans + 1, 0, set(), set()
                self._facts = await self._plan()
            else:
                self.stopped = "stalled"
                return
        self.stopped = "rounds"

    async def _plan(self) -> _TaskLedger:
        about = [f"- {name}: {self._ctx.team.member(name).about[:160]}" for name in self._ask.agents]
        words = _PLAN.format(data=self._told(), team="\n".join(about))
        return await self._decided(words, narrowed(_TaskLedger, "team", self._ask.agents))

    async def _ledger(self, facts: _TaskLedger) -> _ProgressLedger:
        """Only who is in the team can be given work; who had it in vain since there was progress only where nobody else is left."""
        team = tuple(dict.fromkeys(facts.team))
        free = tuple(name for name in team if name not in self._idle) or team
        kind = narrowed(_ProgressLedger, "orders.agent", free, self._ask.width)
        return await self._decided(_LEDGER.format(data=self._told(), plan=framed("plan", _shown(facts))), kind)

    async def _decided(self, words: str, kind: type[Decided]) -> Decided:
        message = ChatMessage(role="user", content=f"{framed('task', self._task)}\n\n{words}")
        options = Options(temperature=0.0, max_tokens=_ROOM)
        return await decide(self._ctx, self._ctx.request(self._job, self._ask.agent, message, options=options), kind)

    async def _approved(self) -> bool:
        """By the critic, who must quote the results. What he misses, the coordinator reads next."""
        grade = await judged(self._ctx, self._job, self._ask.judge, self._task, "\n\n".join(text for _, text in self._newest()))
        if grade is not None and grade.score >= self._ask.judge.accept:
            return True
        self._critique = "" if grade is None else grade.critique.strip()
        return False

    def _new(self, orders: Sequence[_Assignment]) -> list[_Assignment]:
        """Those that were not given before, in other spelling."""
        found = []
        for order in orders:
            key = (order.agent, plain(order.instruction))
            if key not in self._given:
                self._given.add(key)
                found.append(order)
        return found

    async def _work(self, orders: Sequence[_Assignment]) -> None:
        self._last = {order.agent for order in orders}
        asks = (ask_with_tools(self._ctx, order.agent, self._request(order)) for order in orders)
        ends = await self._ctx.in_time(_ROUND * self._ctx.seconds, *asks)
        for order, end in zip(orders, ends, strict=True):
            text = end.text.strip() if isinstance(end, Answer) and end.blob is None else ""
            if text and not self._noted:
                self._ctx.best(end)
            if text:
                self.results.append((f"{order.agent}, asked: {order.instruction}", text))
            outcome = "answered" if text else "late" if end is None else "nothing"
            self.orders.append({"round": self.rounds, "agent": order.agent, "instruction": order.instruction, "outcome": outcome})
        stop_at_limit(*ends)

    def _request(self, order: _Assignment) -> StepRequest:
        words = _WORK.format(data=self._told(), instruction=order.instruction)
        message = ChatMessage(role="user", content=f"{framed('task', self._task)}\n\n{words}")
        return self._ctx.request(self._job, order.agent, message, options=Options(max_tokens=_ROOM))

    def _newest(self) -> list[tuple[str, str]]:
        """As many of the last results as fit, in their order."""
        return [(head, text[:TOLD]) for head, text in self.results[-_ALL // TOLD :]]

    def _told(self) -> str:
        """Results as data, numbered, and what the critic misses; a blank line behind. Empty where there are none."""
        shown = [framed(f"result {number}", f"{head}\n{text}") for number, (head, text) in enumerate(self._newest(), 1)]
        shown += [framed("critique", self._critique)] if self._critique else []
        return "\n".join((NO_ORDERS, *shown, "", "")) if shown else ""

    def closing(self) -> StepRequest:
        """The answering step, which nothing replaces."""
        turns = question(self._job, _ANSWER.format(data=self._told()))
        turns = turns[1:] if self._job.system and turns[0].role == "system" else turns  # the agent is told it beside its own words
        request = self._ctx.request(self._job, self._ask.agent, *turns)
        return request.model_copy(update={"stream": self._job.stream, "format": self._job.format or request.format})

    def explanation(self) -> dict[str, Any]:
        facts = self._facts.model_dump() if self._facts is not None else None
        counts = {"rounds": self.rounds, "stalls": self.stalls, "replans": self.replans}
        return {"stopped": self.stopped, "passed": self.passed, **counts, "facts": facts, "orders": self.orders}


def _shown(facts: _TaskLedger) -> str:
    known = {"given": facts.given, "to look up": facts.look_up, "to derive": facts.derive, "guesses": facts.guesses, "plan": facts.plan}
    return "\n".join(f"{name}: {text}" for name, text in known.items() if text.strip())


async def maestro(ctx: Context, job: Job, ask: _MaestroInput) -> Answer:
    """The single answer where it passes or the team finds nothing; else the coordinator's, over the team's results."""
    single, grade, passed = await _single(ctx, job, ask) if ask.skip_team else (None, None, False)
    if single is not None and passed:
        return explained(single, stopped="single", passed=grade is not None, single_score=grade and grade.score)
    team = _Team(ctx, job, ask)
    [end] = await ctx.in_time(_TEAM * ctx.seconds, team.run())
    stop_at_limit(end)
    if end is not None:
        team.stopped = "undecided"
    beside = {"single": single and single.text, "single_score": grade and grade.score, **team.explanation()}
    if not team.results:
        return explained(single or await ctx.ask(request_of(job)), **beside)
    try:
        answer = await ctx.ask(team.closing())
        ctx.apart()
        return explained(answer, **beside)
    except StepError as error:
        stop_at_limit(error.failure)
        return explained(single or Answer(text=team.results[-1][1]), **beside)


async def _single(ctx: Context, job: Job, ask: _MaestroInput) -> tuple[Answer | None, Grade | None, bool]:
    """What one call answers, what the critic says of it, and whether it is the answer: it passes, or is none that can be judged."""
    [answer] = await ctx.in_time(_SINGLE * ctx.seconds, ctx.ask(request_of(job).model_copy(update={"stream": False})))
    stop_at_limit(answer)
    if not isinstance(answer, Answer):
        return None, None, False
    ctx.best(answer)
    ctx.beside("single answer", answer.text, Spent.of(ctx.so_far.usage, ctx.so_far.seconds), same=True)
    if not readable(answer):
        return answer, None, True
    if faults(answer.text, Checks()):
        return answer, None, False
    [grade] = await ctx.in_time(_CRITIC * ctx.seconds, judged(ctx, job, ask.judge, job_input(job), answer.text))
    stop_at_limit(grade)
    if grade is not None:
        ctx.judge(request_of(job), answer, grade.score >= ask.judge.accept)
    return answer, grade, grade is not None and grade.score >= ask.judge.accept


def likely_calls(job: Job, ask: _MaestroInput) -> Sequence[int]:
    """Where the team is called: the single answer and its critic, the plan, a ledger and its orders a round, the critic, the answer."""
    single = [0, 1_000] if ask.skip_team else []
    return [*single, 1_000, *[3_000] * (ask.rounds * (1 + ask.width)), 4_000, 4_000]


MAESTRO = Pattern("maestro", 1, maestro, _MaestroInput, likely_calls=likely_calls, limits=Limits(calls=64, steps=96, depth=8))
