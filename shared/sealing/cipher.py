"""AES-256-GCM of records' values by data keys, and of data keys by cluster keys.

A sealed value is `form (1) | nonce (12) | ciphertext and tag (16 more than the text)`. It holds for one topic and one key of a record, and
by its data key for one tenant: moved anywhere else it does not open. The partition is not bound: who reads knows where he reads.
"""

from __future__ import annotations

import struct
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from hashlib import sha256
from pathlib import Path
from secrets import token_bytes

import cramjam
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shared.contracts.base import RECORD_BYTES
from shared.errors import ConfigurationError, InvalidRecord

KEY_BYTES = 32
_NONCE_BYTES = 12
_PLAIN, _PACKED = b"\x01", b"\x02"
_LENGTH = struct.Struct(">I")
PACKED_FROM = 1024
"""Smaller values gain nothing by being packed."""
_FILE_BYTES = 64 * 1024
MOST_CLUSTER_KEYS = 32
_BROKEN = "The record's seal does not hold."


class Cipher:
    """One data key."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = AESGCM(key)

    def seal(self, value: bytes, topic: str, key: bytes | None, *, packs: bool) -> bytes:
        """`packs`: with lz4, where that may gain something. Sealed bytes cannot be compressed any more."""
        form = _PLAIN
        if packs and PACKED_FROM <= len(value) <= RECORD_BYTES:
            packed = _LENGTH.pack(len(value)) + cramjam.lz4.compress_block(value, store_size=False).read()
            if len(packed) < len(value):
                form, value = _PACKED, packed
        nonce = token_bytes(_NONCE_BYTES)
        return b"%b%b%b" % (form, nonce, self._key.encrypt(nonce, value, _bound(form, topic, key)))

    def open(self, sealed: bytes, topic: str, key: bytes | None) -> bytes:
        """Raises InvalidRecord."""
        form, nonce = sealed[:1], sealed[1 : 1 + _NONCE_BYTES]
        try:
            value = self._key.decrypt(nonce, sealed[1 + _NONCE_BYTES :], _bound(form, topic, key))
            return _unpacked(value) if form == _PACKED else value
        except (InvalidTag, ValueError, struct.error, cramjam.DecompressionError):
            raise InvalidRecord(_BROKEN, code="not_opened") from None


def _bound(form: bytes, topic: str, key: bytes | None) -> bytes:
    """What a seal holds for. No topic's name has the mark in it."""
    return b"%b%b\x1f%b" % (form, topic.encode(), key or b"")


def _unpacked(value: bytes) -> bytes:
    """Only who has the key can have written it; a length beyond every record's is a fault of his."""
    (length,) = _LENGTH.unpack_from(value)
    if length > RECORD_BYTES:
        raise InvalidRecord(_BROKEN, code="not_opened")
    return bytes(cramjam.lz4.decompress_block(value[_LENGTH.size :], output_len=length))


class ClusterKeys:
    """The file of cluster keys: one a line, base64 of 32 bytes; the first wraps, all unwrap. Read again when one is
    needed that it did not have, and before it wraps, so that keys change while everything runs.
    """

    def __init__(self, path: str) -> None:
        """Raises ConfigurationError."""
        self._path = Path(path)
        self._keys: dict[str, AESGCM] = {}
        self.refresh()

    @property
    def first(self) -> str:
        """The id of the one that wraps."""
        return next(iter(self._keys))

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self._keys)

    def refresh(self) -> None:
        """Read the file. Raises ConfigurationError, and knows then what it knew."""
        found: dict[str, AESGCM] = {}
        for number, line in enumerate(self._lines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            try:
                key = b64decode(line.strip(), validate=True)
            except NotBase64:
                key = b""
            if len(key) != KEY_BYTES:
                raise ConfigurationError(f"TUTTI_SEALING__KEYS_FILE: line {number} of {self._path} is no key (`tutti seals make-key`)")
            found[id_of(key)] = AESGCM(key)
        if not 0 < len(found) <= MOST_CLUSTER_KEYS:
            raise ConfigurationError(f"TUTTI_SEALING__KEYS_FILE: {self._path} holds {len(found)} keys, not 1 to {MOST_CLUSTER_KEYS}")
        self._keys = found

    def wrap(self, key: bytes, name: str) -> tuple[str, bytes]:
        """(id of the cluster key, the data key wrapped by it). `name`: of the entry, for which alone it holds."""
        nonce = token_bytes(_NONCE_BYTES)
        return self.first, nonce + self._keys[self.first].encrypt(nonce, key, name.encode())

    def unwrap(self, cluster_key: str, wrapped: bytes, name: str) -> bytes | None:
        """The data key; None where that cluster key is not in the file. Raises InvalidRecord."""
        by = self._keys.get(cluster_key)
        if by is None:
            return None
        try:
            return by.decrypt(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], name.encode())
        except (InvalidTag, ValueError):
            raise InvalidRecord(_BROKEN, code="not_opened") from None

    def _lines(self) -> list[str]:
        try:
            with self._path.open("rb") as file:
                return file.read(_FILE_BYTES).decode().splitlines()
        except OSError as error:
            raise ConfigurationError(f"TUTTI_SEALING__KEYS_FILE: {self._path} cannot be read: {error.strerror}") from None
        except UnicodeError:
            raise ConfigurationError(f"TUTTI_SEALING__KEYS_FILE: {self._path} is no text") from None


def id_of(key: bytes) -> str:
    """By which people and entries name a cluster key: 16 hex digits that do not tell it."""
    return sha256(b"tutti cluster key\x1f" + key).hexdigest()[:16]


def new_key() -> bytes:
    """Of either kind."""
    return token_bytes(KEY_BYTES)


def written(key: bytes) -> str:
    """A cluster key as its line in the file."""
    return b64encode(key).decode()
