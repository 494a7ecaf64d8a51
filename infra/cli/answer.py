"""How a job's course and its end are shown: text as it comes, then the result, with what is simulated marked."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import click

from infra.cli.exits import Exit
from infra.cli.output import SIMULATED, Progress, emit_json
from infra.cli.tree import Canvas
from shared.contracts.result import Result, Status
from shared.tree import Tree


class Note(NamedTuple):
    """What the job is doing now, in a few words."""

    text: str


class AnswerText(NamedTuple):
    """A piece of the answer that begins after `offset` characters of it."""

    offset: int
    text: str


class AnswerEnd(NamedTuple):
    """The job's end."""

    result: Result


Update = Note | AnswerText | AnswerEnd


class Display:
    """Shows one job. With `as_json` each piece is a line of JSON and the result the last one (the only one without streaming)."""

    def __init__(self, job: str, *, as_json: bool, stream: bool) -> None:
        self.job = job
        self.note = "queued"
        self._as_json = as_json
        self._stream = stream
        self._progress = Progress()
        self._canvas = Canvas()
        self._shown = ""

    def waited(self, seconds: float) -> None:
        """Tell that nothing has come for a moment."""
        if not self._shown:
            self._progress.show(f"{self.job}: {self.note}, {seconds:.0f} s")

    def grown(self, tree: Tree) -> None:
        """The job's tree as it is now."""
        if self._as_json:
            click.echo(_line({"type": "tree", "tree": tree.model_dump(mode="json", exclude_none=True)}))
        else:
            self._canvas.show(tree)

    def show(self, update: Update) -> None:
        """Show what is new."""
        match update:
            case Note(text):
                self.note = text
            case AnswerText(offset, text):
                self._piece(offset, text)
            case AnswerEnd(result):
                self._end(result)

    def _piece(self, offset: int, text: str) -> None:
        """A gap is left for the result to fill; a piece shown already is not shown again."""
        new = text[len(self._shown) - offset :] if offset <= len(self._shown) else ""
        if not new:
            return
        self._progress.clear()
        if self._as_json:
            click.echo(_line({"type": "chunk", "job": self.job, "offset": len(self._shown), "text": new}))
        else:
            click.echo(new, nl=False)
        self._shown += new

    def _end(self, result: Result) -> None:
        self._progress.clear()
        if self._as_json:
            show_json(result, line=self._stream)
            return
        text = "" if result.answer is None else result.answer.text
        if self._shown and not text.startswith(self._shown):
            click.echo("\n[the answer was begun again elsewhere]")
            self._shown = ""
        show_human(result, text[len(self._shown) :])


def show_json(result: Result, *, line: bool = False) -> None:
    """The result as one document, or as one line of a stream."""
    value = result.model_dump(mode="json", exclude_none=True)
    if line:
        click.echo(_line({"type": "result", "result": value}))
    else:
        emit_json(value)


def show_human(result: Result, text: str) -> None:
    """`text` on standard output, everything about it on standard error."""
    answer = result.answer
    if answer is not None:
        click.echo(text)
        if answer.tool_calls or answer.embeddings:
            emit_json(answer.model_dump(mode="json", include={"tool_calls", "embeddings"}, exclude_defaults=True))
        if answer.simulated:
            click.echo(SIMULATED)
        if answer.explanation is not None:
            click.echo(f"how: {_line(answer.explanation)}", err=True)
    if result.failure is not None or result.status is not Status.SUCCEEDED:
        click.echo(f"tutti: job {result.job} {result.status.value}{reason(result)}", err=True)
    elif sys.stderr.isatty():
        click.echo(click.style(summary(result), dim=True), err=True)


def reason(result: Result) -> str:
    """`: kind: message (missing: ...)`, or nothing."""
    if result.failure is None:
        return ""
    missing = f" (missing: {', '.join(result.failure.missing)})" if result.failure.missing else ""
    return f": {result.failure.kind.value}: {result.failure.message}{missing}"


def summary(result: Result) -> str:
    """Who answered, how much, how long."""
    answer, usage = result.answer, result.usage
    who = " on ".join(name for name in (answer.model, answer.node) if name) if answer is not None else ""
    tokens = f"{usage.prompt_tokens} + {usage.completion_tokens} tokens" + (" (estimated)" if usage.estimated else "")
    return ", ".join(part for part in (result.job, who, tokens, f"{result.finished_at - result.accepted_at:.2f} s") if part)


def exit_code(result: Result) -> Exit:
    """0 only for a job that succeeded."""
    return Exit.OK if result.status is Status.SUCCEEDED else Exit.FAILED


def _line(value: Any) -> str:
    import json

    return json.dumps(value, ensure_ascii=False)
