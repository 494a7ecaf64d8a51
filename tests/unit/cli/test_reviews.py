"""`tutti reviews`: what is shown, and what is sent for each verdict."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner, Result

from infra.cli.exits import Exit
from infra.cli.main import main
from infra.cli.rest import Api

SHOWN: dict[str, Any] = {
    "id": "order-1.5",
    "tenant": "a",
    "question": "good?",
    "assignees": [],
    "quorum": 1,
    "said": [{"by": "ann", "verdict": "edit", "text": "x"}],
    "due_at": 1.0,
    "default": "reject",
    "digest": "d",
    "state": "open",
    "artefact": "the text",
}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every call; `heard` of the answers stands in front."""
    found: list[Any] = [True]

    async def call(_self: Api, method: str, path: str, body: Any = None) -> Any:
        found.append((method, path, body))
        return {"reviews": [SHOWN]} if path == "/v1/reviews" else {**SHOWN, "heard": found[0]}

    monkeypatch.setattr(Api, "call", call)
    return found


def tutti(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["reviews", *arguments], catch_exceptions=False)


def test_a_review_is_listed_and_shown(calls: list[Any]) -> None:
    """The text, who was asked and what was said."""
    listed, shown = tutti("list").output, tutti("show", "order-1.5").output
    assert all(part in listed for part in ("order-1.5", "good?", "anyone", "ann: edit", "reject"))
    assert all(part in shown for part in ("good?", "ann: edit", "the text"))


@pytest.mark.parametrize(
    ("arguments", "body"),
    [
        (("approve", "r"), {"verdict": "approve", "text": "", "digest": "d"}),
        (("reject", "r", "--text", "no"), {"verdict": "reject", "text": "no", "digest": "d"}),
        (("edit", "r", "--text", "better", "--digest", "e"), {"verdict": "edit", "text": "better", "digest": "e"}),
        (("answer", "r", "--text", "42"), {"verdict": "answer", "text": "42", "digest": "d"}),
    ],
)
def test_a_decision_is_sent(arguments: tuple[str, ...], body: dict[str, str], calls: list[Any]) -> None:
    """Of the text that was looked at, where that is said; else of the one that is there."""
    assert tutti(*arguments).exit_code == Exit.OK
    assert calls[-1] == ("POST", "/v1/reviews/r", body)
    assert len(calls) == (2 if body["digest"] == "e" else 3)


def test_what_needs_a_text_has_one(calls: list[Any]) -> None:
    assert [tutti(verdict, "r").exit_code for verdict in ("edit", "answer")] == [Exit.USAGE] * 2
    assert len(calls) == 1


def test_what_is_not_known_yet_is_no_success(calls: list[Any]) -> None:
    calls[0] = None
    assert tutti("approve", "r").exit_code == Exit.TIMEOUT
