"""`tutti cache calibrate`: figures of pairs that the threshold was not chosen on, and files that are not what they should be."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from infra.cli.exits import Exit
from infra.cli.likeness import Scored, chosen, level, levels, read_pairs
from infra.cli.main import main
from infra.lab.questions import pairs


def called(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["cache", "calibrate", *map(str, arguments)], catch_exceptions=False)


def lines(directory: Path, rows: list[dict[str, Any]], name: str = "pairs.jsonl") -> Path:
    file = directory / name
    file.write_text("\n".join(json.dumps(row) for row in rows))
    return file


def rows() -> list[dict[str, Any]]:
    """Paraphrases at .8 and .95, near misses at .9."""
    return [
        {"asked": pair.asked, "stored": pair.stored, "same": pair.same, "similarity": 0.9 if not pair.same else 0.8 + 0.15 * (number % 2)}
        for number, pair in enumerate(pairs("tuning"))
    ]


def test_the_threshold_with_its_precision_recall_and_bound(tmp_path: Path) -> None:
    said = called(lines(tmp_path, rows()), "--json", "--plot", tmp_path / "curve.png")
    found = json.loads(said.output)
    assert said.exit_code == 0
    assert found["chosen"]["precision"] == 1.0
    assert found["chosen"]["recall"] > 0.4
    assert found["chosen"]["false"] == 0.0 < found["chosen"]["bound"] < 0.02
    assert found["similarity_alone"]["false"] == 1.0, "all near misses are as similar"
    assert (tmp_path / "curve.png").read_bytes()[:4] == b"\x89PNG"
    assert "TUTTI_CACHE__THRESHOLD=" in called(lines(tmp_path, rows())).output


def test_csv_says_the_same(tmp_path: Path) -> None:
    file = tmp_path / "pairs.csv"
    with file.open("w", newline="") as out:
        writer = csv.DictWriter(out, ["asked", "stored", "same", "similarity"])
        writer.writeheader()
        writer.writerows(rows())
    assert called(file, "--json").output == called(lines(tmp_path, rows()), "--json").output


def test_questions_with_their_answers_become_pairs(tmp_path: Path) -> None:
    found = read_pairs(lines(tmp_path, [{"question": f"q{number}", "answer": f"a{number // 3}"} for number in range(9)]))
    assert [(pair.asked, pair.stored) for pair in found if pair.same] == [
        ("q0", "q1"),
        ("q1", "q2"),
        ("q3", "q4"),
        ("q4", "q5"),
        ("q6", "q7"),
        ("q7", "q8"),
    ]
    assert len([pair for pair in found if not pair.same]) == 6


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"asked": "a", "stored": "b", "same": true}\n{"asked": "a"}', "line 2: the line lacks `stored`"),
        (b'{"asked": "a", "stored": "b", "same": "perhaps"}', "line 1"),
        (b'{"asked": "a", "stored": "b", "same": true, "similarity": 2}', "line 1"),
        (b"\n\nnonsense", "line 3: the line is not JSON"),
        (b'{"asked": "\xff"}', "not UTF-8"),
        (b"", "there must be pairs"),
        (b'{"asked": "a", "stored": "b", "same": true}', "there must be pairs"),
        (b'{"asked": "a", "stored": "b", "same": true}\n{"question": "a", "answer": "b"}', "one kind"),
    ],
)
def test_a_bad_file_is_refused_with_its_line(content: bytes, said: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_bytes(content)
    found = called(file)
    assert found.exit_code == Exit.USAGE
    assert said in found.output


def test_without_matplotlib_it_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    found = called(lines(tmp_path, rows()), "--plot", tmp_path / "curve.png")
    assert found.exit_code == Exit.USAGE
    assert "matplotlib" in found.output


def test_the_chosen_threshold_is_the_lowest_that_keeps_the_share_from_there_on() -> None:
    """Known curve: of others one in ten is at .9, the rest lower; all that is the same is at .95 or .85."""
    items = [Scored(0.9 if number % 10 == 0 else 0.6, same=False, vetoed=False) for number in range(100)]
    items += [Scored(0.95 if number % 2 else 0.85, same=True, vetoed=False) for number in range(40)]
    assert chosen(items, 0.05).threshold == pytest.approx(0.91)
    assert chosen(items, 0.10).threshold == pytest.approx(0.61)
    assert level(items, 0.91, vetoes=True).recall == 0.5
    assert [one.recall for one in levels(items, vetoes=True)] == sorted(one.recall for one in levels(items, vetoes=True))
