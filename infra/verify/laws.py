"""The kinds of violation that the checker knows: the law that is broken, and what was seen."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Kind(StrEnum):
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
    ATTEMPTS_NOT_INCREASING = "attempts_not_increasing"
    ATTEMPT_NOT_BEGUN = "attempt_not_begun"
    FENCED_WRITER = "fenced_writer"
    IMPOSSIBLE_EPOCH = "impossible_epoch"
    UNREADABLE = "unreadable"


LAWS: Mapping[Kind, tuple[int, str]] = {
    Kind.LOST: (1, "a job record that no history accepted, and that is neither waiting, delayed nor a dead letter"),
    Kind.UNFINISHED: (1, "a job that has not ended, although everything must have (--settled)"),
    Kind.RESULT_MISSING: (1, "a job that ended and has no result, although its planner committed past it"),
    Kind.ACCEPTED_TWICE: (1, "a job that history accepted again while it was live, or within the window of its id"),
    Kind.SETTLED_TWICE: (1, "a job with two valid ends"),
    Kind.RESULTS_DIFFER: (1, "results of one job that are not the same"),
    Kind.RESULT_WITHOUT_ACCEPTANCE: (1, "a result that no valid settle event holds"),
    Kind.ANSWERED_TWICE: (2, "a step with two accepted outcomes"),
    Kind.ANSWER_NOT_ASKED: (2, "an accepted outcome of a step or an attempt that history had not asked for, or no longer"),
    Kind.ANSWER_FROM_NOBODY: (2, "an accepted outcome that nobody sent"),
    Kind.ATTEMPTS_NOT_INCREASING: (3, "events of an attempt that is not the current one, or a retry that does not count up"),
    Kind.ATTEMPT_NOT_BEGUN: (3, "outcomes of an attempt that the history of an ended job never began"),
    Kind.FENCED_WRITER: (2, "an event of a fenced planner that had an effect: its result was published, its retry was sent"),
    Kind.IMPOSSIBLE_EPOCH: (2, "an event whose epoch is no PlannerStarted before it"),
    Kind.UNREADABLE: (1, "a record that cannot be read, so that nothing can be said about its job"),
}
"""Kind → (number of the law, what it means; ARCHITECTURE, laws)."""

LOSSES = (Kind.LOST, Kind.UNFINISHED, Kind.RESULT_MISSING)
DOUBLES = (Kind.ACCEPTED_TWICE, Kind.SETTLED_TWICE, Kind.RESULTS_DIFFER, Kind.ANSWERED_TWICE)
