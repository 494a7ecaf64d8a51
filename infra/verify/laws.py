"""The kinds of violation that the checker knows: the law that is broken, and what was seen."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class LawKind(StrEnum):
    """Low-cardinality name of a violation."""

    LOST = "lost"
    UNFINISHED = "unfinished"
    RESULT_MISSING = "result_missing"
    ACCEPTED_TWICE = "accepted_twice"
    SETTLED_TWICE = "settled_twice"
    RESULTS_DIFFER = "results_differ"
    RESULT_WITHOUT_ACCEPTANCE = "result_without_acceptance"
    ANSWERED_TWICE = "answered_twice"
    ANSWER_NOT_ASKED = "answer_not_asked"
    ANSWER_FROM_NOBODY = "answer_from_nobody"
    ASKED_TWICE = "asked_twice"
    AFTER_THE_END = "after_the_end"
    ATTEMPTS_NOT_INCREASING = "attempts_not_increasing"
    CLAIMED_TWICE = "claimed_twice"
    ATTEMPT_NOT_BEGUN = "attempt_not_begun"
    FENCED_WRITER = "fenced_writer"
    IMPOSSIBLE_EPOCH = "impossible_epoch"
    UNREADABLE = "unreadable"


LAWS: Mapping[LawKind, tuple[int, str]] = {
    LawKind.LOST: (1, "a record of jobs.* that no history accepted, and that is neither a cancel, waiting, delayed nor a dead letter"),
    LawKind.UNFINISHED: (1, "a job that has not ended, although everything must have (--settled)"),
    LawKind.RESULT_MISSING: (1, "a job that ended and has no result, although its planner committed past it"),
    LawKind.ACCEPTED_TWICE: (1, "a job that history accepted again while it was live, or within the window of its id"),
    LawKind.SETTLED_TWICE: (1, "a job with two valid ends"),
    LawKind.RESULTS_DIFFER: (1, "results of one job that are not the same"),
    LawKind.RESULT_WITHOUT_ACCEPTANCE: (1, "a result that no valid settle event holds"),
    LawKind.ANSWERED_TWICE: (2, "a step with two accepted outcomes"),
    LawKind.ANSWER_NOT_ASKED: (2, "an accepted outcome of a step or an attempt that history had not asked for, or no longer"),
    LawKind.ANSWER_FROM_NOBODY: (2, "an accepted outcome that nobody sent"),
    LawKind.ASKED_TWICE: (2, "a step that a live job asked for again"),
    LawKind.AFTER_THE_END: (2, "an event of a step that had ended, or whose job had"),
    LawKind.ATTEMPTS_NOT_INCREASING: (
        3,
        "events of an attempt that is not the current one, or a retry after no failure, or one that does not count up",
    ),
    LawKind.CLAIMED_TWICE: (3, "an attempt of which two claims stood"),
    LawKind.ATTEMPT_NOT_BEGUN: (3, "outcomes of an attempt that the history of an ended job never began"),
    LawKind.FENCED_WRITER: (2, "an event of a fenced planner that had an effect: its result was published, its retry was sent"),
    LawKind.IMPOSSIBLE_EPOCH: (2, "an event whose epoch is no PlannerStarted before it"),
    LawKind.UNREADABLE: (1, "a record that cannot be read, so that nothing can be said about its job"),
}
"""LawKind → (number of the law, what it means; ARCHITECTURE, laws)."""

LOSSES = (LawKind.LOST, LawKind.UNFINISHED, LawKind.RESULT_MISSING)
DOUBLES = (LawKind.ACCEPTED_TWICE, LawKind.SETTLED_TWICE, LawKind.RESULTS_DIFFER, LawKind.ANSWERED_TWICE)
