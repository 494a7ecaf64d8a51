"""Granting: what of a conversation the next job reads, and what is to be summed up first. Pure."""

from __future__ import annotations

from functools import reduce
from typing import NamedTuple

from shared.contracts.base import DAY_SECONDS
from shared.contracts.blob import BlobRef
from shared.contracts.conversation import RECENT, ContextRef, ConversationChanged, EndedTurn, Portion
from shared.estimates import likely_tokens
from shared.topics import BLOB_DAYS

MOST_TURNS = 200
"""Word for word: each is a blob, which a worker that knows none of them reads one after the other."""
OLDEST_SECONDS = BLOB_DAYS / 2 * DAY_SECONDS
"""Half as long as blobs lie."""
_NOTHING = Portion()


class _ToRead(NamedTuple):
    """`context` is read as it is; `older` is to be summed up first."""

    context: ContextRef | None = None
    older: ContextRef | None = None


def all_of(portions: tuple[Portion, ...]) -> Portion:
    """Together."""
    return reduce(Portion.plus, portions, _NOTHING)


def given(known: ConversationChanged, most_tokens: int, wall: float) -> _ToRead:
    """What the next turn gets. Beyond the bound (of tokens, of turns, of age) the newest few stay, within half of it."""
    whole = all_of((known.older, *known.recent))
    memory = known.memory_size if known.memory is not None else _NOTHING
    if not whole.turns and known.memory is None:
        return _ToRead()
    fits = likely_tokens(whole.characters + memory.characters) <= most_tokens
    if fits and whole.turns <= MOST_TURNS and (not whole.turns or wall - whole.since <= OLDEST_SECONDS):
        return _ToRead(_ref(known, whole, 0))
    kept = 0
    for count in range(1, len(known.recent) + 1):
        newest = all_of(known.recent[-count:])
        if likely_tokens(newest.characters) > most_tokens // 2 or wall - newest.since > OLDEST_SECONDS:
            break
        kept = count
    if kept == whole.turns:
        return _ToRead(_ref(known, whole, 0))
    rest = all_of((known.older, *known.recent[: len(known.recent) - kept]))
    return _ToRead(_ref(known, all_of(known.recent[len(known.recent) - kept :]), 0), _ref(known, rest, kept))


def _ref(known: ConversationChanged, read: Portion, skip: int) -> ContextRef:
    memory = known.memory_size if known.memory is not None else _NOTHING
    return ContextRef(
        newest=known.newest,
        skip=skip,
        turns=read.turns,
        memory=known.memory,
        characters=read.characters + memory.characters,
        longest=read.longest + memory.longest,
        fewest_tokens=read.fewest_tokens + memory.fewest_tokens,
    )


def digest(memory: BlobRef | None) -> str | None:
    """By which two writers of a memory learn of one another."""
    return None if memory is None else memory.digest


def added(known: ConversationChanged, ended: EndedTurn) -> ConversationChanged:
    """With one more turn. Was the memory written anew meanwhile, nothing is left out: it will be summed up again."""
    older, recent, memory, size = known.older, known.recent, known.memory, known.memory_size
    current = digest(known.memory)
    if ended.memory is not None and current in (ended.based_on, ended.memory.digest):
        memory, size = ended.memory, ended.memory_size
    if ended.keeps is not None and current == ended.based_on:
        older, recent = _NOTHING, recent[len(recent) - ended.keeps :] if ended.keeps else ()
    recent = (*recent, ended.size)
    if len(recent) > RECENT:
        older, recent = older.plus(recent[0]), recent[1:]
    return known.changed_to(ended=known.ended + 1, newest=ended.newest, older=older, recent=recent, memory=memory, memory_size=size)
