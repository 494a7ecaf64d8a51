"""OIDC: bearer tokens of an issuer besides keys of ours (extra `oidc`): `TUTTI_OIDC__ISSUER`, `…AUDIENCE`, `…JWKS`; off without them.

A token is taken if one of the issuer's keys has signed it, for our audience, and it is in force; its claims say whose jobs these are
(`tenant`) and what it may (`role`). What its claims do not say it has not: without a role that we know it is refused.
"""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings

from shared.clock import Clock, within
from shared.contracts.base import CLASSES, Label, PositiveSeconds, Seconds, Sentence
from shared.contracts.keys import KeyTerms, Role
from shared.errors import ConfigurationError
from shared.problem import Problem, Refused
from shared.settings import of_service
from shared.telemetry import logs
from shared.tls import client_context

log = logs.get(__name__)

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures that need the issuer's own secret: with a shared one whoever checks could sign."""
_TOKEN_CHARACTERS = 16 * 1024
_KEYS_BYTES = 256 * 1024
_MOST_KEYS = 100
_REMEMBERED = 10_000
_FETCH_SECONDS = 5.0
_AGAIN_SECONDS = 10.0
"""Least time between two looks for keys, also when a token names one that is not known."""
_ORDER = (Role.ADMIN, Role.OPERATOR, Role.USER, Role.VIEWER)


class OidcSettings(BaseSettings):
    """The same for ingress, sink and cache."""

    model_config = of_service("oidc")

    issuer: Sentence = ""
    """As its tokens name it; empty: no such tokens are taken."""
    audience: Sentence = ""
    """Tokens must be for this."""
    jwks: Sentence = ""
    """The issuer's keys: a file, which may be replaced, or an https address."""
    ca_file: Sentence = ""
    """Authorities of that address's certificate, where it is a private one: PEM; the machine's own if it is empty."""
    jwks_seconds: PositiveSeconds = 300.0
    """So often they are read again; a key that is no more is refused from then on."""
    leeway_seconds: Seconds = Field(default=30.0, le=600)
    """By so much the issuer's clock may differ from ours."""
    tenant_claim: Label = "tenant"
    """Whose jobs these are."""
    role_claim: Label = "role"
    """A role, or a list of which the highest counts; other words in it are passed over."""
    classes_claim: Label = "classes"
    """Priority classes that may be asked for; all where the token has no such claim."""


class _Holder(NamedTuple):
    """Who has sent a token. `until`: seconds since 1970."""

    name: str
    terms: KeyTerms
    until: float


class Tokens:
    """Those of one issuer."""

    def __init__(self, settings: OidcSettings, clock: Clock) -> None:
        """Raises ConfigurationError."""
        self._settings, self._clock = settings, clock
        self._url = settings.jwks if urlsplit(settings.jwks).scheme in ("http", "https") else ""
        if not settings.audience or not settings.jwks:
            raise ConfigurationError("TUTTI_OIDC__ISSUER is set: TUTTI_OIDC__AUDIENCE and TUTTI_OIDC__JWKS are needed, too")
        if self._url and not self._url.startswith("https://"):
            raise ConfigurationError("TUTTI_OIDC__JWKS is fetched by https only: whoever changes it on its way signs for everybody")
        try:
            import jwt
        except ImportError:
            raise ConfigurationError("TUTTI_OIDC__ISSUER is set: pip install 'tutti-cluster[oidc]'") from None
        self._context = client_context(settings.ca_file)
        self._jwt: Any = jwt
        self._keys: dict[str | None, Any] | None = None
        self._known: OrderedDict[bytes, _Holder] = OrderedDict()
        self._wanted = asyncio.Event()
        if not self._url:
            try:
                self._take(self._read())
            except (OSError, ValueError) as error:
                raise ConfigurationError(f"TUTTI_OIDC__JWKS: {settings.jwks} holds no keys ({type(error).__name__})") from None

    def holder(self, token: str) -> _Holder:
        """Raises Refused (401; 503 before the keys are known)."""
        presented = sha256(token.encode()).digest()
        found = self._known.get(presented)
        if found is None:
            found = self._known[presented] = self._verified(token)
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        if self._clock.wall() >= found.until:
            raise _refused("the token has expired")
        return found

    def _verified(self, token: str) -> _Holder:
        if self._keys is None:
            raise Refused(Problem(503, "not_ready", "the issuer's keys are not read yet", retry_after_seconds=_AGAIN_SECONDS))
        settings, jwt = self._settings, self._jwt
        try:
            if len(token) > _TOKEN_CHARACTERS:
                raise _refused("the token is too long")
            key = self._key(jwt.get_unverified_header(token))
            required = {"require": ["exp", "iss", "aud", "sub"], "verify_exp": False, "verify_nbf": False, "verify_iat": False}
            claims = jwt.decode(token, key, ALGORITHMS, audience=settings.audience, issuer=settings.issuer, options=required)
            ends, begins = float(claims["exp"]), float(claims.get("nbf", 0))
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError) as error:
            raise _refused(f"the token does not hold ({type(error).__name__})") from None
        now = self._clock.wall()
        if not begins - settings.leeway_seconds <= now:
            raise _refused("the token is not in force yet")
        return _Holder(_name(claims), self._terms(claims), ends + settings.leeway_seconds)

    def _key(self, header: dict[str, Any]) -> Any:
        """That which the token names; where there is one only, it need not."""
        assert self._keys is not None
        named = header.get("kid")
        found = self._keys.get(named) if named is not None else next(iter(self._keys.values()), None) if len(self._keys) == 1 else None
        if found is None:
            self._wanted.set()
            raise _refused("the token names no key of its issuer")
        return found

    def _terms(self, claims: dict[str, Any]) -> KeyTerms:
        """Raises Refused."""
        told = claims.get(self._settings.role_claim)
        words = told if isinstance(told, list) else [told]
        role = next((role for role in _ORDER if role.value in words), None)
        if role is None:
            raise _refused(f"the token's claim {self._settings.role_claim!r} names no role")
        given: dict[str, Any] = {"role": role, "tenant": claims.get(self._settings.tenant_claim)}
        if given["tenant"] is None and role in (Role.USER, Role.VIEWER):
            raise _refused(f"the token's claim {self._settings.tenant_claim!r} names no tenant")
        classes = claims.get(self._settings.classes_claim)
        if classes is not None:
            asked = classes if isinstance(classes, list) else [classes]
            given["classes"] = tuple(c for c in CLASSES if c.value in asked)
        try:
            return KeyTerms.model_validate({name: value for name, value in given.items() if value is not None})
        except ValidationError as error:
            raise _refused(f"the token's claims give no {error.errors(include_input=False)[0]['loc'][0]}") from None

    # The issuer's keys

    async def run(self) -> None:
        """Read them again and again, until cancelled."""
        while True:
            pause = self._settings.jwks_seconds if await self.refresh() else 0.0
            await self._clock.sleep(_AGAIN_SECONDS)
            self._wanted.clear()
            if pause > _AGAIN_SECONDS:
                await within(pause - _AGAIN_SECONDS, self._wanted.wait())

    async def refresh(self) -> bool:
        """Read them; false where they cannot be had: then those that are known hold."""
        try:
            self._take(await (self._fetch() if self._url else asyncio.to_thread(self._read)))
        except Exception as error:  # whatever an issuer answers
            log.warning("issuer_keys_not_read", error=type(error).__name__)
            return False
        return True

    def _read(self) -> str:
        with Path(self._settings.jwks).open(encoding="utf-8") as file:
            return file.read(_KEYS_BYTES)

    async def _fetch(self) -> str:
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=_FETCH_SECONDS)
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=True) as session,
            session.get(self._url, ssl=self._context, allow_redirects=False, raise_for_status=True) as response,
        ):
            return (await response.content.read(_KEYS_BYTES)).decode()

    def _take(self, text: str) -> None:
        """Raises ValueError where there is no key in it. Keys of kinds that we do not take are passed over."""
        told = json.loads(text)
        entries = told.get("keys") if isinstance(told, dict) else None
        found: dict[str | None, Any] = {}
        for entry in entries[:_MOST_KEYS] if isinstance(entries, list) else ():
            try:
                key = self._jwt.PyJWK.from_dict(entry)
            except (self._jwt.PyJWTError, ValueError, TypeError, KeyError, AttributeError):
                continue
            if key.algorithm_name in ALGORITHMS and entry.get("use", "sig") == "sig":
                found[key.key_id] = key
        if not found:
            raise ValueError("no key that signs")
        if self._keys is None or found.keys() != self._keys.keys():
            log.info("issuer_keys_read", count=len(found))
        self._keys = found
        self._known.clear()


def is_token(key: str) -> bool:
    """Whether this has a token's form: none of our own keys has."""
    return key.count(".") == 2


def _name(claims: dict[str, Any]) -> str:
    """In logs, acts and rate buckets; people choose it, so only what is plain of it."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "._@-") else "_" for c in str(claims["sub"])[:64])
    return f"oidc:{plain}"


def _refused(reason: str) -> Refused:
    return Refused(Problem(401, "invalid_api_key", reason))
