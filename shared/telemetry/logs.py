"""Structured logs: one JSON object a line on standard error, with the service, the instance and whatever fields the caller names.

    log = logs.get(__name__)
    log.info("job_accepted", job=job.id, trace=trace)

The event name is a constant; what varies is a field. Text of prompts and answers is never a field.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any, TextIO

from shared.services import listed

_FIELDS = "tutti_fields"


class Logger:
    """Names an event, attaches fields."""

    __slots__ = ("_logger",)

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, event: str, **fields: Any) -> None:
        self._write(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: Any) -> None:
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._write(logging.WARNING, event, fields)

    def error(self, event: str, **fields: Any) -> None:
        self._write(logging.ERROR, event, fields)

    def exception(self, event: str, **fields: Any) -> None:
        """An error with the traceback of the exception being handled."""
        self._write(logging.ERROR, event, fields, exc_info=True)

    def failure(self, event: str, raised: BaseException, **fields: Any) -> None:
        """An error with the traceback of `raised`, for exceptions that a task kept."""
        self._write(logging.ERROR, event, fields, exc_info=raised)

    def _write(self, level: int, event: str, fields: dict[str, Any], *, exc_info: BaseException | bool = False) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, event, extra={_FIELDS: fields}, exc_info=exc_info)


def place_of(error: BaseException) -> str:
    """Where it happened, where its own text must stay out of the logs: it may quote a prompt or an answer."""
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    return " < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames))


def get(name: str) -> Logger:
    """The logger of a module: `logs.get(__name__)`."""
    return Logger(name)


def _service_of(logger: str) -> str | None:
    """A service's own modules name it, so that lines of several services in one process can be told apart."""
    return logger.split(".", 2)[1] if logger.startswith("services.") else None


class _JsonFormatter(logging.Formatter):
    """time (UTC, ISO 8601), level, service, instance, logger, event, fields."""

    def __init__(self, service: str, instance: str) -> None:
        super().__init__()
        self._service, self._instance = service, instance

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "service": _service_of(record.name) or self._service,
            "instance": self._instance,
            "logger": record.name,
            "event": record.getMessage(),
        }
        entry.update(getattr(record, _FIELDS, {}))
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str, ensure_ascii=False)


def configure(service: str, instance: str, level: str = "info", stream: TextIO | None = None) -> None:
    """Send all logs of this process to `stream` (standard error) as JSON; libraries only from WARNING on."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_JsonFormatter(service, instance))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in ("services", "shared", "infra", *(service.package for service in listed() if service.package)):
        logging.getLogger(name).setLevel(level.upper())
