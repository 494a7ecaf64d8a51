"""Talks: the newest of each, as a fold of `job-events`; from the planners' watermark on, at or before which all that are kept lie.

Their texts are not kept here: they lie in blobs, and are read when somebody asks.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from shared.contracts.conversation import ConversationChanged
from shared.telemetry import logs

_log = logs.get(__name__)

MOST = 50_000
"""Of about 1 kB each; of more, the longest unused are not seen here."""


class Talks:
    """(tenant, name) → its newest event."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str], ConversationChanged] = OrderedDict()

    def __iter__(self) -> Iterator[ConversationChanged]:
        """Those used last first."""
        return reversed(self._known.values())

    def get(self, tenant: str, name: str) -> ConversationChanged | None:
        return self._known.get((tenant, name))

    def on_event(self, value: bytes) -> None:
        """A valid one. Raises ValueError when it cannot be read."""
        changed = ConversationChanged.model_validate_json(value)
        key = changed.tenant, changed.conversation
        self._known.pop(key, None)
        if not changed.gone:
            self._known[key] = changed
        if len(self._known) > MOST:
            self._known.popitem(last=False)
            _log.warning("conversation_not_listed", most=MOST)
