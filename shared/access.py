"""Access: who calls, and what he may. API keys come from a file that holds their SHA-256 digests, never the keys.

    [[keys]]                                  # TOML, or the same as JSON
    name = "team-a"                           # shown in logs; names the rate buckets
    digest = "…64 hex digits…"                # printf %s "$KEY" | sha256sum
    tenant = "team-a"                         # whose jobs these are
    classes = ["interactive", "standard"]     # all when left out
    requests_per_minute = 600                 # unlimited when left out
    request_burst = 60                        # one minute's worth when left out
    tokens_per_minute = 100000                # estimated before, settled after
    token_burst = 20000
    admin = false                             # may act for every tenant

Without a file a service is open to everybody, who may name any tenant. A key's tenant sees the jobs of this tenant only.
"""

from __future__ import annotations

import hmac
import json
import re
import tomllib
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from shared.contracts.base import CLASSES, TENANT, PriorityClass, Tenant
from shared.errors import ConfigurationError
from shared.problem import Problem, Refused
from shared.telemetry import logs

log = logs.get(__name__)

_BEARER = re.compile(r"^bearer +", re.IGNORECASE)
_MAX_KEYS = 10_000
_PREFIX_BYTES = 4


@dataclass(frozen=True, slots=True)
class Rate:
    """Never more than `burst` at once, never more than burst + per_second * t in t seconds."""

    per_second: float
    burst: float

    @property
    def fill_seconds(self) -> float:
        """An empty bucket is full after this."""
        return self.burst / self.per_second


@dataclass(frozen=True, slots=True)
class Client:
    """One key's holder. `tenant` None: may name any."""

    name: str
    tenant: str | None = None
    classes: frozenset[PriorityClass] = frozenset(CLASSES)
    admin: bool = True
    requests: Rate | None = None
    tokens: Rate | None = None

    def tenant_of(self, asked: str | None) -> str:
        """Whose job it is when the caller names `asked`, or nobody. Raises Refused (403)."""
        if asked is not None and not self.admin and asked != self.tenant:
            raise Refused(Problem(403, "tenant_not_allowed", "this key may not act for another tenant"))
        return asked or self.tenant or "default"

    def named(self, asked: str | None) -> str:
        """On whose account it calls; of an administrator, the tenant that he names."""
        return (asked if self.admin else None) or self.tenant or "default"

    def check_class(self, priority_class: PriorityClass) -> None:
        """Raises Refused (403)."""
        if priority_class not in self.classes:
            allowed = ", ".join(c.value for c in CLASSES if c in self.classes)
            raise Refused(Problem(403, "class_not_allowed", f"this key may use the classes {allowed}", "class"))

    def may_see(self, tenant: str | None) -> bool:
        """Whether a job of this tenant may be shown; None: the tenant is not known (yet), and nothing is shown but to administrators."""
        return self.admin or tenant == self.tenant


def key_of(authorization: str | None, api_key: str | None) -> str | None:
    """The key in a request's headers `Authorization` and `x-api-key`; OpenAI's spelling first."""
    if authorization is not None and _BEARER.match(authorization):
        return _BEARER.sub("", authorization).strip()
    return api_key


OPEN = Client("open")
"""Everybody, where no keys are configured."""


Rated = Annotated[float, Field(ge=1e-3, le=1e12)]
Burst = Annotated[float, Field(ge=1, le=1e12)]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, StringConstraints(pattern=f"^{TENANT}$", max_length=64)]
    digest: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$", to_lower=True, max_length=64)]
    tenant: Tenant = "default"
    classes: tuple[PriorityClass, ...] = Field(default=CLASSES, min_length=1, max_length=len(CLASSES))
    requests_per_minute: Rated | None = None
    request_burst: Burst | None = None
    tokens_per_minute: Rated | None = None
    token_burst: Burst | None = None
    admin: bool = False

    def client(self) -> Client:
        return Client(
            self.name,
            self.tenant,
            frozenset(self.classes),
            self.admin,
            _rate(self.requests_per_minute, self.request_burst),
            _rate(self.tokens_per_minute, self.token_burst),
        )


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    keys: tuple[_Entry, ...] = Field(min_length=1, max_length=_MAX_KEYS)

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        for field in ("name", "digest"):
            values = [getattr(key, field) for key in self.keys]
            if len(set(values)) < len(values):
                raise ValueError(f"two keys have the same {field}")
        return self


def _rate(per_minute: float | None, burst: float | None) -> Rate | None:
    return None if per_minute is None else Rate(per_minute / 60, burst or max(1.0, per_minute))


class Access:
    """All keys. None: open."""

    def __init__(self, clients: dict[bytes, Client] | None = None) -> None:
        self.open = clients is None
        """Nobody needs a key."""
        self._clients: dict[bytes, list[tuple[bytes, Client]]] = {}
        for digest, client in (clients or {}).items():
            self._clients.setdefault(digest[:_PREFIX_BYTES], []).append((digest, client))

    def identify(self, key: str | None) -> Client:
        """The key's holder. Raises Refused (401).

        What is looked up and compared is a digest: how long it takes tells nothing about the keys.
        """
        if self.open:
            return OPEN
        presented = sha256((key or "").encode()).digest()
        for digest, client in self._clients.get(presented[:_PREFIX_BYTES], ()):
            if hmac.compare_digest(digest, presented):
                return client
        reason = "no API key was sent: `Authorization: Bearer <key>`" if not key else "the API key is not known"
        raise Refused(Problem(401, "invalid_api_key", reason))


def load(file_name: str, service: str = "ingress") -> Access:
    """Read the keys file; without a name: open. Raises ConfigurationError, which quotes nothing of the file."""
    if not file_name:
        hint = f"no API keys are configured (TUTTI_{service.upper()}__KEYS_FILE): everybody may act for every tenant"
        log.warning("open_to_everybody", service=service, hint=hint)
        return Access()
    path = Path(file_name)
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        file = _File.model_validate(found)
    except OSError as error:
        raise ConfigurationError(f"the keys file {path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(f"the keys file {path} is wrong at {place or 'its top'}: {first['msg']}") from None
    except ValueError as error:
        raise ConfigurationError(f"the keys file {path} is neither JSON nor TOML") from error
    return Access({bytes.fromhex(key.digest): key.client() for key in file.keys})
