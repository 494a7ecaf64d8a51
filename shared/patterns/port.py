"""What a pattern is: a name, a version, a check before the first call, and a coroutine over the context."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from shared.contracts.chat import Answer
from shared.contracts.job import Job
from shared.patterns.context import Context


def _accepts_everything(job: Job) -> str | None:
    return None


@dataclass(frozen=True, slots=True)
class Pattern:
    """`version` is pinned when a job is accepted; a change of what the coroutine asks for is a new version beside the old one.

    `check(job)` says in one sentence why the job cannot be run, or None. Pure.
    """

    name: str
    version: int
    run: Callable[[Context, Job], Coroutine[Any, Any, Answer]]
    check: Callable[[Job], str | None] = _accepts_everything
