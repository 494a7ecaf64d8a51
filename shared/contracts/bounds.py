"""Reading a job from outside: bounded depth, and errors that are one readable sentence without the caller's text in it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from shared.contracts.base import IN_WORDS, INLINE_BYTES, MAX_DEPTH
from shared.contracts.job import Job
from shared.errors import InvalidInput, InvalidRecord, TooLarge

_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_OPENING = frozenset(b"[{")
_MAX_BRACKETS = 2 * INLINE_BYTES
_MAX_COMMAS = 2 * INLINE_BYTES
"""Outside strings; more than a large job of pictures, texts and tools has (a hundred tools of fifty parameters have 10,000). What a body
costs to read goes by its values, not by its bytes: 8 MiB of numbers took five seconds in which nobody else was served.
"""
_WORDS = {f"String should match pattern '^{pattern}$'": words for pattern, words in IN_WORDS.items()}
LONGEST_DELAY_SECONDS = 7 * 86_400.0
"""A job's `not_before` lies at most this far ahead."""
_SKEW_SECONDS = 60.0
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")


def check_depth(raw: bytes, limit: int = MAX_DEPTH) -> None:
    """Raise TooLarge when the JSON nests deeper than `limit`, or holds too many values. What is not JSON at all is left to the parser.

    Linear time: most bodies pass by counting alone, of the others only the brackets outside strings are walked, a bounded number.
    """
    if raw.count(b"[") + raw.count(b"{") <= limit and (len(raw) <= _MAX_COMMAS or raw.count(b",") <= _MAX_COMMAS):
        return
    outside = _outside_strings(raw)
    skeleton = outside.translate(None, _NOT_BRACKETS)
    if len(skeleton) > _MAX_BRACKETS or outside.count(b",") > _MAX_COMMAS:
        raise TooLarge("JSON holds too many values")
    depth = 0
    for byte in skeleton:
        depth = depth + 1 if byte in _OPENING else max(0, depth - 1)
        if depth > limit:
            raise TooLarge(f"JSON is nested deeper than {limit} levels")


def _outside_strings(raw: bytes) -> bytes:
    """JSON without its strings: escapes go first, then every quote begins or ends a string. Raises TooLarge for too many of them."""
    raw = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    if raw.count(b'"') > 2 * (2 * _MAX_COMMAS + _MAX_BRACKETS):  # a comma or a bracket stands beside each, or a colon between two
        raise TooLarge("JSON holds too many values")
    return b"".join(raw.split(b'"')[::2])


def parse_job(raw: bytes | None, form: type[Job] = Job) -> Job:
    """The job in a record's value: as a caller writes it, or (`form` HeldJob) as tutti does. Raises InvalidRecord or TooLarge, each with
    one sentence that names the field.
    """
    if not raw:
        raise InvalidRecord("the job is empty: a JSON object is needed")
    check_depth(raw)
    try:
        return form.model_validate_json(raw)
    except ValidationError as error:
        raise InvalidRecord(explain(error, "job")) from None


def is_json(text: str) -> bool:
    """Whether a model's answer is JSON that every reader takes: Python's own parser also takes NaN, and fails on deep nesting."""
    try:
        from_json(text, allow_inf_nan=False)
    except ValueError:
        return False
    return True


def in_words(message: str) -> str:
    """Pydantic's complaint as a sentence for people: what a pattern asks for instead of the pattern."""
    message = message.removeprefix("Value error, ")
    return _WORDS.get(message, message)


def check_job(job: Job, offered: Collection[str], now: float) -> None:
    """What a job may ask of a cluster that offers these capabilities, at `now` (epoch seconds), by whatever way it comes: REST, chat,
    schedules, records. A step of another capability would have no topic to go to. Raises InvalidInput.
    """
    check_capability(job, offered)
    if job.not_before is not None and too_far(job.not_before, now):
        raise InvalidInput("not_before: at most 7 days ahead.", param="not_before")


def too_far(due_at: float, now: float) -> bool:
    """Beyond what is offered. A minute is left for clocks that differ from the sender's."""
    return due_at > now + LONGEST_DELAY_SECONDS + _SKEW_SECONDS


def check_capability(job: Job, offered: Collection[str]) -> None:
    """Raises InvalidRecord."""
    if job.needed_capability not in offered:
        message = f"this cluster does not offer the job's capability; it offers {', '.join(sorted(offered))}"
        raise InvalidRecord(message, code="unknown_capability", param="capability")


def fault_of(error: ValidationError) -> tuple[str, str, str]:
    """(kind, place, sentence) of the first complaint. The value that it is about is no part of them: it may be a prompt, or a secret."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return first["type"], ".".join(str(part) for part in first["loc"]), in_words(first["msg"])


def explain(error: ValidationError, what: str, known: Iterable[str] = Job.model_fields) -> str:
    """The first problem as one sentence; an unknown field with the one of `known` that may be meant.

    Input values are never part of it, since they may be prompts or secrets.
    """
    problems = error.errors(include_url=False, include_input=False)
    more = len({problem["loc"][:1] for problem in problems}) - 1
    sentence = _sentence(problems[0], what, known)
    return f"{sentence} (and {more} more)" if more > 0 else sentence


def _sentence(problem: Any, what: str, known: Iterable[str]) -> str:
    kind, message = problem["type"], in_words(str(problem["msg"]))
    field = _path(problem["loc"])
    if kind == "json_invalid":
        return f"the {what} is not JSON: {message.removeprefix('Invalid JSON: ')}"
    if kind == "extra_forbidden":
        return f"the {what} has an unknown field `{field}`{_hint(field, known)}"
    if kind == "missing":
        return f"the {what} lacks `{field}`"
    if not field:
        return (
            f"the {what} must be a JSON object"
            if kind in {"model_type", "model_attributes_type"}
            else f"the {what} is not valid: {message}"
        )
    return f"the {what}'s `{field}` is not valid: {message[:1].lower()}{message[1:]}"


def _path(location: tuple[int | str, ...]) -> str:
    """`messages[2].role`. Branches of a union are pydantic's words, not the caller's: left out. A strange name is not repeated."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif _FIELD.fullmatch(part):
            path += f".{part}" if path else part
        elif "[" not in part:
            path += ".?" if path else "?"
    return path


def _hint(field: str, known: Iterable[str]) -> str:
    close = get_close_matches(field, list(known), 1)
    return f"; did you mean `{close[0]}`?" if close else ""
