"""Checks: what a text must be and must not be, decided without a model. `RULES` has one for each field of `CheckSet`: gates, patterns and
critics all use these. Heuristics are said to be some; each has its rule in its docstring. All are linear in the text.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Annotated, Any, Self
from unicodedata import normalize

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import from_json

from shared.contracts.base import Contract, Count, JsonObject, Ordinal
from shared.contracts.critique import WINDOWED, CheckSet, Phrase
from shared.contracts.verdict import MOST_FINDINGS, CritiqueVerdict, Finding
from shared.errors import InvalidInput, TooLarge
from shared.validators.scan import Finder, finders_of, places
from shared.validators.schema import NotDecided, schema_faults, unchecked
from shared.validators.words import language_of, orders_in, sentiment_of, support_of, tokens_of

MOST_CHARACTERS = 500_000
"""Of all texts and documents of one critique: a quarter of a second, of texts made to be slow two. Nothing else runs meanwhile."""
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
Source = Annotated[str, StringConstraints(min_length=1, max_length=16_000)]


_PLACED = (*WINDOWED, "injection")
_NARROW = 0.1
"""A share that exceeds what is asked for by less has passed narrowly."""


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
        if (word := unchecked_word(self)) is not None:
            raise ValueError(word)
        if self.must_cite and not self.sources:
            raise ValueError("must_cite needs sources")
        return self

    @property
    def asked(self) -> CheckSet:
        """The same as a set of checks."""
        return CheckSet(
            json_schema=self.json_schema,
            min_chars=self.min_chars,
            max_chars=self.max_chars,
            required=self.required,
            forbidden=self.forbidden,
            refusal=not self.may_refuse,
            repetition=not self.may_repeat,
            citations=bool(self.sources),
            must_cite=self.must_cite,
            quotes=bool(self.sources),
        )


def unchecked_word(checks: Checks | CheckSet) -> str | None:
    """Why the JSON schema among them cannot be held to, or None."""
    word = None if checks.json_schema is None else unchecked(checks.json_schema)
    return None if word is None else f"the JSON schema has a word that is not checked here: {word}"


def check_settings(checks: CheckSet) -> None:
    """Raises InvalidInput of settings by which nothing can be judged."""
    if (wrong := unchecked_word(checks)) is not None:
        raise InvalidInput(wrong)


def _checkable(checks: CheckSet) -> CheckSet:
    if (wrong := unchecked_word(checks)) is not None:
        raise ValueError(wrong)
    return checks


CheckedSet = Annotated[CheckSet, AfterValidator(_checkable)]
"""Of a pattern's input."""


class _Documents:
    """What a text is compared with, in the forms that checks need, made when they need them."""

    def __init__(self, texts: Sequence[str] = ()) -> None:
        self.texts = texts

    @cached_property
    def plain(self) -> list[str]:
        return [plain(text) for text in self.texts]

    @cached_property
    def tokens(self) -> frozenset[str]:
        return tokens_of(self.texts)


def faults(text: str, checks: Checks) -> tuple[str, ...]:
    """All that is wrong, as sentences for the text's author, at most eight; empty where nothing is."""
    if not text.strip():
        return ("the answer is empty",)
    found = (each.says for each in findings(text, checks.asked, _Documents(checks.sources)))
    return tuple(fault for _, fault in zip(range(_MOST_FAULTS), dict.fromkeys(found), strict=False))


def critique(texts: Sequence[str], checks: CheckSet, documents: Sequence[str] = ()) -> CritiqueVerdict:
    """What is found in the first text, and of the others what has a place in them. Raises TooLarge beyond `MOST_CHARACTERS`."""
    size = sum(map(len, texts)) + sum(map(len, documents))
    if size > MOST_CHARACTERS:
        raise TooLarge(f"{size} characters are to be judged; at most {MOST_CHARACTERS} are")
    known, found, counts = _Documents(documents), list[Finding](), dict[str, int]()
    beside = checks.model_copy(update={name: CheckSet.model_fields[name].default for name in checks.asked if name not in _PLACED})
    for number, text in enumerate(texts):
        for each in findings(text, beside if number else checks, known):
            counts[each.check] = counts.get(each.check, 0) + 1
            if len(found) < MOST_FINDINGS:
                found.append(each if not number else each.model_copy(update={"text": number}))
    doubts = ("support",) if checks.support is not None and not counts.get("support") and _is_narrow(texts, checks, known) else ()
    return CritiqueVerdict(findings=tuple(found), counts=counts, doubts=doubts)


def findings(text: str, checks: CheckSet, documents: _Documents) -> Iterator[Finding]:
    """What these checks find in one text, in the order of `RULES`."""
    asked = checks.asked
    for name in (name for name in RULES if name in asked):
        yield from RULES[name](text, getattr(checks, name), documents)


def _is_narrow(texts: Sequence[str], checks: CheckSet, documents: _Documents) -> bool:
    assert checks.support is not None
    return any(support_of(text, documents.tokens) < checks.support + _NARROW for text in texts[:1])


def _whole(check: str, says: str, kind: str = "") -> Finding:
    return Finding(check=check, kind=kind, says=says[:400])


def _refusal(text: str, _: bool, __: _Documents) -> Iterator[Finding]:
    if is_refusal(text):
        yield _whole("refusal", "the answer refuses the task")


def _repetition(text: str, _: bool, __: _Documents) -> Iterator[Finding]:
    if is_looping(text):
        yield _whole("repetition", "the answer repeats itself")


def _json_schema(text: str, schema: JsonObject, _: _Documents) -> Iterator[Finding]:
    for fault in json_faults(text, schema):
        yield _whole("json_schema", fault)


def _min_chars(text: str, least: int, _: _Documents) -> Iterator[Finding]:
    if len(text) < least:
        yield _whole("min_chars", f"the answer has {len(text)} characters; it needs {least} or more")


def _max_chars(text: str, most: int, _: _Documents) -> Iterator[Finding]:
    if len(text) > most:
        yield _whole("max_chars", f"the answer has {len(text)} characters; it may have {most} at most")


def _language(text: str, wanted: Sequence[str], _: _Documents) -> Iterator[Finding]:
    found = language_of(text)
    if found is not None and found not in wanted:
        yield _whole("language", f"the answer is in {found}; it must be in {' or '.join(wanted)}", found)


def _required(text: str, phrases: Sequence[str], _: _Documents) -> Iterator[Finding]:
    known = plain(text)
    for phrase in phrases:
        if plain(phrase) not in known:
            yield _whole("required", f"the answer does not contain: {phrase[:200]}")


def _forbidden(text: str, phrases: Sequence[str], _: _Documents) -> Iterator[Finding]:
    """A phrase that is there in another form only (signs of full width) has no place."""
    known = plain(text)
    for phrase in phrases:
        says = f"the answer must not contain: {phrase[:200]}"
        found = list(_places(text, finders_of(CheckSet(forbidden=(phrase,))), says))
        yield from found
        if not found and plain(phrase) in known:
            yield _whole("forbidden", says, "phrase")


def _citations(text: str, _: bool, documents: _Documents) -> Iterator[Finding]:
    for number in dict.fromkeys(_cited(text)):
        if not 1 <= number <= len(documents.texts):
            yield _whole("citations", f"the answer cites [{number}]; there is no such source")


def _must_cite(text: str, _: bool, __: _Documents) -> Iterator[Finding]:
    if not _cited(text):
        yield _whole("must_cite", "the answer cites no source; cite them by their numbers, like [1]")


def _cited(text: str) -> list[int]:
    return [int(number) for group in _CITED.findall(text) for number in group.split(",")]


def _quotes(text: str, _: bool, documents: _Documents) -> Iterator[Finding]:
    """What is quoted (12 characters or more, in quotation marks) stands in one of the documents."""
    quotes = [next(filter(None, found)) for found in _QUOTED.findall(text)[:_MOST_QUOTES]]
    for quote in dict.fromkeys(map(plain, quotes)):
        if len(quote) >= _SHORTEST_QUOTE and not any(quote in document for document in documents.plain):
            yield _whole("quotes", f'the quote "{quote[:80]}" stands in no source')


def _personal_data(text: str, kinds: Sequence[Any], _: _Documents) -> Iterator[Finding]:
    return _places(text, finders_of(CheckSet(personal_data=tuple(kinds))), "the text has personal data ({})")


def _secrets(text: str, _: bool, __: _Documents) -> Iterator[Finding]:
    return _places(text, finders_of(CheckSet(secrets=True)), "the text has what looks like a secret ({})")


def _toxicity(text: str, _: bool, __: _Documents) -> Iterator[Finding]:
    return _places(text, finders_of(CheckSet(toxicity=True)), "the text insults")


def _places(text: str, patterns: Iterable[Finder], says: str) -> Iterator[Finding]:
    """`says`: with `{}` for the kind, where there is one."""
    for place in places(text, patterns):
        if place.end > place.start:
            kind = place.finder.kind
            yield Finding(check=place.finder.check, kind=kind, start=place.start, end=place.end, says=says.replace("{}", kind))


def _sentiment(text: str, least: float, _: _Documents) -> Iterator[Finding]:
    if (found := sentiment_of(text)) < least:
        yield _whole("sentiment", f"the mood of the text is {found:.1f}; it must be {least:g} or more")


def _injection(text: str, _: bool, __: _Documents) -> Iterator[Finding]:
    for start, end in orders_in(text, MOST_FINDINGS):
        yield Finding(check="injection", start=start, end=end, says="the text gives the model orders")


def _support(text: str, least: float, documents: _Documents) -> Iterator[Finding]:
    if (found := support_of(text, documents.tokens)) < least:
        yield _whole("support", f"only {found:.0%} of the answer's words, numbers and names stand in the documents; {least:.0%} must")


RULES: dict[str, Callable[[str, Any, _Documents], Iterator[Finding]]] = {
    "refusal": _refusal,
    "repetition": _repetition,
    "json_schema": _json_schema,
    "min_chars": _min_chars,
    "max_chars": _max_chars,
    "language": _language,
    "required": _required,
    "forbidden": _forbidden,
    "citations": _citations,
    "must_cite": _must_cite,
    "quotes": _quotes,
    "personal_data": _personal_data,
    "secrets": _secrets,
    "toxicity": _toxicity,
    "sentiment": _sentiment,
    "injection": _injection,
    "support": _support,
}
"""By the field of `CheckSet` that holds its settings."""
COMPARED = ("citations", "quotes", "support")
"""Those that compare a text with documents; of a policy, an answer with what was asked."""


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
