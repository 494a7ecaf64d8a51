"""What a command prints: a table for people or JSON for machines on standard output, progress on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click

SIMULATED = "[simulated: no model was asked]"
"""Stands before every answer of the simulator."""


AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
"""Of each command that prints a table."""


def emit_json(value: Any) -> None:
    """One JSON document on standard output."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def emit_table(titles: Sequence[str], rows: Sequence[Sequence[Any]], empty: str = "none") -> None:
    """Aligned columns; numbers to the right. `empty` is printed where there is no row."""
    if not rows:
        click.echo(empty)
        return
    cells = [[cell(value) for value in row] for row in rows]
    widths = [max(len(line[column]) for line in [list(titles), *cells]) for column in range(len(titles))]
    numeric = [all(isinstance(row[column], int | float) for row in rows) for column in range(len(titles))]
    for line in [list(titles), *cells]:
        padded = [text.rjust(width) if right else text.ljust(width) for text, width, right in zip(line, widths, numeric, strict=True)]
        click.echo("  ".join(padded).rstrip())


def moment(seconds: float) -> str:
    """An instant for people: UTC, to the second."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def size(count: int) -> str:
    """Bytes for people, in powers of 1024."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def cell(value: Any) -> str:
    """For a terminal: foreign text cannot move its cursor or colour it."""
    if value is None:
        return "-"
    text = f"{value:.1f}" if isinstance(value, float) else str(value)
    return text if text.isprintable() else "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


class Progress:
    """One line on standard error that is overwritten; nothing at all where standard error is not a terminal."""

    def __init__(self) -> None:
        self._stream = sys.stderr
        self._shown = 0

    def show(self, text: str) -> None:
        """Replace the line."""
        if self._stream.isatty():
            self._stream.write("\r" + text.ljust(self._shown))
            self._stream.flush()
            self._shown = len(text)

    def clear(self) -> None:
        """Take the line away, before an answer is printed."""
        if self._shown:
            self._stream.write("\r" + " " * self._shown + "\r")
            self._stream.flush()
            self._shown = 0
