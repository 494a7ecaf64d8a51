"""CreditLedger of credits: how many steps one party, a router, may still give to each node. Pure; time is passed in (monotonic seconds).

A node's credits record offers this party a number of places and says up to where each mailbox has been read. What is left of the
offer is the offer minus this party's own dispatches that lie at or after that point, and minus those whose offset is not known yet.
So a dispatch is counted until the node's own record counts it; one that failed or was lost is in nobody's count (nothing leaks).

The record also says of which records the node has told their homes: of such a dispatch nobody else needs to tell.
"""

from __future__ import annotations

from collections.abc import Iterator

from shared.contracts.credits import Credits
from shared.placement.demand import MOST_TOKENS
from shared.topics import model_for

LEFT_OUT_SECONDS = 3.0
"""A model that no record names for so long is in memory no more: its turn begins anew when it comes back."""


class NodeCredit:
    """One node as its credits tell it. `available` is kept up to date; nobody but the ledger writes here."""

    __slots__ = (
        "_acknowledged",
        "_left_out",
        "available",
        "boot",
        "decode_tokens_per_second",
        "eager_from",
        "free_seconds",
        "generation",
        "given",
        "heard_at",
        "in_flight",
        "incarnation",
        "live",
        "loaded_at",
        "mailbox",
        "node",
        "offered",
        "queued_tokens",
        "read",
        "resident",
        "running",
        "sequence",
        "spare",
        "told",
    )

    def __init__(self, node: str) -> None:
        self.node = node
        self.boot = ""
        self.incarnation = -1
        """Of the boot; of workers of before not known."""
        self.sequence = -1
        self.mailbox = -1
        self.generation = 0
        """Changes with the mailbox: offsets of another mailbox mean nothing here."""
        self.live = False
        self.heard_at = 0.0
        self.offered = self.spare = 0
        """Places for this party; those that are offered to others."""
        self.read: dict[str, int] = {}
        self.told: dict[str, tuple[int, int]] = {}
        self.in_flight = 0
        """Dispatches of this party that are not acknowledged yet."""
        self.available = 0
        self.running = 0
        self.queued_tokens = 0
        self.resident: frozenset[str] = frozenset()
        self.loaded_at: dict[str, float] = {}
        """Resident model to when that was first heard, monotonic seconds."""
        self._left_out: dict[str, float] = {}
        self.decode_tokens_per_second = 0.0
        self.eager_from = 0
        self.free_seconds: float | None = None
        self.given = 0
        """Steps that this party has given it so far."""
        self._acknowledged: dict[str, list[int]] = {}  # kind of model → offsets not read yet

    @property
    def unread(self) -> int:
        """Acknowledged dispatches that the node had not read when it wrote its record."""
        return sum(map(len, self._acknowledged.values()))

    @property
    def active(self) -> int:
        """Steps that it has, as far as this party knows: those that run by its record, and those that it has not told of yet."""
        return self.running + self.in_flight + self.unread

    def free_in(self, now: float) -> float:
        """Seconds until one of its slots is likely to be free, where all are taken."""
        since = now - self.heard_at
        if self.free_seconds is not None:
            return max(0.0, self.free_seconds - since)
        if not self.running or self.decode_tokens_per_second <= 0:
            return 0.0
        tokens = min(MOST_TOKENS, self.queued_tokens)
        return max(0.0, tokens / self.decode_tokens_per_second / (self.running + 1) - since)

    def empty_in(self, now: float) -> float:
        """Seconds until all that runs there is likely to have ended."""
        if not self.running or self.decode_tokens_per_second <= 0:
            return 0.0
        seconds = min(MOST_TOKENS, self.queued_tokens) / self.decode_tokens_per_second * self.running / (self.running + 1)
        return max(0.0, seconds - (now - self.heard_at))

    def fold(self, record: Credits, party: str, now: float) -> bool:
        """Take over a record; True when the node is new, back, or another boot or mailbox than before."""
        changed = not self.live or record.boot != self.boot or record.mailbox != self.mailbox
        if record.mailbox != self.mailbox:
            self._move(record.mailbox)
        self.live = True
        self.heard_at = now
        self.boot, self.incarnation = record.boot, _incarnation(record)
        self.sequence = record.sequence
        self.read = record.read
        self.told = record.told
        self.running = record.running
        self.queued_tokens = record.queued_tokens
        self.decode_tokens_per_second = record.decode_tokens_per_second
        self.eager_from = record.eager_from
        self.free_seconds = record.free_seconds
        if len(self.resident) != len(record.resident) or not self.resident.issuperset(record.resident):
            self._remember(frozenset(record.resident), now)
        self.offered = max(0, record.offers.get(party, 0))
        self.spare = sum(record.offers.values()) - self.offered
        self._forget_read()
        self._count()
        return changed

    def _remember(self, resident: frozenset[str], now: float) -> None:
        """A record that is too long leaves models out: one that is soon named again was there all the time."""
        for model in self.resident - resident:
            self._left_out[model] = now
        for model in [model for model, since in self._left_out.items() if now - since > LEFT_OUT_SECONDS]:
            del self._left_out[model], self.loaded_at[model]
        for model in resident:
            self._left_out.pop(model, None)
            self.loaded_at.setdefault(model, now)
        self.resident = resident

    def told_of(self, model: str) -> tuple[int, int]:
        """From and up to: of the records of its mailbox in between this node has told their homes."""
        return self.told.get(model, (0, 0))

    def lose(self) -> None:
        """Nothing was heard for too long."""
        self.live = False
        self._count()

    def take(self) -> None:
        assert self.available > 0, "no place left"
        self.in_flight += 1
        self.given += 1
        self.available -= 1

    def acknowledge(self, model: str, offset: int) -> None:
        """A dispatch lies at `offset` of the mailbox; -1 (the broker does not know) counts as the next one."""
        self.in_flight -= 1
        read = self.read.get(model)
        unread = self._acknowledged.setdefault(model, [])
        if offset < 0:
            offset = unread[-1] + 1 if unread else (read or 0)
        if read is not None and offset >= read:
            unread.append(offset)
        self._count()

    def cancel(self) -> None:
        """A dispatch was not acknowledged: nothing more goes there before the node offers places anew."""
        self.offered = 0
        self.in_flight -= 1
        self._count()

    def _move(self, mailbox: int) -> None:
        self.mailbox = mailbox
        self.generation += 1
        self.in_flight = 0
        self._acknowledged.clear()

    def _forget_read(self) -> None:
        """Dispatches that the node has read are in its own numbers now. A mailbox that it does not name is not read by it."""
        for model, unread in self._acknowledged.items():
            if unread:
                read = self.read.get(model)
                unread[:] = [offset for offset in unread if read is not None and offset >= read]

    def _count(self) -> None:
        self.available = max(0, self.offered - self.in_flight - self.unread) if self.live else 0


class OpenDispatch:
    """One step given to one node, until Kafka says where it lies or that it does not."""

    __slots__ = ("account", "boot", "generation", "model", "offset", "sequence", "settled")

    def __init__(self, account: NodeCredit, model: str) -> None:
        self.account = account
        self.boot, self.sequence = account.boot, account.sequence
        """Of the record whose place is used."""
        self.model = model
        self.generation = account.generation
        self.settled = False
        self.offset = -1
        """Where it lies, as far as what its node tells of can be trusted to mean it."""

    def lies_at(self, offset: int) -> None:
        """Kafka has acknowledged it. Below what was told of before that there is nothing new: the topic is another one of that name."""
        if offset >= self.account.told_of(self.model)[1]:
            self.offset = offset

    @property
    def taken_up(self) -> bool:
        """Its node has told its home of it: claimed, released or ended."""
        since, upto = self.account.told_of(self.model)
        return 0 <= since <= self.offset < upto and self.generation == self.account.generation

    @property
    def doubtful(self) -> bool:
        """Whether the node may have given back what is not known to be claimed, as far as its records tell."""
        node = self.account
        return not node.live or (node.boot, node.generation) != (self.boot, self.generation) or self.sequence < node.eager_from

    def settle(self) -> bool:
        """Ends the dispatch, once; False when the node's mailbox has changed since, so that its account does not know it."""
        assert not self.settled, "a dispatch ends once"
        self.settled = True
        return self.generation == self.account.generation


class CreditLedger:
    """The accounts of all nodes, as seen by one party."""

    def __init__(self, party: str, *, lost_seconds: float, forgotten_seconds: float) -> None:
        self._party = party
        self._lost_seconds = lost_seconds
        self._forgotten_seconds = forgotten_seconds
        self._accounts: dict[str, NodeCredit] = {}
        self.version = 0
        """Changes when a dispatch may have become doubtful."""

    def __iter__(self) -> Iterator[NodeCredit]:
        return iter(self._accounts.values())

    def get(self, node: str) -> NodeCredit | None:
        return self._accounts.get(node)

    @property
    def available(self) -> int:
        """Places left over all live nodes."""
        return sum(account.available for account in self._accounts.values())

    def on_credits(self, record: Credits, now: float) -> bool:
        """Fold a record; True when the node is new, back, or another boot or mailbox than before. Repeated records are ignored."""
        account = self._accounts.get(record.node)
        if account is None:
            account = self._accounts[record.node] = NodeCredit(record.node)
        elif record.boot == account.boot and record.sequence <= account.sequence:
            return False
        elif account.live and _incarnation(record) < account.incarnation:
            return False  # of an earlier boot, while a later one lives
        before = account.eager_from
        changed = account.fold(record, self._party, now)
        self.version += changed or account.eager_from != before
        return changed

    def expire(self, now: float) -> list[str]:
        """Nodes that have become lost; long lost ones are forgotten."""
        lost = [a for a in self._accounts.values() if a.live and now - a.heard_at > self._lost_seconds]
        for account in lost:
            account.lose()
            self.version += 1
        for node in [n for n, a in self._accounts.items() if now - a.heard_at > self._forgotten_seconds]:
            del self._accounts[node]
        return [account.node for account in lost]

    def take(self, account: NodeCredit, capability: str) -> OpenDispatch:
        """Use one place, which must be there."""
        account.take()
        return OpenDispatch(account, model_for(capability))

    def acknowledged(self, dispatch: OpenDispatch, offset: int) -> None:
        """The dispatch lies at `offset` of its mailbox (-1: the broker does not know)."""
        dispatch.lies_at(offset)
        if dispatch.settle():
            dispatch.account.acknowledge(dispatch.model, offset)

    def failed(self, dispatch: OpenDispatch) -> None:
        """The dispatch was not acknowledged: it is in nobody's count."""
        if dispatch.settle():
            dispatch.account.cancel()


def _incarnation(record: Credits) -> int:
    return -1 if record.incarnation is None else record.incarnation
