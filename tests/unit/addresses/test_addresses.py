"""Addresses: no spelling of one that is not public passes for one that is."""

from __future__ import annotations

import pytest

from shared.addresses import NotAllowed, Parts, allows, is_address, is_public, networks_of, parts_of


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("169.254.169.254", False),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("240.0.0.1", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:93.184.216.34", True),
        ("64:ff9b::a00:1", False),
        ("2002:a00:1::", False),
        ("::7f00:1", False),
        ("2001:0:a00:1::", False),
        ("ff02::1", False),
        ("no address", False),
    ],
)
def test_public_addresses(address: str, public: bool) -> None:
    """Everybody's: no other spelling of one that is not."""
    assert is_public(address) == public


@pytest.mark.parametrize(
    ("address", "networks", "fits"),
    [
        ("10.1.2.3", "10.1.0.0/16", True),
        ("10.2.2.3", "10.1.0.0/16,192.168.0.0/16", False),
        ("::ffff:10.1.2.3", "10.1.0.0/16", True),
        ("fd00::1", "fd00::/8", True),
        ("127.0.0.1", "fd00::/8", False),
        ("::1", "::1/128", True),
        ("2002:a01:1::", "2002::/16", False),
        ("93.184.216.34", "", True),
    ],
)
def test_networks_that_are_allowed_all_the_same(address: str, networks: str, fits: bool) -> None:
    assert allows(address, networks_of(networks)) == fits


@pytest.mark.parametrize("text", ["10.0.0.1/8", "x", "10.0.0.0/33"])
def test_what_is_no_network(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        networks_of(text)


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("https://a.example/x?y=1", Parts("https", "a.example", 443, "/x?y=1")),
        ("http://A.example", Parts("http", "a.example", 80, "/")),
        ("https://a.example:8443/", Parts("https", "a.example", 8443, "/")),
        ("https://1.2.3.4/", Parts("https", "1.2.3.4", 443, "/")),
        ("https://[2606:2800::1]/", Parts("https", "2606:2800::1", 443, "/")),
        ("https://xn--bcher-kva.example/", Parts("https", "xn--bcher-kva.example", 443, "/")),
    ],
)
def test_what_everybody_reads_in_the_same_way(url: str, parts: Parts) -> None:
    assert parts_of(url) == parts
    assert is_address(parts.host) == (parts.host in ("1.2.3.4", "2606:2800::1"))


@pytest.mark.parametrize(
    "url",
    [
        "ftp://a.example/",
        "//a.example/",
        "https:///x",
        "https://user@a.example/",
        "https://user:pass@a.example/",
        "https://a.example@127.0.0.1/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0x7f.1/",
        "https://017700000001/",
        "https://127.1/",
        "https://127.0.0.01/",
        "https://0177.0.0.1/",
        "https://1.2.3.4./",
        "https://[::ffff:0:1.2.3.4]/",
        "https://[0:0::1]/",
        "https://[fe80::1%25eth0]/",
        "https://a.example./",
        "https://a..example/",
        "https://-a.example/",
        "https://b\u00fccher.example/",
        "https://a.example\\@b.example/",
        "https://a.example/x/../y",
        "https://a.example/x/%2e%2e/y",
        "https://a.example/ x",
        "https://a.example/x\n",
        "https://a.example/#part",
        "https://a.example:99999/",
        "https://a.example:x/",
        "https://%61.example/",
        "https://" + "a" * 64 + ".example/",
    ],
)
def test_odd_addresses_are_refused(url: str) -> None:
    with pytest.raises(NotAllowed):
        parts_of(url)
