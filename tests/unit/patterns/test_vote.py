"""vote: the winner of the full vote in every order of arrival, at the accuracy of the closed form."""

from __future__ import annotations

from itertools import permutations, product
from math import comb, sqrt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.contracts.blob import BlobRef
from shared.contracts.chat import Answer, ChatMessage
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.job import Job
from shared.contracts.limits import Limits
from shared.contracts.step import StepRequest
from shared.errors import InvalidInput
from shared.patterns import BUILT_IN
from shared.patterns.vote import VOTE, certain, leader
from tests.support.scripted import DOWN, NEVER, Played, Reply, crashes_alike, draw, play

LARGE = Answer(blob=BlobRef(digest="0" * 32, partition=0, first=0, last=0, chunks=1, size=70_000, written_at=0))
Heard = list[str | None]


def voting(prompt: str = "q", job: dict[str, Any] | None = None, **given: Any) -> Job:
    return Job.model_validate({"prompt": prompt, "pattern": "vote", "input": {"answer": "number", **given}, **(job or {})})


def numbered(*replies: Reply) -> Any:
    """A script that gives sample n, known by its seed, the n-th reply."""

    def script(request: StepRequest) -> Reply:
        assert request.options.seed is not None
        return replies[request.options.seed - 100]

    return script


def played(*replies: Reply, job: dict[str, Any] | None = None, **given: Any) -> Played:
    asked = {"options": {"seed": 100}, **(job or {})}
    return play(VOTE, voting(job=asked, samples=len(replies), **given), numbered(*replies))


def told(run: Played) -> dict[str, Any]:
    assert run.answer is not None, run.failure
    assert run.answer.explanation is not None
    return run.answer.explanation


# The count


def as_votes(said: Heard, numbers: Any) -> dict[int, str]:
    return {n: answer for n in numbers if (answer := said[n]) is not None}


@given(
    st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=9).flatmap(
        lambda said: st.tuples(st.just(said), st.permutations(range(len(said))))
    )
)
def test_the_stop_loses_nothing(drawn: tuple[Heard, list[int]]) -> None:
    """In every order of arrival: what is certain is what the full vote says."""
    said, order = drawn
    full = leader(as_votes(said, range(len(said))))
    for come in range(len(said) + 1):
        if certain(as_votes(said, order[:come]), order[come:]):
            assert leader(as_votes(said, order[:come])) == full


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_stop_comes_as_early_as_it_can(count: int) -> None:
    """What is not certain could still end in another way."""
    for said in product(["a", "b", None], repeat=count):
        for order in permutations(range(count)):
            for come in range(count):
                votes = as_votes(list(said), order[:come])
                if not certain(votes, order[come:]):
                    ends = {
                        leader({**votes, **{n: s for n, s in zip(order[come:], rest, strict=True) if s is not None}})
                        for rest in product(["a", "b", "new", None], repeat=count - come)
                    }
                    assert len(ends) > 1


def majority(p: float, count: int) -> float:
    return sum(comb(count, right) * p**right * (1 - p) ** (count - right) for right in range(count // 2 + 1, count + 1))


def closed_form(easy: float, hard: float, share: float, count: int) -> float:
    return share * majority(easy, count) + (1 - share) * majority(hard, count)


@pytest.mark.parametrize(("count", "expected"), [(1, 0.67), (3, 0.7043), (5, 0.7110), (7, 0.7087), (9, 0.7032)])
def test_the_count_is_the_closed_form(count: int, expected: float) -> None:
    """F(K) = a M(p1, K) + (1 - a) M(p2, K): over all votes of K samples, each with its probability."""
    counted = dict.fromkeys((0.85, 0.4), 0.0)
    for said in product("rw", repeat=count):
        if leader(dict(enumerate(said))) == "r":
            for p in counted:
                counted[p] += p ** said.count("r") * (1 - p) ** said.count("w")
    assert 0.6 * counted[0.85] + 0.4 * counted[0.4] == pytest.approx(closed_form(0.85, 0.4, 0.6, count))
    assert closed_form(0.85, 0.4, 0.6, count) == pytest.approx(expected, abs=5e-5)


def test_runs_have_the_accuracy_of_the_closed_form() -> None:
    """Of easy and hard questions, by models that are right by chance and slow by chance; with the early stop."""
    share, easy, hard, questions = 0.5, 0.9, 0.3, 120

    def model(request: StepRequest) -> Reply:
        number = int(request.messages[-1].content.split()[1])
        right = draw(request) < (easy if number < share * questions else hard)
        return Reply(f"so\nAnswer: {int(right)}", draw(request, "time"))

    runs = [play(VOTE, voting(f"question {n} ?", samples=5, only_answer=True), model) for n in range(questions)]
    expected = closed_form(easy, hard, share, 5)
    assert abs(sum(run.text == "1" for run in runs) / questions - expected) < 3 * sqrt(expected * (1 - expected) / questions)
    assert sum(len(told(run)["not_awaited"]) for run in runs) > questions / 2


# A run


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_the_winner_and_ties_are_the_same_in_every_order_of_arrival(order: tuple[int, ...]) -> None:
    """Two against two: the answer of the lowest sample number wins, never who was first."""
    texts = ["Answer: 8", "Answer: 7", "Answer: 7.0", "Answer: 8.0"]
    run = played(*(Reply(text, 1.0 + order[n]) for n, text in enumerate(texts)))
    assert run.text == "Answer: 8"
    assert told(run)["votes"][0] == {"answer": "8", "count": 2, "samples": [0, 3]}


def test_spellings_of_one_answer_are_counted_together() -> None:
    run = played(*map(Reply, ["Answer: 5", "Answer: 5", "$1,000", "1000.0", "it is 1e3"]), only_answer=True)
    assert run.text == "1000"


def test_it_stops_when_nobody_can_overtake() -> None:
    """Who is out then is stopped and not awaited."""
    run = played(Reply("7"), Reply("7", 2), Reply("7", 3), Reply("8", NEVER), Reply("8", NEVER))
    assert (run.text, run.seconds, told(run)["not_awaited"]) == ("7", 3, [3, 4])


def test_fewer_are_asked_where_fewer_may_run_at_once() -> None:
    run = played(*[Reply("7")] * 5, at_once=1)
    assert (len(run.asked), run.widest) == (3, 1)
    assert play(VOTE, voting(samples=5), lambda _: Reply("7"), limits=Limits(width=2)).widest == 2


def test_what_cannot_be_read_is_never_a_vote() -> None:
    """Not even when most say nothing."""
    run = played(Reply("I do not know"), Reply(""), Reply(LARGE), Reply("one is\nAnswer: 7", 2), Reply("none"))
    assert (run.text, told(run)["unread"]) == ("one is\nAnswer: 7", [0, 1, 2, 4])


@pytest.mark.parametrize(("replies", "chosen"), [(["", "hm", "so"], 1), (["", "", ""], 0), ([LARGE, "hm", ""], 0), (["", LARGE, "hm"], 1)])
def test_nothing_to_count_is_the_first_answer_that_there_is(replies: list[str | Answer], chosen: int) -> None:
    run = played(*(Reply(reply) for reply in replies), only_answer=True)
    assert (told(run)["winner"], told(run)["sample"]) == (None, chosen)


def test_samples_differ_by_recorded_seeds_and_the_jobs_own_words_stand() -> None:
    """Equal seeds give k copies of one sample."""
    run = play(VOTE, voting(samples=32), lambda request: Reply(str(request.options.seed)))
    assert len({request.options.seed for request in run.asked}) == 32
    assert {request.options.temperature for request in run.asked} == {0.7}
    assert [r.options for r in play(VOTE, voting(samples=32), lambda _: Reply("1")).asked] == [r.options for r in run.asked]
    job = {"options": {"seed": 2**31 - 1, "temperature": 0.2, "max_tokens": 9}, "system": "be brief", "model": "m"}
    asked = play(VOTE, voting(samples=2, job=job), lambda _: Reply("1")).asked
    assert [r.options.seed for r in asked] == [2**31 - 1, 0]
    assert {(r.options.temperature, r.options.max_tokens, r.model, r.messages[0].content) for r in asked} == {(0.2, 9, "m", "be brief")}


def test_the_rule_stands_behind_the_users_last_words() -> None:
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    job = {"prompt": None, "messages": talk}
    [first, *_] = play(VOTE, voting(job=job), lambda _: Reply("1")).asked
    assert [m.role for m in first.messages] == ["user", "assistant"]
    assert first.messages[0].content.startswith("a\n\nThink step by step")
    [first, *_] = play(VOTE, voting(job={"prompt": None, "messages": talk[1:]}), lambda _: Reply("1")).asked
    assert [m.role for m in first.messages] == ["assistant", "user"]
    [first, *_] = play(VOTE, voting(job={"operation": "generate"}), lambda _: Reply("1")).asked
    assert first.messages[0].content.startswith("q\n\n")
    [first, *_] = play(VOTE, voting(answer="json", job={"format": {"type": "object"}}), lambda _: Reply("1")).asked
    assert (first.messages, first.format) == ((ChatMessage(role="user", content="q"),), {"type": "object"})


def test_json_answers_are_asked_for_as_json() -> None:
    run = play(VOTE, voting(answer="json", only_answer=True), lambda _: Reply('{"b": 1.0, "a": 2}'))
    assert (run.text, {request.format for request in run.asked}) == ('{"a":2,"b":1}', {"json"})


# Accidents


def test_dead_and_hanging_samples_do_not_vote() -> None:
    """At the deadline who is there is enough; without it one waits for the first."""
    run = played(Reply(DOWN), Reply("8", NEVER), Reply("7"), within_seconds=20)
    assert (run.text, run.seconds) == ("7", 20)
    assert (told(run)["failed"], told(run)["not_awaited"]) == ({"0": "model_error"}, [1])
    assert played(Reply("8", NEVER), Reply("7", 100), within_seconds=20).seconds == 100
    assert played(Reply("7"), Reply("8", NEVER), Reply("9", NEVER)).seconds == 60
    slow = numbered(Reply("7"), Reply("7", NEVER), Reply("7", NEVER))
    assert play(VOTE, voting(samples=3, job={"options": {"seed": 100}}), slow, seconds=30).seconds == 15


def test_all_dead_is_the_failure_of_the_first() -> None:
    run = played(Reply(DOWN, 2), Reply(Failure(kind=FailureKind.NO_NODE, message="no")))
    assert run.failure == DOWN


def test_at_a_limit_the_leader_so_far_is_the_result() -> None:
    limit = Failure(kind=FailureKind.LIMIT, message="calls", limit="calls")
    run = played(Reply("7"), Reply("8"), Reply("8", 2), Reply(limit, 3), Reply(limit, 3))
    assert (run.failure, run.best.text if run.best else None) == (limit, "8")
    assert played(Reply("7"), Reply("7"), Reply("7"), Reply(limit, 3), Reply(limit, 3)).text == "7"


@pytest.mark.parametrize("noise", ["", " \n", "x" * 100_000, "{" * 5_000, "Answer: ", "\x00\ufffd", '{"answer": 1', "9" * 9_999])
@pytest.mark.parametrize(
    "kind", [{"answer": "text"}, {"answer": "json"}, {"answer": "choice", "choices": ["a", "b"]}, {"answer": "number"}]
)
def test_a_model_of_noise_ends_in_an_answer(noise: str, kind: dict[str, Any]) -> None:
    run = play(VOTE, voting(**kind), lambda _: Reply(noise))
    assert run.answer is not None
    assert len(run.asked) <= 5


def test_a_bare_prompt_is_enough() -> None:
    assert play(VOTE, Job(prompt="q", pattern="vote"), lambda _: Reply("It is\nAnswer: Paris")).text == "It is\nAnswer: Paris"
    with pytest.raises(InvalidInput, match="samples"):
        BUILT_IN.read(voting(samples=33))


@pytest.mark.parametrize(
    ("how", "streams"), [({"samples": 1}, True), ({"samples": 1, "only_answer": True}, False), ({"samples": 2}, False)]
)
def test_only_a_single_sample_is_streamed(how: dict[str, Any], streams: bool) -> None:
    """Of several nobody knows which is the result before the end."""
    run = play(VOTE, voting(job={"stream": True}, **how), lambda _: Reply("7"))
    assert {request.stream for request in run.asked} == {streams}


def test_a_planner_may_die_at_every_event() -> None:
    job = voting(samples=5, within_seconds=9, at_once=2)
    run = play(VOTE, job, lambda request: Reply(DOWN if draw(request) < 0.3 else f"Answer: {draw(request) > 0.7}", 1 + draw(request)))
    crashes_alike(VOTE, job, run)
    assert run.answer is not None
