"""`tutti schedules put`: what no message can say is told at the command line, not by a stack trace or half-way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from infra.cli.exits import Exit
from infra.cli.main import main
from infra.cli.rest import Api

TIMES = ("nightly", "30 2 * * *")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The body of every call."""
    calls: list[Any] = []

    async def call(_self: Api, _method: str, _path: str, body: Any = None) -> Any:
        calls.append(body)
        return {"next_at": []}

    monkeypatch.setattr(Api, "call", call)
    return calls


def put(*arguments: str, job: bytes | None = None) -> Result:
    more = ["--job", "-"] if job is not None else []
    return CliRunner().invoke(main, ["schedules", "put", *arguments, *more], input=job, catch_exceptions=False)


def test_a_schedule_is_declared_as_it_was_given(asked: list[Any]) -> None:
    """What the caller left to defaults is left to the ingress."""
    body = {"prompt": "x", "format": {"maximum": 2**63}}
    assert put(*TIMES, "--tenant", "acme", job=json.dumps(body).encode()).exit_code == 0
    assert put(*TIMES, "hello").exit_code == 0
    assert [each["job"] for each in asked] == [{**body, "tenant": "acme"}, {"prompt": "hello"}]


@pytest.mark.parametrize(
    ("arguments", "job"),
    [
        ((*TIMES,), b'{"prompt": "x", "format": {"a": NaN}}'),
        ((*TIMES,), b'{"prompt": "x", "limits": {"cost": 1e303}}'),
        ((*TIMES,), b'{"prompt": "x", "format": ' + b'{"a":' * 100 + b"1" + b"}" * 101),
        ((*TIMES,), b"[" * 100_000),
        ((*TIMES,), b"[]"),
        ((*TIMES,), b'{"prompt": "x", "tools": [{"a": ' + b"9" * 4_400 + b"}]}"),
        ((*TIMES, "half \udc80 a character"), None),
        ((*TIMES, "x", "--late-seconds", "nan"), None),
        ((*TIMES, "x", "--model", "a\nb"), None),
        (("Nightly", "30 2 * * *", "x"), None),
        (("nightly", "*" * 201, "x"), None),
    ],
)
def test_what_no_message_can_say_is_told_here(arguments: tuple[str, ...], job: bytes | None, asked: list[Any]) -> None:
    """One sentence and the exit code of a wrong use; nothing was asked of the ingress."""
    result = put(*arguments, job=job)
    assert (result.exit_code, asked) == (Exit.USAGE, [])
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    "text", ["steps: [{name: a, template: x, format: {a: .nan}}]", "steps: [{name: a, template: x, format: {a: 2020-01-01}}]", "[" * 5_000]
)
def test_an_input_is_read_by_the_same_rules(text: str, tmp_path: Path) -> None:
    """YAML says more than JSON."""
    file = tmp_path / "chain.yaml"
    file.write_text(text)
    result = CliRunner().invoke(main, ["submit", "hello", "--pattern", "chain", "--input", str(file), "--no-wait"], catch_exceptions=False)
    assert result.exit_code == Exit.USAGE
