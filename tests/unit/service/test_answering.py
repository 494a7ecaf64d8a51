"""Bodies of what services are asked: whole, within bytes and time. What is refused is the same answer everywhere."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import ValidationError
from starlette.requests import Request

from services.ingress.problems import of_error
from shared.contracts.base import Contract
from shared.errors import Conflict, InvalidInput, NotFound, Overloaded, RecordTooLarge, StoreAway, TooLarge, Unsupported
from shared.problem import Problem, Refused
from shared.processing.replay import KeptInPart
from shared.service import answering


def request(*pieces: bytes, ends: bool = True) -> Request:
    left = list(pieces)

    async def receive() -> dict[str, Any]:
        if not left:
            await asyncio.Event().wait()
        piece = left.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(left) or not ends}

    return Request({"type": "http", "method": "POST", "path": "/", "headers": []}, receive)


async def test_a_body_is_bounded_in_bytes_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await answering.body_of(request(b"a", b"b")) == b"ab"
    with pytest.raises(TooLarge):
        await answering.body_of(request(b"x" * 100_000))
    monkeypatch.setattr(answering, "BODY_SECONDS", 0.05)
    with pytest.raises(Refused) as caught:
        await answering.body_of(request(b"a", ends=False))
    assert caught.value.problem.status == 408


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (Refused(Problem(418, "teapot", "no")), 418, "teapot"),
        (TooLarge(), 413, "too_large"),
        (RecordTooLarge(), 413, "too_large"),
        (Unsupported(param="n"), 400, "unsupported"),
        (InvalidInput(code="odd", param="x"), 400, "odd"),
        (NotFound(), 404, "not_found"),
        (Conflict(), 409, "conflict"),
        (KeptInPart(), 409, "kept_in_part"),
        (RuntimeError("SECRET"), 500, "internal"),
    ],
)
def test_an_error_is_one_answer_whoever_is_asked(error: Exception, status: int, code: str) -> None:
    """The ingress as the others; what is nobody's is told by no more than that."""
    found = answering.problem_of(error)
    assert found == of_error(error)
    assert (found.status, found.code, found.param) == (status, code, getattr(error, "param", None))
    assert "SECRET" not in found.message


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"no JSON: SECRET", "invalid_json", None),
        (b'{"odd": "SECRET"}', "unknown_field", "odd"),
        (b'{"ids": "SECRET"}', "invalid_input", "ids"),
    ],
)
def test_a_wrong_body_is_one_answer_whoever_is_asked(body: bytes, code: str, param: str | None) -> None:
    """No JSON, a field that nobody knows, a wrong value: programs tell them apart by the code."""

    class Order(Contract, extra="forbid"):
        ids: tuple[int, ...] = ()

    with pytest.raises(ValidationError) as caught:
        Order.model_validate_json(body)
    found = answering.problem_of(caught.value)
    assert found == of_error(caught.value)
    assert (found.status, found.code, found.param) == (400, code, param)
    assert "SECRET" not in found.message


def test_what_each_says_for_itself() -> None:
    """A full page is 503 and a full ingress 429, both with when to come again; a store that is away is no defect of who looks there."""
    full = Overloaded("full", retry_after_seconds=5.0)
    found = [(problem.status, problem.code, problem.retry_after_seconds) for problem in (answering.problem_of(full), of_error(full))]
    assert found == [(503, "overloaded", 5.0), (429, "overloaded", 5.0)]
    assert answering.problem_of(StoreAway()).status == 503


def test_a_refusal_has_its_problems_headers() -> None:
    response = answering.refusal(answering.problem_of(Conflict()))
    assert (response.status_code, response.headers["x-should-retry"]) == (409, "false")
