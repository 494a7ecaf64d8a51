"""Addresses: which ones of others a service may call, whatever a caller, a page or a name server says. One rule for all that calls out.

What is asked for is judged by its spelling (`parts_of`), and where its name leads by the addresses that the connection then really uses
(`shared/resolvers.py`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple
from urllib.parse import urlsplit

Network = IPv4Network | IPv6Network

PORTS = {"http": 80, "https": 443}
_EMBEDDING = tuple(map(ip_network, ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::/96")))
"""IPv6 addresses that stand for an IPv4 one."""
_DOTS = re.compile(r"(?:^|/)(?:\.|%2e){1,2}(?:/|$)", re.IGNORECASE)
_NAME = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)")


class NotAllowed(Exception):
    """This address is not allowed. What is said of it quotes nothing of it."""


class Parts(NamedTuple):
    """Of an address. `host` is a name, or an address in its one usual spelling; `path` holds the query too."""

    scheme: str
    host: str
    port: int
    path: str


def is_public(address: str) -> bool:
    """Whether an address is everybody's: not of this machine, this network, or of several."""
    found = _meant(address)
    return found is not None and found.is_global and not (found.is_multicast or found.is_reserved)


def allows(address: str, networks: Sequence[Network]) -> bool:
    """Whether it is public, or lies in a network that is allowed all the same."""
    if is_public(address):
        return True
    found = _meant(address)
    return found is not None and any(found in network for network in networks if network.version == found.version)


def _meant(address: str) -> IPv4Address | IPv6Address | None:
    """What it is: one that is an IPv4 address in other words as that. None of what is none, or stands for one in a way that hides it."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return None
    if isinstance(found, IPv6Address):
        if found.ipv4_mapped is not None:
            return found.ipv4_mapped
        if any(found in network for network in _EMBEDDING) and not found.is_loopback:
            return None
    return found


def networks_of(text: str) -> tuple[Network, ...]:
    """Networks, separated by commas: `10.1.0.0/16, fd00::/8`. Raises ValueError."""
    return tuple(ip_network(each.strip()) for each in text.split(",") if each.strip())


def parts_of(url: str) -> Parts:
    """An address that everybody reads in the same way. Raises NotAllowed: of other schemes, with somebody's name in it, of odd spelling."""
    if is_odd(url):
        raise NotAllowed("it has characters, or dots, that are not read everywhere in the same way")
    try:
        found, port = urlsplit(url), urlsplit(url).port
    except ValueError:
        raise NotAllowed("it is not an address") from None
    if found.scheme not in PORTS or not found.hostname:
        raise NotAllowed("it is neither http:// nor https://")
    if "@" in found.netloc:
        raise NotAllowed("it names a user")
    if found.fragment:
        raise NotAllowed("it has a part behind #, which is never sent")
    path = (found.path or "/") + (f"?{found.query}" if found.query else "")
    return Parts(found.scheme, _host(found.hostname), PORTS[found.scheme] if port is None else port, path)


def _host(host: str) -> str:
    """A name, or an address as it is usually written: 127.1, 0x7f000001 and 017700000001 are addresses only to some."""
    if ":" in host or _NUMBER.fullmatch(host.rpartition(".")[2]):
        try:
            if str(ip_address(host)) == host and "%" not in host:
                return host
        except ValueError:
            pass
        raise NotAllowed("its host is an address in an odd spelling")
    if len(host) > 253 or not _NAME.fullmatch(host):
        raise NotAllowed("its host is not a name")
    return host


def is_odd(url: str) -> bool:
    """What servers and proxies read in different ways."""
    odd = "\\" in url or not url.isascii() or not url.isprintable() or " " in url
    return odd or _DOTS.search(url.partition("?")[0].partition("://")[2].partition("/")[2]) is not None


def is_address(host: str) -> bool:
    """Whether a host that `parts_of` gave is an address, which no resolver is asked for."""
    return ":" in host or host.rpartition(".")[2].isdigit()
