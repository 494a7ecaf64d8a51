"""What a caller says to the cache in headers: `x-tutti-cache: exact; ttl=60; no-store; tag=a; tag=b`, and the standard `cache-control`, of
which only no-cache, no-store and max-age mean something here. Pure.
"""

from __future__ import annotations

import re
from typing import Any, TypeVar

from pydantic import ValidationError

from services.ingress.http.exchange import bad_header
from shared.contracts.bounds import explain
from shared.contracts.cache import CacheControl
from shared.contracts.chat import Answer, Served
from shared.contracts.job import Job

J = TypeVar("J", bound=Job)

_MODES = frozenset({"off", "exact", "semantic", "exact_then_semantic"})
_FLAGS = {"no-cache": "no_cache", "no-store": "no_store", "creative": "creative"}
_VALUES = {"max-age": "max_age", "ttl": "ttl", "scope": "scope", "threshold": "threshold"}
_LISTS = {"tag": "tags", "document": "documents"}
_NUMBERS = frozenset({"max_age", "ttl", "threshold"})
_NUMBER = re.compile(r"[0-9]{1,12}(\.[0-9]{1,6})?")
_MOST_CHARACTERS = 4_096


def wishes_of(own: str | None, standard: str | None) -> dict[str, Any]:
    """Fields of CacheControl that the headers name; of both the stricter one. Raises InvalidInput."""
    found: dict[str, Any] = {}
    for header, text, separator in (("x-tutti-cache", own, ";"), ("cache-control", standard, ",")):
        if text is not None and len(text) > _MOST_CHARACTERS:
            raise bad_header(header, f"at most {_MOST_CHARACTERS} characters")
        for part in (text or "").split(separator):
            name, _, value = (piece.strip() for piece in part.partition("="))
            if header == "x-tutti-cache":
                _own(found, name.lower(), value.strip('"'))
            elif name.lower() in ("no-cache", "no-store"):
                found[_FLAGS[name.lower()]] = True
            elif name.lower() == "max-age" and _NUMBER.fullmatch(value):
                found["max_age"] = min(float(value), found.get("max_age", float(value)))
    return found


def _own(found: dict[str, Any], name: str, value: str) -> None:
    if name in _MODES and not value:
        found["mode"] = name
    elif name in _FLAGS and not value:
        found[_FLAGS[name]] = True
    elif name in _LISTS and value:
        found.setdefault(_LISTS[name], []).append(value)
    elif name in _VALUES and (_VALUES[name] not in _NUMBERS or _NUMBER.fullmatch(value)):
        found[_VALUES[name]] = float(value) if _VALUES[name] in _NUMBERS else value
    elif name:
        known = ", ".join((*sorted(_MODES), *_FLAGS, *(f"{word}=" for word in (*_VALUES, *_LISTS))))
        raise bad_header("x-tutti-cache", f"parts are {known}, with a semicolon between")


def with_wishes(job: J, wishes: dict[str, Any]) -> J:
    """The job, with what its headers say instead of what its body says. Raises InvalidInput."""
    if not wishes:
        return job
    said = {} if job.cache is None else {name: getattr(job.cache, name) for name in job.cache.model_fields_set}
    try:
        control = CacheControl(**{**said, **wishes})
        job.check_scope(control)
    except ValidationError as error:
        raise bad_header("x-tutti-cache", explain(error, "cache")) from None
    except ValueError as error:
        raise bad_header("x-tutti-cache", str(error)) from None
    return job.model_copy(update={"cache": control})


def shown(served: Served) -> dict[str, Any]:
    """Of an answer from the cache, in its body. What the call would have used is told, and charged to nobody."""
    saved = {"prompt_tokens": served.saved.prompt_tokens, "completion_tokens": served.saved.completion_tokens}
    similarity = {} if served.similarity is None else {"similarity": round(served.similarity, 4)}
    return {"kind": served.kind, "entry": served.entry, "age_seconds": round(served.age_seconds, 3), **similarity, "saved": saved}


def cache_headers(asked: bool, answer: Answer | None) -> list[tuple[bytes, bytes]]:
    """`x-tutti-cache`: whether the answer is from the cache, where that is known; of who did not ask only a hit is told."""
    if answer is None or (answer.served is None and not asked):
        return []
    served = answer.served
    if served is None:
        return [(b"x-tutti-cache", b"miss")]
    similarity = "" if served.similarity is None else f"; similarity={served.similarity:.4f}"
    told = f"hit; kind={served.kind}; entry={served.entry}; age={served.age_seconds:.0f}{similarity}"
    return [(b"x-tutti-cache", told.encode("ascii", "replace"))]
