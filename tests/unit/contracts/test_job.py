"""A job is accepted or refused as a whole; nothing that a caller wrote is lost silently."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from shared.contracts.bounds import parse_job
from shared.contracts.chat import Operation
from shared.contracts.job import Job
from shared.errors import InvalidRecord


def test_the_smallest_job_is_a_prompt() -> None:
    """`{"prompt": "hello"}` is a whole job with every default filled."""
    job = parse_job(b'{"prompt": "hello"}')
    assert (job.prompt, job.tenant, job.model, job.pattern, job.kind) == ("hello", "default", "auto", "single", Operation.CHAT)


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"prompt": "a", "texts": ["b"]}',
        b'{"prompt": "a", "messages": [{"role": "user", "content": "b"}]}',
        b'{"prompt": null}',
    ],
)
def test_exactly_one_input_is_needed(body: bytes) -> None:
    """None or two of prompt, messages, texts are refused with the rule in the message."""
    with pytest.raises(InvalidRecord, match="exactly one of prompt, messages, texts"):
        parse_job(body)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"texts": ["a"]}', Operation.EMBED),
        (b'{"prompt": "a", "operation": "generate"}', Operation.GENERATE),
        (b'{"messages": [{"role": "user", "content": "a"}]}', Operation.CHAT),
    ],
)
def test_the_operation_follows_from_the_input(body: bytes, kind: Operation) -> None:
    """Texts are embedded, the rest is chat, unless the job says so."""
    assert parse_job(body).kind is kind


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "a", "operation": "embed"},
        {"texts": ["a"], "operation": "chat"},
        {"messages": [{"role": "user"}], "operation": "generate"},
        {"prompt": "a", "pattern": "chain", "chain": [{}], "input": {"steps": []}},
        {"prompt": "a", "chain": [{"name": "one", "template": "{input}"}]},
    ],
)
def test_contradictions_are_refused(fields: dict[str, object]) -> None:
    """An operation without its input, a chain without the pattern, and one that is spelled twice, are refused."""
    with pytest.raises(ValidationError):
        Job.model_validate(fields)


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("promtp", {"prompt": "a", "promtp": 1}),
        ("options.temprature", {"prompt": "a", "options": {"temprature": 1}}),
        ("limits.call", {"prompt": "a", "limits": {"call": 1}}),
        ("needs.vram", {"prompt": "a", "needs": {"vram": 1}}),
    ],
)
def test_an_unknown_field_is_refused_wherever_it_stands(path: str, fields: dict[str, object]) -> None:
    """A misspelt field must not be lost: the error names it."""
    with pytest.raises(ValidationError) as caught:
        Job.model_validate(fields)
    assert ".".join(str(part) for part in caught.value.errors()[0]["loc"]) == path


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": ""},
        {"prompt": "a", "id": "has space"},
        {"prompt": "a", "id": "x" * 129},
        {"prompt": "a", "tenant": "-starts-with-dash"},
        {"prompt": "a", "pattern": "Upper"},
        {"prompt": "a", "model": ""},
        {"prompt": "a", "capability": "Not A Tag"},
        {"prompt": "a", "options": {"temperature": 5.1}},
        {"prompt": "a", "options": {"max_tokens": 0}},
        {"prompt": "a", "options": {"stop": ["s"] * 17}},
        {"prompt": "a", "limits": {"calls": 0}},
        {"prompt": "a", "limits": {"attempts": 21}},
        {"prompt": "a", "fallback_models": ["m"] * 9},
        {"prompt": "a", "metadata": {str(n): "v" for n in range(33)}},
        {"messages": []},
        {"messages": [{"role": "robot"}]},
        {"texts": []},
        {"texts": ["t"] * 513},
        {"prompt": "a", "pattern": "chain", "chain": [{"name": f"s{n}", "template": "t"} for n in range(13)]},
        {"prompt": "a", "deadline_at": "2026-01-31T12:00:00"},
        {"prompt": "a", "deadline_at": float("inf")},
        {"prompt": "a", "not_before": float("nan")},
        {"prompt": "a", "not_before": -1},
        {"prompt": "a", "deadline_at": 1e12},
    ],
)
def test_every_bound_refuses_what_lies_beyond(fields: dict[str, object]) -> None:
    """Sizes, ranges, names and instants have bounds; an instant that JSON cannot carry never gets in."""
    with pytest.raises(ValidationError):
        Job.model_validate(fields)


def test_an_instant_is_seconds_or_iso_8601_with_an_offset() -> None:
    """Both spellings of one moment are the same job."""
    seconds = Job.model_validate({"prompt": "a", "deadline_at": 1769860800})
    text = Job.model_validate({"prompt": "a", "deadline_at": "2026-01-31T13:00:00+01:00"})
    assert seconds.deadline_at == text.deadline_at
