"""Every error that crosses a function boundary on purpose.

TuttiError
├── InvalidInput            the caller's fault; never retried
│   ├── InvalidRecord       a record that cannot be a message of its topic → dead letter
│   ├── TooLarge            a size or depth bound was exceeded
│   └── Unsupported         understood, but not offered
├── NotFound                unknown job, model, topic
├── Conflict                same id, another body
├── Overloaded              a bound was reached; try again after `retry_after_seconds`
├── NewerVersion            a record of a newer tutti, which is not ours to judge: a newer process must take it
├── NonDeterministicPattern a re-run asked for something else than history says
├── ConsumerGaveUp          a consumer has silently stopped; the process ends with exit code 75, and a new one does better
├── StoreAway               a store (Redis, MongoDB) does not answer in time, or with nonsense
├── LogError                Kafka said no, or nothing
│   ├── LogUnavailable      nobody answers; wait and try again
│   │   ├── Locked          what lies there is sealed, and the key to it is not here; wait for it
│   │   └── NotSent         nobody answered in time, and the record was surely not sent
│   ├── TopicMadeAnew       the topic was deleted and created again; what was read of it is void
│   ├── CommitRefused       the generation is old: the partition has a new owner
│   ├── SendFailed          a record was not acknowledged; its fate is unknown
│   │   └── NoDestination   its topic has no such partition; it was not sent
│   └── RecordTooLarge      a record exceeds the bound; it was not sent
└── ConfigurationError      settings contradict each other or the cluster; the process ends with exit code 78

What came of a *step* or *job* is not an exception but a `shared.contracts.Failure`: a value that travels.
"""

from __future__ import annotations

from typing import Any


def _unchanged(kind: type[TuttiError], *args: Any) -> TuttiError:
    return kind.__new__(kind, *args)


class TuttiError(Exception):
    """Something went wrong inside tutti."""

    code = "internal"
    retryable = False

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or self.__class__.__name__).strip().splitlines()[0])

    def __reduce__(self) -> tuple[Any, ...]:
        """Copied and pickled as it is: its constructor takes other things than it keeps."""
        return _unchanged, (type(self), *self.args), self.__dict__

    @property
    def message(self) -> str:
        """One sentence for people."""
        return str(self.args[0])


class InvalidInput(TuttiError):
    """The input is not valid."""

    code = "invalid_input"
    param: str | None = None
    """What of it, as its author calls it."""

    def __init__(self, message: str | None = None, *, code: str | None = None, param: str | None = None) -> None:
        """`code`: for whom a program reads it; who catches it apart has a class of its own."""
        super().__init__(message)
        self.code, self.param = code or self.code, param or self.param


class InvalidRecord(InvalidInput):
    """The record is not a message of this topic."""

    code = "invalid_record"


class TooLarge(InvalidInput):
    """The input exceeds a size bound."""

    code = "too_large"


class Unsupported(InvalidInput):
    """The request is understood but not supported."""

    code = "unsupported"


class NotFound(TuttiError):
    """The thing asked for does not exist."""

    code = "not_found"


class Conflict(TuttiError):
    """The id is already used with another body."""

    code = "conflict"


class NewerVersion(TuttiError):
    """A record is of a newer version than this process knows."""

    code = "newer_version"


class Overloaded(TuttiError):
    """A bound is reached; try again later."""

    code = "overloaded"
    retryable = True

    def __init__(self, message: str | None = None, *, retry_after_seconds: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class NonDeterministicPattern(TuttiError):
    """The pattern, run again, asked for something else than its history says."""

    code = "non_deterministic_pattern"


class StoreAway(TuttiError):
    """The store does not answer."""

    code = "store_away"
    retryable = True


class LogError(TuttiError):
    """Kafka did not do what was asked."""

    code = "log_error"
    retryable = True


class LogUnavailable(LogError):
    """Kafka does not answer."""

    code = "log_unavailable"


class Locked(LogUnavailable):
    """What lies in Kafka is sealed, and the key to it is not here."""

    code = "locked"


class TopicMadeAnew(LogError):
    """A topic was deleted and created again: what was read of it is void, and reading begins anew."""

    code = "topic_made_anew"
    retryable = True

    def __init__(self, topic: str) -> None:
        super().__init__(f"{topic} was deleted and created again")
        self.topic = topic


class NotSent(LogUnavailable):
    """Kafka does not answer; the record was not sent."""


class ConsumerGaveUp(TuttiError):
    """A consumer has silently stopped; a new process does better. No LogError: whoever waits for Kafka lets it pass."""

    code = "consumer_gave_up"


class CommitRefused(LogError):
    """The commit was refused: this member no longer owns the partition."""

    code = "commit_refused"
    retryable = False


class SendFailed(LogError):
    """The record was not acknowledged; whether it is in the log is unknown."""

    code = "send_failed"


class NoDestination(SendFailed):
    """The record's topic or partition does not exist; it was not sent."""

    code = "no_destination"


class RecordTooLarge(LogError):
    """The record exceeds the size bound and was not sent."""

    code = "record_too_large"
    retryable = False


class ConfigurationError(TuttiError):
    """The settings contradict each other or the cluster."""

    code = "configuration"
