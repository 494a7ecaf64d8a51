"""The planner's protocol holds, and each planted bug breaks it: searches to exhaustion, then walks at random through larger cases.

`TUTTI_EXAMPLES=thorough` adds cases that take minutes, and walks. No planted bug needs that long. Two departures are no bugs but cases of
the rule: a commit that is not fenced, since position and watermark fall back together; dispatches that wait for the acknowledgement, with
which a step need not hold its input.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.model.protocol import Case, Faults, Rule
from tests.model.protocol_laws import check, walk
from tests.model.search import THOROUGH, at_length

WALKS = 20_000 if THOROUGH else 300
CRASH, REBALANCE, FAILS = Faults(crash=1), Faults(rebalance=1), Faults(producer_fails=1)

HOLDS = {
    "a crash": Case(CRASH),
    "a rebalance": Case(REBALANCE),
    "a crash, a snapshot": Case(Faults(crash=1, snapshot=1)),
    "a crash, a round cut in two": Case(Faults(crash=1, cut=1)),
    "a crash, a lost dispatch": Case(Faults(crash=1, dispatch_lost=1)),
    "a crash, a claim timeout": Case(Faults(crash=1, claim_timeout=1)),
    "a crash, the group forgotten": Case(Faults(crash=1, group_forgotten=1)),
    "a crash, a command run twice": Case(Faults(crash=1, run_twice=1)),
    "a crash, two steps": Case(CRASH, steps=2),
    "a crash, an id that comes again": Case(CRASH, jobs=(0, 0)),
    "two crashes": Case(Faults(crash=2)),
    "a crash, then an older planner": Case(CRASH, older=frozenset({1})),
    "a crash of an older planner": Case(CRASH, older=frozenset({0})),
    "an older planner's round cut in two": Case(Faults(crash=1, cut=1), older=frozenset({0})),
    "a crash, a snapshot, then an older planner": Case(Faults(crash=1, snapshot=1), older=frozenset({1})),
    "a producer fails, two steps": Case(FAILS, steps=2),
}
LONG = {
    "a crash, a producer fails": Case(Faults(crash=1, producer_fails=1)),
    "a crash, two jobs": Case(CRASH, jobs=(0, 1)),
    "two crashes, an id that comes again": Case(Faults(crash=2), jobs=(0, 0)),
    "a rebalance, a command run twice": Case(Faults(rebalance=1, run_twice=1)),
    "a rebalance, two steps": Case(REBALANCE, steps=2),
    "a rebalance, commits not fenced": Case(REBALANCE, Rule(fenced=False)),
    "a rebalance, two steps, dispatches awaited": Case(REBALANCE, Rule(dispatches_beside=False, step_holds_input=False), steps=2),
    "a crash, a rebalance": Case(Faults(crash=1, rebalance=1)),
}
"""37,000 to 2.1 million states each; the last takes three minutes and 2 GB."""
BUGS = {
    "epoch by generation instead of offset": (Case(REBALANCE, Rule(epoch="generation")), "twice"),
    "epoch counted from what is seen": (Case(REBALANCE, Rule(epoch="counted")), "twice"),
    "a gap always means stop": (Case(REBALANCE, Rule(inspects_gaps=False)), "no planner"),
    "watermark past an unpublished result": (Case(Faults(crash=2), Rule(holds_for_results=False)), "never gets a result"),
    "watermark before the snapshot's ack": (Case(Faults(crash=1, snapshot=1), Rule(awaits_snapshots=False)), "before the watermark"),
    "inputs and watermark committed apart": (Case(CRASH, Rule(one_commit=False), jobs=(0, 1)), "twice"),
    "watermark on a record whose epoch a reader cannot know": (Case(Faults(crash=2), Rule(names_valid=False)), "settled twice"),
    "step id without its input": (Case(REBALANCE, Rule(step_holds_input=False), steps=2), "made from"),
    "re-sent append after a new producer": (Case(FAILS, Rule(starts_anew=False)), "twice"),
    "a round cut in two, nothing driven on": (
        Case(Faults(crash=1, cut=1), Rule(drives_on=False), older=frozenset({0})),
        "never gets a result",
    ),
    "an older planner passes over what it does not know": (Case(CRASH, Rule(leaves_newer=False), older=frozenset({1})), "asked for twice"),
    "an end's last answer looked for before it": (Case(CRASH, Rule(ends_whole=False)), "history does not hold"),
    "an acceptance taken for whole": (Case(Faults(crash=1, cut=1), Rule(drives_asks=False), older=frozenset({0})), "never gets a result"),
    "a result before its event": (Case(CRASH, Rule(settles_first=False)), "history does not hold"),
    "ended ids forgotten": (Case(Faults(crash=2), Rule(remembers=False), jobs=(0, 0)), "twice"),
    "worker silent on a finished attempt": (Case(CRASH, Rule(repeats_outcomes=False)), "come to rest"),
}
ALL_FAULTS = Faults(3, 2, 2, 1, 1, 1, 1, 2, 1)
WALKED = {
    "two jobs of two steps": Case(ALL_FAULTS, jobs=(0, 1), steps=2, planners=3),
    "an id that comes again": Case(ALL_FAULTS, jobs=(0, 1, 0), planners=3),
    "an older planner among three": Case(ALL_FAULTS, jobs=(0, 1), steps=2, planners=3, older=frozenset({1})),
}


@pytest.mark.parametrize("name", HOLDS)
def test_the_protocol_holds(name: str) -> None:
    """To exhaustion."""
    found = check(HOLDS[name])
    assert found.wrong is None, found
    assert found.states > 1_000


@at_length
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("name", LONG)
def test_the_protocol_holds_in_longer_cases(name: str) -> None:
    found = check(LONG[name])
    assert found.wrong is None, found


@pytest.mark.timeout(1_800 if THOROUGH else 120)
@pytest.mark.parametrize("name", WALKED)
def test_the_protocol_holds_on_walks_at_random(name: str) -> None:
    for seed in range(WALKS):
        found = walk(WALKED[name], seed)
        assert found.wrong is None, f"seed {seed}: {found}"


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_seen(name: str) -> None:
    """By what it breaks, and the same case without it holds (above, or in the longer ones)."""
    case, expected = BUGS[name]
    found = check(case)
    assert expected in (found.wrong or "holds"), found


def test_a_planted_bug_is_seen_on_walks() -> None:
    """So that the walks are known to look."""
    case = WALKED["two jobs of two steps"]
    bug = replace(case, rule=Rule(epoch="generation"))
    assert any(walk(bug, seed).wrong for seed in range(100))
