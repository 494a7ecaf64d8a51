"""Which steps may have an answer already, by what equal ones are known, and how a step goes on that asks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from services.planner.draft import Given
from services.planner.round import Round
from services.planner.state.caching import CachePolicy, eligible, fingerprint, meaning_of, sharers
from services.planner.state.policy import Policy
from shared.contracts.agents import RatedModel
from shared.contracts.blob import BlobRef
from shared.contracts.budget import TenantLimits
from shared.contracts.cache import CacheAbandoned, CacheControl, CacheFill, TenantCache
from shared.contracts.chat import Answer, ChatMessage, FinishReason, Operation, Options, Served
from shared.contracts.conversation import ContextRef
from shared.contracts.critique import CheckSet, Guard
from shared.contracts.event import JobSnapshot, StepAnswered
from shared.contracts.job import InputRef, Job, Needs
from shared.contracts.outcome import CacheMissed, CancelRequested, StepSucceeded
from shared.contracts.result import Status
from shared.contracts.step import Step, StepRequest
from shared.contracts.usage import Usage
from shared.contracts.versions import version_of
from tests.unit.planner.desk import ONE_CALL, Desk, last

OTHERWISE: dict[str, Any] = {
    "agent": "critic",
    "capability": "code",
    "operation": Operation.GENERATE,
    "model": "large",
    "messages": (ChatMessage(role="user", content="other"),),
    "prompt": "p",
    "texts": ("t",),
    "options": Options(temperature=0.0, max_tokens=7),
    "format": "json",
    "tools": ({"type": "function"},),
    "needs": Needs(tags=("gpu",)),
    "logprobs": True,
    "tool_choice": "required",
    "parallel_tool_calls": False,
    "idempotent": False,
    "guard": (Guard(checks=CheckSet(secrets=True), action="redact"),),
}
BY_REFERENCE = {"input_ref", "context"}
NOT_OF_THE_ANSWER = {"stream", "fallback_models", "critique", "task"}
"""How it travels; what would have answered if the model were not there: the key names who has; and what no model is asked."""
STEP = StepRequest(model="small", messages=(ChatMessage(role="user", content="why"),), options=Options(temperature=0.0))
WHO = ("tenant", "red")


def blob_of(digit: str) -> BlobRef:
    return BlobRef(digest=digit * 32, partition=0, first=0, last=0, chunks=1, size=1, written_at=0.0)


def key(step: StepRequest, **other: Any) -> str:
    given = {"model": step.model, "digest": "d", "who": WHO, **other}
    return fingerprint(step, given["model"], given["digest"], given["who"])


def test_every_field_of_a_request_is_in_the_fingerprint() -> None:
    """One that is added to StepRequest must be named here, so that nobody forgets to say whether it decides an answer."""
    assert set(StepRequest.model_fields) == {*OTHERWISE, *BY_REFERENCE, *NOT_OF_THE_ANSWER}


@pytest.mark.parametrize("field", OTHERWISE)
def test_each_field_alone_makes_another_fingerprint(field: str) -> None:
    assert key(STEP.changed(**{field: OTHERWISE[field]})) != key(STEP)


def test_how_it_travels_makes_none() -> None:
    assert key(STEP.changed(stream=True)) == key(STEP) == key(STEP.changed(fallback_models=("other",)))


def test_spellings_of_one_model_are_one() -> None:
    assert key(STEP) == key(STEP.changed(model="small:latest")) != key(STEP.changed(model="small:1b"))


@pytest.mark.parametrize("other", [{"digest": "e"}, {"who": ("tenant", "green")}, {"who": ("user", "red", "ann")}, {"who": ("global",)}])
def test_who_shares_and_the_file_of_the_model_are_in_it(other: dict[str, Any]) -> None:
    assert key(STEP, **other) != key(STEP)


def test_every_option_is_in_it() -> None:
    """Each alone, as far as it has another value that is valid."""
    others: dict[str, Any] = dict.fromkeys(Options.model_fields, 1) | {"stop": ("x",), "think": True}
    keys = {key(STEP.changed(options=STEP.options.changed(**{name: value}))) for name, value in others.items()}
    assert len(keys | {key(STEP)}) == len(others) + 1


def test_what_is_read_by_reference_is_in_it() -> None:
    blob, other = (blob_of(digit) for digit in "12")

    def by(input_: BlobRef | None = None, turn: BlobRef | None = None) -> str:
        ref = None if input_ is None else InputRef(blob=input_, characters=1, longest=1, fewest_tokens=1)
        context = None if turn is None else ContextRef(newest=turn, turns=1)
        return key(STEP.model_copy(update={"input_ref": ref, "context": context}))

    assert len({key(STEP), by(blob), by(other), by(turn=blob), by(turn=other)}) == 5


# Who asks


@pytest.mark.parametrize(
    ("fields", "asks"),
    [
        ({}, True),
        ({"options": Options()}, False),
        ({"options": Options(temperature=0.7)}, False),
        ({"options": Options(temperature=0.7, seed=1)}, True),
        ({"operation": Operation.EMBED, "texts": ("t",), "options": Options()}, True),
        ({"tools": ({"type": "function"},)}, False),
        ({"operation": Operation.TOOL}, False),
        ({"idempotent": False}, False),
        ({"agent": "sample"}, False),
        ({"agent": "proposer"}, False),
        ({"agent": "baseline"}, False),
    ],
)
def test_which_steps_may_be_served(fields: dict[str, Any], asks: bool) -> None:
    assert eligible(Job(prompt="q"), STEP.changed(**fields), CacheControl(mode="exact")) is asks


def test_creative_answers_are_served_to_who_asks_for_that_and_never_within_a_pattern() -> None:
    drawn, asked = STEP.changed(options=Options(temperature=0.9)), CacheControl(mode="exact", creative=True)
    assert eligible(Job(prompt="q"), drawn, asked)
    assert not eligible(Job(prompt="q", pattern="debate"), drawn, asked)


def test_a_comparison_is_never_served() -> None:
    assert not eligible(Job(prompt="q", pattern="compare"), STEP, CacheControl(mode="exact"))


@pytest.mark.parametrize(
    ("said", "own", "expected"),
    [
        (None, None, None),
        (None, TenantLimits(), None),
        (CacheControl(mode="off"), TenantLimits(cache=TenantCache(mode="exact")), None),
        (CacheControl(mode="exact"), TenantLimits(cache=TenantCache(allowed=False, mode="exact")), None),
        (CacheControl(mode="exact"), None, ("exact", "tenant", 3_600.0, None)),
        (CacheControl(mode="exact", scope="global"), None, ("exact", "tenant", 3_600.0, None)),
        (CacheControl(mode="exact", scope="global"), TenantLimits(cache=TenantCache()), ("exact", "tenant", 3_600.0, None)),
        (CacheControl(mode="exact", scope="global"), TenantLimits(cache=TenantCache(scope="global")), ("exact", "global", 3_600.0, None)),
        (None, TenantLimits(cache=TenantCache(mode="semantic", scope="global", ttl=60)), ("semantic", "tenant", 60.0, None)),
        (
            CacheControl(mode="exact", ttl=5, threshold=0.8),
            TenantLimits(cache=TenantCache(ttl=60, threshold=0.9)),
            ("exact", "tenant", 5.0, 0.9),
        ),
        (
            CacheControl(mode="exact", ttl=5_000, threshold=0.95),
            TenantLimits(cache=TenantCache(ttl=60, threshold=0.9)),
            ("exact", "tenant", 60.0, 0.95),
        ),
    ],
)
def test_what_holds_is_what_is_asked_within_what_is_allowed(said: Any, own: Any, expected: Any) -> None:
    control = CachePolicy().control_of(Job(prompt="q", cache=said), own)
    assert (None if control is None else (control.mode, control.scope, control.ttl, control.threshold)) == expected
    assert CachePolicy(asked=False).control_of(Job(prompt="q", cache=said), own) is None


def test_a_scope_without_an_identity_is_refused() -> None:
    for scope in ("session", "user"):
        with pytest.raises(ValidationError, match=f"cache scope {scope} needs"):
            Job(prompt="q", cache=CacheControl(mode="exact", scope=scope))
    ann, bob = (Job(prompt="q", metadata={"user": name}, cache=CacheControl(mode="exact", scope="user")) for name in ("ann", "bob"))
    assert sharers(ann, CacheControl(mode="exact", scope="user")) != sharers(bob, CacheControl(mode="exact", scope="user"))
    assert "red" in sharers(
        Job(prompt="q", tenant="red", conversation="c", cache=CacheControl(mode="exact", scope="session")),
        CacheControl(mode="exact", scope="session"),
    )


def test_meanings_are_compared_among_steps_that_are_equal_but_for_the_question() -> None:
    control = CacheControl(mode="semantic")

    def meaning(step: StepRequest) -> Any:
        return meaning_of(step, "small", "d", WHO, control)

    asked, alike = meaning(STEP), meaning(STEP.changed(messages=(ChatMessage(role="user", content="how come"),)))
    assert (asked.question, alike.question) == ("why", "how come")
    assert asked.partition == alike.partition != meaning(STEP.changed(format="json")).partition
    told = STEP.changed(messages=(ChatMessage(role="system", content="be brief"), *STEP.messages))
    assert meaning(told).partition != asked.partition
    assert meaning(STEP.changed(messages=(*STEP.messages, ChatMessage(role="assistant", content="since")))) is None


# How a step goes on


class Places:
    """Mailboxes without a place, on a cluster whose nodes agree on one file."""

    def __init__(self) -> None:
        self.there: str | None = "d"

    def give(self, step: Step) -> Given | None:
        return None

    def room_elsewhere(self, step: Step) -> bool:
        return False

    def models(self) -> dict[str, RatedModel]:
        return {}

    def digest(self, model: str) -> str | None:
        return self.there


def asking(**job: Any) -> tuple[Desk, Round]:
    desk = Desk(replace(Policy(), caching=CachePolicy(follows=3)))
    desk.book.mailboxes = Places()
    options = {"options": Options(temperature=0.0), "cache": CacheControl(mode="exact"), "model": "small"}
    return desk, desk.submit(**{"prompt": "q", **options, **job})


def hit(desk: Desk, **more: Any) -> StepSucceeded:
    served = Served(kind="exact", entry="e", saved=ONE_CALL)
    return StepSucceeded(job=desk.job.id, step=desk.step.id, attempt=1, answer=Answer(text="kept", served=served, **more))


def answer(desk: Desk, **more: Any) -> StepSucceeded:
    given = {"text": "new", "model": "small", "digest": "d", **more}
    return StepSucceeded(job=desk.job.id, step=desk.step.id, attempt=1, claim="n.i1.1", node="n", answer=Answer(**given), usage=ONE_CALL)


def fills(round_: Round) -> list[Any]:
    return [effect for effect in round_.after if isinstance(effect, CacheFill | CacheAbandoned)]


def missed(desk: Desk, follow_seconds: float | None = None) -> CacheMissed:
    return CacheMissed(job=desk.job.id, step=desk.step.id, attempt=1, follow_seconds=follow_seconds)


def test_a_step_asks_before_it_is_sent_and_is_sent_when_there_is_nothing() -> None:
    desk, round_ = asking()
    assert (len(round_.lookups), round_.dispatches) == (1, [])
    assert round_.lookups[0].step == desk.step.id
    sent = desk.say(missed(desk))
    assert [dispatch.step.id for dispatch in sent.dispatches] == [desk.step.id]
    assert desk.say(missed(desk)).dispatches == []


@pytest.mark.parametrize(
    "job", [{"cache": None}, {"cache": CacheControl(mode="off")}, {"cache": CacheControl(mode="exact", no_cache=True)}, {"model": "auto"}]
)
def test_what_asks_for_nothing_is_sent_at_once(job: dict[str, Any]) -> None:
    desk = Desk()
    desk.book.mailboxes = Places()
    if "model" in job:
        desk.book.mailboxes.there = None
    round_ = desk.submit(
        **{"prompt": "q", "options": Options(temperature=0.0), "cache": CacheControl(mode="exact"), "model": "small", **job}
    )
    assert (round_.lookups, len(round_.dispatches)) == ([], 1)


def test_a_hit_is_the_answer_and_costs_nothing() -> None:
    desk, _ = asking()
    round_ = desk.say(hit(desk))
    assert desk.job.settled is not None
    result = desk.job.settled.result
    assert (result.status, result.answer.text, result.usage) == (Status.SUCCEEDED, "kept", Usage())
    assert result.answer.served.saved == ONE_CALL
    assert fills(round_) == []


def test_no_word_in_time_and_it_is_sent() -> None:
    desk, _ = asking()
    assert desk.wait(0.01).dispatches == []
    assert len(desk.wait(0.03).dispatches) == 1


def test_a_late_hit_is_accepted_once_and_whoever_is_at_it_stops() -> None:
    desk, _ = asking()
    desk.wait(0.05)
    late, other = hit(desk), answer(desk)
    desk.say(late)
    assert desk.job.settled is not None
    desk.say(other, late)
    assert desk.types().count("step_answered") == 1
    assert last(desk, StepAnswered).answer.text == "kept"  # type: ignore[attr-defined]


def test_a_late_hit_of_a_stream_is_waste() -> None:
    desk, _ = asking(stream=True)
    desk.wait(0.05)
    desk.say(hit(desk))
    assert desk.job.settled is None


def test_a_follower_waits_and_asks_again_at_most_so_often() -> None:
    desk, _ = asking()
    for _ in range(2):
        assert desk.say(missed(desk, 2.0)).dispatches == []
        assert desk.wait(1.9).lookups == []
        round_ = desk.wait(0.2)
        assert (len(round_.lookups), round_.dispatches) == (1, [])
    desk.say(missed(desk, 60.0))
    assert desk.wait(4.9).dispatches == []
    assert len(desk.wait(0.2).dispatches) == 1


def test_a_successor_sends_what_asks() -> None:
    desk, _ = asking()
    assert [dispatch.step.id for dispatch in desk.take_over().dispatches] == [desk.step.id]
    assert desk.step.lookup is None


def test_an_answer_is_kept_under_the_key_that_was_asked_for() -> None:
    desk, asked = asking(cache=CacheControl(mode="exact", tags=("t",), documents=("doc",), ttl=60))
    desk.say(missed(desk))
    [fill] = fills(desk.say(answer(desk)))
    assert isinstance(fill, CacheFill)
    assert (fill.key, fill.tags, fill.documents, fill.ttl, fill.usage) == (asked.lookups[0].key, ("t",), ("doc",), 60, ONE_CALL)


def test_another_file_than_the_nodes_had_is_kept_under_its_own_and_who_waits_is_told() -> None:
    desk, asked = asking()
    desk.say(missed(desk))
    kept, abandoned = fills(desk.say(answer(desk, digest="e")))
    assert kept.key != asked.lookups[0].key
    assert isinstance(abandoned, CacheAbandoned)
    assert abandoned.key == asked.lookups[0].key


@pytest.mark.parametrize(
    "more",
    [
        {"finish_reason": FinishReason.LENGTH},
        {"tool_calls": ({"function": {"name": "f"}},)},
        {"blob": blob_of("1")},
        {"text": " "},
        {"model": None},
    ],
    ids=["cut off", "tool calls", "by reference", "blank", "of nobody"],
)
def test_what_is_not_complete_is_not_kept_and_who_waits_is_told(more: dict[str, Any]) -> None:
    desk, _ = asking()
    desk.say(missed(desk))
    given = answer(desk)
    given = given.model_copy(update={"answer": given.answer.model_copy(update=more)})
    [said] = fills(desk.say(given))
    assert isinstance(said, CacheAbandoned)


def test_what_wants_nothing_kept_says_so_to_who_waits() -> None:
    desk, _ = asking(cache=CacheControl(mode="exact", no_store=True))
    desk.say(missed(desk))
    [said] = fills(desk.say(answer(desk)))
    assert isinstance(said, CacheAbandoned)


def test_what_wants_no_entry_keeps_one() -> None:
    desk, asked = asking(cache=CacheControl(mode="exact", no_cache=True))
    assert len(asked.dispatches) == 1
    [said] = fills(desk.say(answer(desk)))
    assert isinstance(said, CacheFill)


def test_a_cancel_tells_who_waits() -> None:
    desk, _ = asking()
    desk.say(missed(desk))
    [said] = fills(desk.say(CancelRequested(job=desk.job.id)))
    assert isinstance(said, CacheAbandoned)


def test_what_older_planners_would_misread_is_of_version_six() -> None:
    """A job that asks, an answer that is the cache's, and snapshots of them; all else is written as before."""
    desk, round_ = asking()
    desk.say(hit(desk))
    assert version_of(desk.job.accepted) == 6
    assert desk.job.settled is not None
    assert version_of(desk.job.settled) == 6
    bare = Desk()
    bare.submit(prompt='q with "cache": and "served": in it')
    assert version_of(bare.job.accepted) < 6
    assert {round_.newer[place] for place in round_.newer} == {6}
    facts = [snapped(desk), snapped(bare)]
    assert [version_of(fact) for fact in facts] == [6, 2]


def snapped(desk: Desk) -> JobSnapshot:
    facts = tuple(value.decode() for _, value in desk.history[1:2])
    return JobSnapshot(epoch=0, job=desk.job.id, at=0.0, snapshot="s", part=0, parts=1, facts=facts)
