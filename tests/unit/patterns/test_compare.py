"""compare: what is judged beside what, and at which price; what patterns keep for it is no part of their answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shared.contracts.chat import Answer
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.job import Job
from shared.contracts.step import StepRequest
from shared.contracts.usage import Usage
from shared.patterns.compare import COMPARE
from shared.patterns.comparison import COMPARED_CHARACTERS, SINGLE_ANSWER, Baseline, Comparison, Spent
from shared.patterns.context import Context
from shared.patterns.critic import CRITIC
from shared.patterns.debate import DEBATE
from shared.patterns.ensemble import ENSEMBLE
from shared.patterns.maestro import MAESTRO
from shared.patterns.single import SINGLE
from shared.patterns.vote import VOTE
from tests.support.scripted import DOWN, Played, Reply, Script, crashes_alike, play, team

TEAM = team("judge", "coordinator")
TOOK = Spent(calls=4, tokens=600, seconds=12)
KEPT = {"what": "first sample", "text": "bad", "took": {"calls": 1, "tokens": 150, "seconds": 3}}


def job(answer: str = "good", baseline: dict[str, Any] | None = KEPT, **own: Any) -> Job:
    given = {"job": "t/x", "accepted_at": 5.0, "pattern": "vote", "answer": answer, "took": TOOK.model_dump()}
    return Job(prompt="Q?", pattern="compare", input={**given, **({"baseline": baseline} if baseline else {})}, **own)


def judge(request: StepRequest) -> Reply:
    """Prefers the good text, wherever it stands."""
    content = request.messages[-1].content
    first = content[content.index("text 1") : content.index("text 2")]
    return Reply(json.dumps({"better": "first" if "good" in first else "second"}))


def script(single: str | Answer | Failure = "bad", how: Script = judge) -> Script:
    return lambda request: Reply(single, 2.0) if request.agent == "baseline" else how(request)


def run(asked: Job, how: Script) -> Played:
    played = play(COMPARE, asked, how, team=TEAM)
    crashes_alike(COMPARE, asked, played, team=TEAM)
    return played


def compared(asked: Job, how: Script) -> Comparison:
    return Comparison.model_validate_json(run(asked, how).text)


@pytest.mark.parametrize(
    ("answer", "other", "verdict", "calls"),
    [
        ("good", "bad", "better", 2),
        ("bad", "good", "worse", 2),
        ("Same  text", "same text", "equal", 0),
        ("", "bad", "worse", 0),
        ("good", " ", "better", 0),
        ("", "\n", "equal", 0),
    ],
)
def test_the_verdict_is_of_the_measured_answer(answer: str, other: str, verdict: str, calls: int) -> None:
    """In both orders; where the texts say it by themselves no judge is asked."""
    asked = job(answer, {**KEPT, "text": other})
    assert (compared(asked, judge).verdict, compared(asked, judge).judge) == (verdict, "consistent" if calls else "not asked")
    assert len(run(asked, judge).asked) == calls


def test_what_its_pattern_knows_to_be_the_same_is_equal_without_a_judge() -> None:
    assert compared(job("42, since", {**KEPT, "text": "So 42.", "same": True}), lambda _: Reply(DOWN)).verdict == "equal"


@pytest.mark.parametrize(
    "how", [lambda _: Reply('{"better": "first"}'), lambda _: Reply('{"better": "second"}'), lambda _: Reply('{"better": "equal"}')]
)
def test_a_judge_that_prefers_a_place_makes_a_tie_and_is_told(how: Script) -> None:
    found = compared(job(), how)
    answer = how(StepRequest()).answer
    assert isinstance(answer, str)
    assert (found.verdict, found.judge) == ("equal", "consistent" if "equal" in answer else "prefers a place")


@pytest.mark.parametrize("reply", [DOWN, "the first one"])
def test_a_judge_without_a_verdict_makes_none(reply: Any) -> None:
    """As a tie it would draw every gain towards nothing. One order is enough."""
    asked: list[StepRequest] = []

    def once(request: StepRequest) -> Reply:
        asked.append(request)
        return Reply(reply) if asked[0].messages[1] == request.messages[1] else judge(request)

    for how in (lambda _: Reply(reply), once):
        played = play(COMPARE, job(), how, team=TEAM)
        assert played.failure is not None
        assert played.failure.kind is FailureKind.INVALID_OUTPUT


def test_without_a_kept_baseline_the_single_answer_is_asked_for_as_a_single_job_asks_it() -> None:
    options = {"temperature": 0.3, "stop": ["}"]}
    asked = job(baseline=None, model="m", system="Be brief.", options=options)
    played = run(asked, script("bad"))
    first, *judged = played.asked
    [same] = play(SINGLE, asked.changed(input={}), lambda _: Reply("x")).asked
    assert first == same.model_copy(update={"agent": "baseline"})
    assert not first.stream
    assert [request.options.stop for request in judged] == [(), ()], "the job's stop words would cut a verdict off"
    found = Comparison.model_validate_json(played.text)
    assert (found.baseline, found.verdict) == ("single answer", "better")
    assert (found.cost_ratio, found.seconds_ratio) == (600 / 15, 12 / 2), "of its time only what the model took"


def test_a_baseline_may_name_the_model_that_is_to_be_asked() -> None:
    played = run(job(baseline={"what": "last model", "model": "dear"}, model="cheap", fallback_models=("other",)), script())
    assert [(r.agent, r.model, r.fallback_models) for r in played.asked[:1]] == [("baseline", "dear", ())]
    assert Comparison.model_validate_json(played.text).baseline == "last model"


@pytest.mark.parametrize("single", [DOWN, Answer(text="x" * (COMPARED_CHARACTERS + 1)), Answer(tool_calls=({"id": "1"},))])
def test_a_single_answer_that_cannot_be_read_makes_no_comparison(single: Answer | Failure) -> None:
    assert play(COMPARE, job(baseline=None), script(single), team=TEAM).failure is not None


def test_costs_are_compared_in_the_same_unit() -> None:
    one, two = Spent(calls=1, tokens=10, cost=2, seconds=1), Spent(calls=4, tokens=20, cost=1, seconds=1)
    assert (one.times(two), two.times(one)) == (2.0, 0.5)
    assert one.model_copy(update={"cost": 0.0}).times(two) == 0.5
    assert Spent(calls=3).times(two) == 0.75
    assert Spent().times(two) is None
    used = Usage(calls=3, prompt_tokens=20, completion_tokens=10, wasted_calls=1, wasted_tokens=30, cost=2.0)
    assert Spent.of(used, -1.0, shares=2) == Spent(calls=2, tokens=30, cost=1.0, seconds=0.0)
    assert two.less(one) == Spent(calls=3, tokens=10)


# What patterns keep


def kept(played: Played) -> Baseline:
    assert played.answer is not None
    assert "baseline" not in (played.answer.explanation or {})
    assert played.baseline is not None
    return played.baseline


def sampled(*replies: Reply) -> Script:
    """Sample n, known by its seed, gives the n-th reply."""
    return lambda request: replies[(request.options.seed or 0) - 100]


def test_vote_keeps_its_first_sample_with_a_samples_mean_cost_and_its_own_time() -> None:
    asked = Job.model_validate({"prompt": "q", "pattern": "vote", "input": {"answer": "number", "samples": 3}, "options": {"seed": 100}})
    for texts, same in ((("1", "2", "2"), False), (("2", "1", "2"), True), (("none", "2", "2"), False)):
        played = play(VOTE, asked, sampled(*(Reply(text, 5.0 + number) for number, text in enumerate(texts))))
        crashes_alike(VOTE, asked, played)
        assert kept(played) == Baseline(what="first sample", text=texts[0], took=Spent(calls=1, tokens=15, seconds=5.0), same=same)


def test_vote_keeps_no_other_sample_in_the_first_ones_place() -> None:
    """The first is slow, and the others agree: they have decided the end, and would say that there is nothing to gain."""
    asked = Job.model_validate({"prompt": "q", "pattern": "vote", "input": {"answer": "number", "samples": 3}, "options": {"seed": 100}})
    played = play(VOTE, asked, lambda request: Reply("1", 9.0) if request.options.seed == 100 else Reply("2"))
    assert (played.text, kept(played)) == ("2", SINGLE_ANSWER)


def test_ensemble_keeps_its_best_proposer() -> None:
    asked = Job.model_validate({"prompt": "q", "pattern": "ensemble", "input": {"quorum": 3}, "options": {"seed": 100}})
    texts = ("tea is hot", "tea is cold", "rain in june")

    def how(request: StepRequest) -> Reply:
        return Reply("made of all") if request.agent == "synthesis" else Reply(texts[(request.options.seed or 0) - 100], 3.0)

    played = play(ENSEMBLE, asked, how)
    crashes_alike(ENSEMBLE, asked, played)
    assert kept(played) == Baseline(what="best proposer", text="tea is hot", took=Spent(calls=1, tokens=15, seconds=3.0))
    alone = play(ENSEMBLE, asked, lambda request: Reply(DOWN) if request.agent == "synthesis" else how(request))
    assert kept(alone).same, "the best proposer is the answer"


def test_debate_keeps_the_vote_of_its_first_round() -> None:
    asked = Job(prompt="q", pattern="debate", input={"answer": "number", "size": 3})
    seats: dict[int | None, int] = {}

    def how(request: StepRequest) -> Reply:
        again = "You answered" in request.messages[-1].content
        said = 7 if again else (1, 1, 2)[seats.setdefault(request.options.seed, len(seats)) % 3]
        return Reply(json.dumps({"reasoning": "r", "answer": str(said)}), 4.0)

    played = play(DEBATE, asked, how, team=TEAM)
    assert played.text == "7"
    assert kept(played) == Baseline(what="round-0 vote", text="1", took=Spent(calls=3, tokens=45, seconds=4.0))
    agreed = play(DEBATE, asked, lambda _: Reply(json.dumps({"reasoning": "r", "answer": "7"})), team=TEAM)
    assert kept(agreed).same


def test_critic_keeps_its_first_draft() -> None:
    """A revision that is kept is another text; one that is not leaves the draft as the answer."""
    for better in (True, False):

        def how(request: StepRequest, better: bool = better) -> Reply:
            if request.agent == "critic":
                text = request.messages[-1].content.partition('<data id="text">\n')[2].partition("\n</data>")[0]
                return Reply(json.dumps({"quote": text, "critique": f"of {text}", "score": 2 + ("second" in text) * (1 if better else -1)}))
            again = any(message.role == "assistant" for message in request.messages)
            return Reply("second draft" if again else "first draft", 2.0)

        played = play(CRITIC, Job(prompt="q", pattern="critic", input={"rounds": 1}), how, team=team("critic"))
        assert played.text == ("second draft" if better else "first draft")
        took = Spent(calls=1, tokens=15, seconds=2.0)
        assert kept(played) == Baseline(what="first draft", text="first draft", took=took, same=not better)


def test_maestro_keeps_its_single_answer() -> None:
    members = team("research", "reasoning", "creative", "code", "coordinator", "critic")

    def how(request: StepRequest, score: int = 1) -> Reply:
        fields = request.format.get("properties", {}) if isinstance(request.format, dict) else {}
        if "score" in fields:
            return Reply(json.dumps({"quote": "alone", "score": score}))
        if "plan" in fields:
            return Reply(json.dumps({"plan": "p", "team": ["research"]}))
        if "orders" in fields:
            order = {"agent": "research", "instruction": "look"}
            return Reply(json.dumps({"done": False, "looping": False, "progress": True, "orders": [order]}))
        return Reply({"chat": "alone", "coordinator": "together"}.get(request.agent, "found"), 2.0)

    asked = Job(prompt="q", pattern="maestro", input={"rounds": 1})
    played = play(MAESTRO, asked, how, team=members)
    crashes_alike(MAESTRO, asked, played, team=members)
    took = Spent(calls=1, tokens=15, seconds=2.0)
    assert (played.text, kept(played)) == ("together", Baseline(what="single answer", text="alone", took=took))
    passed = play(MAESTRO, asked, lambda request: how(request, 5), team=members)
    assert (passed.text, kept(passed).same) == ("alone", True)
    without = play(MAESTRO, asked.changed(input={"rounds": 1, "skip_team": False}), how, team=members)
    assert kept(without) == SINGLE_ANSWER


def test_a_baseline_that_is_too_long_is_asked_for_unless_it_is_the_answer() -> None:
    ctx, long = Context(), "x" * (COMPARED_CHARACTERS + 1)
    ctx.beside("first draft", long, Spent(), same=True)
    assert ctx.baseline == Baseline(what="first draft", text="", same=True)
    ctx.apart()
    assert ctx.baseline == SINGLE_ANSWER
    ctx.beside("first draft", long, Spent(), same=False)
    assert ctx.baseline == SINGLE_ANSWER
