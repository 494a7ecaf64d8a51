"""Which callbacks are taken; secrets of a file; the form of what a receiver gets."""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from services.ingress.callbacks.allowed import CallbackRules, rules_of
from services.ingress.callbacks.rendering import body_of, delivery_id, headers_of
from services.ingress.settings import CallbackSettings
from shared.clock import SystemClock
from shared.contracts.blob import BlobRef
from shared.contracts.callback import ENDS, Callback, End
from shared.contracts.chat import Answer
from shared.contracts.result import Result, Status
from shared.errors import ConfigurationError, InvalidInput

KEY = b"k" * 32
SECRETS = {"acme": {"default": (KEY,), "two": (KEY, b"o" * 24)}}


def rules(**settings: Any) -> CallbackRules:
    return CallbackRules(CallbackSettings(**{"hosts": "hooks.example.org, .example.com, 93.184.216.34, 10.0.0.1", **settings}), SECRETS)


def callback(url: str = "https://hooks.example.org/", **fields: Any) -> Callback:
    return Callback(url=url, **fields)


@pytest.mark.parametrize(
    "url",
    ["https://hooks.example.org/x?y", "https://a.example.com/", "https://a.b.example.com:8443/", "https://93.184.216.34/"],
)
def test_what_is_taken(url: str) -> None:
    assert rules().check(callback(url), "acme") is not None


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://evil.example.org/", "host"),
        ("https://example.com/", "host"),
        ("https://notexample.com/", "host"),
        ("https://hooks.example.org.evil.net/", "host"),
        ("http://hooks.example.org/", "https"),
        ("https://hooks.example.org:22/", "port"),
        ("https://me@hooks.example.org/", "user"),
        ("https://10.0.0.1/", "public"),
        ("https://127.0.0.1/", "host"),
        ("https://2130706433/", "odd"),
    ],
)
def test_what_is_not(url: str, why: str) -> None:
    with pytest.raises(InvalidInput, match=why) as caught:
        rules().check(callback(url), "acme")
    assert "hooks" not in caught.value.message
    assert "me@" not in caught.value.message


def test_what_an_operator_may_widen() -> None:
    wide = rules(hosts="*,10.0.0.1", http=True, ports=(80, 443), networks="10.0.0.0/8")
    for url in ("http://anything.example/", "https://10.0.0.1/"):
        assert wide.check(callback(url), "acme") is not None
    with pytest.raises(InvalidInput):
        wide.check(callback("https://10.0.0.2/"), "acme")


def test_secrets_are_the_tenants_own() -> None:
    with pytest.raises(InvalidInput, match="secret"):
        rules().check(callback(), "other")
    with pytest.raises(InvalidInput, match="secret"):
        rules().check(callback(secret="three"), "acme")
    assert rules().secrets_of(callback(secret="two"), "acme") == (KEY, b"o" * 24)


def test_no_callback_is_taken_where_none_is_set_up() -> None:
    for off in (rules_of(CallbackSettings()), rules(hosts="")):
        assert off.check(None, "acme") is None
        with pytest.raises(InvalidInput, match="switched off"):
            off.check(callback(), "acme")


@pytest.mark.parametrize("form", ["toml", "json"])
def test_a_file_of_secrets(tmp_path: Path, form: str) -> None:
    secret, old = "whsec_" + b64encode(KEY).decode(), "whsec_" + b64encode(b"o" * 24).decode()
    file = tmp_path / f"secrets.{form}"
    toml = f'[acme]\ndefault = "{secret}"\ntwo = ["{secret}", "{old}"]\n'
    file.write_text(toml if form == "toml" else json.dumps({"acme": {"default": secret, "two": [secret, old]}}))
    found = rules_of(CallbackSettings(secrets_file=str(file), hosts="*"))
    assert found.secrets_of(callback(secret="two"), "acme") == SECRETS["acme"]["two"]


@pytest.mark.parametrize(
    "text", ["", "[acme", '[acme]\ndefault = "whsec_c2hvcnQ="', '[acme]\ndefault = "whsec_???"', "[acme]\ndefault = 3", "[acme]\nx = []"]
)
def test_a_file_that_is_wrong_says_nothing_of_what_is_in_it(tmp_path: Path, text: str) -> None:
    file = tmp_path / "secrets.toml"
    if text:
        file.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        rules_of(CallbackSettings(secrets_file=str(file), hosts="*"))
    assert "c2hvcnQ" not in caught.value.message


@pytest.mark.parametrize("url", ["ftp://x/", "x", "https://", "https://a b/", "https://a\n/", "https://" + "a" * 2_048])
def test_a_callback_has_the_form_of_an_address(url: str) -> None:
    with pytest.raises(ValidationError):
        callback(url)


def test_the_ends_are_those_of_results() -> None:
    assert get_args(End) == ENDS == tuple(Status)


def result(**fields: Any) -> Result:
    given = {"job": "acme/x", "tenant": "acme", "status": Status.SUCCEEDED, "answer": Answer(text="hi"), "callback": callback()}
    return Result(**{**given, "accepted_at": 1767225600.25, "finished_at": 1767225601.5, **fields})


def test_the_signature_is_the_standards() -> None:
    """The vector of the reference implementations."""
    key = b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    found = headers_of("msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}', [key, b"o" * 24], 1614265330.9)
    assert found["webhook-signature"].split()[0] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert found["webhook-timestamp"] == "1614265330"
    assert len(found["webhook-signature"].split()) == 2


def test_what_a_receiver_gets() -> None:
    body = json.loads(body_of(result(), "https://tutti.example/"))
    assert (body["type"], body["timestamp"]) == ("job.succeeded", "2026-01-01T00:00:01.500Z")
    assert (body["data"]["job"], body["data"]["answer"]["text"]) == ("x", "hi")
    assert body["data"]["url"] == "https://tutti.example/v1/jobs/x?tenant=acme"
    assert "callback" not in body["data"]


def test_of_a_large_answer_a_receiver_gets_where_it_is() -> None:
    blob = BlobRef(digest="d" * 32, partition=0, first=0, last=0, chunks=1, size=100_000, written_at=1.0)
    body = json.loads(body_of(result(job="j_x", answer=Answer(text="", blob=blob))))
    assert body["data"]["answer"]["blob"] == {"size": 100_000}
    assert body["data"]["url"] == "/v1/jobs/j_x"


def test_a_life_has_one_id() -> None:
    assert delivery_id(result()) == delivery_id(result(attempts=9)) != delivery_id(result(accepted_at=1.0))
    assert delivery_id(result(job="acme/y")) != delivery_id(result())


def test_the_readme_shows_receivers_how_to_check() -> None:
    """The example, as it stands there."""
    text = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
    [block] = [found for found in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "def verified" in found]
    known: dict[str, Any] = {}
    exec(compile(block, "README.md", "exec"), known)  # noqa: S102
    now, body = SystemClock().wall(), body_of(result())
    good = headers_of("whk_1", body, [b"o" * 24, KEY], now)
    secret = "whsec_" + b64encode(KEY).decode()
    assert known["verified"](good, body, secret)
    assert not known["verified"](good, body + b" ", secret)
    assert not known["verified"](headers_of("whk_1", body, [KEY], now - 600), body, secret)
    assert not known["verified"](good, body, "whsec_" + b64encode(b"x" * 32).decode())
