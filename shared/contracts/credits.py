"""Credits and presence: the facts by which steps are given only to nodes that can start them (topic `credits`)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from shared.contracts.base import Capability, Contract, Count, Label, ModelName, NodeId, Offset, Partition, PerSecond, Seconds, adapter


class Credits(Contract):
    """Places of one node, each offered to one named party: a router or a planner; void at the next record. At most 512 bytes.

    A party may use `offers[party]` minus its own dispatches to this mailbox that lie at or after `read[topic]`.
    """

    type: Literal["credits"] = "credits"
    node: NodeId
    boot: Label
    incarnation: Offset | None = None
    """The offset of the boot's first Node record: of two boots of a node the higher one counts. Absent from workers of before."""
    sequence: Count
    mailbox: Partition
    offers: dict[Label, Count] = Field(max_length=1_000)
    """router or planner → places"""
    read: dict[Capability, Offset] = Field(max_length=1_000)
    """kind of model → next offset of the mailbox that the worker will read"""
    told: dict[Capability, tuple[Offset, Offset]] = Field(default={}, max_length=1_000)
    """kind of model → (from, up to) offsets of the mailbox: of each record from the one to before the other a claim, release or outcome is
    acknowledged, so that its claim timeout needs not be started. Absent: of none.
    """
    running: Count = 0
    queued_tokens: Count = 0
    """Estimated tokens of everything taken and not finished."""
    resident: tuple[ModelName, ...] = Field(default=(), max_length=256)
    decode_tokens_per_second: PerSecond = 0.0
    """Measured lately over all slots; 0 when unknown."""
    free_seconds: Seconds | None = None
    """Where no slot is free: how soon the first one is likely to be, from this record on. None where that is not known."""
    eager_from: Count = 0
    """Steps that a planner has written itself, on the places of an earlier record of this boot, are given back if they are not claimed."""


class RouterPresence(Contract):
    """A router lives and has this much waiting."""

    type: Literal["router"] = "router"
    router: Label
    backlog: Count
    leaving: bool = False


class PlannerPresence(Contract):
    """A planner lives that writes steps into mailboxes itself, where places are offered to it and no router has a backlog."""

    type: Literal["planner"] = "planner"
    planner: Label
    leaving: bool = False


CreditsRecord = Annotated[Credits | RouterPresence | PlannerPresence, Field(discriminator="type")]
CREDITS: TypeAdapter[CreditsRecord] = adapter(CreditsRecord)
