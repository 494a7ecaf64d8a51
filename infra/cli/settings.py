"""Settings of the command line: whom it asks over HTTP, and who it is there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, Secret, StringConstraints
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.contracts.base import Sentence
from shared.services import PORTS

Server = Literal["ingress", "sink", "cache"]
VARIABLES: Mapping[Server, str] = {"ingress": "TUTTI_URL", "sink": "TUTTI_SINK_URL", "cache": "TUTTI_CACHE_URL"}
"""Who answers → what says where he is found."""


def _one_line(value: str) -> str:
    if not value.isprintable():
        raise ValueError("a key is one line of printable characters")
    return value


_Address = Annotated[Sentence, Field(min_length=1)]
_Key = Annotated[str, StringConstraints(max_length=16 * 1024), AfterValidator(_one_line)]
"""A key of ours, or an issuer's token."""


class CommandLineSettings(BaseSettings):
    """Read anew by each command."""

    model_config = SettingsConfigDict(env_prefix="TUTTI_", extra="ignore", frozen=True)

    url: _Address = f"http://127.0.0.1:{PORTS['ingress']}"
    """The ingress that commands ask; this machine's unless another is named."""
    sink_url: _Address = f"http://127.0.0.1:{PORTS['sink']}"
    """The sink, for `tutti usage`, `top`, `audit`, `logs --events` and what conversations have used."""
    cache_url: _Address = f"http://127.0.0.1:{PORTS['cache']}"
    """The cache, for `tutti cache`."""
    api_key: Secret[_Key] = Secret("")
    """Sent to all three: a key, or a token of an issuer. Empty: none is sent, which is enough where no key was made."""
    ca_file: Sentence = ""
    """Authorities that their certificates are checked by, PEM; empty: the machine's own."""

    def address_of(self, who: Server) -> str:
        """Where he answers."""
        return {"ingress": self.url, "sink": self.sink_url, "cache": self.cache_url}[who].rstrip("/")
