"""The final answer in a text that reasons: where it stands, and one normal form for all spellings of the same answer. Pure.

It is what follows the last line that begins with `Answer:`. Without such a line: of a number the last one in the text, of a choice the last
line, of JSON the first object, of a text the whole where it is one short line. What cannot be read is None, and never a vote.

Of numbers the unit is dropped, not converted: "$1,000.00", "1000 dollars" and "1e3" are one answer. A comma is for thousands only.
"""

from __future__ import annotations

import json
import re
import unicodedata
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from shared.contracts.job import Job
from shared.patterns.control import first_object
from shared.patterns.port import PatternInput

_READ = 20_000
"""Characters at a text's end in which the answer is looked for."""
_SHORT = 200
"""Of a text that is its own answer."""
_DIGITS = 64
_MARK = re.compile(r"(?:^|\n)[ \t>*#_`]*(?:(?:the )?(?:final )?answer[ \t*_`]*(?:is[ \t]*:?|[:=])|####)\s*(.*)", re.IGNORECASE)
_NUMBER = re.compile(
    r"((?<![\w)])[-+\u2212])?[$€£¥]?((?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:[eE][-+]?\d{1,2}(?!\d))?|\.\d+)(?:/(\d+))?"
)
_EDGES = " \t\r\n*_`\"'\u201c\u201d\u2018\u2019.,;:!()[]"
_LINE = "Think step by step. The last line must be `Answer: ` and then"
Choice = Annotated[str, StringConstraints(min_length=1, max_length=_SHORT)]


class FinalAnswer(PatternInput):
    """Of which kind the answer is, so that equal ones can be counted."""

    answer: Literal["number", "choice", "text", "json"] = "text"
    choices: tuple[Choice, ...] = Field(default=(), max_length=32)
    """Of answer `choice`: what it may be."""

    @model_validator(mode="after")
    def _told_apart(self) -> Self:
        if (self.answer == "choice") != bool(self.choices):
            raise ValueError("`choices` are needed for answer choice, and for no other")
        if "" in (forms := [normal_text(choice) for choice in self.choices]) or len({*forms}) < len(forms):
            raise ValueError("two choices are the same but for case and punctuation, or one is nothing else")
        return self

    def rule(self, job: Job) -> str:
        """What the model is told; nothing where the job's own format leaves no room for a last line."""
        if job.format is not None:
            return ""
        if self.answer == "json":
            return "Answer with one JSON object and nothing else."
        what = {"number": "only a number.", "text": "only the answer, as short as possible."}
        return f"{_LINE} {what.get(self.answer) or 'one of: ' + ' | '.join(self.choices)}"

    def read(self, text: str) -> str | None:
        """The normal form of the text's answer; None where there is none."""
        text = text[-_READ:]
        marks = list(_MARK.finditer(text))
        marked = marks[-1].group(1) if marks else None
        match self.answer:
            case "number":
                return _number(text, marked)
            case "choice":
                return self._chosen(marked if marked is not None else text.strip().rpartition("\n")[2])
            case "json":
                return _json(text, marked)
        whole = text.strip()
        if marked is None and ("\n" in whole or len(whole) > _SHORT):
            return None
        return normal_text(whole if marked is None else marked) or None

    def _chosen(self, said: str) -> str | None:
        """The longest choice that the words are, or begin with."""
        words = f"{normal_text(said)} "
        begin = [choice for choice in self.choices if re.match(re.escape(normal_text(choice)) + r"(?!\w)", words)]
        return max(begin, key=len, default=None)


def normal_text(text: str) -> str:
    """Without case, marks around it, and differences of white space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).strip(_EDGES)


def _number(text: str, marked: str | None) -> str | None:
    found = list(_NUMBER.finditer(text if marked is None else marked.rpartition("=")[2]))
    if not found:
        return None
    sign, value, divisor = (found[-1] if marked is None else found[0]).groups()
    if len(value) > _DIGITS or len(divisor or "1") > _DIGITS or int(divisor or "1") == 0:
        return None
    number = Fraction(value.replace(",", "")) / int(divisor or "1")
    return _shown(-number if sign in ("-", "\u2212") else number)


def _shown(number: Fraction) -> str:
    """As a decimal where it is one, else as a fraction."""
    rest = number.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    if rest != 1:
        return str(number)
    with localcontext(prec=1_000):
        return format((Decimal(number.numerator) / Decimal(number.denominator)), "f")


def _json(text: str, marked: str | None) -> str | None:
    for part in (marked, text):
        try:
            return _canonical(json.loads(part or "", parse_constant=_refuse))
        except (ValueError, RecursionError):
            continue
    try:
        found = first_object(text)
        return None if found is None else _canonical(found)
    except (ValueError, RecursionError):
        return None


def _canonical(value: Any) -> str:
    """Keys sorted, no white space, 1.0 as 1."""
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _refuse(name: str) -> Any:
    raise ValueError(name)
