"""Credits and router presence: the facts by which routers give steps only to nodes that can start them (topic `credits`)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, TypeAdapter

from shared.contracts.base import Contract, NodeId, adapter


class Credits(Contract):
    """Places of one node, each offered to one named router; void at the next record. At most 512 bytes.

    A router may use `offers[router]` minus its own dispatches to this mailbox that lie at or after `read[topic]`.
    """

    type: Literal["credits"] = "credits"
    node: NodeId
    boot: str
    sequence: NonNegativeInt
    mailbox: NonNegativeInt
    offers: dict[str, int]
    """router id → places"""
    read: dict[str, int]
    """capability → next offset of the mailbox that the worker will read"""
    running: NonNegativeInt = 0
    queued_tokens: NonNegativeInt = 0
    """Estimated tokens of everything taken and not finished."""
    resident: tuple[str, ...] = ()
    decode_tokens_per_second: NonNegativeFloat = 0.0
    """Measured lately over all slots; 0 when unknown."""


class RouterPresence(Contract):
    """A router lives and has this much waiting."""

    type: Literal["router"] = "router"
    router: str
    backlog: NonNegativeInt
    leaving: bool = False


CreditsRecord = Annotated[Credits | RouterPresence, Field(discriminator="type")]
CREDITS: TypeAdapter[CreditsRecord] = adapter(CreditsRecord)
