"""The entry point: lazy commands, and every error as one line with its exit code."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from infra.cli import run
from infra.cli.exits import HELP, Exit, Program
from infra.cli.main import COMMANDS, Commands, main
from infra.lab.bench.__main__ import BENCHES
from services.worker.settings import WorkerSettings
from shared.errors import (
    ConfigurationError,
    Conflict,
    InvalidRecord,
    LogUnavailable,
    NotFound,
    Overloaded,
    RecordTooLarge,
    TooLarge,
    TuttiError,
)

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there_and_documented(name: str) -> None:
    """The list of commands and the modules agree; each tells what it does."""
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert "Usage:" in result.output


def test_help_imports_no_command() -> None:
    """`tutti --help` answers without pydantic, aiohttp or any service."""
    program = "import sys; from infra.cli.main import main; main(['--help'], standalone_mode=False); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "infra.cli.main" in loaded
    assert not loaded & {"pydantic", "aiohttp", "aiokafka", "infra.cli.submit", "infra.native.cli", "services.ingress"}


def test_the_exit_codes_are_documented() -> None:
    """Every code stands in the help and in the README's list."""
    readme = " ".join((ROOT / "README.md").read_text().split())
    listed = readme[readme.index("Exit codes:") :].split(".")[0]
    for code in Exit:
        assert f" {int(code)} " in HELP, code
        assert f" {int(code)} " in listed, code


def test_an_unknown_command_is_a_usage_error() -> None:
    """Exit code 2, as everywhere."""
    result = CliRunner().invoke(main, ["sumbit"])
    assert result.exit_code == Exit.USAGE
    assert "No such command" in result.output


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigurationError("x"), Exit.SETTINGS),
        (InvalidRecord("x"), Exit.USAGE),
        (TooLarge("x"), Exit.USAGE),
        (RecordTooLarge("x"), Exit.USAGE),
        (NotFound("x"), Exit.NOT_FOUND),
        (Overloaded("x"), Exit.REFUSED),
        (LogUnavailable("x"), Exit.UNREACHABLE),
        (Conflict("x"), Exit.FAILED),
    ],
)
def test_an_error_of_ours_is_a_line_and_a_code(error: TuttiError, code: Exit) -> None:
    """The message goes out as it is; no traceback."""

    class Failing(Commands):
        def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
            def fail() -> None:
                raise error

            return click.Command(cmd_name, callback=fail)

    result = CliRunner().invoke(Failing("group"), ["fails"])
    assert result.exit_code == code
    assert result.output == "tutti: x\n"


def test_a_wrong_setting_is_a_line_and_a_code() -> None:
    """78, with the variable's name."""
    result = CliRunner().invoke(main, ["topics", "list"], env={"TUTTI_TOPICS__HOME_PARTITIONS": "0"})
    assert result.exit_code == Exit.SETTINGS
    assert result.output.startswith("tutti: wrong settings: TUTTI_TOPICS__HOME_PARTITIONS: ")


PROGRAMS = [
    ".".join(file.relative_to(ROOT).with_suffix("").parts)
    for file in sorted((ROOT / "infra").rglob("*.py"))
    if "click.command(" in (text := file.read_text()) and 'if __name__ == "__main__"' in text
]
"""What `make` and people start by `python -m`, besides `tutti`."""


def _started(name: str) -> click.Command:
    started = importlib.import_module(name).main
    assert isinstance(started, click.Command)
    return started


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_ends_in_a_line_and_a_code(name: str) -> None:
    """The same one way as `tutti`; a program of several commands has it for each."""
    started = _started(name)
    each = [started.get_command(click.Context(started), one) for one in BENCHES] if isinstance(started, click.Group) else [started]
    assert all(isinstance(one, Program) for one in each)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("infra.native.fetch", ["--packages", "--before", "up"]),
        ("infra.native.fetch", []),
        ("infra.native.embedded.__main__", ["--port", "1"]),
        ("infra.demo.__main__", []),
        ("infra.lab.make", ["kubernetes"]),
        ("infra.lab.bench.__main__", ["takeover"]),
        ("infra.lab.bench.__main__", ["chaos"]),
    ],
)
def test_a_wrong_setting_of_a_program_is_a_line_and_a_code(name: str, words: list[str]) -> None:
    """`make up` with a wrong TUTTI_NODE gets as far as its first step."""
    result = CliRunner().invoke(_started(name), words, env={"TUTTI_NODE": "real"})
    assert result.exit_code == Exit.SETTINGS
    assert "tutti: wrong settings: TUTTI_NODE: " in result.output


def test_run_says_what_its_worker_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--agents` is the worker's setting; without a worker it is a wrong use."""
    monkeypatch.setenv("TUTTI_WORKER__AGENTS", "chat")
    ran: list[tuple[str, tuple[str, ...]]] = []

    def begin(builds: Any) -> int:
        ran.append((builds[0][0], WorkerSettings().agents))
        return 0

    monkeypatch.setattr(run, "run_process", begin)
    assert CliRunner().invoke(main, ["run", "worker", "--agents", "research,code"]).exit_code == Exit.OK
    assert ran == [("worker", ("research", "code"))]
    refused = CliRunner().invoke(main, ["run", "planner", "--agents", "research"])
    assert (refused.exit_code, len(ran)) == (Exit.USAGE, 1)
