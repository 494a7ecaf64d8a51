"""Host lanes: what is to be sent to hosts of others waits by host, so that no receiver holds another one up. Pure.

A host has few sends at once, one while it fails; a tenant has more, over all its hosts. Whoever finds no room is told so.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Generic, NamedTuple, Protocol, TypeVar

from shared.contracts.base import Ordinal

FAILING = 3
"""Failures in a row."""
_REMEMBERED = 1_000


class _SentOut(Protocol):
    """What is sent somewhere for somebody."""

    @property
    def host(self) -> str: ...
    @property
    def tenant(self) -> str: ...


class LaneBounds(NamedTuple):
    """Sends at once, and what is held, waiting ones with those: in all, of a tenant, of a host."""

    sends: Ordinal = 64
    tenant_sends: Ordinal = 16
    host_sends: Ordinal = 4
    held: Ordinal = 512
    tenant_held: Ordinal = 128
    host_held: Ordinal = 64


P = TypeVar("P", bound=_SentOut)


class HostLanes(Generic[P]):
    """All that one process sends so."""

    def __init__(self, bounds: LaneBounds) -> None:
        self._bounds = bounds
        self._waiting: dict[int, P] = {}
        self._held: Counter[tuple[str, str]] = Counter()
        self._running: Counter[tuple[str, str]] = Counter()
        self._sends = self._number = 0
        self._failures: OrderedDict[str, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waiting) + self._sends

    @property
    def full(self) -> bool:
        """Nothing more should be taken on."""
        return len(self) >= self._bounds.held

    def admit(self, sent: P) -> bool:
        """It waits from now on; False: there is no room for it, or its receiver fails and is being tried already."""
        host, tenant = _keys(sent)
        most = 1 if self._fails(sent) else self._bounds.host_held
        if self._held[host] >= most or self._held[tenant] >= self._bounds.tenant_held:
            return False
        self._number += 1
        self._waiting[self._number] = sent
        self._held.update((host, tenant))
        return True

    def next(self) -> P | None:
        """The first whose turn it is: it is on its way from now on."""
        if self._sends >= self._bounds.sends:
            return None
        for number, sent in self._waiting.items():
            host, tenant = _keys(sent)
            most = 1 if self._fails(sent) else self._bounds.host_sends
            if self._running[host] < most and self._running[tenant] < self._bounds.tenant_sends:
                del self._waiting[number]
                self._running.update((host, tenant))
                self._sends += 1
                return sent
        return None

    def done(self, sent: P, *, good: bool) -> None:
        """It was tried."""
        self._sends -= 1
        _less(self._running, sent)
        _less(self._held, sent)
        failures = 0 if good else self._failures.get(sent.host, 0) + 1
        self._failures.pop(sent.host, None)
        if failures:
            self._failures[sent.host] = failures
            if len(self._failures) > _REMEMBERED:
                self._failures.popitem(last=False)

    def take_out(self, unwanted: Callable[[P], bool]) -> list[P]:
        """Those that wait and are unwanted: they wait no longer."""
        found = {number: sent for number, sent in self._waiting.items() if unwanted(sent)}
        for number, sent in found.items():
            del self._waiting[number]
            _less(self._held, sent)
        return list(found.values())

    def _fails(self, sent: P) -> bool:
        return self._failures.get(sent.host, 0) >= FAILING


def _keys(sent: _SentOut) -> tuple[tuple[str, str], tuple[str, str]]:
    return ("host", sent.host), ("tenant", sent.tenant)


def _less(counts: Counter[tuple[str, str]], sent: _SentOut) -> None:
    for key in _keys(sent):
        counts[key] -= 1
        if not counts[key]:
            del counts[key]
