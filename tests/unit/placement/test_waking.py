"""Whom a router wakes: the policy alone, and the packet's bytes over loopback."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from pydantic import ValidationError

from services.router.wake_calls import broadcast
from shared.contracts.node import Node
from shared.placement.demand import Demand
from shared.placement.waking import PORT, Wait, Waker, WakeSettings, destinations, magic_packet
from tests.support.routing import MODEL, node

RULES = WakeSettings(patience_seconds=60, gap_seconds=5, coming_seconds=100, longest_seconds=1000)
SMALL, LARGE = Demand("chat", "chat", MODEL.name), Demand("chat", "chat", "large:70b")


def sleeper(name: str, decode: float = 20.0, **changes: Any) -> Node:
    models = (MODEL.model_copy(update={"decode_tokens_per_second": decode}),)
    return node(name, **({"asleep": True, "mac": "aa:bb:cc:00:11:22", "models": models} | changes))


def names(waker: Waker, sleeping: list[Node], *looks: tuple[float, list[Wait]]) -> list[str | None]:
    return [None if woken is None else woken.id for now, waits in looks for woken in [waker.due(waits, sleeping, now)]]


def test_a_step_that_no_awake_node_could_run_wakes_the_fastest_that_could() -> None:
    """At once; one that has another model, is drained, is nobody's to wake or yields to its owner stays asleep."""
    others = [
        sleeper("drained", 99, draining=True),
        sleeper("no-address", 99, mac=None),
        sleeper("yields", 99, yields="outside its hours"),
        sleeper("other", 99, models=(MODEL.model_copy(update={"name": "other:1b"}),)),
    ]
    sleeping = [*others, sleeper("slow", 10), sleeper("fast", 30), sleeper("away", 20, reachable=False)]
    assert names(Waker(RULES), sleeping, (0, [Wait(SMALL, 0.1, True)])) == ["fast"]
    assert names(Waker(RULES), sleeping, (0, [Wait(LARGE, 999, True)]), (1, [])) == [None, None]


def test_one_that_could_be_served_waits_a_while_first() -> None:
    """Awake nodes are busy: that is no reason yet; and who has no node at all goes first."""
    sleeping = [sleeper("a"), sleeper("b", models=(MODEL.model_copy(update={"name": "large:70b"}),))]
    looks = [(0.0, [Wait(SMALL, 59, False)]), (1.0, [Wait(SMALL, 60, False), Wait(LARGE, 0, True)]), (7.0, [Wait(SMALL, 66, False)])]
    assert names(Waker(RULES), sleeping, *looks) == [None, "b", "a"]


def test_while_one_is_on_its_way_no_other_is_woken_for_the_same() -> None:
    """A thousand looks, one burst; then another node, then the first again, after pauses that grow."""
    waker, sleeping, woken = Waker(RULES), [sleeper("a", 30), sleeper("b", 10)], []
    for now in range(3_000):
        found = waker.due([Wait(SMALL, now, True)], sleeping, float(now))
        woken += [(now, found.id)] if found else []
    assert woken[:4] == [(0, "a"), (100, "b"), (200, "a"), (300, "b")]
    gaps = [later - earlier for (earlier, _), (later, _) in zip(woken, woken[2:], strict=False)]
    assert max(gaps) <= 1_000 + 100
    assert [name for _, name in woken].count("a") <= 6


def test_who_wakes_up_is_new_the_next_time() -> None:
    """Its pauses end with its sleep."""
    waker, one = Waker(RULES), [sleeper("a")]
    wait = [Wait(SMALL, 1, True)]
    assert names(waker, one, (0, wait), (100, wait), (200, wait)) == ["a", "a", None]
    assert names(waker, [], (250, wait)) == [None]
    assert names(waker, one, (251, wait)) == ["a"]


def test_between_two_bursts_lies_a_gap() -> None:
    """However many sleep and however much waits."""
    demands = [Demand("chat", "chat", f"m{number}:1b") for number in range(20)]
    sleeping = [sleeper(f"n{n}", models=(MODEL.model_copy(update={"name": f"m{n}:1b"}),)) for n in range(20)]
    waker = Waker(RULES)
    woken = [now for now in range(60) if waker.due([Wait(d, 1, True) for d in demands], sleeping, float(now))]
    assert woken == list(range(0, 60, 5))


def test_a_packet_is_six_ones_and_the_address_sixteen_times() -> None:
    """As every interface's manual has it; a burst reaches each destination, over loopback here; one that is none keeps back nothing."""
    packet = magic_packet("01:23:45:67:89:ab")
    assert packet == bytes.fromhex("ff" * 6 + "0123456789ab" * 16)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(5)
        broadcast(packet, [("127.0.0.1", listener.getsockname()[1])])
        assert [listener.recv(2_000) for _ in range(3)] == [packet] * 3


def test_destinations_are_an_operators_and_are_checked_at_the_start() -> None:
    """Addresses only: a name could lead anywhere, a record never does."""
    assert destinations("192.168.1.255, 10.0.0.255:7") == [("192.168.1.255", PORT), ("10.0.0.255", 7)]
    assert destinations("") == []
    for odd in ("host", "1.2.3", "1.2.3.256", "1.2.3.4:0", "1.2.3.4:x", "1.2.3.4:", "::1", "1.2.3.4:99999", ",".join(["1.2.3.4"] * 17)):
        with pytest.raises(ValidationError):
            WakeSettings(addresses=odd)
