"""aiokafka's errors in the project's words."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from aiokafka import errors as kafka

from shared.errors import CommitRefused, LogError, LogUnavailable, RecordTooLarge, SendFailed

_UNREACHABLE = (kafka.KafkaTimeoutError, kafka.RequestTimedOutError, TimeoutError, asyncio.TimeoutError, OSError, RuntimeError)
"""RuntimeError: uvloop's word for a write to a transport that was closed a moment ago, where asyncio's own loop says nothing."""
_NOT_OWNER = (
    kafka.CommitFailedError,
    kafka.IllegalStateError,
    kafka.IllegalGenerationError,
    kafka.UnknownMemberIdError,
    kafka.RebalanceInProgressError,
)

FOREIGN = (kafka.KafkaError, kafka.ConsumerStoppedError, kafka.IllegalOperation, TimeoutError, asyncio.TimeoutError, OSError, RuntimeError)
"""Everything that the client raises on purpose."""


def log_error(error: BaseException) -> LogError:
    """What a failed query, poll or administrative call means."""
    if isinstance(error, _UNREACHABLE) or getattr(error, "retriable", False):
        return LogUnavailable(_text(error))
    return LogError(_text(error))


def commit_error(error: BaseException) -> LogError:
    """What a failed commit means."""
    return CommitRefused(_text(error)) if isinstance(error, _NOT_OWNER) else log_error(error)


def send_error(error: BaseException) -> LogError:
    """What a failed send means. Whatever the client says, the record may lie in the log; only an oversize was surely not written."""
    if isinstance(error, kafka.MessageSizeTooLargeError | kafka.RecordListTooLargeError):
        return RecordTooLarge(_text(error))
    return SendFailed(_text(error))


@contextmanager
def in_our_words() -> Iterator[None]:
    """Turns the client's errors into LogError kinds."""
    try:
        yield
    except FOREIGN as error:
        raise log_error(error) from error


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")
