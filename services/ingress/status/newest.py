"""Newest: of each conversation and batch its newest event, which is all of it: a fold of `job-events`, from the planners' watermark on,
at or before which all that are kept lie.

Their texts are not kept here: they lie in blobs, and are read when somebody asks.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, TypeVar

from shared.contracts.batch import BatchChanged
from shared.contracts.conversation import ConversationChanged
from shared.telemetry import logs

_log = logs.get(__name__)

MOST = 50_000
"""Of about 1 kB each; of more, the longest unused are not seen here."""

E = TypeVar("E", BatchChanged, ConversationChanged)


class Newest(Generic[E]):
    """(tenant, name) → its newest event. `named`: its field with the name."""

    def __init__(self, event: type[E], named: str) -> None:
        self._event: type[E] = event
        self._named = named
        self._known: OrderedDict[tuple[str, str], E] = OrderedDict()

    def __iter__(self) -> Iterator[E]:
        """Those used last first."""
        return reversed(self._known.values())

    def get(self, tenant: str, name: str) -> E | None:
        return self._known.get((tenant, name))

    def on_event(self, value: bytes) -> None:
        """A valid one. Raises ValueError when it cannot be read."""
        changed = self._event.model_validate_json(value)
        key = changed.tenant, getattr(changed, self._named)
        self._known.pop(key, None)
        if not changed.gone:
            self._known[key] = changed
        if len(self._known) > MOST:
            self._known.popitem(last=False)
            _log.warning("not_listed", what=self._named, most=MOST)
