"""`tutti patterns report`: the interval covers what it should, nothing is claimed without evidence, and only who was measured counts."""

from __future__ import annotations

from collections.abc import Iterator
from math import comb
from typing import Any

import pytest

from infra.cli.exits import Exit
from shared.contracts.chat import Answer
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.result import Result, Status
from shared.derived import comparison_id
from shared.kafka.port import Message
from shared.patterns.comparison import Comparison
from shared.patterns.gain import FEWEST, Gain, gains, interval
from tests.support.cli_stage import NOW, TOPICS, Stage

HOMES = TOPICS.settings.home_partitions


def shares(n: int, p: float, q: float) -> Iterator[tuple[int, int, float]]:
    """Every outcome of n comparisons, with its probability: better with p, worse with q."""
    for better in range(n + 1):
        for worse in range(n - better + 1):
            ways = comb(n, better) * comb(n - better, worse)
            yield better, worse, ways * p**better * q**worse * max(0.0, 1 - p - q) ** (n - better - worse)


CASES = [(p, q) for p in (0.02, 0.1, 0.3, 0.5, 0.7) for q in (0.02, 0.1, 0.3, 0.5) if p + q <= 1]


@pytest.mark.parametrize("n", [FEWEST, 50])
def test_the_interval_covers_the_true_gain_as_often_as_it_says(n: int) -> None:
    """Counted out over all that may come, no sample: at least 92 %, and 95 % in the mean."""
    covered = []
    for p, q in CASES:
        hits = 0.0
        for better, worse, weight in shares(n, p, q):
            low, high = interval(better, worse, n)
            hits += weight * (low <= p - q <= high)
        covered.append(hits)
    assert min(covered) > 0.92
    assert sum(covered) / len(covered) == pytest.approx(0.955, abs=0.01)


@pytest.mark.parametrize("p", [0.02, 0.1, 0.2, 0.3, 0.5])
def test_a_gain_that_is_none_is_seldom_taken_for_one(p: float) -> None:
    wrong = sum(weight for better, worse, weight in shares(FEWEST, p, p) if interval(better, worse, FEWEST)[0] > 0)
    assert wrong < 0.033


@pytest.mark.parametrize(
    ("better", "equal", "worse", "evidence"),
    [
        (FEWEST - 1, 0, 0, "no evidence: 19 of 20 comparisons"),
        (FEWEST, 0, 0, "better"),
        (0, 0, FEWEST, "worse"),
        (0, FEWEST, 0, "no evidence: the interval holds 0"),
        (12, 0, 8, "no evidence: the interval holds 0"),
        (600, 0, 400, "better"),
        (30, 940, 10, "better"),
    ],
)
def test_what_is_no_evidence_is_called_none(better: int, equal: int, worse: int, evidence: str) -> None:
    assert Gain("vote", "t", better, equal, worse).evidence == evidence


def test_a_judge_that_prefers_a_place_is_told_and_hides_no_gain() -> None:
    """Of what was judged: what its pattern knew to be the same says nothing of the judge."""
    assert Gain("vote", "t", 1, 29, 0, judged=9, place=5).evidence == "no evidence: the judge prefers a place in 5 of 9"
    assert Gain("vote", "t", 1, 29, 0, judged=10, place=5).evidence == "no evidence: the interval holds 0"
    assert Gain("vote", "t", 14, 16, 0, judged=30, place=16).evidence == "better"
    assert Gain("vote", "t", 1, 9, 0, judged=10, place=9).evidence == "no evidence: 10 of 20 comparisons"


def result(number: int, verdict: Any = "better", pattern: str = "vote", tenant: str = "acme", **own: Any) -> Result:
    made = Comparison(
        job=f"acme/x{number}",
        accepted_at=float(number),
        pattern=pattern,
        baseline="first sample",
        verdict=verdict,
        cost_ratio=float(number),
        seconds_ratio=2.0 if number % 2 else None,
        judge="consistent" if number else "prefers a place",
    )
    fields: dict[str, Any] = {
        "job": comparison_id(made.job, made.accepted_at, HOMES),
        "tenant": tenant,
        "status": Status.SUCCEEDED,
        "answer": Answer(text=made.to_bytes().decode()),
        "pattern": "compare",
        "accepted_at": 0,
        "finished_at": 1,
    }
    return Result(**{**fields, **own})


def test_each_pattern_and_tenant_is_counted_by_itself_and_each_job_once() -> None:
    said = [*map(result, range(3)), result(3, "worse"), result(4, "equal", "debate"), result(5, tenant="other"), result(2)]
    found, failed = gains(said, HOMES)
    assert [(g.tenant, g.pattern, g.better, g.equal, g.worse) for g in found] == [
        ("acme", "debate", 0, 1, 0),
        ("acme", "vote", 3, 0, 1),
        ("other", "vote", 1, 0, 0),
    ]
    told = found[1].as_json()
    assert (told["gain"], told["cost_ratio"], told["seconds_ratio"], failed) == (0.5, 1.5, 2.0, {})
    assert (told["judged"], told["judge_prefers_a_place"]) == (4, 1)
    assert [gain.tenant for gain in gains(said, HOMES, "other")[0]] == ["other"]


def test_who_was_not_measured_does_not_count() -> None:
    """A job of pattern `compare` that a user has sent, with any id; another pattern's; what is no comparison; one without a verdict."""
    failure = Failure(kind=FailureKind.INVALID_OUTPUT, message="the judge gave no verdict")
    said = [
        result(1, job="j_of_a_user"),
        result(2, job="acme/x2"),
        result(3, pattern="compare").model_copy(update={"pattern": "single"}),
        result(4, answer=Answer(text="{}")),
        result(5, status=Status.FAILED, answer=None, failure=failure),
    ]
    assert gains(said, HOMES) == ([], {"acme": 1})


def test_the_command_reads_what_the_cluster_holds() -> None:
    stage = Stage()
    assert stage.tutti("topics", "create").exit_code == 0
    assert "no comparisons" in stage.tutti("patterns", "report").output
    failed = result(99, status=Status.FAILED, answer=None, failure=Failure(kind=FailureKind.LIMIT, message="calls"))
    said = [*(result(n) for n in range(30)), result(1), failed, result(50, tenant="other"), result(60, pattern="x", job="j_user")]
    stage.write(
        *(Message(TOPICS.results, each.to_bytes(), each.job.encode()) for each in said), Message(TOPICS.results, b'"pattern":"compare"')
    )
    told = stage.json("patterns", "report", "--tenant", "acme")
    [gain] = told["gains"]
    assert (gain["comparisons"], gain["gain"], gain["evidence"], gain["baselines"]) == (30, 1.0, "better", ["first sample"])
    assert told["without_verdict"] == {"acme": 1}
    stage.write(Message(TOPICS.results, result(70, "worse", "debate", finished_at=NOW - 60).to_bytes(), b"new"))
    assert [gain["pattern"] for gain in stage.json("patterns", "report", "--since", "5m")["gains"]] == ["debate"]
    assert stage.tutti("patterns", "report", "--since", "soon").exit_code == Exit.USAGE
    shown = stage.tutti("patterns", "report").output
    assert "tenant acme: 1 comparisons without a verdict, not counted" in shown
    assert "no evidence: 1 of 20 comparisons" in shown
    assert "14.50x" in shown
