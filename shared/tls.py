"""TLS: contexts for clients and servers, certificates that are renewed while a process runs, and when they end.

A file that cannot be used is told by its setting's name and reason, never by its content.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel

from shared.clock import Clock
from shared.contracts.base import Sentence
from shared.errors import ConfigurationError
from shared.telemetry import logs, metrics

log = logs.get(__name__)

LOOK_SECONDS = 60.0
"""A renewed certificate is presented within this time."""
_PEM_BYTES = 1024 * 1024
_BROKEN = "it is no X.509 certificate"
_UTC_TIME, _GENERALIZED_TIME, _VERSION = 0x17, 0x18, 0xA0


class Files(BaseModel):
    """A certificate, with those between it and its authority, and its key: PEM, without a passphrase."""

    cert_file: Sentence
    key_file: Sentence


class Pair:
    """A certificate with its key, presented by `context` to whoever connects from now on."""

    def __init__(self, of: str, files: Files, context: ssl.SSLContext) -> None:
        """`of`: a metric label. Raises ConfigurationError."""
        self._of, self._files, self._context = of, files, context
        self._stamp = self._stamped()
        self._load()

    def refresh(self) -> None:
        """Take the files again if they have changed. What cannot be used is tried again: a key may come after its certificate."""
        try:
            stamp = self._stamped()
            if stamp == self._stamp:
                return
            self._load()
        except ConfigurationError as error:
            log.warning("certificate_not_taken", of=self._of, reason=error.message)
        else:
            self._stamp = stamp
            log.info("certificate_taken", of=self._of)

    def _load(self) -> None:
        cert, key = self._files.cert_file, self._files.key_file
        try:
            ends = not_after(cert)
            for context in (server_context(), self._context):  # one that is refused would have spoilt a context that is in use
                context.load_cert_chain(cert, key, password=_no_passphrase)
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"the certificate {cert} with the key {key} cannot be used: {_reason(error)}") from None
        metrics.CERTIFICATE_EXPIRES_TIMESTAMP_SECONDS.labels(self._of).set(ends)

    def _stamped(self) -> Sequence[tuple[int, int]]:
        try:
            return [(found.st_mtime_ns, found.st_ino) for found in map(os.stat, (self._files.cert_file, self._files.key_file))]
        except OSError as error:
            raise ConfigurationError(f"{error.filename} cannot be read: {_reason(error)}") from None


async def watch(pairs: Sequence[Pair], clock: Clock) -> None:
    """Refresh them until cancelled. The files are small and local, and read beside the event loop all the same."""
    while pairs:
        await clock.sleep(LOOK_SECONDS)
        for pair in pairs:
            await asyncio.to_thread(pair.refresh)


def server_context() -> ssl.SSLContext:
    """Of a server that asks its clients for no certificate; it lacks its own (`Pair`)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def client_context(ca_file: str = "") -> ssl.SSLContext:
    """Of a client that checks names and certificates by the authorities in `ca_file`, the machine's own if it is empty.

    Raises ConfigurationError.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"the authorities {ca_file} cannot be used: {_reason(error)}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def not_after(cert_file: str) -> float:
    """When the first certificate in a PEM file ends, in seconds since 1970. Raises OSError, ValueError.

    Python tells it only of a certificate that has been presented to it, and in force; so the date is looked up where X.509 has it.
    """
    with Path(cert_file).open("rb") as file:
        text = file.read(_PEM_BYTES).decode("ascii", "replace")
    begin, end = text.find(ssl.PEM_HEADER), text.find(ssl.PEM_FOOTER)
    if begin < 0 or end < begin:
        raise ValueError("it holds no PEM certificate")
    der = ssl.PEM_cert_to_DER_cert(text[begin : end + len(ssl.PEM_FOOTER)])
    certificate, _ = _value(_value(der)[0])  # the signed part of the whole
    rest = certificate if certificate[:1] != bytes([_VERSION]) else _value(certificate)[1]
    for _ in range(3):  # serial number, signature's algorithm, issuer
        _, rest = _value(rest)
    validity, _ = _value(rest)
    _, ends = _value(validity)
    if not ends:
        raise ValueError(_BROKEN)
    return _instant(ends[0], _value(ends)[0])


def _value(der: bytes) -> tuple[bytes, bytes]:
    """(content of the first element, what follows it). Raises ValueError."""
    if len(der) < 2:
        raise ValueError(_BROKEN)
    size, at = der[1], 2
    if size & 0x80:
        count = size & 0x7F
        size, at = int.from_bytes(der[2 : 2 + count]), 2 + count
    if at + size > len(der):
        raise ValueError(_BROKEN)
    return der[at : at + size], der[at + size :]


def _instant(tag: int, value: bytes) -> float:
    text = value.decode("ascii", "replace")
    if tag == _UTC_TIME:
        text = ("19" if text[:2] >= "50" else "20") + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError(_BROKEN)
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _no_passphrase() -> str:
    """Asked for where a key is encrypted: nobody sits there to type."""
    raise ValueError("the key has a passphrase")


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "TLS error").lower().replace("_", " ")
    return (error.strerror or "it cannot be read").lower() if isinstance(error, OSError) else str(error)
