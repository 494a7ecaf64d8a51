"""map: one outcome an item in the items' order, one answer after all of them, whatever fails, is late, or comes first."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shared.contracts.chat import Answer
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.job import Job
from shared.contracts.step import StepRequest
from shared.errors import InvalidInput
from shared.patterns.map import MAP, PORTION
from tests.support.scripted import DOWN, NEVER, Played, Reply, Script, crashes_alike, draw, play, team


def mapped(script: Script, prompt: str = "the task", **ask: Any) -> tuple[Job, Played]:
    job = Job(prompt=prompt, pattern="map", input=ask)
    return job, play(MAP, job, script)


def echo(request: StepRequest) -> Reply:
    """In an order of its own: the duration follows from the content."""
    return Reply(f"<{request.messages[-1].content}>", 1 + draw(request))


def test_the_outcomes_stand_in_the_items_order_whatever_comes_first() -> None:
    job, played = mapped(echo, items=[str(n) for n in range(20)], reduce="list", width=20)
    assert json.loads(played.text) == [{"index": n, "outcome": "answered", "text": f"<{n}>"} for n in range(20)]
    crashes_alike(MAP, job, played)


def test_without_items_the_prompts_lines_are_the_items() -> None:
    _, played = mapped(echo, "a\n\n  b \n", reduce="join")
    assert played.text == "[1] <a>\n\n[2] <b>"


def test_no_more_run_at_once_than_the_width_and_a_thousand_are_done() -> None:
    _, played = mapped(echo, items=["x"] * 1_000, width=16, reduce="join")
    assert (played.widest, len(played.asked)) == (16, 1_000)


def test_what_failed_and_what_is_late_is_told_and_the_rest_is_used() -> None:
    def script(request: StepRequest) -> Reply:
        text = request.messages[-1].content
        return Reply(DOWN) if text == "dead" else Reply("ok", NEVER if text == "hangs" else 1.0)

    job, played = mapped(script, items=["a", "dead", "hangs"], within_seconds=30, reduce="list")
    assert [one["outcome"] for one in json.loads(played.text)] == ["answered", "failed", "late"]
    assert played.seconds == 30
    crashes_alike(MAP, job, played)
    _, reduced = mapped(script, items=["a", "dead", "hangs"], within_seconds=30)
    read = reduced.asked[-1].messages[-1].content
    assert all(f'<data id="{n}">\n{told}\n</data>' in read for n, told in ((1, "ok"), (2, "(failed)"), (3, "(late)")))


@pytest.mark.parametrize(("least", "ends"), [(0, True), (1, False), (2, False)])
def test_too_few_answers_are_the_failure_of_the_first_that_failed(least: int, ends: bool) -> None:
    _, played = mapped(lambda _: Reply(DOWN), items=["a", "b"], least=least, reduce="list")
    assert (played.failure is None) == ends
    assert ends or played.failure == DOWN


def test_a_long_row_of_answers_is_reduced_in_rounds_of_bounded_prompts() -> None:
    def script(request: StepRequest) -> Reply:
        return Reply("y" * 3_900 if request.messages[-1].content == "x" else "z" * 9_000)

    _, played = mapped(script, items=["x"] * 40)
    reducers = [request for request in played.asked if request.messages[-1].content != "x"]
    assert len(reducers) > 2
    assert all(len(request.messages[-1].content) < 2 * PORTION for request in reducers)
    assert played.text == "z" * 9_000


def test_one_item_needs_no_reducer() -> None:
    _, played = mapped(echo, "hello")
    assert (played.text, len(played.asked)) == ("<hello>", 1)


def test_a_limit_ends_it_with_what_is_there() -> None:
    limit = Failure(kind=FailureKind.LIMIT, message="no", limit="calls")
    _, played = mapped(lambda request: Reply(limit if request.messages[-1].content == "b" else "ok"), items=["a", "b"])
    assert played.failure == limit
    assert played.best == Answer(text="[1] ok\n\n[2] (failed)")


def test_a_template_may_name_only_what_there_is() -> None:
    with pytest.raises(InvalidInput, match="the template names nothing"):
        MAP.read(Job(prompt="x", pattern="map", input={"template": "{nothing}"}))


def test_braces_in_an_item_are_text_and_an_agent_does_each() -> None:
    job = Job(prompt="p", pattern="map", input={"items": ["{input}"], "template": "do {item}", "agent": "extract", "reduce": "join"})
    played = play(MAP, job, echo, team=team("extract"))
    assert played.text == "<do {input}>"
    assert {request.agent for request in played.asked} == {"extract"}


@pytest.mark.parametrize("reduce", ["ask", "join"])
def test_only_the_reducer_streams(reduce: str) -> None:
    job = Job(prompt="a\nb", pattern="map", stream=True, input={"reduce": reduce})
    assert [request.stream for request in play(MAP, job, echo).asked] == [False, False, True][: 3 if reduce == "ask" else 2]
