"""`/v1/keys`: API keys made, changed, rotated and revoked at run time by administrators, written to the registry. Only digests are kept:
the key itself is told once, to who makes it. What changes holds everywhere within a second.
"""

from __future__ import annotations

import asyncio
import secrets
from hashlib import sha256

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from services.ingress.declaring import Declaring
from services.ingress.handlers import Door
from services.ingress.problems import Problem, Refused
from services.ingress.routes.asking import M, Routes, as_json, body_of, caller, named, unknown
from shared.access import RIGHTS, Right
from shared.contracts.base import TENANT, EpochSeconds, Label
from shared.contracts.keys import GRACE_SECONDS, KIND, ApiKey, KeyName, KeySecret, KeyTerms

_BODY_BYTES = 16 * 1024
_SECRET_BYTES = 32
PREFIX = "tutti_"
"""Of every key that is made here: scanners of leaked secrets look for such a beginning."""


class KeySubmission(KeyTerms):
    """The body of `POST /v1/keys`."""

    name: KeyName


class Rotation(BaseModel):
    """The body of `POST /v1/keys/{id}/rotate`."""

    model_config = ConfigDict(extra="forbid")

    grace_seconds: float = Field(default=GRACE_SECONDS, ge=0, le=30 * 86_400)
    """So long the key of before holds beside the new one."""


class KeyView(KeyTerms):
    """A key as shown: never its digests."""

    id: KeyName
    made_at: EpochSeconds
    by: Label
    previous_until: EpochSeconds | None = None
    """Until then the key of before holds, too."""
    key: Label | None = None
    """The key itself, only where it was just made."""


class _KeyRoutes:
    """Answers come from what this instance has read of the registry; what it wrote itself it knows at once."""

    def __init__(self, door: Door, declaring: Declaring) -> None:
        self._door, self._declaring = door, declaring
        self._writing = asyncio.Lock()

    async def list(self, _: Request) -> Response:
        """All keys that were made at run time, by name; those of a file are not here."""
        declared = self._door.access.declared
        return as_json({"keys": [_view(name, declared[name]) for name in sorted(declared)]}, exclude_none=True)

    async def get(self, request: Request) -> Response:
        """One key's terms."""
        name = _name(request)
        return as_json(_view(name, self._known(name)), exclude_none=True)

    async def create(self, request: Request) -> Response:
        """Make a key: 201 with the key itself, which nobody can tell again. Raises Refused (409) where the name is taken."""
        given = await self._given(request, KeySubmission)
        access = self._door.access
        if given.name in access.declared or given.name in access.fixed:
            raise Refused(Problem(409, "key_exists", "a key of this name is there; rotate or change it", "name"))
        if access.open and RIGHTS[given.role] < Right.ADMINISTER:
            raise Refused(Problem(400, "first_key", "the first key is an administrator's: nobody could make another one", "role"))
        secret, digest = _made()
        terms = given.model_dump(exclude={"name"})
        key = ApiKey(**terms, secrets=(KeySecret(digest=digest),), at=self._door.clock.wall(), by=self._caller(request))
        await self._write(request, "create", given.name, key)
        return as_json(_view(given.name, key, secret), 201, exclude_none=True)

    async def put(self, request: Request) -> Response:
        """Change a key's terms: all of them anew; the key itself stays."""
        name, terms = _name(request), await self._given(request, KeyTerms)
        known = self._known(name)
        key = ApiKey(**terms.model_dump(), secrets=known.secrets, at=self._door.clock.wall(), by=self._caller(request))
        await self._write(request, "change", name, key)
        return as_json(_view(name, key), exclude_none=True)

    async def rotate(self, request: Request) -> Response:
        """Make it a new key: the one before holds on for a while, so that callers can change over."""
        name, given = _name(request), await self._given(request, Rotation, b"{}")
        known, now = self._known(name), self._door.clock.wall()
        secret, digest = _made()
        before = known.secrets[0].changed(until=now + given.grace_seconds)
        kept = (before,) if given.grace_seconds else ()
        key = known.changed(secrets=(KeySecret(digest=digest), *kept), at=now, by=self._caller(request))
        await self._write(request, "rotate", name, key)
        return as_json(_view(name, key, secret), exclude_none=True)

    async def delete(self, request: Request) -> Response:
        """Revoke it: nobody is let in by it any more. What it began goes on."""
        name = _name(request)
        await self._write(request, "revoke", name, None, self._known(name).tenant)
        return Response(status_code=204)

    def _known(self, name: str) -> ApiKey:
        """Raises Refused (404)."""
        found = self._door.access.declared.get(name)
        if found is None:
            raise unknown("no key of this name was made at run time")
        return found

    def _caller(self, request: Request) -> str:
        return caller(self._door, request).name

    async def _given(self, request: Request, kind: type[M], empty: bytes = b"") -> M:
        return await body_of(self._door, request, kind, _BODY_BYTES, tenant="default", empty=empty)

    async def _write(self, request: Request, did: str, name: str, key: ApiKey | None, tenant: str | None = None) -> None:
        """Answered once Kafka has it, one after the other."""
        tenant = tenant if key is None else key.tenant
        entry = {name: None if key is None else key.to_bytes()}
        async with self._writing:
            await self._declaring.write(request, did, KIND, name, entry, tenant=tenant, known=self._door.access.on_entry)


def routes(door: Door, declaring: Declaring) -> Routes:
    """By path and method."""
    own = _KeyRoutes(door, declaring)
    return {
        "/v1/keys": {"GET": own.list, "POST": own.create},
        "/v1/keys/{key}": {"GET": own.get, "PUT": own.put, "DELETE": own.delete},
        "/v1/keys/{key}/rotate": {"POST": own.rotate},
    }


def _made() -> tuple[str, str]:
    """(key, its digest)."""
    secret = PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
    return secret, sha256(secret.encode()).hexdigest()


def _view(name: str, key: ApiKey, secret: str | None = None) -> KeyView:
    terms = key.model_dump(include=set(KeyTerms.model_fields))
    until = key.secrets[1].until if len(key.secrets) > 1 else None
    return KeyView(**terms, id=name, made_at=key.at, by=key.by, previous_until=until, key=secret)


def _name(request: Request) -> str:
    return named(request, "key", "a key's name", TENANT, code="invalid_name", param=None)
