"""Mutation check: every planted bug of `tests/support/cluster/mutations.py` is seen by the simulation within 200 seeds.

`make test` runs the seed that is recorded beside each bug, and some others when a change of the services has moved it.
`TUTTI_SEARCH=1` (`make test-chaos`) searches all anew and prints what it finds, ready to be recorded.
A bug that needs a particular history is planted under the trace test that holds this history.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.simulated import test_callers, test_planner_callers, test_planner_fairness
from tests.simulated import test_planner_traces as traces
from tests.support.cluster.mutants import ahead, boots, callers, planner, protocol
from tests.support.cluster.mutations import FEW_SEEDS, MOST_SEEDS, Mutation, find, mutations

pytestmark = pytest.mark.usefixtures("quiet")

TEST = "tests/simulated/test_mutations.py::test_a_planted_bug_is_seen"
SEARCH = bool(os.environ.get("TUTTI_SEARCH"))
TRACED: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], Callable[[], None]]] = {
    "step id without its input": (planner.step_id_without_input, traces.test_the_id_of_a_step_holds_its_input),
    "offset -1 taken as good": (protocol.offset_minus_one_is_good, traces.test_offset_minus_one_is_not_taken_as_good),
    "re-sent append after a new producer": (protocol.append_sent_again, traces.test_an_append_of_unknown_fate_is_never_sent_again),
    "what lies below a bitmap's base is not taken": (
        ahead.below_the_base_is_not_taken,
        test_planner_fairness.test_what_lies_below_the_newest_bitmaps_base_counts_as_taken,
    ),
    "a bitmap without the topic's id": (
        ahead.bitmap_without_its_id,
        test_planner_fairness.test_a_bitmap_of_a_topic_that_was_made_anew_says_nothing,
    ),
    "a final is not waited for": (
        callers.finals_are_not_waited_for,
        test_planner_callers.test_the_answer_to_a_repeat_is_acknowledged_before_its_record_is_passed,
    ),
    "who joins appends nothing": (
        callers.joins_append_nothing,
        test_planner_callers.test_who_is_superseded_without_knowing_does_not_pass_a_repeat,
    ),
    "a guessed epoch ends callers": (
        callers.a_guess_is_good_enough,
        test_callers.test_nobody_is_told_before_it_is_known_which_epoch_is_in_force,
    ),
    "commands lost at a crash": (planner.commands_lost, traces.test_steps_whose_dispatch_died_with_the_planner_are_sent_again),
    "a refused claim disarms the claim timeout": (boots.refusal_disarms, traces.test_a_claim_of_a_boot_that_woke_too_late_holds_up_nothing),
}
"""Two histories of one job, or a state that lasts a moment: rare by chance, so each has its trace."""
NAMED_BY_THE_ISSUE = {
    "epoch by generation instead of offset",
    "a gap always means stop",
    "watermark past an unpublished result",
    "inputs and watermark committed apart",
    "step id without its input",
    "re-sent append after a new producer",
    "a round cut in two",
    "worker silent on a finished attempt",
    "zombie's timers firing",
    "timers armed from old times at take-over",
    "watermark before the snapshot's ack",
    "offset -1 taken as good",
    "claim timeout started at planning instead of routing",
    "commit before append",
    "a late outcome accepted",
    "a delayed message dropped at a tier boundary",
    "a credit used twice",
    "a watermark on a record whose epoch a reader cannot know",
    "deadlines re-armed at take-over",
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutation", mutations(), ids=lambda mutation: mutation.name)
def test_a_planted_bug_is_seen(mutation: Mutation) -> None:
    """With the bug its law breaks; without it, under the same seed and the same faults, none does."""
    if SEARCH:
        found = find(mutation, 0, MOST_SEEDS)
        assert found is not None, f"{MOST_SEEDS} seeds do not see: {mutation.name}"
    else:
        found = find(mutation, mutation.seed, FEW_SEEDS)
        assert found is not None, (
            f"the recorded seed {mutation.seed} and the first {FEW_SEEDS} see this bug no longer; search, and record what is printed:"
            f" TUTTI_SEARCH=1 .venv/bin/pytest -s '{TEST}[{mutation.name}]'"
        )
    seed, report = found
    print(f"{mutation.name}: seed {seed}: {next(v for v in report.violations if v.law == mutation.breaks)}")


@pytest.mark.parametrize("name", TRACED)
def test_a_planted_bug_is_seen_by_its_trace(name: str) -> None:
    """The trace test fails under the bug, and only under it."""
    patch, trace = TRACED[name]
    trace()
    with pytest.MonkeyPatch.context() as patching:
        patch(patching)
        with pytest.raises((AssertionError, ExceptionGroup)):
            trace()


def test_the_list_is_complete() -> None:
    """Every bug that the issue names is planted."""
    planted = {mutation.name for mutation in mutations()} | TRACED.keys()
    assert not NAMED_BY_THE_ISSUE - planted
