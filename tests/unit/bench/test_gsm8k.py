"""The recorded cascade: its check reads arithmetic and nothing else, and the threshold is measured on lines that it was not chosen on."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner

from infra.lab.gsm8k import Prices, labelled, main, score

QUESTION = "Ann has 3 boxes of 6 eggs. How many eggs?"


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ("3 x 6 = 18 eggs.\n#### 18", "3 x 6 = 19 eggs.\n#### 19"),
        ("3 x 6 = $<<3*6=18>>18\n#### 18", "3 x 6 = <<3*6=18>>18, and"),
        ("3 \u00d7 6 = 18\n#### 18", "3 \u00d7 6 = 17\n#### 17"),
        ("(1,000 + 3) / 3 - 6 = 328.33\n#### 3", "(1,000 + 3) / 3 - 6 = 400\n#### 3"),
    ],
)
def test_an_answer_whose_arithmetic_holds_is_believed_more(better: str, worse: str) -> None:
    assert 0 <= score(QUESTION, worse) < score(QUESTION, better) <= 1


@pytest.mark.parametrize(
    "odd", ["", "= = =", "9**9**9 = 1", "((((((((((1 = 1", "1/0 = 3", "()() = 2", "-" * 90 + "1 = 1", "7" * 5_000, "1.2.3+4 = 5"]
)
def test_what_is_no_arithmetic_is_passed_over(odd: str) -> None:
    """It is foreign text: nothing of it is run, and none of it raises."""
    assert 0 <= score(odd, odd) <= 1
    assert 0 <= score(QUESTION, f"{odd}\n3 x 6 = 18\n#### 18") <= 1


def recorded(weak: bool, strong: bool, number: int) -> dict[str, Any]:
    said = f"3 x {number} = {3 * number + (not weak)}\n#### {3 * number}"
    return {
        "question": f"Ann has 3 boxes of {number} eggs.",
        "weak_response": said,
        "weak_correct": weak,
        "strong_response": said,
        "strong_correct": strong,
    }


def test_costs_are_tokens_by_price() -> None:
    item = labelled(json.dumps(recorded(True, False, 5)).encode(), Prices(weak=1e5, strong=2e5))
    assert (item.weak_right, item.strong_right, item.strong_cost) == (True, False, 2 * item.weak_cost)
    assert item.weak_cost > 0


def test_one_command_from_the_recordings_to_the_figures(tmp_path: Path) -> None:
    """A check that tells right from wrong reaches the perfect one on the lines that it was not tuned on."""
    lines = [json.dumps(recorded(number % 3 > 0, number % 7 > 0, number)) for number in range(10, 90)]
    file = tmp_path / "recorded.jsonl"
    file.write_text("\n".join(Random(1).sample(lines, len(lines))))
    told = json.loads(CliRunner().invoke(main, [str(file), "--json", "--prices", "1", "20"], catch_exceptions=False).output)
    assert (told["lines"], told["auroc"]) == ({"chosen_on": 40, "measured_on": 40}, 1.0)
    assert told["points"]["chosen"]["right"] >= told["points"]["always strong"]["right"] - 0.05
    assert told["points"]["chosen"]["cost"] < told["points"]["always strong"]["cost"]
    file.write_text('{"question": "SECRET"}')
    found = CliRunner().invoke(main, [str(file)])
    assert (found.exit_code, "SECRET" in found.output) == (1, False)
