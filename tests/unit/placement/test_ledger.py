"""Laws of the credits ledger."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shared.placement.ledger import CreditLedger, NodeCredit, OpenDispatch
from tests.support.routing import credit


def ledger() -> CreditLedger:
    return CreditLedger("r1", lost_seconds=5.0, forgotten_seconds=300.0)


def test_an_offer_to_another_router_is_no_place_here() -> None:
    """Only what is offered to this router by name counts."""
    books = ledger()
    books.on_credits(credit(places=3, router="r2"), 0.0)
    assert books.available == 0


def test_the_next_record_makes_the_offer_void() -> None:
    """Offers do not add up."""
    books = ledger()
    books.on_credits(credit(places=3), 0.0)
    books.on_credits(credit(places=1, sequence=1), 0.1)
    assert books.available == 1


def test_a_failed_dispatch_gives_its_place_back() -> None:
    """Nothing leaks when Kafka does not take a step; nothing more goes to that mailbox before the node offers places anew."""
    books = ledger()
    books.on_credits(credit(places=2), 0.0)
    account = next(iter(books))
    books.failed(books.take(account, "chat"))
    assert (books.available, account.active) == (0, 0)
    books.on_credits(credit(places=2, sequence=1), 0.1)
    assert books.available == 2


def test_a_lost_dispatch_leaks_nothing() -> None:
    """A record that the node has read past without taking it is in nobody's count."""
    books = ledger()
    books.on_credits(credit(places=1), 0.0)
    account = next(iter(books))
    books.acknowledged(books.take(account, "chat"), 7)
    assert books.available == 0
    books.on_credits(credit(places=1, sequence=1, read={"chat": 8}), 1.0)
    assert (books.available, account.active) == (1, 0)


def test_a_dispatch_is_taken_up_when_its_node_tells_of_it() -> None:
    """Not by being read; not where it lies before what the node tells of; not in another mailbox of the node."""
    books = ledger()
    books.on_credits(credit(places=5), 0.0)
    account = next(iter(books))
    early, late, moved, unknown = (books.take(account, "chat") for _ in range(4))
    for dispatch, offset in ((early, 3), (late, 7), (moved, 9), (unknown, -1)):
        books.acknowledged(dispatch, offset)
    books.on_credits(credit(sequence=1, read={"chat": 10}), 0.1)
    assert not any(dispatch.taken_up for dispatch in (early, late, moved, unknown))
    books.on_credits(credit(sequence=2, read={"chat": 10}, told={"chat": (5, 8)}), 0.2)
    assert [dispatch.taken_up for dispatch in (early, late, moved, unknown)] == [False, True, False, False]
    books.on_credits(credit(sequence=3, mailbox=1, told={"chat": (0, 99)}), 0.3)
    assert not moved.taken_up


def test_a_dispatch_below_what_was_told_of_lies_in_another_topic() -> None:
    """The topic was made anew: what the node told of the old one says nothing."""
    books = ledger()
    books.on_credits(credit(places=5, told={"chat": (0, 50)}), 0.0)
    dispatch = books.take(next(iter(books)), "chat")
    books.acknowledged(dispatch, 0)
    books.on_credits(credit(sequence=1, told={"chat": (0, 51)}), 0.1)
    assert not dispatch.taken_up


def test_an_unknown_offset_counts_until_it_must_have_been_read() -> None:
    """A broker that does not say where a record lies must not make its place vanish."""
    books = ledger()
    books.on_credits(credit(places=2, read={"chat": 5}), 0.0)
    account = next(iter(books))
    books.acknowledged(books.take(account, "chat"), -1)
    assert books.available == 1
    books.on_credits(credit(places=2, sequence=1, read={"chat": 6}), 0.1)
    assert books.available == 2


def test_an_older_record_of_the_same_boot_is_ignored() -> None:
    """Reading a part of `credits` again changes nothing, also not who is alive."""
    books = ledger()
    books.on_credits(credit(places=1, sequence=5), 0.0)
    assert not books.on_credits(credit(places=9, sequence=5), 4.9)
    assert books.available == 1
    assert books.expire(5.1) == ["n1"]


def test_a_silent_node_is_lost_and_comes_back() -> None:
    """5 s without credits: no places. The next record makes it live again and says so."""
    books = ledger()
    assert books.on_credits(credit(places=1), 0.0)
    assert books.expire(5.0) == []
    assert books.expire(5.01) == ["n1"]
    assert books.expire(6.0) == []
    assert books.available == 0
    assert books.on_credits(credit(places=1, sequence=1), 7.0)
    assert books.available == 1


def test_a_new_mailbox_forgets_the_old_offsets() -> None:
    """Offsets and dispatches of another mailbox mean nothing; late acknowledgements for it change nothing."""
    books = ledger()
    books.on_credits(credit(places=2), 0.0)
    account = next(iter(books))
    late = books.take(account, "chat")
    books.acknowledged(books.take(account, "chat"), 99)
    assert books.on_credits(credit(places=2, boot="b2", mailbox=1), 0.1)
    assert (books.available, account.active) == (2, 0)
    books.acknowledged(late, 100)
    assert (books.available, account.active) == (2, 0)


def test_a_new_boot_starts_counting_records_anew() -> None:
    """A restarted worker's first record counts although its sequence is lower; what lies unread in its mailbox still does too."""
    books = ledger()
    books.on_credits(credit(places=2, sequence=50), 0.0)
    books.acknowledged(books.take(next(iter(books)), "chat"), 3)
    assert books.on_credits(credit(places=2, boot="b2", sequence=0), 0.1)
    assert books.available == 1


def test_a_mailbox_that_the_node_does_not_name_holds_no_place() -> None:
    """A capability that a record leaves out cannot make places vanish for ever."""
    books = ledger()
    books.on_credits(credit(places=1, read={"chat": 0}), 0.0)
    books.acknowledged(books.take(next(iter(books)), "embed"), 3)
    assert books.available == 1


def test_taking_a_place_that_is_not_there_is_a_mistake() -> None:
    """The caller must look first."""
    books = ledger()
    books.on_credits(credit(places=0), 0.0)
    with pytest.raises(AssertionError):
        books.take(next(iter(books)), "chat")


@dataclass
class Sent:
    dispatch: OpenDispatch
    capability: str
    offset: int | None = None


class LedgerMachine(RuleBasedStateMachine):
    """After any interleaving of records, dispatches, acknowledgements and failures:
    available = offer - dispatches in flight - own dispatches at or after what was read, and never negative. A failure voids the offer.
    """

    @initialize()
    def begin(self) -> None:
        self.books = ledger()
        self.sent: list[Sent] = []
        self.ends = {"chat": 0, "embed": 0}
        self.read = {"chat": 0, "embed": 0}
        self.offered = 0
        self.sequence = 0
        self.report(0)

    @rule(places=st.integers(0, 8), chat=st.integers(0, 20), embed=st.integers(0, 20))
    def node_reports(self, places: int, chat: int, embed: int) -> None:
        self.read = {"chat": min(self.ends["chat"], self.read["chat"] + chat), "embed": min(self.ends["embed"], self.read["embed"] + embed)}
        self.report(places)

    def report(self, places: int) -> None:
        self.books.on_credits(credit(places=places, sequence=self.sequence, read=dict(self.read)), float(self.sequence))
        self.sequence += 1
        self.offered = places
        self.sent = [s for s in self.sent if s.offset is None or s.offset >= self.read[s.capability]]

    @precondition(lambda self: self.books.available > 0)
    @rule(capability=st.sampled_from(["chat", "embed"]))
    def give(self, capability: str) -> None:
        self.sent.append(Sent(self.books.take(next(iter(self.books)), capability), capability))

    @rule(capability=st.sampled_from(["chat", "embed"]), others=st.integers(1, 3))
    def another_router_writes(self, capability: str, others: int) -> None:
        self.ends[capability] += others

    @precondition(lambda self: any(s.offset is None for s in self.sent))
    @rule(data=st.data())
    def kafka_answers(self, data: st.DataObject) -> None:
        """The record may have been read by the node before its acknowledgement arrives here."""
        chosen = data.draw(st.sampled_from([s for s in self.sent if s.offset is None]))
        if data.draw(st.booleans()):
            chosen.offset = self.ends[chosen.capability]
            self.ends[chosen.capability] += 1
            if data.draw(st.booleans()):
                self.read[chosen.capability] = self.ends[chosen.capability]
                self.report(self.offered)
            self.books.acknowledged(chosen.dispatch, chosen.offset)
        else:
            self.sent.remove(chosen)
            self.books.failed(chosen.dispatch)
            self.offered = 0

    @invariant()
    def the_count_is_right(self) -> None:
        account = next(iter(self.books))
        assert account.available == max(0, self.offered - len(self.sent))
        assert account.active == len(self.sent)


LedgerMachine.TestCase.settings = settings(stateful_step_count=30)
TestLedgerLaw = LedgerMachine.TestCase


def test_a_model_that_a_record_had_no_room_for_keeps_the_time_since_when_it_is_there() -> None:
    """Else its turn would begin anew each time, and who waits for another model would wait for ever."""
    account = NodeCredit("n1")
    for sequence, (names, now) in enumerate([(("a", "b"), 0.0), (("a",), 1.0), (("a", "b"), 2.0), ((), 30.0), (("b",), 95.0)]):
        account.fold(credit(sequence=sequence, resident=names), "r1", now)
        since = dict(account.loaded_at)
        assert set(names) <= set(since)
        if now == 2.0:
            assert since == {"a": 0.0, "b": 0.0}
    assert since == {"b": 95.0}
