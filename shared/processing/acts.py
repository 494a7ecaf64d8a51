"""Acts of administrators: told on `acts` before they are done, by whoever does them; the sink keeps them (`tutti audit acts`)."""

from __future__ import annotations

from shared.contracts.act import Act
from shared.contracts.headers import envelope
from shared.kafka.port import Message
from shared.topics import Topics


def told(topics: Topics, act: Act) -> Message:
    """To be sent, and acknowledged, before what it tells of is done."""
    return Message(topics.acts, act.to_bytes(), f"{act.kind}/{act.name}".encode(), 0, envelope("act"))
