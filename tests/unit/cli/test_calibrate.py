"""`tutti calibrate cascade`: the curve is the closed form's, and the threshold is judged on lines that it was not chosen on."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from infra.cli.calibrate import parted
from infra.cli.curve import NEVER, LabelledAnswer, always_strong, always_weak, area_over_chance, at, auroc, by_chance, chosen, curve, oracle
from infra.cli.exits import Exit
from infra.cli.main import main

KINDS = {(True, True): 40, (True, False): 10, (False, True): 20, (False, False): 10}
W, B, A, S = 50 / 80, 40 / 80, 70 / 80, 60 / 80


def item(weak: bool, strong: bool, score: float) -> LabelledAnswer:
    return LabelledAnswer(score=score, weak_right=weak, strong_right=strong, weak_cost=1.0, strong_cost=10.0)


def checked(q: float, f: float) -> list[LabelledAnswer]:
    """A check that passes on the share q of the weak model's wrong answers, and f of its right ones."""
    return [
        item(weak, strong, 0.2 if number < (f if weak else q) * count else 0.9)
        for (weak, strong), count in KINDS.items()
        for number in range(count)
    ]


ITEMS = st.lists(st.builds(item, st.booleans(), st.booleans(), st.sampled_from([0.0, 0.25, 0.5, 1.0])), min_size=1, max_size=20)


@pytest.mark.parametrize(("q", "f"), [(1.0, 0.0), (0.9, 0.1), (0.8, 0.2), (0.7, 0.3), (0.5, 0.5)])
def test_accuracy_cost_and_auroc_are_those_of_the_closed_form(q: float, f: float) -> None:
    """Escalated f w + q (1 - w), accuracy (1 - f) w + f b + q (a - w); of a check of one threshold, AUROC (1 + q - f) / 2."""
    items = checked(q, f)
    point = at(items, 0.5)
    escalated = f * W + q * (1 - W)
    assert point.escalated == pytest.approx(escalated)
    assert point.right == pytest.approx((1 - f) * W + f * B + q * (A - W))
    assert point.cost == pytest.approx(1 + 10 * escalated)
    assert auroc(items) == pytest.approx((1 + q - f) / 2)
    gain = point.right - by_chance(items, point.escalated).right
    assert area_over_chance(items) == pytest.approx(gain / 2)
    assert (gain > 1e-9) == (q > f)


@given(ITEMS)
def test_each_point_of_the_curve_is_what_its_threshold_does(items: list[LabelledAnswer]) -> None:
    points = curve(items)
    assert [point.escalated for point in points] == sorted({point.escalated for point in points})
    for point in points:
        there = at(items, point.threshold)
        assert point == pytest.approx(there)
    assert (points[0].escalated, points[-1].escalated, points[-1].threshold) == (0.0, 1.0, NEVER)
    assert points[0].right == pytest.approx(always_weak(items).right)
    assert points[-1].right == pytest.approx(always_strong(items).right)
    best = oracle(items)
    assert best.right == pytest.approx(sum(item.weak_right or item.strong_right for item in items) / len(items))


@given(ITEMS, st.floats(0, 1))
def test_the_chosen_point_is_the_cheapest_that_is_good_enough(items: list[LabelledAnswer], wanted: float) -> None:
    points = curve(items)
    best = chosen(points, wanted)
    good = [point for point in points if point.right >= wanted - 1e-12]
    if good:
        assert best in good
        assert best.cost == min(point.cost for point in good)
    else:
        assert best.right == max(point.right for point in points)


def test_no_line_is_chosen_on_and_measured_on() -> None:
    items = [item(True, True, number / 100) for number in range(100)]
    tuned, unseen = parted(items, 0.3, 1)
    assert (len(tuned), len(unseen)) == (30, 70)
    assert {i.score for i in tuned} | {i.score for i in unseen} == {i.score for i in items}
    assert parted(items, 0.3, 1) == (tuned, unseen)
    assert parted(items, 0.3, 2) != (tuned, unseen)


def called(folder: Path, lines: list[Any], *options: str) -> Result:
    file = folder / "answers.jsonl"
    file.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return CliRunner().invoke(main, ["calibrate", "cascade", str(file), *options])


def written(items: list[LabelledAnswer]) -> list[Any]:
    return [item.model_dump() for item in Random(1).sample(items, len(items))]


def test_the_command_tells_the_threshold_and_draws_the_curve(tmp_path: Path) -> None:
    for plot, begin in ((tmp_path / "curve.png", b"\x89PNG"), (tmp_path / "curve.svg", b"<?xml")):
        found = called(tmp_path, written(checked(0.9, 0.1)), "--plot", str(plot))
        assert found.exit_code == Exit.OK, found.output
        assert "chosen on 40 lines, measured on 40 others" in found.output
        assert [line.split()[0] for line in found.output.splitlines()[1:2]] == ["chosen"]
        assert plot.read_bytes().startswith(begin)
        assert plot.stat().st_size < 60_000


def test_without_matplotlib_a_drawing_is_refused_and_the_rest_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    found = called(tmp_path, written(checked(0.9, 0.1)), "--plot", str(tmp_path / "curve.png"))
    assert (found.exit_code, "pip install 'tutti-cluster[plot]'" in found.output) == (Exit.USAGE, True)
    assert called(tmp_path, written(checked(0.9, 0.1))).exit_code == Exit.OK


def test_as_json_it_is_measured_on_lines_that_were_not_chosen_on(tmp_path: Path) -> None:
    """The check is perfect here: the chosen point is the perfect one, above the strong model."""
    told = json.loads(called(tmp_path, written(checked(1.0, 0.0)), "--json", "--split", "0.25").output)
    assert told["lines"] == {"chosen_on": 20, "measured_on": 60}
    assert told["points"]["chosen"] == told["points"]["perfect check"]
    assert told["points"]["chosen"]["right"] > told["points"]["always strong"]["right"]
    assert (told["threshold"], told["auroc"], told["reached_where_chosen"]) == (0.9, 1.0, True)


def test_what_cannot_be_reached_is_said(tmp_path: Path) -> None:
    found = called(tmp_path, written(checked(0.5, 0.5)), "--accuracy", "1")
    assert found.exit_code == Exit.OK
    assert "no threshold reached 100.0 %" in found.output


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("no json", "line 2: the line is not JSON"),
        ({"score": 0.5}, "line 2: the line lacks `weak_right`"),
        ({**checked(1, 0)[0].model_dump(), "score": 1.5}, "line 2: the line's `score` is not valid"),
        ({**checked(1, 0)[0].model_dump(), "weak_right": "SECRET"}, "line 2: the line's `weak_right` is not valid"),
        ({**checked(1, 0)[0].model_dump(), "weak_cost": -1}, "line 2: the line's `weak_cost` is not valid"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: Any, wrong: str) -> None:
    found = called(tmp_path, [*written(checked(1, 0))[:1], line])
    assert (found.exit_code, wrong in found.output, "SECRET" in found.output) == (Exit.USAGE, True, False), found.output


def test_too_few_lines_and_odd_files_are_refused(tmp_path: Path) -> None:
    assert "at least 20" in called(tmp_path, written(checked(1, 0))[:19]).output
    assert called(tmp_path, written(checked(1, 0)), "--plot", "curve.gif").exit_code == Exit.USAGE
    same = [item(True, True, 0.5).model_dump()] * 20
    assert called(tmp_path, same, "--plot", str(tmp_path / "flat.png")).exit_code == Exit.OK
