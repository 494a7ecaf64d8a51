"""What a question says, as far as two of them must agree in it. Pure; the work is linear in a text of at most `LONGEST` characters.

Everything counts that is not known to carry nothing (`words`): names, numbers, negations, times, units and words that nobody has listed.
Wordings are brought to one form first: idioms, contractions, inflections, numbers in words, names of units, synonyms.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache
from typing import NamedTuple
from unicodedata import normalize

from shared.validators.questions import words

LONGEST = 500
"""Characters. The usual embedders read 256 pieces of words and pass over the rest; and in a long text words stand beside the question."""
_TOKEN = re.compile(
    r"""
    (?P<literal>`[^`\n]{1,300}` | (?:https?://|www\.)[^\s?!,;]+ | [\w.+-]+@[\w-]+\.[\w.-]*\w | (?<!\S)--?[A-Za-z][\w-]*
      | [^\W\d_]\w*(?:(?:\.|::|/|_)\w+)+(?:\(\))? | \w+\(\))
  | (?P<quote>"[^"\n]{1,300}" | “[^”\n]{1,300}” | «[^»\n]{1,300}» | „[^“”\n]{1,300}[“”] | (?<!\w)'[^'\n]{2,300}'(?!\w))
  | (?P<number>(?:\bv)?\d+(?:[.,:/-]\d+)*(?:(?:st|nd|rd|th|s)\b)?)
  | (?P<word>[^\W\d_](?:\w|['-](?=\w))*(?:\+\+|\#)?)
  | (?P<sign>-(?=\d) | (?<=\d)! | [^\w\s.,;:!?"'“”„«»…\u2013\u2014-])
    """,
    re.VERBOSE,
)
_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+\Z")
_CONTRACTED = re.compile(r"(?:n't|'(?:s|re|ll|m|ve|d))\Z")
_BRACKETS = frozenset("()[]{}")
_ELIDED = re.compile(r"(qu|[ldjcsmtn])'(.+)\Z")


class Term(NamedTuple):
    """One thing that counts. `role`: the preposition that it stands behind; `name`: written as one."""

    said: str
    role: str = ""
    name: bool = False


class Reading(NamedTuple):
    """`asks`: who, where, when, why, how, how many; polar (yes or no); or what. `modal`, `tense`: of its verbs, as far as they show.

    `joined`: it has an `and` or `or`, whose two sides may change places.
    """

    tongue: str
    asks: str
    modal: str
    tense: str
    joined: bool
    items: tuple[Term, ...]

    def counts(self) -> Counter[str]:
        return Counter(item.said for item in self.items)

    def numbers(self) -> list[str]:
        return [item.said for item in self.items if item.said[0].isdigit()]


@lru_cache(maxsize=4_096)
def read(text: str) -> Reading:
    """Of a question of at most LONGEST characters."""
    assert len(text) <= LONGEST
    text = " ".join(normalize("NFC", text).replace("\u2019", "'").split())
    tongue = _tongue(text)
    if tongue == "en":
        for pattern, said in words.IDIOMS:
            text = pattern.sub(said, text)
    found = [(match.lastgroup or "", match[0], match.start()) for match in _TOKEN.finditer(text)]
    plain = [said for kind, said, _ in found if kind == "word"]
    headline = tongue == "en" and sum(said[0].isupper() for said in plain) * 4 > max(8, len(plain) * 3)
    counted = any(kind == "number" for kind, _, _ in found)
    reader = _Reader(tongue, names=not headline)
    for kind, said, place in found:
        if said in _BRACKETS and not counted:
            continue  # in arithmetic they count
        reader.take(kind, said, first=place == 0 or text[:place].rstrip()[-1:] in ".?!:")
    return reader.reading()


def _tongue(text: str) -> str:
    """The one that most of its small words are of."""
    said = re.findall(r"[^\W\d_]+", text.lower())
    score = {tongue: sum(word in known for word in said) for tongue, known in words.TONGUES.items()}
    best = max(score, key=lambda tongue: (score[tongue], tongue == "en"))
    if score[best] > max(1, score["en"]):
        return best
    return "en" if score["en"] or text.isascii() else ""


class _Reader:
    """Takes tokens in their order."""

    def __init__(self, tongue: str, *, names: bool) -> None:
        self._tongue, self._names = tongue, names
        self._fillers = words.TONGUES.get(tongue, frozenset())
        self._asking = dict(zip(words.ASKING.get(tongue, ()), words.ASKING["en"], strict=False))
        self._items: list[Term] = []
        self._role, self._asks, self._modal, self._tense = "", "", "", ""
        self._joined = False
        self._before = ""
        """The token before, by which a short word is a unit."""

    def reading(self) -> Reading:
        if self._before in words.ROLES and self._before in self._fillers:
            self._put(self._before)  # what is it for?
        return Reading(self._tongue, self._asks or "what", self._modal, self._tense, self._joined, tuple(self._items))

    def take(self, kind: str, said: str, *, first: bool) -> None:
        if kind == "word":
            self._word(said, first=first)
        elif kind == "number":
            self._put(number(said))
        elif kind == "sign" or said.casefold() in words.UNITS:
            self._put(words.UNITS.get(said.casefold(), said))
        else:
            self._put(said.strip("`") if kind == "literal" else said[1:-1].casefold(), name=True)
        self._before = kind if kind in ("number", "sign") else said.casefold()

    def _put(self, said: str, *, name: bool = False) -> None:
        if said:
            self._items.append(Term(said, self._role, name))

    def _word(self, said: str, *, first: bool) -> None:
        low = said.casefold()
        if elided := _ELIDED.match(low) if self._tongue in ("fr", "it") else None:
            self._word(elided[1], first=False)
            return self._word(said[-len(elided[2]) :], first=False)
        if self._tongue == "en" and (ending := _CONTRACTED.search(low)):
            if ending[0] == "n't":
                self._put("not")
                low = {"ca": "can", "wo": "will"}.get(low[:-3], low[:-3])
            else:
                self._notice("'ll" if ending[0] == "'ll" else "")
                low = low[: ending.start()]
            said = said[: len(low)]
        name = self._names and said[:1].isupper() and (not first or said[1:] != low[1:]) and low != "i"
        if self._before in ("number", "degree", "sign") and (unit := self._unit(said, low)):
            return self._put(unit)
        if self._before == "number" and low != said:
            return self._put(said)  # 20 MB and 20 Mb are not the same
        if name and words.ROMAN.fullmatch(said):
            return self._put(f"{_roman(said)}")
        if name:
            return self._put({"us": "usa"}.get(low) or canonical(low), name=True)
        return self._plain(low)

    def _unit(self, said: str, low: str) -> str:
        if self._before in ("number", "degree") and said in words.SHORT_UNITS:
            return words.SHORT_UNITS[said]
        return words.SHORT_UNITS.get(low, "") if self._before == "sign" and said in ("C", "F") else ""

    def _plain(self, low: str) -> None:
        self._notice(low)
        if low in self._asking:
            if self._asks in ("", "polar"):
                self._asks = self._asking[low]
                return
            low = "if" if low == "when" else low
        elif not self._asks and not self._items and low in words.AUXILIARIES and self._tongue == "en":
            self._asks = "polar"
        if low == "many" and self._asks == "how" and self._before == "how":
            self._asks = "how many"
            return
        if self._tongue == "en" and low in ("what", "which") and self._asks in ("", "polar"):
            self._asks = "what"
        self._joined |= low in ("and", "or", "vs")
        if low in words.ROLES and self._tongue == "en":
            self._role = low
        if low in self._fillers and not (low == "may" and self._before in ("in", "of", "since", "until", "last", "next")):
            return
        self._put(canonical(low) if self._tongue == "en" else low)

    def _notice(self, low: str) -> None:
        """Its verbs' mood and tense."""
        if self._tongue == "en":
            self._modal = "ought" if low in words.OUGHT else self._modal or ("can" if low in words.CAN else "")
            self._tense = self._tense or words.TENSES.get(low, "")


def number(said: str) -> str:
    """2, 1000 for `2nd`, `1,000`; decades keep their s; versions lose their v."""
    said = said.removeprefix("v").removesuffix("st").removesuffix("nd").removesuffix("rd").removesuffix("th")
    if _THOUSANDS.fullmatch(said):
        return said.replace(",", "")
    return said


def _roman(said: str) -> int:
    values = {"I": 1, "V": 5, "X": 10, "L": 50}
    each = [values[letter] for letter in said]
    return sum(-one if one < after else one for one, after in zip(each, [*each[1:], 0], strict=True))


@lru_cache(maxsize=16_384)
def canonical(low: str) -> str:
    """An English word's one form: a number, a unit, the group it belongs to, or its stem."""
    if low in words.NUMBERS:
        return words.NUMBERS[low]
    tens, dash, ones = low.partition("-")
    if dash and tens in words.NUMBERS and ones in words.NUMBERS and len(words.NUMBERS[ones]) == 1:
        return str(int(words.NUMBERS[tens]) + int(words.NUMBERS[ones])) if words.NUMBERS[tens].isdigit() else low
    base = words.IRREGULAR.get(low, low)
    for form in (base, base.removesuffix("s")):
        if form in words.UNITS:
            return words.UNITS[form]
        if form in words.SAME:
            return words.SAME[form]
    return _GROUPS.get(stem(base), stem(base))


def stem(low: str) -> str:
    """Without its inflection, roughly: two forms of one word must meet, and two words should not (compare Porter, Program 14, 1980)."""
    if len(low) <= 3:
        return low
    low = re.sub(r"is(e|ed|es|ing|ation)\Z", r"iz\1", low) if len(low) > 6 else low
    low = re.sub(r"our(s|ed|ing)?\Z", r"or\1", low) if len(low) > 4 else low
    low = re.sub(r"(?<=.{2})ies\Z", "y", low)
    low = re.sub(r"(?<=ss|ch|sh|.x|.z)es\Z|(?<=[^sui])s\Z", "", low)
    low = re.sub(r"(?<=.{4})(?<!il)ly\Z", "", low)
    shorter = re.sub(r"(?<=.{2})(?:(?<!e)ed|ing)\Z", "", low)
    if shorter == low or not re.search(r"[aeiouy]", shorter):
        return low
    if _DOUBLED.search(shorter):
        return shorter[:-1]
    return shorter + "e" if _CUT.search(shorter) or (low[-2:] == "ed" and shorter[-2:] == "ng") else shorter


_DOUBLED = re.compile(r"([bdgmnprt])\1\Z")
_CUT = re.compile(r"\A[^aeiou]*[aeiouy][^aeiouwxy]\Z|(?:[vcuz]|[^s]s|at)\Z")
"""What has lost its e: hop(ing), writ(ing), mov(ing), creat(ing)."""
_GROUPS = {stem(word): group for word, group in words.SAME.items()}
