"""Depth is bounded by bytes, before anything is parsed; errors are one sentence without the caller's text."""

from __future__ import annotations

import contextlib
import json
from time import process_time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.contracts.base import MAX_DEPTH
from shared.contracts.bounds import check_depth, parse_job
from shared.errors import InvalidRecord, TooLarge

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='ab"\\[]{}', max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='a"[{\\', max_size=3), inner, max_size=3),
    max_leaves=20,
)


def depth(value: Any) -> int:
    """The definition that the byte scan must agree with."""
    if isinstance(value, dict):
        return 1 + max((depth(item) for item in value.values()), default=0)
    if isinstance(value, list):
        return 1 + max((depth(item) for item in value), default=0)
    return 0


@given(JSON, st.integers(1, 6))
def test_the_byte_scan_agrees_with_the_parsed_value(value: Any, limit: int) -> None:
    """A text is refused exactly when the value nests deeper than the limit; brackets inside strings do not count."""
    raw = json.dumps(value, ensure_ascii=False).encode()
    if depth(value) > limit:
        with pytest.raises(TooLarge):
            check_depth(raw, limit)
    else:
        check_depth(raw, limit)


@given(st.binary(max_size=200) | st.text(alphabet='[]{}"\\a', max_size=200).map(str.encode), st.integers(1, 4))
def test_any_bytes_are_checked_without_another_error(raw: bytes, limit: int) -> None:
    """What is not JSON is left to the parser, whatever it is."""
    with contextlib.suppress(TooLarge):
        check_depth(raw, limit)


@pytest.mark.parametrize(
    ("raw", "refused"),
    [
        (b"[" * 33 + b"]" * 33, True),
        (b"[" * 32 + b"]" * 32, False),
        (b"[" * 33, True),
        (b"]" * 33 + b"[" * 33, True),
        (b'{"a":' * 20 + b"[" * 13, True),
        (b"[" + b"[]," * 1000 + b"[]]", False),
        (b'["' + b"[" * 100 + b'"]', False),
        (b'["\\"' + b"[" * 100 + b'"]', False),
        (b'["\\\\"' + b"[" * 100, True),
    ],
)
def test_depth_at_the_limit(raw: bytes, refused: bool) -> None:
    """32 levels pass, 33 do not, closed or not; width is no depth; escapes end strings where JSON says so."""
    if refused:
        with pytest.raises(TooLarge):
            check_depth(raw, MAX_DEPTH)
    else:
        check_depth(raw, MAX_DEPTH)


def test_brackets_and_quotes_inside_strings_do_not_count() -> None:
    """Code in a prompt is not nesting."""
    check_depth(json.dumps({"prompt": '[{"\\' * 500}).encode())


@pytest.mark.parametrize("body", [b'"' + b'\\"' * 2_000_000, b'"' * 4_000_000, b"[" * 4_000_000, b"[]" * 2_000_000, b'{"a":' * 1_000_000])
def test_hostile_bodies_cost_linear_time(body: bytes) -> None:
    """Four megabytes of quotes or brackets are judged within a second of processor time."""
    began = process_time()
    with contextlib.suppress(TooLarge):
        check_depth(body)
    assert process_time() - began < 1.0


@pytest.mark.parametrize(
    "tool",
    [
        {"a": [1] * 30_000},
        {"a": ["ab"] * 12_000},
        {"a": [[]] * 4_000},
        {f"k{number}": number for number in range(5_000)},
        {"a": [0.5] * 1_100},
    ],
    ids=["numbers", "texts", "lists", "names", "few more than may be"],
)
def test_what_is_dear_to_read_is_refused_before_it_is_read(tool: dict[str, Any]) -> None:
    """Reading costs by values: megabytes of small ones would keep everybody else waiting for seconds."""
    body = json.dumps({"prompt": "x", "tools": [tool] * 127}).encode()
    began = process_time()
    with pytest.raises(TooLarge):
        check_depth(body)
    assert process_time() - began < 1.0


def test_what_agents_send_is_far_within() -> None:
    """A thousand turns with calls, and as many tools as there may be; texts full of commas, quotes and brackets."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": json.dumps({"rows": [[1, 2], [3, 4]] * 50})}}
    turn = {"role": "assistant", "content": [{"type": "text", "text": "a, b"}], "tool_calls": [call] * 3}
    parameter = {"type": "string", "description": "One, two.", "enum": ["a", "b", "c"]}
    properties = {f"p{number}": parameter for number in range(60)}
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": properties, "required": ["p1"]}}}
    check_depth(json.dumps({"messages": [turn] * 1_000, "tools": [tool] * 128}).encode())
    check_depth(json.dumps({"prompt": '{"a": [1, 2]}, ' * 500_000}).encode())


SECRET = "my secret words"


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (b"", "the job is empty: a JSON object is needed"),
        (None, "the job is empty: a JSON object is needed"),
        (b"[1]", "the job must be a JSON object"),
        (b'"text"', "the job must be a JSON object"),
        (b"\xff\xfe", "the job is not JSON: expected value at line 1 column 1"),
        (b'{"promt": "a"}', "the job has an unknown field `promt`; did you mean `prompt`?"),
        (b'{"messages": [{"content": "a"}]}', "the job lacks `messages[0].role`"),
        (
            b'{"prompt": "a", "options": {"temperature": 9}}',
            "the job's `options.temperature` is not valid: input should be less than or equal to 5",
        ),
        (b'{"prompt": "a", "format": 3}', "the job's `format` is not valid: input should be 'json'"),
    ],
)
def test_an_invalid_job_is_one_readable_sentence(raw: bytes | None, sentence: str) -> None:
    """The sentence says what is wrong and where."""
    with pytest.raises(InvalidRecord) as caught:
        parse_job(raw)
    assert caught.value.message == sentence


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": ["my secret words"]},
        {"prompt": "a", "deadline_at": SECRET},
        {"prompt": "a", "id": SECRET},
        {"prompt": "a", SECRET: 1},
        {"prompt": "a", "operation": SECRET},
        {"prompt": "a", "metadata": {SECRET: 1}},
        {"prompt": "a", "format": SECRET},
        {"messages": [{"role": SECRET}]},
        {"prompt": "a", "options": {"seed": SECRET}},
    ],
)
def test_an_error_never_repeats_what_the_caller_wrote(body: dict[str, object]) -> None:
    """Prompts and secrets do not reach logs and dead letters through error messages."""
    with pytest.raises(InvalidRecord) as caught:
        parse_job(json.dumps(body).encode())
    assert "secret" not in caught.value.message


def test_several_problems_are_counted() -> None:
    """The first is told, the others are counted."""
    with pytest.raises(InvalidRecord, match=r"\(and 1 more\)"):
        parse_job(b'{"prompt": 1, "model": 2}')


def test_a_deep_job_is_too_large() -> None:
    """Depth is told apart from other faults: the caller can do something about it."""
    with pytest.raises(TooLarge):
        parse_job(b'{"prompt": "a", "format": ' + b'{"a":' * 40 + b"1" + b"}" * 41)
