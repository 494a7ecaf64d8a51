"""What a machine must know to join: where Kafka is, how it is reached, how its topics are named. Found on the network, or in a token.

A token is these facts in one word that can be put into a chat: JSON, compressed, with a digest that sees each damage. It is not signed: who
joins has nothing to check a signature by, and trusts who gave it to him. It is as secret as the password in it, if there is one; what lets
in is ended in Kafka (the user's credentials), a token's date only keeps an old one from being used by mistake.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import zlib
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_serializer

from shared.contracts.base import EpochSeconds, Label, Sentence
from shared.errors import InvalidInput
from shared.partitions import TopicSettings
from shared.settings import ClusterSettings, KafkaSettings

PREFIX = "tutti-join-1."
"""Of the form; another one has another number."""
MOST_BYTES = 64 * 1024
_DIGEST_BYTES = 12


class Invitation(BaseModel):
    """`name`: the cluster's, for people. The password is shown by nothing but `token`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Label
    servers: Sentence
    """Bootstrap servers, as they are reached from elsewhere."""
    topics: TopicSettings = TopicSettings()
    protocol: Label = "PLAINTEXT"
    mechanism: Label = ""
    username: Sentence = ""
    password: SecretStr = SecretStr("")
    authorities: str = Field(default="", max_length=32 * 1024)
    """PEM, for what the brokers' certificates are checked by."""
    expires_at: EpochSeconds = 0.0
    """0: never."""

    @field_serializer("password", when_used="json")
    def _in_a_token(self, password: SecretStr) -> str:
        return password.get_secret_value()

    def token(self) -> str:
        """All of it, as one word."""
        packed = zlib.compress(self.model_dump_json(exclude_defaults=True).encode(), 9)
        return _word(_digest(packed) + packed)

    def settings(self, files: Mapping[str, str]) -> ClusterSettings:
        """How this machine reaches the cluster. `files`: where password and authorities lie, by the settings' names. What this shell says
        of another Kafka counts for nothing. Raises ValidationError.
        """
        unset = {name: field.get_default() for name, field in KafkaSettings.model_fields.items() if name != "sealing"}
        return ClusterSettings(**{**unset, **self.kafka(), **files, "topics": self.topics})

    def kafka(self) -> dict[str, str]:
        """Settings by name, without secrets and files."""
        said = {"kafka_servers": self.servers, "kafka_security_protocol": self.protocol}
        if self.protocol.startswith("SASL"):
            said |= {"kafka_sasl_mechanism": self.mechanism, "kafka_sasl_username": self.username}
        return {name: value for name, value in said.items() if value}


def _word(raw: bytes) -> str:
    return PREFIX + base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _digest(packed: bytes) -> bytes:
    return hashlib.sha256(packed).digest()[:_DIGEST_BYTES]


def read_token(text: str, now: float) -> Invitation:
    """The facts in a token; `now`: epoch seconds by this machine's clock. Raises InvalidInput, which shows nothing of it."""
    word = "".join(text.split())  # a mail may have broken it
    if not word.startswith(PREFIX):
        raise InvalidInput("this is no token of this version of tutti; `tutti join-token` makes one")
    try:
        raw = base64.urlsafe_b64decode(word[len(PREFIX) :].encode() + b"==")
        digest, packed = raw[:_DIGEST_BYTES], raw[_DIGEST_BYTES:]
        if digest != _digest(packed) or _word(raw) != word:  # what decoding passes over is a damage, too
            raise InvalidInput("the token is damaged: a part of it is missing or was changed; copy it again, whole")
        unpacking = zlib.decompressobj()
        body = unpacking.decompress(packed, MOST_BYTES)
        found = Invitation.model_validate_json(body)
    except (binascii.Error, zlib.error, UnicodeEncodeError, ValidationError):
        raise InvalidInput("the token cannot be read: it is damaged, or of another version of tutti") from None
    if found.expires_at and found.expires_at <= now:
        raise InvalidInput("the token's time is over; ask the cluster's administrator for a new one (`tutti join-token`)")
    return found
