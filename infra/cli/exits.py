"""Exit codes of `tutti`, the error that carries one to the shell, and the command that ends so."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import click

from shared.errors import ConfigurationError, InvalidInput, LogError, NotFound, Overloaded, RecordTooLarge, TuttiError


class Exit(IntEnum):
    """What a script may rely on."""

    OK = 0
    FAILED = 1
    """The job failed, was cancelled or expired; a check found something; a service crashed."""
    USAGE = 2
    """Wrong arguments, or a job that is not valid."""
    UNREACHABLE = 3
    """Kafka or the ingress does not answer."""
    NOT_FOUND = 4
    TIMEOUT = 5
    """`--timeout` passed; the job goes on."""
    REFUSED = 6
    """The cluster refuses for now: overloaded, or no node can run it. Try again later."""
    SETTINGS = 78


HELP = (
    "Exit codes: 0 done, 1 the job failed (or a check did), 2 wrong usage or an invalid job, 3 Kafka or the ingress does not answer, "
    "4 not found, 5 timed out, 6 refused for now, 78 wrong settings."
)


class CommandExit(Exception):
    """Ends the command with one line on standard error and the exit code."""

    def __init__(self, code: Exit, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.code, self.message)


def stop_for(error: TuttiError) -> CommandExit:
    """The exit that an error of ours means."""
    return CommandExit(_code(error), error.message)


def _code(error: TuttiError) -> Exit:
    match error:
        case ConfigurationError():
            return Exit.SETTINGS
        case InvalidInput() | RecordTooLarge():
            return Exit.USAGE
        case NotFound():
            return Exit.NOT_FOUND
        case Overloaded():
            return Exit.REFUSED
        case LogError():
            return Exit.UNREACHABLE
    return Exit.FAILED


class Program(click.Command):
    """What a person starts, `tutti` or `python -m infra...`: an error of ours ends it in one line, anything else is a defect and keeps its
    traceback.
    """

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (TuttiError, CommandExit, ValueError) as error:
            stop = _stop(error)
            if stop is None:
                raise
            click.echo(f"tutti: {stop.message}", err=True)
            ctx.exit(stop.code)


def _stop(error: TuttiError | CommandExit | ValueError) -> CommandExit | None:
    match error:
        case CommandExit():
            return error
        case TuttiError():
            return stop_for(error)
    return _settings_problem(error)


def _settings_problem(error: ValueError) -> CommandExit | None:
    """Wrong settings come as pydantic's errors, which are ValueErrors."""
    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    from shared.service.configuration import problems

    if isinstance(error, SettingsError):
        return CommandExit(Exit.SETTINGS, str(error))
    lines = problems(error) if isinstance(error, ValidationError) else None
    return None if lines is None else CommandExit(Exit.SETTINGS, "wrong settings: " + "; ".join(lines))
