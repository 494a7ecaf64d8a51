"""aiokafka's log lines are thinned, and none of them silenced for good."""

from __future__ import annotations

import importlib
import logging

import pytest

from shared.clock import ManualClock
from shared.kafka.client.aio_closing import EVERY_SECONDS, LOGGERS, thin_out


def line(message: str) -> logging.LogRecord:
    return logging.LogRecord("aiokafka.client", logging.ERROR, "", 0, message, ("broker", 1), None)


def test_one_line_of_a_kind_each_half_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first passes at once, repeats do not, another kind does, and later the first kind again."""
    clock, thin = ManualClock(), logging.getLogger(LOGGERS[0])
    monkeypatch.setattr(thin, "filters", [])
    thin_out(clock)
    assert [bool(thin.filter(line("Unable to connect %s %s"))) for _ in range(50)] == [True] + [False] * 49
    assert thin.filter(line("Failed fetch %s %s"))
    clock.advance(EVERY_SECONDS)
    assert thin.filter(line("Unable to connect %s %s"))


def test_every_logger_named_here_is_one_of_aiokafka() -> None:
    """A module that moves in an upgrade is noticed; a second installation changes nothing."""
    modules = [importlib.import_module(name) for name in (*LOGGERS[1:], "aiokafka.client")]
    assert {module.log.name for module in modules} == set(LOGGERS)
    thin_out(ManualClock())
    before = [list(logging.getLogger(name).filters) for name in LOGGERS]
    thin_out(ManualClock())
    assert all(before)
    assert [logging.getLogger(name).filters for name in LOGGERS] == before
