"""The audit chain: each valid event of a home is an entry that holds the hash of the entry before it. Pure.

Who changes, removes or puts in an entry must change all that follow, up to the head, which `tutti audit verify` prints: kept elsewhere
it proves the rest. An entry holds the digest of its event, so that as long as Kafka has the event the two can be compared.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import Any

from pydantic_core import to_json

BLOCK = 256
"""Entries lie in documents of so many offsets."""
GENESIS = "0" * 32
_BESIDE = ("chain", "tenant")
"""Not hashed: the hash itself; and whose the job is, which is derived and may be known only later."""


def home_name(topic_id: str, partition: int) -> str:
    """A home in the store: a topic that was made anew has the same offsets again, and is another one."""
    return f"{digest(topic_id.encode())[:8]}.{partition}"


def digest(value: bytes) -> str:
    """Of an event's bytes."""
    return sha256(value).hexdigest()[:32]


def linked(before: str, entry: dict[str, Any]) -> str:
    """The hash of an entry behind the one whose hash is `before`: of that hash and the entry's fields as JSON, pairs in order of names."""
    told = sorted((name, value) for name, value in entry.items() if name not in _BESIDE)
    return sha256(before.encode() + to_json(told)).hexdigest()[:32]


def broken(entries: Iterable[dict[str, Any]], before: str | None = None) -> str | None:
    """Why these, in order of their offsets, are not a chain; None: they are. `before`: the hash that the first must follow, if known.

    What the first one follows cannot be told without it: then the chain is checked from the second on.
    """
    for entry in entries:
        if before is not None and linked(before, entry) != entry["chain"]:
            return f"the entry at offset {entry['offset']} does not follow the one before it"
        before = entry["chain"]
    return None
