"""Checks: what a text must be and must not be, decided without a model. Heuristics are said to be some; each has its rule in its docstring.

The language of a text is not checked: what tells it reliably is a model of its own.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from typing import Annotated, Self
from unicodedata import normalize

from pydantic import ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import from_json

from shared.contracts.base import Contract, Count, JsonObject, Ordinal
from shared.validators.schema import NotDecided, schema_faults, unchecked

_MOST_FAULTS = 8
_MOST_QUOTES = 32
_REFUSAL_CHARACTERS = 240
"""A refusal stands at the beginning; later the same words mean something else."""
_LOOP_CHARACTERS, _LOOP_SHARE = 1_000, 0.14
"""The end of a text that loops is compressed to less than this share of itself; prose to half, code and tables to a quarter."""
_SHORTEST_QUOTE = 12
"""Characters; shorter ones are words in quotation marks, not quotes."""
_EVIDENCE = 8
"""Characters that evidence has at least, or the whole text."""
_QUOTED = re.compile(r'"([^"\n]{12,400})"|“([^”\n]{12,400})”|„([^“”\n]{12,400})[“”]|«([^»\n]{12,400})»')
_CITED = re.compile(r"\[(\d{1,4}(?:\s*,\s*\d{1,4}){0,8})\]")
_UNABLE = (
    r"(?:assist|help|comply|fulfil|fulfill|answer|provide|do (?:that|this)|complete|create|write|continue|engage|discuss|support|"
    r"be able)"
)
_REFUSAL = re.compile(
    rf"\b(?:i(?:'m| am)? (?:can(?:'t|not| not)|unable to|not able to|won't|will not|must decline)(?: to)? {_UNABLE}\b"
    r"|i must decline\b|i(?:'m| am) (?:just |only )?an? (?:ai|artificial intelligence)(?: language)? (?:model|assistant)\b"
    r"|as an? (?:ai|artificial intelligence)(?: language)? (?:model|assistant)\b"
    r"|(?:das|dabei|ihnen|dir|leider) kann ich (?:ihnen |dir |das |dabei )*(?:leider )?nicht (?:helfen|beantworten|tun)\b"
    r"|ich kann (?:ihnen |dir |das |dabei )*(?:leider )?nicht (?:helfen|beantworten|tun)\b|als ki[- ](?:sprach)?modell\b)"
)
Phrase = Annotated[str, StringConstraints(min_length=1, max_length=1_000)]
Source = Annotated[str, StringConstraints(min_length=1, max_length=16_000)]


class Checks(Contract):
    """What an answer must be. `sources` are numbered from 1: `[2]` cites the second, and what is quoted must stand in one of them."""

    model_config = ConfigDict(extra="forbid")

    json_schema: JsonObject | None = None
    min_chars: Count | None = None
    max_chars: Ordinal | None = None
    required: tuple[Phrase, ...] = Field(default=(), max_length=32)
    forbidden: tuple[Phrase, ...] = Field(default=(), max_length=32)
    sources: tuple[Source, ...] = Field(default=(), max_length=16)
    must_cite: bool = False
    may_refuse: bool = False
    may_repeat: bool = False

    @model_validator(mode="after")
    def _checkable(self) -> Self:
        if self.json_schema is not None and (word := unchecked(self.json_schema)) is not None:
            raise ValueError(f"the JSON schema has a word that is not checked here: {word}")
        if self.must_cite and not self.sources:
            raise ValueError("must_cite needs sources")
        return self


def faults(text: str, checks: Checks) -> tuple[str, ...]:
    """All that is wrong, as sentences for the text's author, at most eight; empty where nothing is."""
    if not text.strip():
        return ("the answer is empty",)
    return tuple(fault for _, fault in zip(range(_MOST_FAULTS), _faults(text, checks), strict=False))


def _faults(text: str, checks: Checks) -> Iterator[str]:
    if not checks.may_refuse and is_refusal(text):
        yield "the answer refuses the task"
    if not checks.may_repeat and is_looping(text):
        yield "the answer repeats itself"
    if checks.json_schema is not None:
        yield from json_faults(text, checks.json_schema)
    if checks.min_chars is not None and len(text) < checks.min_chars:
        yield f"the answer has {len(text)} characters; it needs {checks.min_chars} or more"
    if checks.max_chars is not None and len(text) > checks.max_chars:
        yield f"the answer has {len(text)} characters; it may have {checks.max_chars} at most"
    plain_text = plain(text)
    yield from (f"the answer does not contain: {phrase[:200]}" for phrase in checks.required if plain(phrase) not in plain_text)
    yield from (f"the answer must not contain: {phrase[:200]}" for phrase in checks.forbidden if plain(phrase) in plain_text)
    if checks.sources:
        yield from citation_faults(text, checks.sources, must_cite=checks.must_cite)


def json_faults(text: str, schema: JsonObject) -> list[str]:
    """Whether a text is JSON of this schema, alone and whole. What cannot be decided does not pass."""
    try:
        value = from_json(text, allow_inf_nan=False)
    except ValueError:
        return ["the answer is not JSON"]
    try:
        return schema_faults(value, schema)
    except NotDecided as error:
        return [f"the answer could not be checked: {error}"]


def citation_faults(text: str, sources: Sequence[str], *, must_cite: bool = False) -> list[str]:
    """Every number in brackets is a source's, and what is quoted (12 characters or more, in quotation marks) stands in one of them."""
    cited = [int(number) for group in _CITED.findall(text) for number in group.split(",")]
    wrong = [f"the answer cites [{number}]; there is no such source" for number in dict.fromkeys(cited) if not 1 <= number <= len(sources)]
    if must_cite and not cited:
        wrong.append("the answer cites no source; cite them by their numbers, like [1]")
    known = [plain(source) for source in sources]
    quotes = [next(filter(None, found)) for found in _QUOTED.findall(text)[:_MOST_QUOTES]]
    lost = [quote for quote in dict.fromkeys(map(plain, quotes)) if not any(quote in source for source in known)]
    return [*wrong, *(f'the quote "{quote[:80]}" stands in no source' for quote in lost if len(quote) >= _SHORTEST_QUOTE)]


def occurs(quote: str, text: str) -> bool:
    """Whether what is given as evidence stands in the text: `_EVIDENCE` characters or the whole of it; case, spaces, marks do not count."""
    words, whole = plain(quote).strip("\"' .…"), plain(text)
    return bool(words) and words in whole and len(words) >= min(_EVIDENCE, len(whole.strip("\"' .…")))


def is_refusal(text: str) -> bool:
    """Heuristic, English and German: the usual words of a refusal in the first 240 characters."""
    return _REFUSAL.search(plain(text[: 2 * _REFUSAL_CHARACTERS])[:_REFUSAL_CHARACTERS]) is not None


def is_looping(text: str) -> bool:
    """Heuristic: the last thousand characters are the same few again and again, so that they are compressed to nearly nothing."""
    end = text[-_LOOP_CHARACTERS:].encode("utf-8", "replace")
    return len(text) >= _LOOP_CHARACTERS and len(zlib.compress(end, 6)) < _LOOP_SHARE * len(end)


_ALIKE = {0x2018: "'", 0x2019: "'", 0x201C: '"', 0x201D: '"', 0x201E: '"', 0x2013: "-", 0x2014: "-", 0x2212: "-", 0xAD: None}
"""Quotation marks, dashes, minus; the soft hyphen."""


def plain(text: str) -> str:
    """A text for comparing: one case, one form of each sign, single spaces."""
    return " ".join(normalize("NFKC", text).translate(_ALIKE).casefold().split())
