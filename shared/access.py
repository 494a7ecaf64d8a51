"""Access: who calls, and what he may. API keys are declared at run time (`registry`), or in a file; both hold their SHA-256 digests only.

    [[keys]]                                  # TOML, or the same as JSON: `KeyTerms` says what each field means
    name = "team-a"
    digest = "…64 hex digits…"                # printf %s "$KEY" | sha256sum
    tenant = "team-a"
    role = "user"                             # admin, operator, user or viewer; `admin = true` is the older spelling
    ceiling = "standard"
    requests_per_minute = 600
    tokens_per_minute = 100000

Where there is no key at all a service is open to everybody, who may name any tenant.
"""

from __future__ import annotations

import hmac
import json
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256
from typing import NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from shared.clock import Clock
from shared.contracts.base import CLASSES, PriorityClass
from shared.contracts.keys import ApiKey, Digest, KeyName, KeyTerms, Role
from shared.oidc import OidcSettings, Tokens, is_token
from shared.problem import Problem, Refused
from shared.settings import operators_file
from shared.telemetry import logs

log = logs.get(__name__)

_BEARER = re.compile(r"^bearer +", re.IGNORECASE)
_MAX_KEYS = 10_000
_PREFIX_BYTES = 4
_AGAIN_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Rate:
    """Never more than `burst` at once, never more than burst + per_second * t in t seconds."""

    per_second: float
    burst: float

    @property
    def fill_seconds(self) -> float:
        """An empty bucket is full after this."""
        return self.burst / self.per_second


class Right(IntEnum):
    """What a request needs, in this order: who has one has all before it."""

    READ = 0
    """Look at the tenant's own."""
    WRITE = 1
    """Ask for something on the tenant's account: jobs, cancels, decisions, conversations, schedules."""
    OPERATE = 2
    """Look at and act for every tenant; agents, prompts, profiles, tools, nodes, dead letters."""
    ADMINISTER = 3
    """Tenants' limits, keys."""


RIGHTS: Mapping[Role, Right] = {
    Role.VIEWER: Right.READ,
    Role.USER: Right.WRITE,
    Role.OPERATOR: Right.OPERATE,
    Role.ADMIN: Right.ADMINISTER,
}
_REFUSED = {
    Right.WRITE: Problem(403, "role_not_allowed", "this key may only look"),
    Right.OPERATE: Problem(403, "admin_only", "this needs an operator's or an administrator's key"),
    Right.ADMINISTER: Problem(403, "admin_only", "this needs an administrator's key"),
}


@dataclass(frozen=True, slots=True)
class Client:
    """One key's holder. `tenant` None: may name any. `classes`: those that it may ask for, the most urgent first."""

    name: str
    tenant: str | None = None
    classes: tuple[PriorityClass, ...] = CLASSES
    right: Right = Right.ADMINISTER
    requests: Rate | None = None
    tokens: Rate | None = None

    @property
    def for_all(self) -> bool:
        """Acts for every tenant."""
        return self.right >= Right.OPERATE

    def check(self, needed: Right) -> None:
        """Raises Refused (403)."""
        if self.right < needed:
            raise Refused(_REFUSED[needed])

    def tenant_of(self, asked: str | None) -> str:
        """Whose job it is when the caller names `asked`, or nobody. Raises Refused (403)."""
        if asked is not None and not self.for_all and asked != self.tenant:
            raise Refused(Problem(403, "tenant_not_allowed", "this key may not act for another tenant"))
        return asked or self.tenant or "default"

    def named(self, asked: str | None) -> str:
        """On whose account it calls; of one for all, the tenant that he names."""
        return (asked if self.for_all else None) or self.tenant or "default"

    def class_of(self, asked: PriorityClass | None, usual: PriorityClass) -> PriorityClass:
        """The class of a job; where its caller names none, `usual`, or what comes next to it of what the key may. Raises Refused (403)."""
        if asked is None:
            later = [c for c in self.classes if CLASSES.index(c) >= CLASSES.index(usual)]
            return later[0] if later else self.classes[-1]
        if asked not in self.classes:
            allowed = ", ".join(c.value for c in self.classes)
            raise Refused(Problem(403, "class_not_allowed", f"this key may use the classes {allowed}", "class"))
        return asked

    def may_see(self, tenant: str | None) -> bool:
        """Whether a job of this tenant may be shown; None: the tenant is not known (yet), and nothing is shown but to those for all."""
        return self.for_all or tenant == self.tenant


def key_of(authorization: str | None, api_key: str | None) -> str | None:
    """The key in a request's headers `Authorization` and `x-api-key`; OpenAI's spelling first."""
    if authorization is not None and _BEARER.match(authorization):
        return _BEARER.sub("", authorization).strip()
    return api_key


OPEN = Client("open")
"""Everybody, where no keys are configured."""


class _Entry(KeyTerms):
    name: KeyName
    digest: Digest
    admin: bool = False

    def client(self) -> Client:
        return client_of(self.name, self.model_copy(update={"role": Role.ADMIN}) if self.admin else self)


def client_of(name: str, terms: KeyTerms) -> Client:
    """The holder of a key of these terms."""
    requests = _rate(terms.requests_per_minute, terms.request_burst)
    return Client(name, terms.tenant, terms.allowed, RIGHTS[terms.role], requests, _rate(terms.tokens_per_minute, terms.token_burst))


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


class _Held(NamedTuple):
    digest: bytes
    client: Client
    until: float | None
    """Seconds since 1970."""


class Access:
    """All keys: of a file, which are fixed, and of the registry (`on_entry`). Without any: open."""

    def __init__(self, clock: Clock, file: Sequence[_Entry] | None = None, tokens: Tokens | None = None) -> None:
        """`tokens`: of an issuer, who are let in besides."""
        self._clock, self._from_file, self._tokens = clock, file is not None, tokens
        self.fixed = frozenset(entry.name for entry in file or ())
        """Names that the file has: none of the registry counts beside one."""
        self.declared: dict[str, ApiKey] = {}
        self.complete: Callable[[], bool] = lambda: True
        """Whether all that was declared when reading began is here; before that nobody is let in who is not known."""
        self._held: dict[bytes, list[_Held]] = {}
        for entry in file or ():
            self._hold(entry.digest, entry.client(), entry.expires_at)

    @property
    def open(self) -> bool:
        """Nobody needs a key."""
        return not self._from_file and not self.declared and self._tokens is None

    async def run(self) -> None:
        """Follow what changes by itself, until cancelled."""
        if self._tokens is not None:
            await self._tokens.run()

    def on_entry(self, _kind: str, name: str, value: bytes | None) -> None:
        """An entry of the registry, in log order. Raises ValueError when it is not valid: the one before stands."""
        key = None if value is None else ApiKey.model_validate_json(value)
        if name in self.fixed:
            log.warning("key_ignored", name=name, reason="the keys file has this name")
            return
        if key is not None and name not in self.declared and len(self.declared) >= _MAX_KEYS:
            log.error("key_ignored", name=name, reason="too many keys are declared")
            return
        before = self.declared.pop(name, None)
        for secret in () if before is None else before.secrets:
            self._release(bytes.fromhex(secret.digest), name)
        if key is not None:
            self.declared[name] = key
            for secret in key.secrets:
                ends = [end for end in (secret.until, key.expires_at) if end is not None]
                self._hold(secret.digest, client_of(name, key), min(ends, default=None))

    def identify(self, key: str | None) -> Client:
        """The key's holder. Raises Refused (401; 503 before all keys are known).

        What is looked up and compared is a digest: how long it takes tells nothing about the keys.
        """
        if self.open and self.complete():
            return OPEN
        presented = sha256((key or "").encode()).digest()
        for held in self._held.get(presented[:_PREFIX_BYTES], ()):
            if hmac.compare_digest(held.digest, presented):
                if held.until is not None and self._clock.wall() >= held.until:
                    raise Refused(Problem(401, "invalid_api_key", "the API key has expired"))
                return held.client
        if key and self._tokens is not None and is_token(key):
            holder = self._tokens.holder(key)
            return client_of(holder.name, holder.terms)
        if not self.complete():
            raise Refused(Problem(503, "not_ready", "the API keys are not read yet", retry_after_seconds=_AGAIN_SECONDS))
        reason = "no API key was sent: `Authorization: Bearer <key>`" if not key else "the API key is not known"
        raise Refused(Problem(401, "invalid_api_key", reason))

    def _hold(self, digest: str, client: Client, until: float | None) -> None:
        held = _Held(bytes.fromhex(digest), client, until)
        self._held.setdefault(held.digest[:_PREFIX_BYTES], []).append(held)

    def _release(self, digest: bytes, name: str) -> None:
        left = [held for held in self._held.get(digest[:_PREFIX_BYTES], ()) if (held.digest, held.client.name) != (digest, name)]
        if left:
            self._held[digest[:_PREFIX_BYTES]] = left
        else:
            self._held.pop(digest[:_PREFIX_BYTES], None)


def load(file_name: str, clock: Clock, service: str = "ingress") -> Access:
    """Read the keys file; without a name: open, until keys are declared. Raises ConfigurationError, which quotes nothing of the file."""
    oidc = OidcSettings()
    tokens = Tokens(oidc, clock) if oidc.issuer else None
    if not file_name and tokens is not None:
        return Access(clock, tokens=tokens)
    if not file_name:
        hint = (
            f"no API keys are configured (TUTTI_{service.upper()}__KEYS_FILE): everybody may act for every tenant until a key is declared"
        )
        log.warning("open_to_everybody", service=service, hint=hint)
        return Access(clock)
    read = json.loads if file_name.endswith(".json") else _toml
    return Access(clock, operators_file(file_name, "keys", _File, read, "TOML, or JSON by its ending").keys, tokens)


def _toml(content: bytes) -> object:
    return tomllib.loads(content.decode())
