"""Reviews: people decide on a text that a pattern shows them. What is asked, what they say, and the facts that history holds of it.

`Deliberation` is the fold of one review. The planner decides by it, and an ingress tells by the same fold what became of what somebody
said: both see the same events in the same order, so the one never says what the other denies.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from shared.contracts.base import (
    DAY_SECONDS,
    DIGEST,
    INLINE_BYTES,
    Contract,
    EpochSeconds,
    JobId,
    PositiveSeconds,
    Seconds,
    Sentence,
    StepId,
    Tenant,
    Text,
)
from shared.contracts.fact import Fact
from shared.contracts.keys import KeyName

REVIEW_BYTES = INLINE_BYTES + 16 * 1024
"""Largest review as JSON: an inline text with what is asked of it."""
LONGEST_SECONDS = 366 * DAY_SECONDS

Verdict = Literal["approve", "edit", "reject", "answer"]
"""The text may go on; another text goes on instead; nothing goes on; the question is answered with a text."""
People = Annotated[tuple[KeyName, ...], Field(max_length=64)]


class Said(Contract):
    """A verdict, and its text: of edit and answer the text itself, else a remark."""

    verdict: Verdict
    text: Text = ""

    @model_validator(mode="after")
    def _has_text(self) -> Self:
        if self.verdict in ("edit", "answer") and not self.text:
            raise ValueError(f"{self.verdict} needs a text")
        return self


class ReviewRules(Contract):
    """Who may decide on a text, by when, and what counts. The same wherever a review is asked for."""

    assignees: People = ()
    """Names of API keys; empty: any key of the tenant."""
    quorum: int = Field(default=1, ge=1, le=64)
    """So many different people must say the same (verdict and text); one `reject` is enough."""
    deadline_seconds: PositiveSeconds = Field(default=DAY_SECONDS, le=LONGEST_SECONDS)
    default: Literal["approve", "reject"] = "reject"
    """What holds when nothing is decided by then."""
    escalate_to: People = ()
    """Who may decide besides, from `escalate_after_seconds` on."""
    escalate_after_seconds: PositiveSeconds | None = Field(default=None, le=LONGEST_SECONDS)

    @model_validator(mode="after")
    def _can_be_met(self) -> Self:
        if self.assignees and self.quorum > len({*self.assignees, *self.escalate_to}):
            raise ValueError("the quorum is larger than the number of those who may decide")
        if bool(self.escalate_to) != (self.escalate_after_seconds is not None):
            raise ValueError("escalate_to and escalate_after_seconds need one another")
        return self


class ReviewTerms(ReviewRules):
    """All that a pattern asks for: the review's id is made of it."""

    artefact: Text
    question: Sentence


class ReviewGiven(Said):
    """Somebody decides on a review; `by` is the name of his key. Its planner says by events whether it counts."""

    type: Literal["review_given"] = "review_given"
    job: JobId
    step: StepId
    digest: Annotated[str, StringConstraints(pattern=f"^{DIGEST}$", max_length=32)]
    """Of the text that he has looked at (`ids.digest_of`)."""
    by: KeyName


class ReviewOpened(ReviewTerms, Fact):
    """People are asked. The text stands here, and nowhere else: reviewers read it from history."""

    type: Literal["review_opened"] = "review_opened"
    step: StepId
    path: Sentence
    tenant: Tenant
    digest: Annotated[str, StringConstraints(pattern=f"^{DIGEST}$", max_length=32)]
    due_at: EpochSeconds
    """When the default holds, by its writer's clock, for people."""
    opened_after: Seconds = 0.0
    """Seconds from the job's acceptance to now: all durations of the review count from there, whoever has the home."""


class ReviewDecided(Said, Fact):
    """What somebody said counts; or, without `by`, the time is over and the default holds."""

    type: Literal["review_decided"] = "review_decided"
    step: StepId
    by: KeyName | None = None
    over: bool = True
    """With it the review is decided, and the pattern goes on; else more people must say the same."""
    idle_seconds: Seconds = 0.0
    """So long the job has only waited for people and for its own timers, up to now."""


class ReviewEscalated(Fact):
    """Those in `escalate_to` may decide from here on, too."""

    type: Literal["review_escalated"] = "review_escalated"
    step: StepId


class ReviewWithdrawn(Fact):
    """Nobody waits for the decision any more."""

    type: Literal["review_withdrawn"] = "review_withdrawn"
    step: StepId


@dataclass(frozen=True, slots=True)
class Decision:
    """What a pattern is told. `by`: those who said it, in order; nobody: the default held. `at`: seconds since 1970, as history has it."""

    verdict: Verdict
    text: str
    by: tuple[str, ...]
    at: float

    @property
    def by_default(self) -> bool:
        return not self.by


class Unheard(StrEnum):
    """Why what somebody says of a review does not count."""

    OVER = "review_over"
    CHANGED = "review_changed"
    NOT_ASSIGNED = "not_assigned"
    SAID_OTHERWISE = "already_decided"


@dataclass(slots=True)
class Deliberation:
    """One review: a fold of its events. `opened` may be without its text."""

    opened: ReviewOpened
    said: dict[str, ReviewDecided]
    """By whom; each once."""
    escalated: bool = False
    decision: Decision | None = None
    withdrawn: bool = False

    @classmethod
    def of(cls, opened: ReviewOpened) -> Deliberation:
        """Without the text, which is long and decides nothing."""
        return cls(opened.model_copy(update={"artefact": ""}), {})

    @property
    def over(self) -> bool:
        return self.withdrawn or self.decision is not None

    def fold(self, event: Fact) -> None:
        """One of its own events, in order of history; the same again changes nothing."""
        match event:
            case ReviewEscalated():
                self.escalated = True
            case ReviewWithdrawn():
                self.withdrawn = True
            case ReviewDecided():
                if event.by is not None:
                    self.said[event.by] = event
                if event.over:
                    by = () if event.by is None else tuple(name for name, said in self.said.items() if _same(said, event))
                    self.decision = Decision(event.verdict, event.text, by, event.at)

    def refusal(self, given: ReviewGiven) -> Unheard | None:
        """Why this does not count; None: it does."""
        if self.over:
            return Unheard.OVER
        if given.digest != self.opened.digest:
            return Unheard.CHANGED
        if not self.may_decide(given.by):
            return Unheard.NOT_ASSIGNED
        return Unheard.SAID_OTHERWISE if given.by in self.said else None

    def may_decide(self, name: str) -> bool:
        """Whether the holder of the key with this name is one of those asked."""
        asked = self.opened
        return not asked.assignees or name in asked.assignees or (self.escalated and name in asked.escalate_to)

    def decides(self, given: ReviewGiven) -> bool:
        """Whether the review is over with this, if it counts."""
        agreeing = sum(_same(said, given) for said in self.said.values())
        return given.verdict == "reject" or agreeing + 1 >= self.opened.quorum

    def heard(self, given: ReviewGiven) -> bool:
        """Whether history has taken exactly this from him, of this text."""
        said = self.said.get(given.by)
        return said is not None and _same(said, given) and given.digest == self.opened.digest

    @property
    def due_after(self) -> float:
        """Seconds from the job's acceptance to what time brings next: more people, or the default."""
        asked = self.opened
        ends = asked.deadline_seconds
        if asked.escalate_after_seconds is not None and not self.escalated:
            ends = min(ends, asked.escalate_after_seconds)
        return asked.opened_after + ends


def _same(one: Said, other: Said) -> bool:
    """Remarks may differ."""
    return one.verdict == other.verdict and (one.verdict in ("approve", "reject") or one.text == other.text)
