"""Owner: the batches of one home. It opens lines, a bounded number ahead, gathers their ends into blocks, and sees when all is over.
No I/O.

    an event opens lines ──► sent ──► their ends are told, and gathered ──► a block in blobs ──► an event names it, and opens more

What is gathered is nothing that history knows: its records count as not read until the event that names the block is acknowledged. So an
end is told, counted, and kept once, and no event is for one line. A successor sends open lines again, once it has folded their ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf

from services.planner.draft import Draft, KeepEnds, SendLines
from services.planner.kept import Timed
from shared.batches import KEPT_SECONDS
from shared.contracts.batch import BatchCancelled, BatchChanged, BatchError, BatchSubmitted, LineEnded, LineRow
from shared.contracts.blob import BlobRef
from shared.contracts.result import Status
from shared.telemetry import logs

log = logs.get(__name__)

TIMER = "#batch/"
"""Before a batch's name: the key of its timer. No job's id begins so."""
GATHERED_ROWS, GATHERED_BYTES = 128, 512 * 1024
"""From so many on a block is written at once."""

Key = tuple[str, str]
Row = tuple[bytes, bool]
"""An end as it lies in a block, and whether it is a good one."""


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """Durations in seconds."""

    ahead: int = 512
    """Open lines of all batches of a home together: they share it. Ends of so many may be in memory."""
    least: int = 8
    """Of each batch, however many there are."""
    most_live: int = 100
    live_of_tenant: int = 20
    most: int = 1_000
    """Batches of one home, with those that are over; of these the oldest are forgotten first."""
    kept_seconds: float = KEPT_SECONDS
    gather_seconds: float = 1.0
    """An end waits so long for others to be written with."""
    patience_seconds: float = 60.0
    """For ends of open lines, once the batch is cancelled or expired."""


@dataclass(slots=True)
class _Running:
    """A batch in memory. `begun_at`: monotonic, in replay seconds of the log's time."""

    known: BatchChanged
    begun_at: float
    open: set[int] = field(default_factory=set)
    gathered: dict[int, Row] = field(default_factory=dict)
    size: int = 0
    gathered_at: float = inf
    writing: dict[int, Row] = field(default_factory=dict)
    paid: list[Callable[[], None]] = field(default_factory=list)
    """Lets the records of what is gathered count as done."""
    paid_with: list[Callable[[], None]] = field(default_factory=list)
    """Of what is being written."""
    patient_until: float = inf
    again: bool = False
    """Open lines are to be sent again, once what lay there is folded."""
    forget: bool = False
    opened: tuple[int, ...] = ()
    """By the event of this round."""
    settled: tuple[Callable[[], None], ...] = ()
    """By the same."""

    @property
    def over(self) -> bool:
        return self.known.over_at is not None


class BatchOwner:
    """Those of one home, by (tenant, name). `set_timer`: (key, monotonic seconds). `most_jobs`: that a tenant may run at once."""

    def __init__(
        self, policy: BatchPolicy, set_timer: Callable[[str, float], None], most_jobs: Callable[[str], int | None] = lambda _: None
    ) -> None:
        self._policy, self._most_jobs = policy, most_jobs
        self.kept = Timed[_Running](
            "batches",
            BatchChanged,
            TIMER,
            set_timer,
            self._due_at,
            named=lambda event: (event.tenant, event.batch),
            read=lambda event, written: _Running(event, written - event.age_seconds, set(event.open)),
            state=self._state,
        )
        self._all = self.kept.things

    def __len__(self) -> int:
        return len(self._all)

    def get(self, tenant: str, name: str) -> BatchChanged | None:
        found = self._all.get((tenant, name))
        return None if found is None else found.known

    def on_submitted(self, draft: Draft, told: BatchSubmitted) -> None:
        """A repeat changes nothing."""
        key = told.tenant, told.batch
        if key in self._all:
            return
        live = [tenant for (tenant, _), one in self._all.items() if not one.over]
        errors = told.errors
        if not errors and (len(live) >= self._policy.most_live or live.count(told.tenant) >= self._policy.live_of_tenant):
            errors = (BatchError(code="batch_limit_exceeded", message="too many batches are in progress: wait until one of them is over"),)
        self._make_room()
        said = {name: getattr(told, name) for name in ("terms", "window_seconds", "index", "lines", "refused", "refusals", "key")}
        known = BatchChanged(epoch=draft.epoch, tenant=told.tenant, batch=told.batch, at=draft.wall, errors=errors, **said)
        one = self._all[key] = _Running(known, draft.now)
        if errors:
            one.known = known.changed_to(over_at=draft.wall)
        self._go_on(draft, key, one)

    def _make_room(self) -> None:
        if len(self._all) >= self._policy.most:
            over = (key for key, one in self._all.items() if one.over and not one.forget)
            oldest = min(over, key=lambda key: self._all[key].begun_at, default=None)
            if oldest is not None:
                log.warning("batch_forgotten", tenant=oldest[0], reason="as many are kept as may be")
                self._forget(oldest)

    def on_ended(self, draft: Draft, told: LineEnded, paid: Callable[[], None]) -> None:
        """A line's job has ended. `paid`: lets its record count as done: at once, or when an event names the end."""
        key = told.tenant, told.batch
        one = self._all.get(key)
        if one is None or one.over or told.number not in one.open or told.number in one.gathered or told.number in one.writing:
            paid()
            return
        row = LineRow(line=told.number, result=told.result).to_bytes()
        one.gathered[told.number] = row, told.result.status is Status.SUCCEEDED
        one.size += len(row)
        one.paid.append(paid)
        one.gathered_at = min(one.gathered_at, draft.now)
        self.kept.attention[key] = None
        self._write(draft, one)

    def _write(self, draft: Draft, one: _Running, *, now: bool = False) -> None:
        """A block, if there is enough for one, or nothing else will come; one at a time, since each names the one before."""
        if one.writing or not one.gathered:
            return
        full = len(one.gathered) >= GATHERED_ROWS or one.size >= GATHERED_BYTES
        if now or full or len(one.gathered) == len(one.open):
            one.writing, one.gathered, one.size, one.gathered_at = one.gathered, {}, 0, inf
            one.paid_with, one.paid = one.paid, []
            draft.after.append(KeepEnds(one.known, one.writing))

    def on_written(self, draft: Draft, key: Key, lies: BlobRef, rows: int, ended: dict[int, bool]) -> None:
        """The newest block lies there, with so many rows. `ended`: the lines that are new in it, and whether each ended well."""
        one = self._all.get(key)
        if one is None or one.over:
            return
        good = sum(ended.values())
        one.open -= ended.keys()
        known = one.known
        counts = {"completed": known.completed + good, "failed": known.failed + len(ended) - good}
        one.known = known.changed_to(newest=lies, newest_rows=rows, **counts)
        one.writing, one.settled, one.paid_with = {}, (*one.settled, *one.paid_with), []
        self._go_on(draft, key, one)
        self._write(draft, one)

    def on_unreadable(self, draft: Draft, key: Key) -> None:
        """Its lines lie nowhere any more."""
        one = self._all.get(key)
        if one is not None and not one.over:
            gone = BatchError(code="input_gone", message="the lines of the batch are not kept any longer")
            one.known = one.known.changed_to(errors=(gone,))
            self._finish(draft, one)
            self.kept.touch(key)

    def on_cancelled(self, draft: Draft, told: BatchCancelled) -> None:
        """No more lines are sent; those that are open are cancelled, and awaited for a while."""
        key = told.tenant, told.batch
        one = self._all.get(key)
        if one is None:
            return
        one.forget = one.forget or told.forget
        if not one.over:
            self._end(draft, key, one, "cancelled")
        elif one.forget:
            self._forget(key)

    def _end(self, draft: Draft, key: Key, one: _Running, why: str) -> None:
        if one.known.ending is None:
            one.known = one.known.changed_to(ending=why, ending_at=draft.wall)
            one.patient_until = draft.now + self._policy.patience_seconds
            draft.after.append(SendLines(one.known, cancelled=sorted(one.open)))
            self._go_on(draft, key, one)

    def _go_on(self, draft: Draft, key: Key, one: _Running) -> None:
        """Open as many lines as may be; nothing open and nothing left is the end."""
        known = one.known
        if one.known.ending is None and not one.over:
            more = range(known.next, min(known.lines, known.next + max(0, self._room(key, one))))
            one.open.update(more)
            one.opened = (*one.opened, *more)
            one.known = known.changed_to(next=known.next + len(more))
        if not one.open and not one.over:
            self._finish(draft, one)
        self.kept.touch(key)

    def _room(self, key: Key, one: _Running) -> int:
        """More lines that may be open: of a tenant no more than it may run at once, else they would fail for waiting too long."""
        live = [(tenant, len(other.open)) for (tenant, _), other in self._all.items() if not other.over]
        room = max(self._policy.least, self._policy.ahead // len(live)) - len(one.open)
        most = self._most_jobs(key[0])
        if most is not None:
            room = min(room, max(most - sum(count for tenant, count in live if tenant == key[0]), int(not one.open)))
        return room

    def _finish(self, draft: Draft, one: _Running) -> None:
        log.info("batch_over", tenant=one.known.tenant, batch=one.known.batch, completed=one.known.completed, failed=one.known.failed)
        one.known = one.known.changed_to(over_at=draft.wall)
        one.settled = (*one.settled, *one.paid, *one.paid_with)
        one.paid, one.paid_with, one.gathered, one.writing = [], [], {}, {}

    # Time

    def on_due(self, draft: Draft, key: str) -> None:
        """A batch's timer fired: all that lay in `outcomes` then is folded."""
        name = self.kept.of_timer(key)
        one = self._all.get(name)
        if one is None:
            return
        if one.over:
            if draft.now >= one.begun_at + self._policy.kept_seconds:
                self._forget(name)
            return
        if one.again:
            one.again = False
            one.opened = tuple(sorted({*one.opened, *(one.open - one.gathered.keys() - one.writing.keys())}))
            self.kept.touch(name)
            if one.known.ending is not None:
                draft.after.append(SendLines(one.known, cancelled=one.opened))
        impatient = draft.now >= one.patient_until
        if impatient and not (one.gathered or one.writing):
            self._finish(draft, one)
            self.kept.touch(name)
        elif one.known.ending is None and draft.now >= one.begun_at + one.known.window_seconds:
            self._end(draft, name, one, "expired")
        self._write(draft, one, now=impatient or draft.now >= one.gathered_at + self._policy.gather_seconds)

    def _due_at(self, one: _Running) -> float:
        if one.over:
            return one.begun_at + self._policy.kept_seconds
        if one.again:
            return -inf
        if one.writing and one.known.ending is not None:
            return inf  # patience ends when that lies there
        expires = one.patient_until if one.known.ending is not None else one.begun_at + one.known.window_seconds
        return min(expires, inf if one.writing else one.gathered_at + self._policy.gather_seconds)

    def _state(self, draft: Draft, _: Key, one: _Running) -> BatchChanged:
        """With what goes out behind it."""
        gone, age = one.over and one.forget, max(0.0, draft.now - one.begun_at)
        one.known = one.known.changed_to(epoch=draft.epoch, at=draft.wall, age_seconds=age, open=tuple(sorted(one.open)), gone=gone)
        if one.opened or one.settled:
            draft.after.insert(0, SendLines(one.known, one.opened, paid=one.settled))
            one.opened, one.settled = (), ()
        return one.known

    def _forget(self, key: Key) -> None:
        self._all[key].forget = True
        self.kept.touch(key)

    def resume(self, draft: Draft, to_monotonic: float) -> None:
        """After replay: what was sent may never have arrived, and what was told may lie unread."""
        for key, one in self._all.items():
            one.begun_at += to_monotonic
            self.kept.attention[key] = None
            if not one.over:
                one.again = True
                if one.known.ending is not None:
                    one.patient_until = draft.now + self._policy.patience_seconds
