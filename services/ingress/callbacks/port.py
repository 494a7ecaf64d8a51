"""Post: how deliveries go out, and what comes of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol


class Heard(NamedTuple):
    """`why`: in a few words, where it was not taken. `again_seconds`: the receiver's own wish."""

    taken: bool
    why: str = ""
    again_seconds: float | None = None
    gone: bool = False
    """The receiver wants no more of it."""


class Post(Protocol):
    """How deliveries go out. Never raises but when cancelled."""

    async def __call__(self, url: str, headers: Mapping[str, str], body: bytes) -> Heard: ...
    async def close(self) -> None: ...
