"""Laws of the worker's pure parts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.worker.attempt import Attempt
from services.worker.backends.base import Completion
from services.worker.backends.http import TokenBucket
from services.worker.credits import MAX_BYTES, OTHERS_WAIT, EagerGate, fit, share
from services.worker.inbox import HEAD_START_SECONDS, Inbox, StoppedSteps, concerns
from services.worker.lease_log import LeaseLog
from services.worker.mailbox import MailboxRegistry
from services.worker.registration import candidates, served_capabilities
from services.worker.round_trip import RoundTrip
from services.worker.settings import WorkerSettings
from services.worker.slots import Slots
from services.worker.speeds import Speeds, Timeouts, expired, overdue
from shared.contracts.base import CLASSES, ClaimId, PriorityClass
from shared.contracts.chat import Answer, Operation
from shared.contracts.control import StopStep
from shared.contracts.credits import Credits, PlannerPresence, RouterPresence
from shared.contracts.node import Node, NodeModel
from shared.contracts.usage import Price, Timings, Usage
from shared.placement.parties import MOST_PARTIES, Parties
from tests.unit.worker.world import step

names = st.sampled_from([f"node-{n}" for n in range(5)])
entries = st.lists(st.tuples(names, st.one_of(st.none(), st.integers(0, 4))), max_size=40)


def named(node: str, number: int) -> Node:
    return Node(id=node, boot="boot", mailbox=number, backend="ollama", at=0.0)


def fold(log: list[tuple[str, int | None]]) -> MailboxRegistry:
    registry = MailboxRegistry()
    for node, number in log:
        if number is None:
            registry.on_gone(node)
        else:
            registry.on_node(named(node, number), 0.0)
    return registry


@given(entries)
def test_a_number_has_at_most_one_owner_and_a_node_one_number(log: list[tuple[str, int | None]]) -> None:
    """Whatever the log says, mailboxes and nodes match one to one."""
    registry = fold(log)
    owners = [owner for number in range(5) if (owner := registry.owner(number))]
    assert len(owners) == len(set(owners))
    assert all(registry.owner(number) == node for node in owners if (number := registry.number_of(node)) is not None)


@given(entries, names)
def test_repeating_ones_record_never_costs_the_number(log: list[tuple[str, int | None]], node: str) -> None:
    """The minute's registration keeps what the node has."""
    registry = fold(log)
    number = registry.number_of(node)
    if number is not None:
        registry.on_node(named(node, number), 1.0)
        assert registry.number_of(node) == number


@given(entries, names)
def test_a_proposed_number_is_ones_own_after_it_was_named(log: list[tuple[str, int | None]], node: str) -> None:
    """Without a race, what `propose` says succeeds."""
    registry = fold(log)
    proposal = registry.propose(node, 5, now=1000.0, expiry_seconds=100.0)
    assert proposal is not None
    if proposal.evict:
        registry.on_gone(proposal.evict)
    registry.on_node(named(node, proposal.number), 1000.0)
    assert registry.number_of(node) == proposal.number


def test_a_silent_node_loses_its_number_only_when_none_is_free() -> None:
    """Never-used numbers first; then the longest silent node's; a node heard lately keeps its own."""
    registry = MailboxRegistry()
    registry.on_node(named("a", 0), 0.0)
    registry.on_node(named("b", 1), 50.0)
    assert registry.propose("c", 3, 200.0, 100.0) == (2, None)
    assert registry.propose("c", 2, 200.0, 100.0) == (0, "a")
    assert registry.propose("c", 2, 60.0, 100.0) is None


@given(st.lists(st.tuples(st.sampled_from(CLASSES), st.floats(0, 100)), max_size=30))
def test_the_inbox_is_ordered_by_class_with_ageing(arrivals: list[tuple[Any, float]]) -> None:
    """Nothing is passed over by what arrives later than its class's head start allows."""
    inbox = Inbox(100)
    for number, (priority_class, at) in enumerate(sorted(arrivals, key=lambda a: a[1])):
        inbox.push(Attempt(step(number, priority_class=priority_class), ClaimId(str(number)), None, at))
    order = []
    while (attempt := inbox.pop()) is not None:
        order.append(attempt)
    ranks = [a.taken_at + HEAD_START_SECONDS[a.step.priority_class] for a in order]
    assert ranks == sorted(ranks)
    assert len(order) == len(arrivals)


def test_the_inbox_groups_by_model_for_a_bounded_time() -> None:
    """The loaded model's steps go first while the head has just come; then it goes itself. No step of another class passes it."""

    def filled(*urgent: Attempt) -> Inbox:
        inbox = Inbox(10)
        for number, model in enumerate("abab"):
            inbox.push(Attempt(step(number, model=model), ClaimId(str(number)), None, 0.1 * number))
        for attempt in urgent:
            inbox.push(attempt)
        return inbox

    def popped(inbox: Inbox, now: float) -> str:
        found = inbox.pop("b", now)
        return found.claim if found else ""

    young = filled()
    assert [popped(young, 0.5) for _ in range(5)] == ["1", "3", "0", "2", ""]
    old = filled()
    assert [popped(old, 1.05), popped(old, 1.05)] == ["0", "1"]
    urgent = Attempt(step(9, model="a", priority_class=PriorityClass.INTERACTIVE), ClaimId("9"), None, 0.4)
    assert popped(filled(urgent), 0.5) == "9"


def test_the_inbox_forgets_what_is_removed() -> None:
    """A stopped step is not started later."""
    inbox = Inbox(2)
    first, second = (Attempt(step(n), ClaimId(str(n)), None, 0.0) for n in (1, 2))
    inbox.push(first)
    inbox.push(second)
    assert inbox.full
    assert inbox.remove(first)
    assert not inbox.remove(first)
    assert inbox.pop() is second
    assert inbox.pop() is None


def test_the_lease_log_is_bounded_and_forgets_released_attempts() -> None:
    """Kept outcomes stay within count and bytes, the newest longest; a released attempt may be claimed anew."""
    leases: LeaseLog[str] = LeaseLog("n", kept_outcomes=3, kept_bytes=100)
    for number in range(5):
        attempt = leases.claim(step(number), None, 0.0)
        assert attempt is not None
        assert leases.claim(step(number), None, 0.0) is None
        leases.end(attempt, f"o{number}", 40)
    assert [leases.finished(step(number)) for number in range(5)] == [None, None, None, "o3", "o4"]
    released = leases.claim(step(9, estimated_tokens=7), None, 0.0)
    assert released is not None
    assert leases.estimated_tokens == 7
    leases.end(released)
    assert leases.finished(step(9)) is None
    assert leases.estimated_tokens == 0
    again = leases.claim(step(9), None, 0.0)
    assert again is not None
    assert again.claim != released.claim


def test_stops_cover_attempts_up_to_theirs_and_are_bounded() -> None:
    """A stop without claim covers this and earlier attempts; one with a claim only that; the oldest are forgotten."""
    stops = StoppedSteps(2)
    for number in (1, 2, 3):
        stops.remember(StopStep(node="n", job="j", step=step(number).id, attempt=2))
    assert stops.reason(step(1)) is None
    assert stops.reason(step(3, attempt=2)) == "cancelled"
    assert stops.reason(step(3, attempt=3)) is None
    attempt = Attempt(step(3), ClaimId("mine"), None, 0.0)
    by_claim = StopStep(node="n", job="j", step=step(3).id, attempt=1, claim=ClaimId("other"))
    assert not concerns(by_claim, attempt)
    assert concerns(by_claim.model_copy(update={"claim": "mine"}), attempt)


@given(st.integers(0, 50), st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 1000), max_size=8), st.integers(0, 10))
def test_shares_give_every_place_away_and_shut_no_router_out(places: int, backlogs: dict[str, int], turn: int) -> None:
    """The sum is the places; every router gets one while they last, those with work first; more work never means fewer places."""
    offers = share(places, backlogs, turn)
    assert sum(offers.values()) == (places if backlogs else 0)
    assert all(count > 0 for count in offers.values())
    if places >= len(backlogs):
        assert set(offers) == (set(backlogs) if places else set())
    elif any(backlogs[name] > 0 and name not in offers for name in backlogs):
        assert all(backlogs[name] > 0 for name in offers)


@given(st.dictionaries(st.sampled_from("abcd"), st.integers(1, 9), min_size=1))
def test_a_single_place_visits_every_waiting_router(backlogs: dict[str, int]) -> None:
    """Turn by turn, nobody is forgotten."""
    visited = {name for turn in range(len(backlogs)) for name in share(1, backlogs, turn)}
    assert visited == set(backlogs)


@given(st.integers(0, 60), st.integers(0, 40))
def test_a_credits_record_fits(routers: int, resident: int) -> None:
    """At most 512 bytes, whatever is offered; position and node are never given up."""
    record = Credits(
        node="n" * 60,
        boot="b" * 12,
        sequence=1,
        mailbox=3,
        offers={f"router-{n}-host-name-{n}": n for n in range(routers)},
        read={"chat": 10**12, "embed": 5},
        resident=tuple(f"model-{n}:latest" for n in range(resident)),
    )
    fitted = fit(record)
    assert len(fitted.to_bytes()) <= MAX_BYTES
    assert fitted.read == record.read


def said(backlog: int = 0, *, name: str = "r", leaving: bool = False) -> RouterPresence:
    return RouterPresence(router=name, backlog=backlog, leaving=leaving)


def test_parties_come_and_go() -> None:
    """News is one that comes or leaves, and a router that has work where it had none; silence or a farewell ends it."""
    parties = Parties(5.0)
    assert parties.on_presence(said(), 0.0)
    assert not parties.on_presence(said(), 1.0)
    assert parties.on_presence(said(3), 2.0)
    assert not parties.on_presence(said(4), 3.0)
    assert parties.backlogs(4.0) == {"r": 4}
    assert parties.others_wait(4.0)
    assert not parties.others_wait(9.0)
    assert parties.backlogs(9.0) == {}
    parties.on_presence(said(1), 10.0)
    assert parties.on_presence(said(leaving=True), 11.0)
    assert parties.backlogs(11.0) == {}
    assert parties.on_presence(PlannerPresence(planner="p"), 11.0)
    assert not parties.on_presence(PlannerPresence(planner="p"), 12.0)
    assert parties.planners(13.0) == ["p"]
    assert parties.planners(18.0) == []


@given(st.integers(0, 40), st.integers(0, 4), st.integers(0, 4), st.integers(0, 7))
def test_routers_come_before_planners(places: int, routers: int, planners: int, turn: int) -> None:
    """One place for each router, then one for each planner, the rest to planners; with a backlog anywhere all places are routers'."""
    idle, names = {f"r{n}": 0 for n in range(routers)}, [f"p{n}" for n in range(planners)]
    offers = share(places, idle, turn, names)
    assert sum(offers.values()) == (places if routers or planners else 0)
    assert sum(offers.get(name, 0) for name in idle) >= min(places, routers)
    if planners:
        assert all(offers.get(name, 0) == 1 for name in idle) or places < routers
        mine = [offers.get(name, 0) for name in names]
        assert max(mine) - min(mine) <= 1
    if routers:
        busy = idle | {"r0": 3}
        assert share(places, busy, turn, names) == share(places, busy, turn)


def test_what_is_given_back_is_not_passed() -> None:
    """Once a step that a planner wrote itself is given back, so is all that used the same or earlier records of credits, backlog or not."""
    waiting: list[str] = []
    gate = EagerGate("b1", lambda: bool(waiting))
    gate.sequence = 7
    assert gate.refusal(b"b1/7") is None
    assert gate.refusal(b"b0/900") is None
    waiting.append("a step")
    assert gate.refusal(b"b1/7") == OTHERS_WAIT
    gate.gave_back()
    waiting.clear()
    assert gate.refusal(b"b1/7") == OTHERS_WAIT
    assert gate.refusal(b"b0/900") == OTHERS_WAIT
    assert gate.refusal(b"odd") == OTHERS_WAIT
    gate.sequence = 8
    assert gate.refusal(b"b1/8") is None


def test_places_follow_littles_law() -> None:
    """Slots plus what ends in one round trip, bounded, minus what runs and waits."""
    slots = Slots(2, prefetch_limit=10, round_trip=RoundTrip(0.1))
    assert slots.places(0.0, 0) == 2
    slots.take(0.0)
    assert slots.places(0.0, 1) == 0
    slots.give_back(0.0)
    slots.ended.add(0.0, 49)
    assert slots.places(0.0, 0) == 7
    slots.ended.add(0.0, 1000)
    assert slots.places(0.0, 0) == 12
    assert slots.places(20.0, 0) == 2


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=50))
def test_the_rate_decays_to_nothing(gaps: list[float]) -> None:
    """Completions long ago say nothing about now."""
    rate, now = Slots(1, prefetch_limit=1, round_trip=RoundTrip(0.1)).ended, 0.0
    for gap in gaps:
        now += gap
        rate.add(now)
    assert rate.per_second(now + 60) < 1e-6


def test_the_token_bucket_lets_a_burst_through_and_then_keeps_the_rate() -> None:
    """Waits are in order and never shorter than the rate allows."""
    bucket = TokenBucket(2.0, 3)
    assert [bucket.take(0.0) for _ in range(5)] == [0.0, 0.0, 0.0, 0.5, 1.0]
    assert bucket.take(100.0) == 0.0


@pytest.mark.parametrize(
    ("wanted", "fallbacks", "expected"),
    [
        ("small", (), ["small"]),
        ("gemma", (), ["gemma:latest"]),
        ("huge", ("other", "small"), ["small"]),
        ("huge", (), ["huge"]),
        ("auto", (), ["gemma:latest"]),
        ("small", ("gemma", "small"), ["small", "gemma:latest"]),
    ],
)
def test_models_are_tried_in_order(wanted: str, fallbacks: tuple[str, ...], expected: list[str]) -> None:
    """Own model, then fallbacks the node has; `auto` prefers a resident one; `:latest` may be left out."""
    models = (NodeModel(name="small"), NodeModel(name="gemma:latest", resident=True), NodeModel(name="vec", operations=("embed",)))
    assert candidates(step(1, model=wanted, fallback_models=fallbacks), models) == expected


def test_auto_needs_a_model_of_the_operation() -> None:
    """A node without an embedder says so instead of asking a chat model."""
    assert candidates(step(1, model="auto", operation=Operation.EMBED, texts=("a",)), (NodeModel(name="small"),)) == []
    assert served_capabilities((NodeModel(name="small"),), ("chat", "embed", "research")) == ("chat", "research")


def test_speeds_come_from_what_was_really_read() -> None:
    """Cached prompt tokens are not counted; short measurements are ignored; load is seen only when there was one."""
    speeds = Speeds()
    done = Completion(
        Answer(),
        Usage(prompt_tokens=1000, completion_tokens=50),
        Timings(prefill_ms=100, decode_ms=1000, load_ms=2000),
        prefilled_tokens=100,
    )
    speeds.observe("m", done, running=2)
    model = speeds.attach(NodeModel(name="m"))
    assert (model.prefill_tokens_per_second, model.decode_tokens_per_second, model.load_seconds) == (1000, 50, 2)
    assert speeds.node_decode == 100
    speeds.observe("n", Completion(Answer(), Usage(completion_tokens=2), Timings(decode_ms=1)), running=1)
    assert speeds.attach(NodeModel(name="n")).decode_tokens_per_second is None


def test_timeouts_tell_which_silence_was_too_long() -> None:
    """First token, between tokens, total, deadline: each has its own limit."""
    timeouts = Timeouts(first_token=10, between_tokens=5, total=100)
    attempt = Attempt(step(1), ClaimId("c"), None, 0.0, expires_at=1000.0)
    assert overdue(attempt, timeouts, 50.0) is None
    attempt.started_at = attempt.asked_at = 0.0
    assert overdue(attempt, timeouts, 9.0) is None
    assert "no token" in str(overdue(attempt, timeouts, 10.0))
    attempt.progress_at = 9.0
    assert overdue(attempt, timeouts, 13.0) is None
    assert "stood still" in str(overdue(attempt, timeouts, 14.0))
    attempt.progress_at = 99.9
    assert "not complete" in str(overdue(attempt, timeouts, 100.0))
    attempt.answered = True
    assert overdue(attempt, timeouts, 100.0) is None
    assert "deadline" in str(overdue(attempt, timeouts, 1000.0))


def test_a_users_deadline_that_passed_before_it_was_told_is_called_odd() -> None:
    """Some clock is wrong, or it was never meant: the failure says so, and of no other deadline."""
    attempt = Attempt(step(1, deadline_at=1000.0), ClaimId("c"), None, 0.0, expires_at=0.0)
    attempt.written_ms = 1_180_000
    assert "180 s before" in str(expired(attempt, 0.0))
    attempt.written_ms = 999_000
    assert "before the record" not in str(expired(attempt, 0.0))


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names may be separated by commas; prices and profiles are JSON."""
    monkeypatch.setenv("TUTTI_WORKER__AGENTS", "research, code")
    monkeypatch.setenv("TUTTI_WORKER__SLOTS", "4")
    monkeypatch.setenv("TUTTI_WORKER__PRICES", '{"*": {"prompt_per_million": 1, "completion_per_million": 2}}')
    read = WorkerSettings()
    assert (read.agents, read.slots) == (("research", "code"), 4)
    assert read.price("any") == Price(prompt_per_million=1, completion_per_million=2)
    assert Price(prompt_per_million=1, completion_per_million=2).cost(500_000, 1_000_000) == 2.5


def test_routers_that_anybody_can_announce_are_bounded() -> None:
    """A record of credits names them: one that cannot be written would end the worker."""
    parties = Parties(gone_seconds=5.0)
    for number in range(3_000):
        parties.on_presence(said(1, name=f"r{number}"), now=float(number) / 1_000)
    offers = share(20_000, parties.backlogs(3.0), turn=0)
    assert len(offers) == MOST_PARTIES
    assert Credits(node="n", boot="b", sequence=1, mailbox=0, offers=offers, read={}).offers == offers
