"""Certificates: their end is read as a library reads it, renewed ones are presented to whoever connects next, broken ones are told."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from shared.errors import ConfigurationError
from shared.tls import Files, Pair, client_context, not_after, server_context
from tests.support.certificates import Authority, Signed


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


def presented(server: ssl.SSLContext, client: ssl.SSLContext) -> Mapping[str, object]:
    """What the server's context shows a client that connects now. Raises ssl.SSLError."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [server.wrap_bio(to_server, to_client, server_side=True), client.wrap_bio(to_client, to_server, server_hostname="localhost")]
    for _ in range(6):
        for end in reversed(ends):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    found = ends[1].getpeercert()
    assert found
    return found


@pytest.mark.parametrize("days", [-400, -1, 1, 20_000])
def test_the_end_of_a_certificate(authority: Authority, days: int) -> None:
    signed = authority.sign(f"leaf{days}", days=days)
    assert not_after(signed.files.cert_file) == signed.ends
    assert not_after(str(signed.both)) == signed.ends


def test_a_renewed_certificate_is_presented(authority: Authority, tmp_path: Path) -> None:
    files = Files(cert_file=str(tmp_path / "c.pem"), key_file=str(tmp_path / "k.pem"))
    first, second = authority.sign("first", days=1), authority.sign("second", days=9)

    def put(signed: Signed, *names: str) -> None:
        for name in names:
            Path(getattr(files, name)).write_bytes(Path(getattr(signed.files, name)).read_bytes())
            os.utime(getattr(files, name), ns=(put.clock, put.clock))  # type: ignore[attr-defined]
            put.clock += 1_000_000_000  # type: ignore[attr-defined]

    put.clock = 1_000_000_000_000_000_000  # type: ignore[attr-defined]
    put(first, "cert_file", "key_file")
    server, client = server_context(), client_context(str(authority.file))
    pair = Pair("test", files, server)
    assert "first" in str(presented(server, client))
    put(second, "cert_file")
    pair.refresh()  # its key is not here yet
    assert "first" in str(presented(server, client))
    put(second, "key_file")
    pair.refresh()
    assert "second" in str(presented(server, client))
    assert REGISTRY.get_sample_value("tutti_certificate_expires_timestamp_seconds", {"of": "test"}) == second.ends
    Path(files.cert_file).unlink()
    pair.refresh()
    assert "second" in str(presented(server, client))


def test_an_ended_certificate_and_a_strange_one_are_refused(authority: Authority, tmp_path: Path) -> None:
    for signed, trusted in ((authority.sign("ended", days=-1), authority), (authority.sign("strange"), Authority(tmp_path))):
        server = server_context()
        Pair("refused", signed.files, server)
        with pytest.raises(ssl.SSLCertVerificationError):
            presented(server, client_context(str(trusted.file)))


def test_what_cannot_be_used_is_told_without_its_content(authority: Authority, tmp_path: Path) -> None:
    good, other, nonsense = authority.sign("good").files, authority.sign("other").files, tmp_path / "nonsense.pem"
    nonsense.write_text("SECRET of somebody")
    wrong = [
        Files(cert_file=good.cert_file, key_file=other.key_file),
        Files(cert_file=str(nonsense), key_file=good.key_file),
        Files(cert_file=good.cert_file, key_file=str(nonsense)),
        Files(cert_file=str(tmp_path / "none"), key_file=good.key_file),
        Files(cert_file=good.cert_file, key_file=str(tmp_path)),
    ]
    for files in wrong:
        with pytest.raises(ConfigurationError) as caught:
            Pair("wrong", files, server_context())
        assert "SECRET" not in caught.value.message
        assert str(tmp_path) in caught.value.message or "key" in caught.value.message
    for path in (nonsense, tmp_path / "none", tmp_path):
        with pytest.raises(ConfigurationError, match="authorities"):
            client_context(str(path))


@given(st.binary(max_size=80))
def test_any_bytes_are_a_certificate_or_told(tmp_path_factory: pytest.TempPathFactory, der: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "odd.pem"
    path.write_text(ssl.DER_cert_to_PEM_cert(der))
    with suppress(ValueError):
        not_after(str(path))
