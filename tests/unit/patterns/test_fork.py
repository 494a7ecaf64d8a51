"""fork: from any point of a recorded job on, with the same models, the same answer comes; with another answer, another one may."""

from __future__ import annotations

from typing import Any

import pytest

from shared.contracts.chat import Answer
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.job import Job
from shared.contracts.step import StepRequest
from shared.errors import InvalidInput
from shared.patterns import BUILT_IN
from shared.patterns.fork import FORK, MOST_ENDS
from shared.patterns.port import Pattern, agents_named
from tests.support.scripted import Played, Reply, crashes_alike, draw, play, run_of, team

CHAIN = {"steps": [{"name": "a", "template": "A {input}"}, {"name": "b", "template": "B {a}"}]}
GIVEN: dict[str, dict[str, Any]] = {
    "chain": CHAIN,
    "cascade": {"models": ["s:1b", "l:9b"]},
    "map": {"items": ["x", "y", "z"]},
    "models": {"action": "pull", "name": "m:1", "nodes": [{"node": "a"}, {"node": "b"}]},
}
PROMPT = "first 3 + 4 then 5?\nfor each of\na\nb\nc"


def script(request: StepRequest) -> Reply:
    """By the request's content alone; now and then it fails."""
    if draw(request, "fails") < 0.1:
        return Reply(Failure(kind=FailureKind.MODEL_ERROR, message="no"))
    return Reply(f'{{"answer": "{"yes" if draw(request) < 0.5 else "no"}", "n": {draw(request):.6f}}}')


def names() -> list[str]:
    return sorted(name for name in BUILT_IN.current if name not in ("fork", "compare", "tools", "maestro"))


def original(name: str) -> tuple[Pattern, Job, dict[str, Any]]:
    pattern = BUILT_IN.current[name]
    job = Job(prompt=PROMPT, pattern=name, input=GIVEN.get(name, {}))
    try:
        ask = pattern.read(job)
    except InvalidInput:
        job = Job(prompt=PROMPT, pattern=name)
        ask = pattern.read(job)
    return pattern, job, {"team": team(*dict.fromkeys(agents_named(ask)))}


def ends_of(pattern: Pattern, job: Job, played: Played, more: dict[str, Any]) -> list[dict[str, Any]]:
    """As history tells them, by path."""
    run, paths, ends = run_of(pattern, job, **more), {}, list[dict[str, Any]]()
    for entry in played.history:
        if entry[0] == "asked":
            paths[entry[1]] = run.record(entry[1]).path
            continue
        end = entry[2]
        told = {"answer": end} if isinstance(end, Answer) else {"failure": end} if isinstance(end, Failure) else {}
        ends.append({"path": paths[entry[1]], **{what: one.model_dump(mode="json") for what, one in told.items()}})
        run.resume(entry[1], end if isinstance(end, Answer) else None, end if isinstance(end, Failure) else None)
    run.close()
    return ends


def forked(pattern: Pattern, job: Job, ends: list[dict[str, Any]], **more: Any) -> Job:
    given = {"of": "t/j_1", "pattern": pattern.name, "version": pattern.version, "given": job.pattern_input, "ends": ends, **more}
    return Job(prompt=PROMPT, pattern="fork", input=given)


@pytest.mark.parametrize("name", names())
def test_from_any_step_on_the_same_comes_of_it(name: str) -> None:
    """The answer, or the failure; what history holds is asked for no more; and a planner may die in the fork as in any job."""
    pattern, job, more = original(name)
    played = play(pattern, job, script, **more)
    ends = ends_of(pattern, job, played, more)
    for count in range(len(ends) + 1):
        fork = forked(pattern, job, ends[:count])
        again = play(FORK, fork, script, **more, name="t/j_2")
        assert (again.answer, again.failure) == (played.answer, played.failure), count
        assert len(again.asked) <= len(played.asked) - sum("path" in end and ("answer" in end or "failure" in end) for end in ends[:count])
        crashes_alike(FORK, fork, again, **more, name="t/j_2")
    assert again.asked == []


def test_another_answer_or_prompt_leads_elsewhere() -> None:
    """Of the step behind it, too."""
    pattern, job, more = original("chain")

    def say(request: StepRequest) -> Reply:
        return Reply(f"<{request.messages[-1].content}>")

    ends = ends_of(pattern, job, play(pattern, job, say, **more), more)
    changed = [ends[0] | {"answer": {"text": "otherwise"}}]
    assert play(FORK, forked(pattern, job, changed), say).text == "<B otherwise>"
    assert play(FORK, forked(pattern, job, ends[:1], prompt="other words"), say).text == "<other words>"
    assert play(FORK, forked(pattern, job, ends, prompt="too late"), say).text == play(pattern, job, say).text


def test_what_no_pattern_asked_for_ends_it_by_name() -> None:
    """The recorded steps are another input's."""
    pattern, job, more = original("chain")
    ends = [{"path": "0.7", "answer": {"text": "x"}}]
    played = play(FORK, forked(pattern, job, ends), script, **more)
    assert played.failure is not None
    assert played.failure.kind is FailureKind.NON_DETERMINISTIC_PATTERN
    assert "0.7" in played.failure.message


@pytest.mark.parametrize(
    "given",
    [
        {"pattern": "nobody"},
        {"pattern": "fork"},
        {"version": 99},
        {"given": {"odd": 1}},
        {"ends": [{"path": "0.0", "answer": {"text": "x"}, "failure": {"kind": "limit", "message": "x"}}]},
        {"ends": [{"path": "0.0", "answer": {"blob": {"key": "k"}}}]},
        {"ends": [{"path": "0.0"}] * (MOST_ENDS + 1)},
    ],
)
def test_what_is_no_fork_is_refused(given: dict[str, Any]) -> None:
    """At the door, as any pattern's input; also a reference, by which another's answer might be read."""
    _, job, _ = original("vote")
    with pytest.raises(InvalidInput):
        FORK.read(job.model_copy(update={"pattern": "fork", "input": {"of": "j", "pattern": "vote", "version": 1, "given": {}, **given}}))


def test_agents_of_the_other_pattern_are_pinned() -> None:
    """As if it ran itself."""
    pattern, job, _ = original("debate")
    assert list(agents_named(FORK.read(forked(pattern, job, [])))) == list(agents_named(pattern.read(job)))
