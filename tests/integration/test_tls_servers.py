"""TLS of the services' own servers, of Redis and of the sink's store: it works, and what is wrong ends the process or is told."""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

from infra.native import http
from infra.native.paths import StackHome
from infra.native.ports import free_ports
from infra.native.services import ServiceProcess
from infra.native.waiting import wait_until
from services.sink.mongo import MongoStore
from shared.errors import ConfigurationError, StoreAway
from shared.redis_client import ANYTHING, RedisStore
from shared.tls import Pair, client_context, server_context
from tests.support.certificates import Authority, Signed


def own(signed: Signed) -> dict[str, str]:
    return {"TUTTI_TLS__DELAY__CERT_FILE": signed.files.cert_file, "TUTTI_TLS__DELAY__KEY_FILE": signed.files.key_file}


async def test_a_service_answers_over_tls_only(tmp_path: Path) -> None:
    authority, strangers = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    signed, port = authority.sign("delay", days=3), free_ports(1)[0]
    environment = {"TUTTI_KAFKA_SERVERS": "127.0.0.1:1", **own(signed)}
    service = ServiceProcess("delay", StackHome(tmp_path), port, environment, dies_with_parent=True)
    service.start()
    try:
        assert service.url.startswith("https")
        assert await asyncio.to_thread(wait_until, lambda: http.answers(f"{service.url}/healthz"), 30.0, every_seconds=0.2)
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{service.url}/metrics", ssl=client_context(str(authority.file))) as response:
                told = (await response.text()).partition('tutti_certificate_expires_timestamp_seconds{of="delay"} ')[2]
                assert float(told.split()[0]) == signed.ends
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await session.get(f"{service.url}/healthz", ssl=client_context(str(strangers.file)))
            with pytest.raises(aiohttp.ClientError):
                await session.get(f"http://127.0.0.1:{port}/healthz")
    finally:
        await asyncio.to_thread(service.stop, 5.0)


@pytest.mark.parametrize("what", ["no file", "another's key"])
def test_a_certificate_that_cannot_be_used_ends_the_service(tmp_path: Path, what: str) -> None:
    authority = Authority(tmp_path)
    files = authority.sign("a").files
    other = str(tmp_path / "none") if what == "no file" else authority.sign("b").files.key_file
    settings = {"TUTTI_TLS__DELAY__CERT_FILE": files.cert_file, "TUTTI_TLS__DELAY__KEY_FILE": other, "TUTTI_HTTP_PORT": "0"}
    command = [sys.executable, "-m", "services.delay"]
    ended = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 78
    assert "a.pem" in ended.stderr or "none" in ended.stderr


@asynccontextmanager
async def encrypted(url: str, context: ssl.SSLContext) -> AsyncIterator[int]:
    """A port before a server that speaks no TLS itself, as many are run."""
    address = urlsplit(url)

    async def one_way(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while part := await reader.read(65_536):
                writer.write(part)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection(address.hostname, address.port)
        await asyncio.gather(one_way(reader, inner_writer), one_way(inner_reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


leaves_refused_sockets = pytest.mark.filterwarnings("ignore:unclosed <s:ResourceWarning")
"""Clients leave the sockets of refused handshakes to the collector."""


@pytest.mark.redis
@leaves_refused_sockets
async def test_redis_over_tls(redis_url: str, tmp_path: Path) -> None:
    authority, strangers, context = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs"), server_context()
    Pair("redis", authority.sign("redis").files, context)
    async with encrypted(redis_url, context) as port:
        right = RedisStore(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={authority.file}", connections=2, timeout_seconds=5)
        assert await right.redis.ping()
        await right.close()
        wrong = RedisStore(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={strangers.file}", connections=2, timeout_seconds=5)
        with pytest.raises(StoreAway):
            await wrong.asked(wrong.redis.ping(), ANYTHING)
        await wrong.close()


@pytest.mark.mongo
@leaves_refused_sockets
async def test_the_sinks_store_over_tls(mongo_url: str, tmp_path: Path) -> None:
    authority, strangers, context = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs"), server_context()
    Pair("mongo", authority.sign("mongo").files, context)
    async with encrypted(mongo_url, context) as port:
        at = f"mongodb://127.0.0.1:{port}/?directConnection=true&tls=true&tlsCAFile="
        right = MongoStore(f"{at}{authority.file}", "tls", 5.0)
        await right.ping()
        await right.close()
        wrong = MongoStore(f"{at}{strangers.file}", "tls", 5.0)
        with pytest.raises(StoreAway):
            await wrong.ping()
        await wrong.close()


@pytest.mark.parametrize("options", ["tls=true&tlsCAFile=/nowhere", "tls=perhaps"])
def test_options_that_would_leave_the_store_without_tls_are_refused(options: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        MongoStore(f"mongodb://me:SECRET@localhost/?{options}", "tls", 5.0)
    assert "SECRET" not in caught.value.message


@pytest.mark.parametrize(
    "url", ["rediss://:SECRET@h/0?ssl_ca_certs=/nowhere", "rediss://:SECRET@h/0?ssl_cert_reqs=perhaps", "http://:SECRET@h"]
)
def test_an_address_of_redis_that_cannot_be_used(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RedisStore(url, connections=1, timeout_seconds=1)
    assert "SECRET" not in caught.value.message
