"""Telling the owner of a conversation, a batch or a review, who answers by an event; and seeing what another instance was just told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from services.ingress.handlers import Door
from services.ingress.replies.register import WaitKind
from shared.contracts.batch import OfBatch
from shared.contracts.conversation import ConversationDropped, ConversationSet

WAIT_SECONDS = 5.0
"""So long an answer waits for the owner's word."""
SEEN_SECONDS, _LOOK_SECONDS = 1.0, 0.05
"""So long an id is looked for that is not known here: it may be news."""

T = TypeVar("T")


async def told(door: Door, said: ConversationSet | ConversationDropped | OfBatch, key: str, done: Callable[[], bool]) -> bool:
    """Write it, and wait until the owner's event, of this key, says that it is so; False: not in time. Raises LogError, Overloaded."""
    return await heard(door, said.tenant, key, done, lambda: door.submitter.to_owner(said))


async def heard(door: Door, tenant: str, key: str, done: Callable[[], bool], write: Callable[[], Awaitable[None]]) -> bool:
    """The same of whatever `write` writes, for whoever answers by an event."""
    with door.waiting(WaitKind.END, tenant, WAIT_SECONDS) as reader, door.followers.following(key, reader.news) as news:
        await door.open()
        await write()
        while not done() and not reader.over:
            news.clear()
            if not done():
                await news.wait()
    return done()


async def seen(door: Door, tenant: str, find: Callable[[], T | None]) -> T | None:
    """What `find` finds, now or in a moment. Raises Overloaded."""
    if (found := find()) is not None:
        return found
    with door.waiting(WaitKind.END, tenant, SEEN_SECONDS) as reader:
        while (found := find()) is None and not reader.over:
            await door.clock.sleep(_LOOK_SECONDS)
    return found
