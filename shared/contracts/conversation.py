"""Conversations: what a tenant's jobs of one name have said stays known to the next ones. Texts lie in blobs, each turn's once; all else
names them, so that neither a job's history nor its steps grow with what was said before.

A *turn* is one job's place in the conversation. Its owner (the home of tenant and name) grants one at a time; both sides tell each other by
messages on `outcomes`, as with budgets (model: `tests/model/test_turns.py`).
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, StringConstraints

from shared.contracts.base import (
    DIGEST,
    Contract,
    Count,
    EpochSeconds,
    JobId,
    Label,
    Offset,
    Partition,
    PublicId,
    Seconds,
    Sentence,
    Tenant,
)
from shared.contracts.blob import BlobRef
from shared.contracts.chat import ChatMessage
from shared.contracts.fact import Fact

MOST_WAITING = 16
"""Jobs that wait for their turn in one conversation; of more, each fails."""
RECENT = 4
"""Newest turns whose sizes are known one by one: at most so many stay word for word when the others are summed up."""
Note = Annotated[str, StringConstraints(min_length=1, max_length=500)]
Digest = Annotated[str, StringConstraints(pattern=f"^{DIGEST}$", max_length=32)]


class Portion(Contract):
    """Some turns, one behind the other: what planner and router must know of their texts without reading them."""

    turns: Count = 0
    characters: Count = 0
    longest: Count = 0
    """Bytes in UTF-8, all together: a model reads them at once."""
    fewest_tokens: Count = 0
    """That they have by any tokenizer."""
    since: EpochSeconds = 0.0
    """When the oldest was written."""

    def plus(self, newer: Portion) -> Portion:
        """Both, `newer` behind this one."""
        return Portion(
            turns=self.turns + newer.turns,
            characters=self.characters + newer.characters,
            longest=self.longest + newer.longest,
            fewest_tokens=self.fewest_tokens + newer.fewest_tokens,
            since=self.since if self.turns else newer.since,
        )


class Memory(Contract):
    """What is known of a conversation besides its newest turns. In a blob: the JSON of this."""

    model_config = ConfigDict(extra="forbid")

    summary: Annotated[str, StringConstraints(max_length=4_000)] = ""
    facts: tuple[Note, ...] = Field(default=(), max_length=64)
    preferences: tuple[Note, ...] = Field(default=(), max_length=32)


class ContextRef(Contract):
    """What of a conversation a step's model reads before its messages: some turns, counted back from the newest, and the memory."""

    newest: BlobRef | None = None
    """The newest turn, of which the job's own will be the next; each names the one before it."""
    skip: Count = 0
    """So many of the newest are not read."""
    turns: Count = 0
    """So many behind those are, oldest first."""
    memory: BlobRef | None = None
    found: Memory | None = None
    """What the job itself has summed up, and no blob holds yet."""
    characters: Count = 0
    longest: Count = 0
    fewest_tokens: Count = 0
    """Of all that is read, as in Portion."""

    def identity(self) -> bytes:
        """What decides what is read: of blobs their digests, since they may be written again."""
        newest = self.newest.digest if self.newest is not None and self.turns else ""
        memory = "" if self.memory is None else self.memory.digest
        found = b"" if self.found is None else self.found.to_bytes()
        return f"{newest}/{self.skip}/{self.turns}/{memory}/".encode() + found


class Turn(Contract):
    """What one job's turn said, without pictures and without the words of a system. In a blob: the JSON of this."""

    job: JobId
    at: EpochSeconds
    messages: tuple[ChatMessage, ...] = Field(max_length=1_002)
    before: BlobRef | None = None


# Messages


class _OfConversation(Contract):
    tenant: Tenant
    conversation: PublicId


class _OfTurn(_OfConversation):
    job: JobId


class TurnAsked(_OfTurn):
    """A live job waits for its turn. Told again until it is granted or refused."""

    type: Literal["turn_asked"] = "turn_asked"
    home: Partition


class TurnGranted(_OfTurn):
    """The job may begin. Sent again as long as the turn has not ended."""

    type: Literal["turn_granted"] = "turn_granted"
    turn: Offset
    """Serial; the owner never gives one twice."""
    context: ContextRef | None = None
    older: ContextRef | None = None
    """Set where so much was said that these turns are to be summed up first: they are not in `context`."""


class TurnRefused(_OfTurn):
    """The job cannot wait: a bound is reached."""

    type: Literal["turn_refused"] = "turn_refused"
    limit: Label
    message: Sentence


class EndedTurn(Contract):
    """What a turn adds to its conversation."""

    newest: BlobRef
    size: Portion
    keeps: Count | None = None
    """So many turns before it stay word for word; absent: all."""
    memory: BlobRef | None = None
    memory_size: Portion = Portion()
    based_on: Digest | None = None
    """The memory that this one is made from: if it is another by now, only the turn itself counts."""


class TurnEnded(_OfTurn):
    """The job has ended, or is not known at its home: the owner grants the next. Told until it is acknowledged."""

    type: Literal["turn_ended"] = "turn_ended"
    turn: Offset | None = None
    """Absent: the job ended before it began."""
    ended: EndedTurn | None = None


class ConversationSet(_OfConversation):
    """Somebody has written the memory anew."""

    type: Literal["conversation_set"] = "conversation_set"
    memory: BlobRef
    memory_size: Portion
    based_on: Digest | None = None


class ConversationDropped(_OfConversation):
    """Somebody wants it forgotten, with what a turn on its way will say."""

    type: Literal["conversation_dropped"] = "conversation_dropped"


ToOwner = TurnAsked | TurnEnded | ConversationSet | ConversationDropped
ToHome = TurnGranted | TurnRefused


# Facts


class TurnBegun(Fact):
    """The job's turn has come: its pattern runs from here on, with this context."""

    type: Literal["turn_begun"] = "turn_begun"
    turn: Offset
    context: ContextRef | None = None
    older: ContextRef | None = None
    idle_seconds: Seconds = 0.0
    """As in ReviewDecided."""


class Asker(Contract):
    """A job that waits for its turn, or has it; `home` is told."""

    job: JobId
    home: Partition
    turn: Offset | None = None
    void: bool = False
    """What it says is wanted no longer: the conversation was deleted meanwhile."""


class ConversationChanged(Contract):
    """A fact of the owner's home. The newest of a conversation is all of it."""

    type: Literal["conversation_changed"] = "conversation_changed"
    epoch: Offset
    tenant: Tenant
    conversation: PublicId
    at: EpochSeconds
    ended: Count = 0
    """Turns in all."""
    newest: BlobRef | None = None
    older: Portion = Portion()
    recent: tuple[Portion, ...] = Field(default=(), max_length=RECENT)
    """What is known word for word: the newest turns one by one, oldest first, and those before them."""
    memory: BlobRef | None = None
    memory_size: Portion = Portion()
    current: Asker | None = None
    waiting: tuple[Asker, ...] = Field(default=(), max_length=MOST_WAITING)
    idle_seconds: Seconds = 0.0
    """Since it was last used."""
    gone: bool = False

    def to_bytes(self) -> bytes:
        """Without what is as it is by default; the epoch first, as in every event."""
        head = b'{"epoch":%d,"type":"conversation_changed",' % self.epoch
        return head + self.encoded(exclude_defaults=True, exclude={"epoch", "type"})[1:]

    def changed_to(self, **fields: object) -> Self:
        """With these fields, which are valid."""
        return self.model_copy(update=fields)
