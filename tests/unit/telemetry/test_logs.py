"""Logs: one JSON object a line, whatever the fields are."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Generator

import pytest

from shared.telemetry import logs


@pytest.fixture
def lines() -> Generator[io.StringIO, None, None]:
    """A configured process whose log goes into a buffer; the root logger is put back afterwards."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    buffer = io.StringIO()
    logs.configure("planner", "host-1-abc", "info", buffer)
    yield buffer
    root.handlers[:] = before
    root.setLevel(level)


def test_a_line_names_service_instance_event_and_fields(lines: io.StringIO) -> None:
    """What a log query needs is there, under fixed names."""
    logs.get("shared.x").info("job_accepted", job="j_1", trace="0af7")
    entry = json.loads(lines.getvalue())
    assert entry.pop("time").endswith("+00:00")
    assert entry == {
        "level": "info",
        "service": "planner",
        "instance": "host-1-abc",
        "logger": "shared.x",
        "event": "job_accepted",
        "job": "j_1",
        "trace": "0af7",
    }


def test_a_services_own_module_names_the_service(lines: io.StringIO) -> None:
    """Several services in one process can be told apart."""
    logs.get("services.router.handlers").info("routed")
    assert json.loads(lines.getvalue())["service"] == "router"


def test_fields_that_are_not_json_become_text(lines: io.StringIO) -> None:
    """A log call never raises because of a value."""
    logs.get("shared.x").info("event", path={1, 2}, error=ValueError("x"), raw=b"\xff")
    assert json.loads(lines.getvalue())["raw"] == "b'\\xff'"


def test_an_exception_is_one_line(lines: io.StringIO) -> None:
    """Tracebacks travel inside the object: a line is always a whole entry."""
    error = ValueError("boom")
    logs.get("shared.x").failure("failed", error)
    try:
        raise error
    except ValueError:
        logs.get("shared.x").exception("failed_again")
    entries = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert [entry["event"] for entry in entries] == ["failed", "failed_again"]
    assert all("ValueError: boom" in entry["exception"] for entry in entries)


def test_levels(lines: io.StringIO) -> None:
    """Ours from the level asked for, libraries' only from warnings on."""
    logs.get("shared.x").debug("quiet")
    logging.getLogger("aiokafka").info("chatter")
    logging.getLogger("aiokafka").warning("trouble")
    assert [json.loads(line)["event"] for line in lines.getvalue().splitlines()] == ["trouble"]
