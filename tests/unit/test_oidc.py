"""Tokens of an issuer: taken when one of its keys signed them for us and they are in force; what claims do not say nobody has."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from shared.access import Access, Right, load
from shared.clock import ManualClock
from shared.contracts.keys import KIND, Role
from shared.errors import ConfigurationError
from shared.oidc import OidcSettings, Tokens
from shared.problem import Refused
from tests.support.certificates import Authority
from tests.support.keys import api_key

ISSUER, AUDIENCE = "https://issuer.example", "tutti"
KEYS: dict[str, tuple[Any, str, Any]] = {
    "rsa": (rsa.generate_private_key(65537, 2048), "RS256", RSAAlgorithm),
    "ec": (ec.generate_private_key(ec.SECP256R1()), "ES256", ECAlgorithm),
    "ed": (ed25519.Ed25519PrivateKey.generate(), "EdDSA", OKPAlgorithm),
}


def jwk(name: str, kid: str | None = None) -> dict[str, Any]:
    key, algorithm, kind = KEYS[name]
    entry: dict[str, Any] = json.loads(kind.to_jwk(key.public_key()))
    return entry | {"kid": kid or name, "alg": algorithm, "use": "sig"}


def claims(**changes: Any) -> dict[str, Any]:
    now = ManualClock().wall()
    given = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "exp": now + 600, "nbf": now - 5, "tenant": "acme", "role": "user"} | changes
    return {name: value for name, value in given.items() if value is not None}


def token(name: str = "rsa", kid: str | None = None, **changes: Any) -> str:
    key, algorithm, _ = KEYS[name]
    return jwt.encode(claims(**changes), key, algorithm, headers={"kid": kid or name})


@pytest.fixture
def jwks(tmp_path: Path) -> Path:
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [jwk(name) for name in KEYS]}))
    return path


def settings(jwks: object, **changes: Any) -> OidcSettings:
    return OidcSettings.model_validate({"issuer": ISSUER, "audience": AUDIENCE, "jwks": str(jwks), **changes})


def access(jwks: Path, clock: ManualClock | None = None, **changes: Any) -> Access:
    clock = clock or ManualClock()
    return Access(clock, tokens=Tokens(settings(jwks, **changes), clock))


def refused(at: Access, key: str | None) -> Refused:
    with pytest.raises(Refused) as caught:
        at.identify(key)
    return caught.value


@pytest.mark.parametrize("name", KEYS)
def test_a_token_is_its_holders_word(jwks: Path, name: str) -> None:
    client = access(jwks).identify(token(name))
    assert (client.name, client.tenant, client.right) == ("oidc:ann", "acme", Right.WRITE)
    assert client.tenant_of(None) == "acme"
    with pytest.raises(Refused):
        client.tenant_of("globex")


@pytest.mark.parametrize("role", Role)
def test_roles_of_claims(jwks: Path, role: Role) -> None:
    """One, or the highest of several; other words are passed over; those for all need no tenant."""
    at = access(jwks, role_claim="groups")
    several = at.identify(token(groups=["staff", "viewer", role.value], role=None))
    assert several.right == max(Right.READ, at.identify(token(groups=role.value)).right)
    if role in (Role.ADMIN, Role.OPERATOR):
        assert at.identify(token(groups=role.value, tenant=None)).for_all


def test_classes_of_claims(jwks: Path) -> None:
    """Those that it names, in our order; all where it names none."""
    at = access(jwks)
    assert [c.value for c in at.identify(token(classes=["batch", "standard", "x"])).classes] == ["standard", "batch"]
    assert [c.value for c in at.identify(token(classes="batch")).classes] == ["batch"]
    assert len(at.identify(token()).classes) == 3


def hmac_with_public_key(name: str = "rsa") -> str:
    """Signed with what everybody knows, as if that were a shared secret."""
    public = KEYS[name][0].public_key().public_numbers().n.to_bytes(256, "big")
    return jwt.encode(claims(), public, "HS256", headers={"kid": name})


def unsigned() -> str:
    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return f"{part({'alg': 'none', 'kid': 'rsa'})}.{part(claims())}."


WRONG: dict[str, Callable[[], str]] = {
    "another issuer": lambda: token(iss="https://evil.example"),
    "another audience": lambda: token(aud="somebody"),
    "no audience": lambda: token(aud=None),
    "no end": lambda: token(exp=None),
    "ended": lambda: token(exp=ManualClock().wall() - 31),
    "an end that is no number": lambda: token(exp="soon"),
    "not yet": lambda: token(nbf=ManualClock().wall() + 60),
    "no subject": lambda: token(sub=None),
    "no role": lambda: token(role=None),
    "an unknown role": lambda: token(role="king"),
    "a role that is a map": lambda: token(role={"admin": True}),
    "no tenant": lambda: token(tenant=None),
    "no class that we know": lambda: token(classes=["urgent"]),
    "no classes": lambda: token(classes=[]),
    "an odd tenant": lambda: token(tenant="a/b"),
    "a tenant that is a list": lambda: token(tenant=["acme"]),
    "an unknown key": lambda: token(kid="other"),
    "another's key": lambda: token("ec", kid="rsa"),
    "no signature": unsigned,
    "a signature of the public key": hmac_with_public_key,
    "a broken one": lambda: token()[:-6] + "AAAAAA",
    "nonsense": lambda: "a.b.c",
    "empty parts": lambda: "..",
    "too long": lambda: "a." * 2 + "b" * 20_000,
}


@pytest.mark.parametrize("what", WRONG)
def test_what_does_not_hold_is_refused(jwks: Path, what: str) -> None:
    problem = refused(access(jwks), WRONG[what]()).problem
    assert problem.status == 401
    assert "ann" not in problem.message


def test_a_token_ends_by_our_clock_with_some_leeway(jwks: Path) -> None:
    clock = ManualClock()
    at = access(jwks, clock)
    short = token(exp=clock.wall() + 10)
    assert at.identify(short)
    clock.advance(39)
    assert at.identify(short)
    clock.advance(2)
    assert "expired" in refused(at, short).problem.message


def test_keys_of_ours_hold_beside(jwks: Path) -> None:
    """Also one that looks like a token; without either nobody is let in."""
    at = access(jwks)
    at.on_entry(KIND, "k", api_key("a.b.c", "team").to_bytes())
    assert at.identify("a.b.c").tenant == "team"
    for nobody in (None, "", "unknown"):
        assert refused(at, nobody).problem.status == 401
    assert not access(jwks).open


async def test_replaced_keys_are_taken_and_old_ones_go(jwks: Path) -> None:
    """Keys of other kinds and uses are passed over; what is known holds while nothing better can be read."""
    tokens = Tokens(settings(jwks), ManualClock())
    at, old, new = Access(ManualClock(), tokens=tokens), token("ec"), token("ec", kid="new")
    assert at.identify(old)
    put(jwks, {"keys": [jwk("ec", "new"), {"kty": "oct", "k": "AAAA"}, {"kty": "odd"}, 5, jwk("rsa") | {"use": "enc"}]})
    assert await tokens.refresh()
    assert at.identify(new)
    for gone in (old, token("rsa")):
        assert refused(at, gone).problem.status == 401
    put(jwks, "nonsense")
    assert not await tokens.refresh()
    assert at.identify(new)


def put(path: Path, value: object) -> None:
    path.write_text(json.dumps(value))


@pytest.mark.parametrize(
    "changes",
    [{"audience": ""}, {"jwks": ""}, {"jwks": "/nowhere"}, {"jwks": "http://issuer.example/keys"}],
)
def test_settings_that_would_let_in_the_wrong_ones(jwks: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="TUTTI_OIDC__"):
        Tokens(settings(**{"jwks": jwks, **changes}), ManualClock())


@pytest.mark.parametrize("text", ["", "[]", '{"keys": []}', '{"keys": [{"kty": "oct", "k": "AAAA"}]}', '{"keys": 5}'])
def test_a_file_without_keys(tmp_path: Path, text: str) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match="TUTTI_OIDC__JWKS"):
        Tokens(settings(path), ManualClock())


def test_before_keys_are_fetched_nobody_is_judged() -> None:
    clock = ManualClock()
    at = Access(clock, tokens=Tokens(settings("https://issuer.example/keys"), clock))
    assert refused(at, token()).problem.status == 503


def test_services_read_it_from_their_environment(jwks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("ISSUER", ISSUER), ("AUDIENCE", AUDIENCE), ("JWKS", str(jwks))):
        monkeypatch.setenv(f"TUTTI_OIDC__{name}", value)
    at = load("", ManualClock())
    assert at.identify(token()).tenant == "acme"


@pytest.mark.parametrize("trusted", [True, False])
async def test_an_issuer_with_a_certificate_of_a_private_authority(trusted: bool, tmp_path: Path) -> None:
    """Its keys are fetched by https where its authority is named, and of nobody else."""
    authority = Authority(tmp_path / "issuer")

    async def keys(_: web.Request) -> web.Response:
        return web.json_response({"keys": [jwk("ec")]})

    application = web.Application()
    application.router.add_get("/keys", keys)
    runner = web.AppRunner(application)
    await runner.setup()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    signed = authority.sign("localhost").files
    context.load_cert_chain(signed.cert_file, signed.key_file)
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    url = f"https://localhost:{runner.addresses[0][1]}/keys"
    tokens = Tokens(settings(url, **({"ca_file": str(authority.file)} if trusted else {})), ManualClock())
    try:
        assert await tokens.refresh() == trusted
        at = Access(ManualClock(), tokens=tokens)
        if trusted:
            assert at.identify(token("ec")).tenant == "acme"
        else:
            assert refused(at, token("ec")).problem.status == 503
    finally:
        await runner.cleanup()


def test_an_authority_that_cannot_be_read_is_told_at_start(jwks: Path) -> None:
    with pytest.raises(ConfigurationError, match="nowhere"):
        Tokens(settings("https://issuer.example/keys", ca_file="/nowhere"), ManualClock())
