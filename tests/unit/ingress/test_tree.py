"""The tree: a fold of history that no prefix breaks, each step where the pattern called it, nothing abandoned that is awaited."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from services.ingress.status.journal import Journal
from services.ingress.status.mermaid import mermaid
from services.ingress.status.shown import RawEvent, kind_of
from services.ingress.status.status import JobStatus, fold
from shared.contracts import event as events
from shared.contracts.base import PriorityClass
from shared.contracts.chat import Answer
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.job import Job
from shared.contracts.limits import Limits
from shared.contracts.result import Result, Status
from shared.contracts.step import StepRequest
from shared.contracts.usage import Timings, Usage
from shared.patterns.context import Ask, Context, StepError
from shared.patterns.port import Pattern
from shared.patterns.run import Run
from shared.tree import StepStatus, Tree, fold_step, tree_of

SECRET = "nobody may read this"
BROKEN = Failure(kind=FailureKind.MODEL_ERROR, message=SECRET)
USED = Usage(calls=1, prompt_tokens=10, completion_tokens=5)


async def nested(ctx: Context, job: Job, _: object) -> Answer:
    """A call, a pause, a gather with a gather and a branch of two calls in it, a call."""

    async def twice() -> Answer:
        await ctx.ask(asking("draft"))
        return await ctx.ask(asking("review"))

    await ctx.ask(asking("plan"))
    await ctx.sleep(5)
    inner = ctx.gather(Ask(asking("a")), Ask(asking("b")), quorum=1)
    try:
        await ctx.gather(Ask(asking("look")), twice(), inner, quorum=2)
    except StepError:
        await ctx.ask(asking("repair"))
    return await ctx.ask(asking("last"))


def asking(agent: str) -> StepRequest:
    return StepRequest(prompt=f"{SECRET}: {agent}", agent=agent)


class Told:
    """A history as the planner writes it, of a pattern that is driven by drawn outcomes: a second passes before each, none in a round."""

    def __init__(self) -> None:
        self.now = 100.0
        self.facts: list[Any] = []
        self.abandoned: set[str] = set()
        self.left: list[set[str]] = []
        """After each fact: what the run has abandoned so far."""
        self.run = Run("j", Pattern("nested", 1, nested), Job(prompt=SECRET))
        self.say(
            events.JobAccepted, request=Job(prompt=SECRET, pattern="nested"), priority_class=PriorityClass.BATCH, home=2, source="t/2/0",
            source_offset=0, pattern_version=1, limits=Limits(), deadline_at=900.0, digest="d",
        )  # fmt: skip

    def say(self, kind: Any, **fields: Any) -> None:
        self.abandoned |= set(self.run.take_abandoned())
        self.now += kind not in (events.StepAsked, events.TimerSet, events.JobSettled)
        self.facts.append(kind(epoch=3, job="j", at=self.now, **fields))
        self.left.append(set(self.abandoned))

    def ask(self) -> None:
        for wanted in self.run.wanted():
            self.run.record(wanted.step)
            if wanted.request is None:
                self.say(events.TimerSet, step=wanted.step, path=wanted.path, due_at=wanted.seconds)
            else:
                self.say(events.StepAsked, step=wanted.step, path=wanted.path, agent=wanted.request.agent, model="m")

    def open(self) -> list[Any]:
        return [fact for fact in self.facts if isinstance(fact, events.StepAsked | events.TimerSet) and fact.step in self.run._waiting]

    def attempt(self, asked: Any, *, number: int, good: bool, again: bool = False) -> None:
        """The step's outcome; `again`: it is tried once more."""
        step = asked.step
        if isinstance(asked, events.TimerSet):
            self.run.resume(step)
            self.say(events.TimerFired, step=step)
            return
        self.say(events.StepClaimedBy, step=step, attempt=number, claim="c", node=f"n{number}", mailbox=0, lease_seconds=20)
        if again:
            self.say(events.AttemptFailed, step=step, attempt=number, failure=BROKEN, retry_after_seconds=1.0, usage=USED)
            self.say(events.StepRetried, step=step, attempt=number + 1)
            self.attempt(asked, number=number + 1, good=good)
        elif good:
            self.run.resume(step, Answer(text=SECRET))
            answered = {"answer": Answer(text=SECRET), "usage": USED, "timings": Timings(total_ms=900)}
            self.say(events.StepAnswered, step=step, attempt=number, node=f"n{number}", **answered)
        else:
            self.run.resume(step, failure=BROKEN)
            self.say(events.AttemptFailed, step=step, attempt=number, failure=BROKEN, usage=USED)

    def settle(self) -> None:
        status = Status.SUCCEEDED if self.run.answer else Status.FAILED
        steps = sum(isinstance(fact, events.StepAsked) for fact in self.facts)
        result = Result(job="j", status=status, answer=self.run.answer, steps=steps, attempts=steps, accepted_at=100.0, finished_at=150.0)
        self.say(events.JobSettled, result=result)


@st.composite
def histories(draw: st.DrawFn) -> Told:
    told = Told()
    told.run.start()
    told.ask()
    while not told.run.finished:
        asked = draw(st.sampled_from(told.open()))
        told.attempt(asked, number=1, good=draw(st.integers(0, 4)) > 0, again=draw(st.booleans()))
        told.ask()
    told.settle()
    return told


def joined(facts: list[Any]) -> list[Any]:
    """Whatever may stand in one event does."""
    found: list[Any] = []
    for fact in facts:
        both = events.joined(found[-1], fact) if found else None
        found[-1:] = [both] if both is not None else [*found[-1:], fact]
    return found


def raw(facts: list[Any]) -> list[RawEvent]:
    return [RawEvent(offset, kind_of(type(fact)), fact.to_bytes()) for offset, fact in enumerate(facts)]


def tree(facts: list[Any]) -> Tree:
    return fold("j", 2, None, raw(facts)).tree()


def prefixes(told: Told) -> Iterator[tuple[int, Tree]]:
    """Of so many facts the tree."""
    status = JobStatus(id="j", home=2)
    yield 0, status.tree()
    for length, event in enumerate(raw(told.facts), 1):
        status = fold("j", 2, status, [event])
        yield length, status.tree()


def dump(model: BaseModel) -> Any:
    return json.loads(model.model_dump_json(exclude_none=True))


@settings(max_examples=8)
@given(histories())
def test_any_prefix_of_a_history_gives_a_tree(told: Told) -> None:
    """Each step that was asked for is there once, below what it lies in and behind its parent; no text is in it."""
    for length, found in prefixes(told):
        asked = [fact.path for fact in told.facts[:length] if isinstance(fact, events.StepAsked | events.TimerSet)]
        paths = [node.path for node in found.nodes]
        assert sorted(node.path for node in found.nodes if node.step) == sorted(asked)
        assert len(set(paths)) == len(paths)
        for number, node in enumerate(found.nodes):
            assert (node.parent or "0") == node.path.rpartition("/" if node.kind == "branch" else ".")[0]
            assert node.parent is None or node.parent in paths[:number]
        assert found.whole
        assert SECRET not in mermaid(found) + found.model_dump_json()


@settings(max_examples=8)
@given(histories())
def test_nothing_is_abandoned_that_the_pattern_awaits(told: Told) -> None:
    """At any moment only what the run has given up is shown so; at the end all of it, and nothing is open any more."""
    states: dict[str, str] = {}
    for length, found in prefixes(told):
        states = {node.step.id: node.step.state for node in found.nodes if node.step}
        assert {step for step, state in states.items() if state == "abandoned"} <= (told.left[length - 1] if length else set())
    assert {step for step, state in states.items() if state == "abandoned"} == told.abandoned & states.keys()
    assert set(states.values()) <= {"answered", "failed", "over", "abandoned"}


@settings(max_examples=8)
@given(histories(), st.integers(0, 60))
def test_facts_joined_and_apart_in_any_portions_give_the_same(told: Told, cut: int) -> None:
    """As a status in the store stands in between, too; a snapshot tells a late reader the same."""
    whole = dump(tree(told.facts))
    assert dump(tree(joined(told.facts))) == whole
    before = JobStatus.model_validate_json(fold("j", 2, None, raw(told.facts)[:cut]).stored())
    assert dump(fold("j", 2, before, raw(told.facts)).tree()) == whole
    small = Journal(jobs=9, size=10**6, events_per_job=4)
    for event in raw(told.facts):
        small.add("j", 2, event)
    status = small.status("j")
    assert status is not None
    assert dump(status.tree()) == whole
    texts = tuple(fact.to_bytes().decode() for fact in told.facts[:-1])
    snapshot = events.JobSnapshot(epoch=3, job="j", at=200.0, snapshot="x", part=0, parts=1, facts=texts)
    assert dump(tree([snapshot, told.facts[-1]])) == whole


@settings(max_examples=8)
@given(histories())
def test_the_critical_path_is_one_way_from_the_first_call_to_the_last(told: Told) -> None:
    """One branch of each gather on it, every call of a coroutine on it, and no other way takes longer."""
    for _, found in prefixes(told):
        below: dict[str | None, list[Any]] = {}
        for node in found.nodes:
            below.setdefault(node.parent, []).append(node)
        assert all(node.critical for node in below.get(None, []))
        for node in found.nodes:
            marked = sum(child.critical for child in below.get(node.path, []))
            wanted = 0 if not node.critical or node.step else 1 if node.kind == "gather" else len(below[node.path])
            assert marked == wanted, node.path
        steps = [node.step for node in found.nodes if node.critical and node.step]
        assert found.critical_seconds == pytest.approx(sum(step.seconds or step.ran_seconds or 0 for step in steps))


def straight() -> list[Any]:
    """plan, tried twice; then the end."""
    told = Told()
    told.run.start()
    told.ask()
    told.attempt(told.open()[0], number=1, good=True, again=True)
    return told.facts


def test_a_step_tells_its_attempts_times_and_use() -> None:
    """From the ask to the answer, all attempts; what the failed one used is waste."""
    [node] = tree(straight()).nodes
    assert node.step is not None
    step = node.step
    assert (step.state, step.attempt, step.nodes, step.failures) == ("answered", 2, ["n1", "n2"], ["model_error"])
    assert (step.waited_seconds, step.ran_seconds, step.seconds, step.answer_bytes) == (1.0, 0.9, 5.0, len(SECRET))
    assert step.usage == USED.plus(USED.as_waste())
    assert tree(straight()).usage == step.usage


def test_two_planners_clocks_are_never_compared() -> None:
    """Where another one came in between, only what the worker measured itself is known."""
    facts = straight()
    facts[2:] = [fact.model_copy(update={"epoch": 9, "at": 5.0}) for fact in facts[2:]]
    step = tree(facts).nodes[0].step
    assert step is not None
    assert (step.waited_seconds, step.ran_seconds, step.seconds) == (None, 0.9, None)


def test_a_history_whose_beginning_is_gone_says_so() -> None:
    """Live and ended; of a queued job nothing is missing."""
    facts = straight()
    assert JobStatus(id="j", home=2).tree().whole
    assert not tree(facts[2:]).whole
    result = Result(job="j", status=Status.FAILED, steps=3, attempts=3, accepted_at=1.0, finished_at=2.0)
    end = events.JobSettled(epoch=3, job="j", at=1.0, result=result)
    assert not tree([end]).whole
    assert not tree([*facts, end]).whole
    assert tree([*facts, end.model_copy(update={"result": result.model_copy(update={"steps": 1})})]).whole


def test_a_fact_of_another_kind_is_shown_by_its_name() -> None:
    """What later versions tell of a step."""

    class Reviewed(BaseModel):
        type: str = "step_reviewed"
        step: str = "s"
        path: str = "0.4"

    steps: list[StepStatus] = []
    fold_step(steps, Reviewed())
    [node] = tree_of("j", "running", steps, pattern=None, whole=True, result=None).nodes
    assert node.step is not None
    assert (node.path, node.step.state) == ("0.4", "step_reviewed")


@pytest.mark.parametrize("path", ["", "0", "1.2", "0.1/", "0.1/2", "0.x", "0." + "9" * 50, "0.1" + "/0.0" * 900, "\x1b[2J"])
def test_a_path_that_is_none_hides_no_step(path: str) -> None:
    """It stands at the end."""
    steps = [StepStatus(id="odd", path=path), StepStatus(id="s", path="0.0")]
    found = tree_of("j", "running", steps, pattern=None, whole=True, result=None)
    assert [node.step.id for node in found.nodes if node.step] == ["s", "odd"]


CHART = """flowchart TD
  job(["nested<br/>running"])
  n0["plan<br/>answered by n2<br/>attempt 2<br/>5 s<br/>15 tokens"]
  job --> n0
  n1(["pause<br/>over"])
  n0 --> n1
  n2{{"gather"}}
  n1 --> n2
  n4["look<br/>failed on n1<br/>2 s<br/>0 tokens"]
  n2 --> n4
  n6["draft<br/>running on n1"]
  n2 --> n6
  n8{{"gather"}}
  n2 --> n8
  n10["a<br/>asked"]
  n8 --> n10
  n12["b<br/>asked"]
  n8 --> n12
  classDef critical stroke-width:3px
  class n0,n1,n2,n6 critical
  classDef failed stroke:#c00
  class n4 failed
  classDef running stroke:#06c
  class n6 running
"""


def test_the_chart() -> None:
    """Calls follow each other, branches begin at their gather."""
    told = Told()
    told.run.start()
    told.ask()
    for good in (True, True):
        told.attempt(told.open()[0], number=1, good=good, again=True)
        told.ask()
    told.attempt(told.open()[0], number=1, good=False)
    told.say(events.StepClaimedBy, step=told.open()[0].step, attempt=1, claim="c", node="n1", mailbox=0, lease_seconds=20)
    assert mermaid(tree(told.facts)) == CHART


def test_a_name_cannot_change_the_chart() -> None:
    """An agent's name is anybody's."""
    steps = [StepStatus(id="s", path="0.0", agent='x"]\n  click job href "http://evil')]
    chart = mermaid(tree_of("j", "running", steps, pattern="p", whole=True, result=None))
    assert len(chart.splitlines()) == 6
    assert chart.count('"') == 4
