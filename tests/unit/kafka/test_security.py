"""How Kafka is reached: what contradicts is told by its setting's name, what cannot be used is told at start, and no password is shown."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiokafka.errors import KafkaError

from shared.clock import SystemClock
from shared.errors import ConfigurationError
from shared.kafka.client.aio import AioLog
from shared.kafka.client.security import Security, refusal, security_of
from shared.settings import KafkaSettings
from shared.tls import Pair, client_context, server_context
from tests.support.certificates import Authority

SECRET = "nobody-may-see-it"
SASL: dict[str, Any] = {"kafka_security_protocol": "SASL_SSL", "kafka_sasl_username": "me", "kafka_sasl_password": SECRET}


def settings(**given: Any) -> KafkaSettings:
    return KafkaSettings.model_validate(given)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"kafka_ca_file": "/ca.pem"}, "TUTTI_KAFKA_CA_FILE is set"),
    ({"kafka_cert_file": "/c", "kafka_key_file": "/k"}, "TUTTI_KAFKA_CERT_FILE is set"),
    ({"kafka_sasl_username": "me"}, "TUTTI_KAFKA_SASL_USERNAME is set"),
    ({"kafka_security_protocol": "SSL", "kafka_sasl_password": SECRET}, "TUTTI_KAFKA_SASL_PASSWORD is set"),
    ({"kafka_security_protocol": "SSL", "kafka_cert_file": "/c"}, "belong together"),
    ({**SASL, "kafka_sasl_username": ""}, "TUTTI_KAFKA_SASL_USERNAME is missing"),
    ({**SASL, "kafka_sasl_password": ""}, "one of TUTTI_KAFKA_SASL_PASSWORD"),
    ({**SASL, "kafka_sasl_password_file": "/p"}, "and not both"),
    ({**SASL, "kafka_sasl_password": "", "kafka_sasl_password_file": "/nowhere/p"}, "TUTTI_KAFKA_SASL_PASSWORD_FILE"),
    ({**SASL, "kafka_ca_file": "/nowhere/ca"}, "authorities"),
]


@pytest.mark.parametrize(("given", "told"), WRONG)
def test_what_contradicts_or_cannot_be_used_is_told(given: dict[str, Any], told: str) -> None:
    found = settings(**given)
    with pytest.raises(ConfigurationError) as caught:
        security_of(found)
    assert told in caught.value.message
    assert SECRET not in caught.value.message + repr(found)


def test_options_of_each_protocol(tmp_path: Path) -> None:
    authority, password = Authority(tmp_path), tmp_path / "password"
    password.write_text(f"{SECRET}\n")
    own = authority.sign("me").files
    assert security_of(settings()) == Security({"security_protocol": "PLAINTEXT"})
    mutual = {"kafka_ca_file": str(authority.file), "kafka_cert_file": own.cert_file, "kafka_key_file": own.key_file}
    found = security_of(settings(kafka_security_protocol="SSL", **mutual))
    assert isinstance(found.options["ssl_context"], ssl.SSLContext)
    assert len(found.pairs) == 1
    filed = security_of(settings(**{**SASL, "kafka_sasl_password": "", "kafka_sasl_password_file": str(password)}))
    assert filed.options["sasl_plain_password"] == SECRET
    assert filed.options["sasl_mechanism"] == "SCRAM-SHA-512"
    assert SECRET not in repr(filed)


@pytest.mark.parametrize("written", [b"", b" \n", b"\xff\xfe"])
def test_a_password_file_without_a_password(tmp_path: Path, written: bytes) -> None:
    path = tmp_path / "password"
    path.write_bytes(written)
    with pytest.raises(ConfigurationError, match="TUTTI_KAFKA_SASL_PASSWORD_FILE"):
        security_of(settings(**{**SASL, "kafka_sasl_password": "", "kafka_sasl_password_file": str(path)}))


@asynccontextmanager
async def server(context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """One that closes what it takes, as a broker does that is spoken to in the wrong way."""

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.close()

    serving = await asyncio.start_server(hang_up, "127.0.0.1", 0, ssl=context)
    try:
        yield f"127.0.0.1:{serving.sockets[0].getsockname()[1]}"
    finally:
        serving.close()
        await serving.wait_closed()


def tls(ca_file: Path) -> Security:
    return Security({"security_protocol": "SSL", "ssl_context": client_context(str(ca_file))})


async def test_a_certificate_that_has_ended_is_told(tmp_path: Path) -> None:
    authority, context = Authority(tmp_path), server_context()
    Pair("ended", authority.sign("ended", days=-1).files, context)
    async with server(context) as at:
        assert "certificate has expired" in (await refusal(at, tls(authority.file)) or "")


async def test_a_certificate_of_strangers_is_told(tmp_path: Path) -> None:
    context = server_context()
    Pair("strange", Authority(tmp_path / "a").sign("strange").files, context)
    async with server(context) as at:
        assert "does not hold" in (await refusal(at, tls(Authority(tmp_path / "b").file)) or "")


async def test_a_server_that_wants_another_protocol_is_told(tmp_path: Path) -> None:
    async with server() as at:
        assert "another TUTTI_KAFKA_SECURITY_PROTOCOL" in (await refusal(at, Security({"security_protocol": "PLAINTEXT"})) or "")
        told = await refusal(at, tls(Authority(tmp_path).file))
        assert told is None or "TUTTI_KAFKA_SECURITY_PROTOCOL" in told


@pytest.mark.parametrize("at", ["127.0.0.1:1", "nowhere.invalid:9092", "no-port", ":"])
async def test_of_nobody_there_is_nothing_to_tell(at: str) -> None:
    assert await refusal(at, Security({"security_protocol": "PLAINTEXT"})) is None


async def test_the_reason_is_kept_until_somebody_is_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    class Client:
        tries = 0

        async def start(self) -> None:
            Client.tries += 1
            if Client.tries < 3:
                raise KafkaError

    async def stop(_: Client) -> None: ...

    seen: list[str | None] = []
    log = AioLog("127.0.0.1:1", SystemClock())

    async def told(*_: object) -> str:
        return "wrong password"

    def create() -> Client:
        seen.append(log.trouble)
        return Client()

    monkeypatch.setattr("shared.kafka.client.aio.refusal", told)
    await log._connect(create, stop)
    assert seen == [None, "wrong password", "wrong password"]
    assert log.trouble is None
