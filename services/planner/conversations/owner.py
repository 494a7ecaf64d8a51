"""Owner: the conversations of one home of tenants and names. It grants turns one by one and keeps what names the texts. No I/O.

Each decision is an event before it is a message. The newest event of a conversation is all of it, and it is kept as long as anything was
said or asked lately. A granted job is asked after now and then: of what its home does not know the turn ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from services.planner.conversations.granting import added, digest, given
from services.planner.draft import Draft, Tell
from services.planner.kept import Timed
from shared.contracts.conversation import (
    MOST_WAITING,
    Asker,
    ConversationChanged,
    ConversationDropped,
    ConversationSet,
    Portion,
    ToOwner,
    TurnAsked,
    TurnEnded,
    TurnGranted,
    TurnRefused,
)
from shared.telemetry import logs

log = logs.get(__name__)

TIMER = "#conversation/"
"""Before a conversation's name: the key of its timer. No job's id begins so."""

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class ConversationPolicy:
    """Durations in seconds."""

    ttl_seconds: float = 86_400.0
    """Unused for so long it is forgotten."""
    tokens: int = 1_000
    """Likely tokens of context that a job gets word for word; beyond it older turns are summed up."""
    most: int = 5_000
    """Conversations of one home."""
    most_of_tenant: int = 2_000
    ask_seconds: float = 5.0
    """A job that waits for its turn asks again."""
    grant_seconds: float = 15.0
    """A grant is sent again as long as its turn has not ended."""


@dataclass(slots=True)
class _Talk:
    """`used_at`: monotonic, in replay seconds of the log's time. `granted_at`: when the grant was sent last."""

    known: ConversationChanged
    used_at: float
    granted_at: float = -inf
    over: bool = False
    """It was deleted, or nobody has used it for too long."""

    @property
    def idle(self) -> bool:
        return self.known.current is None and not self.known.waiting

    @property
    def empty(self) -> bool:
        """Nothing is known, and nobody waits."""
        return self.idle and not self.known.ended and self.known.memory is None


class Conversations:
    """Those of one home, by (tenant, name). `set_timer`: (key, monotonic seconds)."""

    def __init__(self, policy: ConversationPolicy, set_timer: Callable[[str, float], None]) -> None:
        self._policy = policy
        self.kept = Timed[_Talk](
            "conversations",
            ConversationChanged,
            TIMER,
            set_timer,
            self._due_at,
            named=lambda event: (event.tenant, event.conversation),
            read=lambda event, written: _Talk(event, written - event.idle_seconds),
            state=self._state,
        )
        self._talks = self.kept.things
        self._last_turn = -1

    def __len__(self) -> int:
        return len(self._talks)

    def get(self, tenant: str, name: str) -> ConversationChanged | None:
        talk = self._talks.get((tenant, name))
        return None if talk is None or talk.over else talk.known

    def on_message(self, draft: Draft, told: ToOwner) -> None:
        """In log order. A repeat changes nothing."""
        key = told.tenant, told.conversation
        match told:
            case TurnAsked():
                self._on_asked(draft, key, told)
            case TurnEnded():
                self._on_ended(draft, key, told)
            case ConversationSet():
                self._on_set(draft, key, told)
            case ConversationDropped():
                self._on_dropped(draft, key)

    def _on_asked(self, draft: Draft, key: Key, asked: TurnAsked) -> None:
        talk = self._begun(draft, key)
        if talk is None:
            self._refuse(draft, asked, "conversations", "too many conversations are kept: delete some, or wait until they are forgotten")
            return
        known = talk.known
        if known.current is not None and known.current.job == asked.job:
            self._grant_again(draft, key, talk)
        elif all(other.job != asked.job for other in known.waiting):
            if len(known.waiting) >= MOST_WAITING:
                self._refuse(draft, asked, "conversation.waiting", f"{MOST_WAITING} jobs wait for their turn in this conversation")
                return
            talk.known = known.changed_to(waiting=(*known.waiting, Asker(job=asked.job, home=asked.home)))
            self._touch(draft, key, talk)
            self._grant_next(draft, key, talk)

    def _refuse(self, draft: Draft, asked: TurnAsked, limit: str, message: str) -> None:
        refused = TurnRefused(tenant=asked.tenant, conversation=asked.conversation, job=asked.job, limit=limit, message=message)
        draft.after.append(Tell(asked.home, refused, sure=False))

    def _on_ended(self, draft: Draft, key: Key, told: TurnEnded) -> None:
        talk = self._talks.get(key)
        if talk is None:
            return
        known = talk.known
        current = known.current
        if current is not None and current.job == told.job and told.turn in (None, current.turn):
            if told.ended is not None and not current.void:
                known = added(known, told.ended)
            talk.known = known.changed_to(current=None)
        elif told.turn is None and any(other.job == told.job for other in known.waiting):
            talk.known = known.changed_to(waiting=tuple(other for other in known.waiting if other.job != told.job))
        else:
            return
        talk.over = talk.empty
        self._touch(draft, key, talk)
        self._grant_next(draft, key, talk)

    def _on_set(self, draft: Draft, key: Key, told: ConversationSet) -> None:
        """Of two who write the memory at the same time the first in the log stands; the other sees it, and writes again."""
        found = self.get(*key)
        same = digest(None if found is None else found.memory) == told.based_on
        talk = self._begun(draft, key) if same else None
        if talk is not None:
            talk.known = talk.known.changed_to(memory=told.memory, memory_size=told.memory_size)
            self._touch(draft, key, talk)

    def _on_dropped(self, draft: Draft, key: Key) -> None:
        talk = self._talks.get(key)
        if talk is None:
            return
        known = talk.known
        current = None if known.current is None else known.current.model_copy(update={"void": True})
        nothing = {"newest": None, "older": Portion(), "recent": (), "memory": None, "memory_size": Portion(), "ended": 0}
        talk.known = known.changed_to(**nothing, current=current)
        talk.over = talk.idle
        self._touch(draft, key, talk)

    def _begun(self, draft: Draft, key: Key) -> _Talk | None:
        """The conversation, a new one where there is none; None where there is no room for one."""
        talk = self._talks.get(key)
        if talk is None:
            of_tenant = sum(tenant == key[0] for tenant, _ in self._talks) if len(self._talks) >= self._policy.most_of_tenant else 0
            if len(self._talks) >= self._policy.most or of_tenant >= self._policy.most_of_tenant:
                return None
            first = ConversationChanged(epoch=draft.epoch, tenant=key[0], conversation=key[1], at=draft.wall)
            talk = self._talks[key] = _Talk(first, draft.now)
        talk.over = False
        return talk

    def _grant_next(self, draft: Draft, key: Key, talk: _Talk) -> None:
        """Serials lie above the epoch, and each grant is an event of its own round at most: a later epoch begins above all of them."""
        known = talk.known
        if known.current is not None or not known.waiting:
            return
        self._last_turn = max(self._last_turn, draft.epoch) + 1
        first = known.waiting[0].model_copy(update={"turn": self._last_turn})
        talk.known = known.changed_to(current=first, waiting=known.waiting[1:])
        self._grant_again(draft, key, talk)

    def _grant_again(self, draft: Draft, key: Key, talk: _Talk) -> None:
        """Made of what is known, which the turn's end alone changes, and a memory that is written anew."""
        known, current = talk.known, talk.known.current
        assert current is not None, "it has been granted"
        assert current.turn is not None, "the same"
        read = given(known, self._policy.tokens, draft.wall)
        granted = TurnGranted(
            tenant=key[0], conversation=key[1], job=current.job, turn=current.turn, context=read.context, older=read.older
        )
        draft.after.append(Tell(current.home, granted))
        talk.granted_at = draft.now
        self.kept.attention[key] = None

    def _touch(self, draft: Draft, key: Key, talk: _Talk) -> None:
        talk.used_at = draft.now
        self.kept.touch(key)

    # Time

    def on_due(self, draft: Draft, key: str) -> None:
        """A conversation's timer fired."""
        name = self.kept.of_timer(key)
        talk = self._talks.get(name)
        if talk is None:
            return
        if talk.known.current is not None and draft.now >= talk.granted_at + self._policy.grant_seconds:
            self._grant_again(draft, name, talk)
        elif talk.idle and draft.now >= talk.used_at + self._policy.ttl_seconds:
            log.info("conversation_forgotten", tenant=name[0])
            talk.over = True
            self.kept.touch(name)

    def _state(self, draft: Draft, _: Key, talk: _Talk) -> ConversationChanged:
        idle = max(0.0, draft.now - talk.used_at)
        talk.known = talk.known.changed_to(epoch=draft.epoch, at=draft.wall, idle_seconds=idle, gone=talk.over)
        return talk.known

    def _due_at(self, talk: _Talk) -> float:
        if talk.known.current is not None:
            return talk.granted_at + self._policy.grant_seconds
        return talk.used_at + self._policy.ttl_seconds if talk.idle and not talk.over else inf

    def resume(self, draft: Draft, to_monotonic: float) -> None:
        """After replay: what was granted is granted again, since the message may be lost."""
        for key, talk in self._talks.items():
            talk.used_at += to_monotonic
            self.kept.attention[key] = None
            if talk.known.current is not None:
                self._grant_again(draft, key, talk)
