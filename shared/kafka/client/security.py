"""From settings to what every Kafka client is given: TLS or not, and who it is; and why a broker did not let it in.

A password comes by a variable or in a file, is never shown, and is read once: whoever changes it restarts the services one by one.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiokafka import errors as kafka
from aiokafka.conn import create_conn
from aiokafka.protocol.metadata import MetadataRequest

from shared.errors import ConfigurationError
from shared.settings import KafkaSettings
from shared.tls import Files, Pair, client_context

_PASSWORD_BYTES = 4096
_ASK_SECONDS = 3.0
_REFUSED = (kafka.SaslAuthenticationFailed, kafka.AuthenticationFailedError)
_DENIED = (kafka.ClusterAuthorizationFailedError, kafka.TopicAuthorizationFailedError, kafka.GroupAuthorizationFailedError)


@dataclass(frozen=True, slots=True)
class Security:
    """What every client of one process is given: aiokafka's options."""

    options: dict[str, Any] = field(default_factory=dict, repr=False)
    pairs: tuple[Pair, ...] = ()
    """The client's own certificate, which may be renewed (`shared.tls.watch`)."""


def security_of(settings: KafkaSettings) -> Security:
    """Reads the files. Raises ConfigurationError: of settings that contradict each other, of files that cannot be used."""
    _check(settings)
    protocol = settings.kafka_security_protocol
    options: dict[str, Any] = {"security_protocol": protocol}
    pairs: tuple[Pair, ...] = ()
    if protocol.endswith("SSL"):
        options["ssl_context"] = context = client_context(settings.kafka_ca_file)
        if settings.kafka_cert_file:
            pairs = (Pair("kafka", Files(cert_file=settings.kafka_cert_file, key_file=settings.kafka_key_file), context),)
    if protocol.startswith("SASL"):
        options["sasl_mechanism"] = settings.kafka_sasl_mechanism
        options |= {"sasl_plain_username": settings.kafka_sasl_username, "sasl_plain_password": _password(settings)}
    return Security(options, pairs)


def _check(settings: KafkaSettings) -> None:
    """What is given and would not be used is a mistake, too: somebody believes himself safe by it."""
    protocol, password_file = settings.kafka_security_protocol, settings.kafka_sasl_password_file
    given = bool(settings.kafka_sasl_password.get_secret_value())
    needless: dict[str, dict[str, object]] = {
        "SSL": {"CA_FILE": settings.kafka_ca_file, "CERT_FILE": settings.kafka_cert_file, "KEY_FILE": settings.kafka_key_file},
        "SASL": {"SASL_USERNAME": settings.kafka_sasl_username, "SASL_PASSWORD": given, "SASL_PASSWORD_FILE": password_file},
    }
    for part, names in needless.items():
        found = next((name for name, value in names.items() if value), None)
        if found is not None and part not in protocol:
            raise ConfigurationError(f"TUTTI_KAFKA_{found} is set, but TUTTI_KAFKA_SECURITY_PROTOCOL is {protocol}, without {part}")
    if bool(settings.kafka_cert_file) != bool(settings.kafka_key_file):
        raise ConfigurationError("TUTTI_KAFKA_CERT_FILE and TUTTI_KAFKA_KEY_FILE belong together")
    if "SASL" not in protocol:
        return
    if not settings.kafka_sasl_username:
        raise ConfigurationError(f"TUTTI_KAFKA_SECURITY_PROTOCOL is {protocol}, and TUTTI_KAFKA_SASL_USERNAME is missing")
    if given == bool(password_file):
        raise ConfigurationError("one of TUTTI_KAFKA_SASL_PASSWORD and TUTTI_KAFKA_SASL_PASSWORD_FILE is needed, and not both")


def _password(settings: KafkaSettings) -> str:
    if not settings.kafka_sasl_password_file:
        return settings.kafka_sasl_password.get_secret_value()
    path = Path(settings.kafka_sasl_password_file)
    try:
        with path.open("rb") as file:
            password = file.read(_PASSWORD_BYTES).decode().strip()
    except OSError as error:
        raise ConfigurationError(f"TUTTI_KAFKA_SASL_PASSWORD_FILE: {path} cannot be read: {error.strerror}") from None
    except UnicodeError:
        raise ConfigurationError(f"TUTTI_KAFKA_SASL_PASSWORD_FILE: {path} is no text") from None
    if not password:
        raise ConfigurationError(f"TUTTI_KAFKA_SASL_PASSWORD_FILE: {path} is empty")
    return password


def denial(error: BaseException, security: Security) -> str | None:
    """What a broker that let us in does not let us do, for people; None of any other error."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, _DENIED):
        found = found.__cause__
    if found is None:
        return None
    who = security.options.get("sasl_plain_username", "this client")
    return f"Kafka does not allow {who!r} what this service needs (`tutti topics acls`): {type(found).__name__}"


async def refusal(server: str, security: Security) -> str | None:
    """Why the broker at `server` does not let us in, for people; None when it does, or nobody answers there. The client itself only says
    that it could not connect.
    """
    host, _, port = server.rpartition(":")
    try:
        connection = await create_conn(host.strip("[]"), int(port), request_timeout_ms=int(_ASK_SECONDS * 1000), **security.options)
        try:
            await connection.send(MetadataRequest([]))  # before this one that asks for a name lets everybody in
        finally:
            connection.close()
    except _REFUSED:
        return f"Kafka at {server} refuses the user {security.options.get('sasl_plain_username', '')!r}: wrong name or password"
    except kafka.UnsupportedSaslMechanismError:
        return f"Kafka at {server} does not offer {security.options.get('sasl_mechanism', 'SASL')} (TUTTI_KAFKA_SASL_MECHANISM)"
    except ssl.SSLCertVerificationError as error:
        return f"the certificate of Kafka at {server} does not hold: {error.verify_message} (TUTTI_KAFKA_CA_FILE)"
    except ssl.SSLError as error:
        return f"no TLS with Kafka at {server}: {(error.reason or 'error').lower().replace('_', ' ')} (TUTTI_KAFKA_SECURITY_PROTOCOL)"
    except (kafka.KafkaError, EOFError, ConnectionResetError):
        return f"Kafka at {server} takes the connection and does not answer: it may ask for another TUTTI_KAFKA_SECURITY_PROTOCOL"
    except (OSError, TimeoutError, ValueError):
        return None
    return None
