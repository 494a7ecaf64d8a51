"""The sink's HTTP API as commands use it, and its rows as tables for people, CSV and JSON for machines."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlencode

import click

from infra.cli.output import emit_json, emit_table
from infra.cli.rest import api


def form_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--json`, `--csv`: the command's `form`."""
    command = click.option("--json", "form", flag_value="json", help="Print JSON.")(command)
    return click.option("--csv", "form", flag_value="csv", help="Print CSV.")(command)


async def ask(route: str, asked: dict[str, Any]) -> Any:
    """One question."""
    async with sink() as connection:
        return await connection.call("GET", path(route, asked))


def path(route: str, asked: dict[str, Any]) -> str:
    """With what is asked for, and is not None."""
    return f"{route}?{urlencode({name: value for name, value in asked.items() if value is not None})}"


def sink() -> Any:
    """A connection to it."""
    return api(who="sink")


def emit_rows(rows: Sequence[dict[str, Any]], columns: Sequence[str], form: str | None, empty: str) -> None:
    """As a table, or in the form that was asked for."""
    if form == "json":
        emit_json(list(rows))
    elif form == "csv":
        table = csv.writer(sys.stdout)
        table.writerow(columns)
        table.writerows([plain(row.get(name)) for name in columns] for row in rows)
    else:
        emit_table(columns, [[_shown(row.get(name)) for name in columns] for row in rows], empty=empty)


def plain(value: Any) -> Any:
    """For spreadsheets: foreign text is no formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value


def _shown(value: Any) -> Any:
    return f"{value:.6f}".rstrip("0").rstrip(".") if isinstance(value, float) else value
