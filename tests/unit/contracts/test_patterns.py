"""Names, images, patterns: said once, matched whole, told in words."""

from __future__ import annotations

import ast
from base64 import b64decode, b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

import services
from services.ingress.dialects.openai.requests import ChatRequest, to_job
from services.ingress.dialects.port import Terms
from shared.contracts import headers
from shared.contracts.base import IMAGE_CHARACTERS, Capability, JobId, ModelName, NodeId, ScheduleId, Tenant, TopicName
from shared.contracts.bounds import parse_job
from shared.contracts.chat import ChatMessage
from shared.errors import InvalidRecord
from shared.service.known_problems import of_fault

ROOT = Path(services.__file__).parents[1]
SOURCES = [path for part in ("services", "shared", "infra") for path in sorted((ROOT / part).rglob("*.py"))]
NAMES = [JobId, NodeId, ScheduleId, Tenant, ModelName, Capability, TopicName]


def patterns(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of each pattern given to `re`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="re")), args=[ast.Constant(value=str() | bytes() as text), *_]):
                yield node.lineno, text if isinstance(text, str) else text.decode("latin-1")


def test_no_pattern_ends_with_a_dollar() -> None:
    """In Python's `re` it also matches before a line end: what is to match whole is matched by `fullmatch`."""
    found = [f"{path.relative_to(ROOT)}:{line}: {text}" for path in SOURCES for line, text in patterns(path) if text.endswith("$")]
    assert found == []


@pytest.mark.parametrize("kind", NAMES, ids=str)
@pytest.mark.parametrize("text", ["", "a\n", "\na", " a", "a ", "a\u2028", "a\x00", "a" * 300, "\u202ea"])
def test_a_name_is_matched_whole(kind: Any, text: str) -> None:
    """A line end, a blank or an invisible mark at either end makes another name: in keys, headers, topics, logs."""
    TypeAdapter(kind).validate_python("a")
    with pytest.raises(ValidationError):
        TypeAdapter(kind).validate_python(text)


@pytest.mark.parametrize("value", [b"0" * 32 + b"\n", b"\n" + b"0" * 32])
def test_a_header_is_matched_whole(value: bytes) -> None:
    """It would be written into histories and compared with others."""
    with pytest.raises(InvalidRecord):
        headers.Envelope([("request-digest", value)]).request_digest()
    assert headers.Envelope([("traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01\n")]).traceparent() is None
    assert headers.Envelope([("replay-of", b"t/1/2/3\n")]).replay_of() is None
    assert headers.Envelope([("replay-of", "t/1/٢/3".encode())]).replay_of() is None


@pytest.mark.parametrize(
    "name",
    [
        "gemma3:270m",
        "hf.co/bartowski/Llama-3.2-1B-Instruct-GGUF:Q4_K_M",
        "/models/llama-3-8b-instruct.Q4_K_M.gguf",
        "../models/7B/ggml-model.gguf",
        "C:\\models\\x.gguf",
        "my model",
        "模型:1b",
        "x" * 200,
        "-m",
        "[x]",
    ],
)
def test_a_model_is_named_as_its_server_spells_it(name: str) -> None:
    """Paths, blanks, any script: what a server lists a job can ask for."""
    assert parse_job(b'{"prompt": "x", "model": %b}' % TypeAdapter(str).dump_json(name)).model == name


@pytest.mark.parametrize("before", ["", "data:image/png;base64,", "data:image/svg+xml;base64,", "data:image/x-y.z;base64,"])
@given(content=st.binary(min_size=1, max_size=40), padding=st.integers(0, 2))
def test_an_image_is_base64_or_a_data_address(before: str, content: bytes, padding: int) -> None:
    """What a caller's client makes of a file, all padding or none: what is accepted has it, whichever way it came, and reads back equal."""
    whole = before + b64encode(content).decode()
    given_ = whole if padding else whole.rstrip("=")
    body = b'{"messages":[{"role":"user","images":[%b]}]}' % TypeAdapter(str).dump_json(given_)
    job = parse_job(body)
    assert job.messages is not None
    assert job.messages[0].images == ChatMessage(role="user", images=(given_,)).images == (whole,)
    assert parse_job(job.to_bytes()) == job
    if before:
        asked = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": given_}}]}]
        request = ChatRequest.model_validate({"model": "m", "messages": asked})
        chat = to_job(request, Terms("x", None, "m", None, 60.0)).messages
        assert chat is not None
        assert b64decode(chat[0].images[0], validate=True) == content


def test_an_image_that_its_padding_makes_too_large_is_none() -> None:
    """It would not read back."""
    before = "data:image/png;base64,"
    ChatMessage(role="user", images=("A" * (IMAGE_CHARACTERS - 1),))
    with pytest.raises(ValidationError):
        ChatMessage(role="user", images=(before + "A" * (IMAGE_CHARACTERS - len(before)),))


@pytest.mark.parametrize(
    "image",
    [
        "http://169.254.169.254/latest/meta-data/iam",
        "https://intranet.example/secret.png",
        "HTTP://intranet/",
        "file:///etc/passwd",
        "ftp://a/b",
        "data:text/html;base64,aGk=",
        "data:image/png;base64,http://a/b",
        "data:image/png,aGk=",
        "data:image/png;base64,",
        "a",
        "aGkhI",
        "aGk=\n",
        "aG k=",
        "aGk=aGk=",
        "",
        "@file.png",
    ],
)
def test_nothing_else_is_an_image(image: str) -> None:
    """A model server would fetch an address from inside the network. The sentence tells what an image is, and not what was sent."""
    with pytest.raises(ValidationError) as caught:
        ChatMessage(role="user", images=(image,))
    assert "base64" in of_fault(caught.value).message
    body = b'{"messages":[{"role":"user","images":[%b]}]}' % TypeAdapter(str).dump_json(image)
    with pytest.raises(InvalidRecord, match=r"images.*base64") as refused:
        parse_job(body)
    assert "//" not in refused.value.message
