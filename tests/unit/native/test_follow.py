"""Logs: last lines, and whole lines only while following."""

from __future__ import annotations

from pathlib import Path

from infra.native import follow


def test_the_last_lines_of_each_component(tmp_path: Path) -> None:
    """Each line comes with its component's name, in order."""
    (tmp_path / "a.log").write_text("1\n2\n3\n")
    (tmp_path / "b.log").write_text("4\n")
    logs = {"a": tmp_path / "a.log", "b": tmp_path / "b.log"}
    assert list(follow.last_lines(logs, 2)) == [("a", "2"), ("a", "3"), ("b", "4")]


def test_following_starts_now_and_waits_for_the_end_of_a_line(tmp_path: Path) -> None:
    """What was there before is not shown again, and a line is shown once, when it is complete."""
    path = tmp_path / "a.log"
    path.write_text("old\n")
    parts = iter(["half of ", "a line\nanother\n"])

    def write_instead_of_waiting(_: float) -> None:
        with path.open("a") as handle:
            handle.write(next(parts))

    lines = follow.follow({"a": path}, write_instead_of_waiting)
    assert next(lines) == ("a", "half of a line")
    assert next(lines) == ("a", "another")
    lines.close()
