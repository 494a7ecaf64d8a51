"""The tree as people see it: golden drawings, colours where they are wanted, lines where nothing can be drawn over."""

from __future__ import annotations

import io

import pytest

from infra.cli.tree import Canvas, changes, draw
from shared.contracts.result import Result, Status
from shared.contracts.usage import Usage
from shared.tree import StepStatus, Tree, tree_of

USED = Usage(calls=1, prompt_tokens=100, completion_tokens=50, cost=0.25)
PLAN = StepStatus(
    id="1", path="0.0", agent="plan", state="answered", attempt=1, nodes=["node-2"], seconds=1.2, waited_seconds=0.1, usage=USED,
    answer_bytes=2048,
)  # fmt: skip
SLOW = StepStatus(id="2", path="0.1/0.0", agent="slow", state="running", attempt=2, nodes=["node-1", "node-3"], failures=["node_lost"])
DRAFT = StepStatus(id="3", path="0.1/1.0", agent="draft", state="answered", attempt=1, nodes=["node-2"], seconds=3.0)
REVIEW = StepStatus(id="4", path="0.1/1.1", agent="review", state="retrying", attempt=1, failures=["model_error"])
PAUSE = StepStatus(id="5", path="0.1/2.0/0.0", state="sleeping", due_at=1_700_000_000.0)
LOST = StepStatus(id="6", path="0.1/2.0/1.0", agent="gpu", state="unplaced", missing=["vision"])
LAST = StepStatus(id="7", path="0.2", agent="last", state="step_reviewed")
LIVE = [PLAN, SLOW, DRAFT, REVIEW, PAUSE, LOST]


def tree(*steps: StepStatus, result: Result | None = None, whole: bool = True) -> Tree:
    return tree_of("j1", "running" if result is None else "settled", steps, pattern="debate", whole=whole, result=result)


GROWING = """\
j1 debate: running, 5 steps, 5 attempts, 150 tokens, cost 0.25
├─ plan *          answered by node-2, 1.2 s (waited 0.1 s), 150 tokens, cost 0.25, 2.0 KiB
└─ gather *
   ├─ slow         running on node-3, attempt 2
   ├─ branch *
   │  ├─ draft *   answered by node-2, 3 s
   │  └─ review *  retrying after model_error
   └─ gather
      ├─ pause     sleeping until 2023-11-14 22:13:20Z
      └─ gpu       waits for a node with vision
* decided how long it took: 4.2 s"""


def test_a_growing_tree() -> None:
    """Each step below what it lies in; a branch of one call is that call."""
    assert "\n".join(draw(tree(*LIVE))) == GROWING


def test_a_tree_that_has_ended() -> None:
    """What had not ended is abandoned; an unknown kind goes by its name while the job is live; what is missing is said."""
    result = Result(job="j1", status=Status.FAILED, steps=9, attempts=8, accepted_at=1.0, finished_at=10.0)
    lines = draw(tree(*LIVE, LAST, result=result))
    assert lines[0] == "j1 debate: failed, 9 s, 9 steps, 8 attempts"
    assert sum("abandoned" in line for line in lines) == 5
    assert lines[-1].startswith("steps are missing here")
    assert "step reviewed" in draw(tree(LAST))[1]
    assert draw(tree(*LIVE))[-1].startswith("* decided")


def test_colours_and_foreign_text() -> None:
    """Colours only where they are asked for, and nobody else's; a line is cut to the terminal's width before."""
    evil = StepStatus(id="e", path="0.0", agent="\x1b[2J", state="answered", nodes=["n"])
    assert "\x1b" not in "".join(draw(tree(evil)))
    plain, coloured = draw(tree(*LIVE), width=30), draw(tree(*LIVE), width=30, colour=True)
    assert max(map(len, plain)) == 30
    assert "\x1b[32m" in coloured[1]
    assert "\x1b" not in coloured[2], "a gather has no state of its own"


def test_changes_are_told_once() -> None:
    """A line a step that has news."""
    assert changes(None, tree(PLAN)) == ["0.0 plan: answered by node-2, 1.2 s (waited 0.1 s), 150 tokens, cost 0.25, 2.0 KiB"]
    assert changes(tree(PLAN), tree(PLAN)) == []
    assert [line.split(":")[0] for line in changes(tree(PLAN, SLOW), tree(*LIVE))] == [
        "0.1/1.0 draft", "0.1/1.1 review", "0.1/2.0/0.0 pause", "0.1/2.0/1.0 gpu",
    ]  # fmt: skip


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_it_is_drawn_over_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many lines up as were drawn; what is higher than the terminal keeps its first line and its end."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "6")
    screen = Terminal()
    canvas = Canvas(screen)
    canvas.show(tree(PLAN))
    canvas.show(tree(*LIVE))
    canvas.show(tree(*LIVE))
    first, second, third = screen.getvalue().split("\x1b[J")
    assert first.endswith("\x1b[3A")
    assert second.endswith("\x1b[5A")
    assert third.count("\n") == 5
    assert third.startswith("j1 debate")
    assert "decided how long" in third


def test_elsewhere_it_is_a_line_a_change() -> None:
    """Nothing twice, no control characters."""
    out = io.StringIO()
    canvas = Canvas(out)
    for steps in ([PLAN], [PLAN], [PLAN, SLOW]):
        canvas.show(tree(*steps))
    assert out.getvalue().count("\n") == 2
    assert "\x1b" not in out.getvalue()
