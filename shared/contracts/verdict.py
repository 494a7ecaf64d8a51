"""Verdict: what critics have found in texts, and what a job's answer tells of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from shared.contracts.base import Contract, Count, Label

MOST_FINDINGS = 256
"""That one verdict names; beyond it only counts."""
Direction = Literal["input", "answer"]


class Finding(Contract):
    """`text`: which of the judged ones; `start` and `end`: characters in it, both 0 where the whole is meant. `says`: for its author."""

    check: Label
    kind: Label = ""
    text: Count = 0
    start: Count = 0
    end: Count = 0
    says: Annotated[str, StringConstraints(max_length=400)] = ""


class CritiqueVerdict(Contract):
    """What was found; without findings all is well. `counts`: of each check, also beyond what is listed."""

    findings: tuple[Finding, ...] = Field(default=(), max_length=MOST_FINDINGS)
    counts: dict[Label, Count] = Field(default_factory=dict, max_length=64)
    doubts: tuple[Label, ...] = Field(default=(), max_length=64)
    """Checks that have passed so narrowly that a model had better judge."""

    @property
    def whole(self) -> bool:
        """Whether all that was found is listed."""
        return sum(self.counts.values()) == len(self.findings)


class Flagged(Contract):
    """What a tenant's policy has met in a job, without its text."""

    direction: Direction
    check: Label
    action: Label
    """What was done: flag, redact, retry; or `unchecked`, where nobody could check and the policy lets that pass."""
    count: Count = 1
