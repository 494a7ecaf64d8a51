"""What a planner remembers of ended jobs with client-given ids: all within the window and the bound, also after take-overs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.planner.draft import Draft
from services.planner.state.kept_ids import DISTANCE, GROUP_IDS, KeptIds, packed, unpacked
from services.planner.state.recent_ids import EndedAt, RecentIds
from shared.contracts.event import EVENT, IdsRemembered
from tests.unit.planner.desk import appended

COUNT, BLOCK, WALL = 2_000, 100, 1_700_000_000.0


class Owner:
    """A planner as far as ids go; its log is shared with its successor. A job that ends is a name, whatever else is written is None."""

    def __init__(self, log: list[str | IdsRemembered | None], now: float, times: dict[int, float] | None = None, skew: float = 0.0) -> None:
        """`times`: of the records, by the log's clock; `skew`: how far this one's wall clock is ahead of it."""
        self.log, self.now, self.times, self.skew = log, now, {} if times is None else times, skew
        self.index = RecentIds(COUNT, 1e9, BLOCK)
        self.ids = KeptIds(self.index)

    def ends(self, *jobs: str | None) -> None:
        """A round: these events, and what they make due."""
        round_ = Draft(0, WALL + self.now + self.skew, self.now)
        self.ids.kept.renew(round_, len(self.log), 20_000)
        first = len(self.log)
        self.log.extend(jobs)
        self.log += map(IdsRemembered.model_validate_json, appended(round_, len(self.log)))
        self.times.update(dict.fromkeys(range(first, len(self.log)), WALL + self.now))
        for offset, job in enumerate(jobs, first):
            if job is not None:
                self.index.add(job, offset, self.now)
                self.ids.ended(offset)

    def successor(self, now: float, skew: float = 0.0) -> Owner:
        """What another planner knows that replays from the watermark, and what it had to read besides."""
        other = Owner(self.log, now, self.times, skew)
        start = len(self.log) if self.ids.kept.lowest is None else self.ids.kept.lowest
        assert len(self.log) - start <= DISTANCE + 100, "replay grows by little"
        for offset, event in enumerate(self.log[start:], start):
            if isinstance(event, IdsRemembered):
                other.ids.restore(event, offset, self.times[offset])
            elif event is not None:
                other.index.add(event, offset, self.times[offset])
                other.ids.ended(offset)
        other.index.shift(-WALL)
        other.ids.resume(-WALL, now)
        unread = other.ids.unread
        assert len(unread) <= 40, "a bounded number"
        found = [(offset, event, self.times[offset]) for offset in unread if isinstance(event := self.log[offset], IdsRemembered)]
        assert len(found) == len(unread)
        other.ids.learn(found, now)
        return other


@given(
    st.lists(st.tuples(st.integers(0, 90), st.integers(0, 90), st.booleans()), max_size=60),
    st.integers(0, 400),
    st.lists(st.sampled_from([0.0, 180.0, -180.0, 1e6]), min_size=1),
)
def test_a_successor_knows_what_its_predecessor_knew(rounds: list[tuple[int, int, bool]], other: int, skews: list[float]) -> None:
    """However ids and other events mix, and whenever the partition changes hands; each id at its newest end, and when that was, whatever
    the owners' wall clocks say.
    """
    newest: dict[str, int] = {}
    owner, number = Owner([], 100.0, skew=skews[0]), 0
    for round_, (ids, others, dies) in enumerate(rounds):
        names = [f"j{(number + n) % 700}" for n in range(ids)]
        number += ids
        owner.ends(*names, *[None] * others)
        owner.now += 1.0
        newest |= {job: offset for offset, job in enumerate(owner.log) if isinstance(job, str)}
        if dies:
            owner = owner.successor(owner.now + other, skews[round_ % len(skews)])
        ends = dict(ended for _, ended in owner.index.between(0))
        assert all(abs(at - (owner.times[offset] - WALL)) <= 1.0 for offset, at in ends.items())
        assert all(owner.index.find(job, owner.now) == offset for job, offset in newest.items())


def test_what_nobody_remembers_holds_no_watermark() -> None:
    """However few ends there are: the log may be younger than the last of them."""
    owner = Owner([], 100.0)
    owner.index = RecentIds(COUNT, 60.0, BLOCK)
    owner.ids = KeptIds(owner.index)
    lowest: list[int | None] = []
    for seconds, jobs in ((0.0, ["a"]), (30.0, ["b"]), (31.0, [None]), (1.0, [None] * DISTANCE), (1.0, [None]), (30.0, [None])):
        owner.now += seconds
        owner.ends(*jobs)
        lowest.append(owner.ids.kept.lowest)
    group = next(offset for offset, event in enumerate(owner.log) if isinstance(event, IdsRemembered))
    assert lowest == [0, 0, 1, 1, group, None]
    assert len(owner.index) == 0


def test_groups_are_joined_and_forgotten() -> None:
    """What is read after a take-over stays a few dozen events, what is written about 50 bytes an id, whatever the window holds."""
    owner = Owner([], 0.0)
    for number in range(400):
        owner.ends(*[f"j{number}-{n}" for n in range(GROUP_IDS)], *[None] * 200)
    owner.successor(1.0)
    written = sum(len(event.to_bytes()) for event in owner.log if isinstance(event, IdsRemembered))
    assert written / (400 * GROUP_IDS) < 60
    assert len(owner.index) < COUNT + 2 * BLOCK


def test_a_group_says_what_went_into_it() -> None:
    """Hash and offset exactly, the time to the second."""
    ended = [(2**64 - 1, EndedAt(1_000_005, 70.5)), (0, EndedAt(1_000_000, 10.0))]
    event = IdsRemembered(epoch=0, at=WALL, since=1_000_000, until=1_000_006, ids=packed(ended, 1_000_000, WALL))
    read = EVENT.validate_json(event.to_bytes())
    assert isinstance(read, IdsRemembered)
    assert list(unpacked(read, 5_000.0, -4_000.0)) == [(2**64 - 1, EndedAt(1_000_005, 1_070.0)), (0, EndedAt(1_000_000, 1_010.0))]


def test_a_quiet_home_writes_nothing() -> None:
    """Without callers' ids there is no group; with a few old ones the newest group follows the log's end at a distance."""
    owner = Owner([], 0.0)
    for _ in range(50):
        owner.ends(*[None] * 50)
    assert not any(isinstance(event, IdsRemembered) for event in owner.log)
    owner.ends("mine")
    for _ in range(100):
        owner.ends(*[None] * 50)
    assert sum(isinstance(event, IdsRemembered) for event in owner.log) <= 100 * 50 // DISTANCE + 1
    assert owner.successor(5.0).index.find("mine", 5.0) is not None


@given(st.lists(st.integers(0, 40), max_size=60), st.integers(1, 20), st.integers(1, 5))
def test_the_index_finds_what_a_dictionary_would(ended: list[int], count: int, block: int) -> None:
    """The newest end of each id; the bound is passed by less than two blocks; the oldest leave first."""
    remembered = RecentIds(count, 1e9, block)
    order: dict[str, int] = {}
    for offset, number in enumerate(ended):
        remembered.add(f"j{number}", offset, float(offset))
        order.pop(f"j{number}", None)
        order[f"j{number}"] = offset
    assert len(remembered) < count + 2 * block
    newest = {f"j{number}": offset for offset, number in list(enumerate(ended))[-count:]}
    assert {job: remembered.find(job, 100.0) for job in newest} == newest
    assert all(remembered.find(job, 100.0) in (None, offset) for job, offset in order.items())
    assert remembered.find("never", 100.0) is None


def test_ids_leave_with_age_and_older_ones_fill_the_room() -> None:
    """Age counts from the end of the job, also for what a predecessor remembered."""
    remembered, before = RecentIds(3, 60.0), RecentIds(9, 1e9)
    remembered.add("a", 10, 100.0)
    for job, offset, at in (("d", 7, 70.0), ("c", 8, 80.0), ("b", 9, 90.0)):
        before.add(job, offset, at)
    remembered.merge(before.between(0), 100.0)
    assert [remembered.find(job, 140.0) for job in "abcd"] == [10, 9, 8, None]
    assert [remembered.find(job, 150.1) for job in "abc"] == [10, None, None]
    assert len(remembered) == 3


@given(st.lists(st.integers(0, 40), max_size=60), st.integers(0, 60), st.integers(0, 60))
def test_a_stretch_of_ends_is_what_ended_there(ended: list[int], since: int, length: int) -> None:
    """Whatever is in sealed blocks, and whatever is not."""
    remembered = RecentIds(1_000, 1e9, 7)
    for offset, number in enumerate(ended):
        remembered.add(f"j{number}", offset, 0.0)
    offsets = {entry.offset for _, entry in remembered.between(since, since + length)}
    newest = {number: offset for offset, number in enumerate(ended)}
    assert {offset for offset in newest.values() if since <= offset < since + length} <= offsets <= set(range(since, since + length))
