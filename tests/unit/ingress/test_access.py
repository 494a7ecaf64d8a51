"""API keys: read from a file of digests, told apart, bounded in what they may."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from services.ingress.problems import Refused
from shared.access import OPEN, Access, Rate, load
from shared.clock import ManualClock, SystemClock
from shared.contracts.base import PriorityClass
from shared.contracts.keys import KIND, KeySecret
from shared.errors import ConfigurationError
from tests.support.keys import access_with, api_key


def digest(key: str) -> str:
    return sha256(key.encode()).hexdigest()


def entry(**fields: Any) -> dict[str, Any]:
    return {"name": "a", "digest": digest("secret"), **fields}


def written(path: Path, *keys: dict[str, Any]) -> str:
    file = path / "keys.json"
    file.write_text(json.dumps({"keys": keys}))
    return str(file)


def test_without_a_file_everybody_may_everything() -> None:
    """Open, and said so by `open`."""
    access = load("", SystemClock())
    assert access.open
    assert access.identify(None) is OPEN
    assert OPEN.tenant_of(None) == "default"
    assert OPEN.tenant_of("team") == "team"


def test_toml_and_json_say_the_same(tmp_path: Path) -> None:
    """Limits a minute become rates a second; a burst that is left out is a minute's worth."""
    toml = tmp_path / "keys.toml"
    lines = ['name = "a"', f'digest = "{digest("secret")}"', 'tenant = "team"', "requests_per_minute = 60", "tokens_per_minute = 600"]
    toml.write_text("\n".join(["[[keys]]", *lines, "token_burst = 5"]))
    same = written(tmp_path, entry(tenant="team", requests_per_minute=60, tokens_per_minute=600, token_burst=5))
    clients = [load(name, SystemClock()).identify("secret") for name in (str(toml), same)]
    assert clients[0] == clients[1]
    assert (clients[0].requests, clients[0].tokens) == (Rate(1, 60), Rate(10, 5))


@pytest.mark.parametrize("key", [None, "", "Secret", "secret ", "s" * 5_000, digest("secret"), "\xff"])
def test_whoever_has_no_key_is_refused(tmp_path: Path, key: str | None) -> None:
    """401, and the digest is no key."""
    access = load(written(tmp_path, entry()), SystemClock())
    with pytest.raises(Refused) as caught:
        access.identify(key)
    assert (caught.value.problem.status, caught.value.problem.code) == (401, "invalid_api_key")


def test_a_key_is_bound_to_its_tenant_and_classes(tmp_path: Path) -> None:
    """403 for another tenant or class; an admin acts for all."""
    file = written(tmp_path, entry(tenant="team", classes=["batch"]), entry(name="root", digest=digest("root"), tenant="ops", admin=True))
    client, admin = load(file, SystemClock()).identify("secret"), load(file, SystemClock()).identify("root")
    assert (client.tenant_of(None), client.tenant_of("team"), admin.tenant_of("team"), admin.tenant_of(None)) == (
        "team",
        "team",
        "team",
        "ops",
    )
    with pytest.raises(Refused, match="another tenant"):
        client.tenant_of("other")
    assert client.class_of(PriorityClass.BATCH, PriorityClass.INTERACTIVE) is PriorityClass.BATCH
    with pytest.raises(Refused, match="may use the classes batch"):
        client.class_of(PriorityClass.INTERACTIVE, PriorityClass.BATCH)
    assert (client.may_see("team"), client.may_see("other"), client.may_see(None), admin.may_see(None)) == (True, False, False, True)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is not TOML, or JSON by its ending"),
        ('{"keys": []}', "at keys"),
        (json.dumps({"keys": [entry(), entry(name="b")]}), "same digest"),
        (json.dumps({"keys": [entry(), entry(digest=digest("x"))]}), "same name"),
        (json.dumps({"keys": [entry(digest="secret")]}), "keys.0.digest"),
        (json.dumps({"keys": [entry(requests_per_minute=-1)]}), "keys.0.requests_per_minute"),
        (json.dumps({"keys": [entry(request_burst=0.5)]}), "keys.0.request_burst"),
        (json.dumps({"keys": [entry(limit=3)]}), "keys.0.limit"),
    ],
)
def test_a_wrong_file_ends_the_process_with_a_line(tmp_path: Path, content: str, words: str) -> None:
    """It says where, and quotes nothing."""
    file = tmp_path / "keys.json"
    file.write_text(content)
    with pytest.raises(ConfigurationError, match=words) as caught:
        load(str(file), SystemClock())
    assert digest("secret") not in caught.value.message


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    """Never open by accident."""
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load(str(tmp_path / "none.toml"), SystemClock())


def test_a_declared_key_expires_is_rotated_and_goes() -> None:
    """By the clock of whoever is asked; the one before holds for its grace; an entry that cannot be read changes nothing."""
    clock = ManualClock()
    access = access_with(clock, root=None)
    key = api_key("k", "team", expires_at=clock.wall() + 10)
    rotated = key.changed(secrets=(KeySecret(digest=digest("new")), key.secrets[0].changed(until=clock.wall() + 5)))
    access.on_entry(KIND, "k", key.to_bytes())
    assert access.identify("k").tenant == "team"
    access.on_entry(KIND, "k", rotated.to_bytes())
    assert [access.identify(each).name for each in ("k", "new")] == ["k", "k"]
    with pytest.raises(ValidationError):
        access.on_entry(KIND, "k", b"{}")
    clock.advance(6)
    for lapsed in ("k", "new"):
        if lapsed == "new":
            assert access.identify("new").name == "k"
            clock.advance(5)
        with pytest.raises(Refused, match="expired"):
            access.identify(lapsed)
    access.on_entry(KIND, "k", None)
    with pytest.raises(Refused, match="not known"):
        access.identify("new")
    access.on_entry(KIND, "root", None)
    assert access.open


def test_nobody_is_let_in_before_all_keys_are_known() -> None:
    """Also where there will be none: it is not known yet that the door is open."""
    access = Access(ManualClock())
    access.complete = lambda: False
    with pytest.raises(Refused, match="not read yet") as caught:
        access.identify(None)
    assert caught.value.problem.status == 503


def test_the_files_names_are_its_own(tmp_path: Path) -> None:
    """What is declared under one of them counts for nothing."""
    access = load(written(tmp_path, entry(tenant="team")), ManualClock())
    access.on_entry(KIND, "a", api_key("other", "b").to_bytes())
    assert access.identify("secret").tenant == "team"
    with pytest.raises(Refused):
        access.identify("other")
