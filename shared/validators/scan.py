"""Scan: bounded places in a text, found by pattern: personal data, secrets, lists of words. And the filter of a stream, which finds the
same in any pieces.

Every pattern begins at a boundary, has a longest match, and never tries a place twice: a scan is linear (a test feeds it hostile texts).
A match has a `lead`, so many characters in which there may be spaces, and behind it nothing but one unbroken word.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address
from math import log2
from typing import NamedTuple

from shared.contracts.critique import CheckSet, PersonalKind

Classify = Callable[[str], int]
"""How many characters of a candidate are one indeed, from its first; 0: none."""


class Finder(NamedTuple):
    """`longest` and `lead`: characters of a match, and of what of it may hold spaces."""

    check: str
    kind: str
    regex: re.Pattern[str]
    longest: int
    lead: int
    is_one: Classify = len


class _Spot(NamedTuple):
    """Where something was found."""

    start: int
    end: int
    finder: Finder


def _luhn(candidate: str) -> int:
    """A card's number: 13 to 19 digits by their check digit, as many as can be. More digits may stand behind it, parted by a sign."""
    digits = plain = turned = found = 0
    """`plain`, `turned`: the check sum of what was read, if its last digit stands as it is, or doubled."""
    for at, sign in enumerate(candidate, 1):
        if sign.isdigit():
            digits, plain, turned = digits + 1, turned + int(sign), plain + _DOUBLED[int(sign)]
            ends = at == len(candidate) or not candidate[at].isdigit()
            found = at if ends and digits >= 13 and plain % 10 == 0 else found
    return found


_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)
_IBAN_LENGTHS = {
    15: "NO", 16: "BE", 18: "DK FI FO GL NL", 19: "MK SI", 20: "AT BA EE KZ LT LU XK", 21: "CH HR LI LV", 22: "BG BH DE GB GE IE ME RS",
    23: "AE GI IL", 24: "AD CZ ES MD PK RO SA SE SK TN VG", 25: "PT", 26: "IS TR", 27: "FR GR IT MC SM", 28: "AL AZ CY DO GT HU LB PL",
    29: "BR PS QA UA", 30: "JO KW MU", 31: "MT",
}  # fmt: skip
_LENGTH_OF = {country: length for length, countries in _IBAN_LENGTHS.items() for country in countries.split()}


def _iban(candidate: str) -> int:
    """By its country's length and its check digits."""
    places = [at for at, sign in enumerate(candidate, 1) if sign != " "][: _LENGTH_OF.get(candidate[:2], 0)]
    if not places or len(places) < _LENGTH_OF[candidate[:2]]:
        return 0
    plain = candidate[: places[-1]].replace(" ", "")
    return places[-1] if int("".join(str(int(sign, 36)) for sign in plain[4:] + plain[:4])) % 97 == 1 else 0


def _phone(candidate: str) -> int:
    """Heuristic: with a country's or a trunk's prefix, or three groups as in North America, behind which other numbers may stand; a date
    or an amount is none.
    """
    digits = [sign for sign in candidate if sign.isdigit()]
    prefixed = candidate[0] in "+(" or (digits[0] == "0" and len(digits) >= 9)
    if prefixed and 7 <= len(digits) <= 15:
        return len(candidate)
    grouped = _IN_THREE_GROUPS.match(candidate)
    return grouped.end() if grouped else 0


_IN_THREE_GROUPS = re.compile(r"(?:1[-. ])?[2-9]\d\d[-. ]\d{3}[-. ]\d{4}(?![-/\d]|\.\d)", re.ASCII)


def _ssn(candidate: str) -> int:
    return (
        0 if candidate[:3] in ("000", "666") or candidate[0] == "9" or candidate[4:6] == "00" or candidate[7:] == "0000" else len(candidate)
    )


def _ipv4(candidate: str) -> int:
    return len(candidate) if all(int(part) < 256 for part in candidate.split(".")) else 0


def _ipv6(candidate: str) -> int:
    if candidate.count(":") < 3 or not any(sign.isdigit() for sign in candidate):
        return 0
    try:
        IPv6Address(candidate)
    except (AddressValueError, ValueError):
        return 0
    return len(candidate)


def _random(candidate: str) -> int:
    """Cases and digits mixed with at least 4.3 bits a character: a key, no word, no path, no number in hex."""
    mixed = any(map(str.islower, candidate)) and any(map(str.isupper, candidate)) and any(map(str.isdigit, candidate))
    if not mixed:
        return 0
    shares = [candidate.count(sign) / len(candidate) for sign in set(candidate)]
    return len(candidate) if -sum(share * log2(share) for share in shares) >= 4.3 else 0


def _assigned(candidate: str) -> int:
    """A value that is no placeholder."""
    value = re.split(r"[:=]", candidate, maxsplit=1)[1].strip(" \"'")
    return 0 if value[0] in "<{$[(*%" or len(set(value)) < 5 else len(candidate)


def _re(text: str, flags: int = 0) -> re.Pattern[str]:
    """Nothing begins behind a `]` or ends before a `[`: what is redacted stands between these, and what is beside it was looked at."""
    for looks, sign in (("(?<!", r"\]"), ("(?!", r"\[")):
        text = text.replace(looks + r"\w", looks + rf"[\w{sign}]").replace(looks + "[", looks + "[" + sign)
    return re.compile(text, flags | re.ASCII)


_PERSONAL: dict[PersonalKind, tuple[Finder, ...]] = {
    "email": (
        Finder("personal_data", "email", _re(r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,190}\.[A-Za-z]{2,24}"), 281, 0),
    ),
    "iban": (
        Finder("personal_data", "iban", _re(r"(?<![A-Za-z0-9])[A-Z]{2}\d\d(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?"), 43, 43, _iban),
    ),
    "card": (Finder("personal_data", "card", _re(r"(?<![\w.])[2-6](?:[ -]?\d){12,18}(?!\w)"), 37, 37, _luhn),),
    "ssn": (Finder("personal_data", "ssn", _re(r"(?<![\w-])\d{3}-\d\d-\d{4}(?![\w-])"), 11, 0, _ssn),),
    "phone": (Finder("personal_data", "phone", _re(r"(?<![\w.,-])[+(]{0,2}\d[\d ()./-]{5,22}\d(?![\w-])"), 26, 26, _phone),),
    "ip": (
        Finder("personal_data", "ip", _re(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?!\w|\.\d)"), 15, 0, _ipv4),
        Finder("personal_data", "ip", _re(r"(?<![\w:])[0-9A-Fa-f:]{4,39}(?![\w:])"), 39, 0, _ipv6),
    ),
}  # fmt: skip
_SECRETS = (
    Finder("secrets", "aws", _re(r"(?<![A-Za-z0-9])(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])"), 20, 0),
    Finder("secrets", "github", _re(r"(?<!\w)(?:gh[pousr]_[A-Za-z0-9]{36,250}|github_pat_\w{22,250})"), 261, 0),
    Finder("secrets", "slack", _re(r"(?<!\w)xox[abeprs]-[A-Za-z0-9-]{10,250}"), 255, 0),
    Finder("secrets", "google", _re(r"(?<!\w)AIza[A-Za-z0-9_-]{35}"), 39, 0),
    Finder("secrets", "api_key", _re(r"(?<!\w)(?:sk-[A-Za-z0-9_-]{20,250}|[rs]k_(?:live|test)_[A-Za-z0-9]{16,99})"), 253, 0),
    Finder("secrets", "jwt", _re(r"(?<!\w)eyJ[A-Za-z0-9_-]{8,400}\.[A-Za-z0-9_-]{8,1000}\.[A-Za-z0-9_-]{8,400}"), 1_805, 0),
    Finder("secrets", "url", _re(r"(?<=://)[^\s/:@]{1,64}:[^\s/@]{1,128}(?=@)"), 193, 0),
    Finder("secrets", "private_key", _re(r"PRIVATE KEY-----"), 16, 16),
    Finder(
        "secrets", "assigned",
        _re(r"(?<![A-Za-z])(?:password|passwd|passwort|secret|token|(?:api|access)[_-]?key)[\"']? ?[:=] ?[^\s,;]{8,200}", re.IGNORECASE),
        216, 16, _assigned,
    ),
    Finder("secrets", "random", _re(r"(?<![\w+/=-])[A-Za-z0-9+/_-]{32,512}={0,2}"), 514, 0, _random),
)  # fmt: skip
_TOXIC = _re(
    r"(?<!\w)(?:assholes?|bastards?|bitch(?:es)?|bullshit|cunts?|dickheads?|fag(?:got)?s?|fuck(?:ed|er|ers|ing|s)?|kill yourself|"
    r"motherfuckers?|niggers?|pricks?|pussy|retards?|retarded|scum(?:bags?)?|shit(?:ty|head|heads)?|sluts?|spic|tranny|twats?|wankers?|"
    r"whores?|arschl(?:o|\u00f6)ch(?:er)?|drecksau|fick dich|fotzen?|hurensohn|hurens(?:o|\u00f6)hne|kanaken?|missgeburt(?:en)?|"
    r"schlampen?|schei(?:\u00df|ss)e|spasti|verpiss dich|wichser)(?!\w)",
    re.IGNORECASE,
)
_TOXICITY = (Finder("toxicity", "words", _TOXIC, 24, 24),)
_LIKE = {" ": r"\s{1,3}", "'": "['\u2018\u2019]", '"': '["\u201c\u201d\u201e]', "-": "[-\u2013\u2014\u2212]"}


@lru_cache(1_024)
def _phrase(phrase: str) -> Finder:
    """Kind: which one, by its place in the settings, is not known here; the text of it is nobody's business."""
    text = " ".join(phrase.split())
    regex = "".join(_LIKE.get(sign) or re.escape(sign) for sign in text)
    longest = len(text) + 2 * text.count(" ")
    return Finder("forbidden", "phrase", re.compile(regex, re.IGNORECASE), longest, longest)


@lru_cache(256)
def _of(personal: tuple[PersonalKind, ...], secrets: bool, toxicity: bool, forbidden: tuple[str, ...]) -> tuple[Finder, ...]:
    data = tuple(pattern for kind in personal for pattern in _PERSONAL[kind])
    phrases = tuple(_phrase(phrase) for phrase in forbidden if phrase.strip())
    return (*(_SECRETS if secrets else ()), *data, *(_TOXICITY if toxicity else ()), *phrases)


def finders_of(checks: CheckSet) -> tuple[Finder, ...]:
    """Of all windowed checks among them."""
    return _of(checks.personal_data, checks.secrets, checks.toxicity, checks.forbidden)


def places(text: str, finders: Iterable[Finder], start: int = 0) -> list[_Spot]:
    """What is found from there on, by start. Of one finder they do not overlap; behind a candidate that is none the next sign is tried."""
    found: list[_Spot] = []
    for finder in finders:
        search, is_one, at = finder.regex.search, finder.is_one, start
        while (match := search(text, at)) is not None:
            length = is_one(match.group())
            if length:
                found.append(_Spot(match.start(), match.start() + length, finder))
            at = match.start() + (length or 1)
    found.sort(key=lambda spot: spot[:2])
    return found


def redacted(text: str, spans: Iterable[tuple[int, int, str]]) -> str:
    """The text with each place (start, end, kind) replaced by its kind in brackets; places that overlap are one, of the first's kind."""
    parts, upto, shown = [], 0, 0
    for start, end, kind in sorted(spans):
        if start >= upto:
            parts += [text[shown:start], f"[{kind}]"]
        upto = shown = max(upto, end)
    return "".join([*parts, text[shown:]])


class StreamFilter:
    """Lets a text through in pieces, with what is found redacted: in any pieces the same as at once.

    Held back is what may still become a match: the last word, and before it as much as a match's lead may have.
    """

    _CONTEXT = 8
    """Characters before a place by which a pattern knows that it may begin there."""
    _SLACK = 4
    """Behind it."""

    def __init__(self, redacts: Iterable[CheckSet], before: str = "", *, blocks: Iterable[CheckSet] = ()) -> None:
        """`before`: what stands in front of the text, and was let through. `blocks`: of these nothing leaves any more once one is found."""
        self._blocking = frozenset(pattern for each in blocks for pattern in finders_of(each))
        self._patterns = tuple(dict.fromkeys((*self._blocking, *(pattern for each in redacts for pattern in finders_of(each)))))
        self._longest = self._SLACK + max((pattern.longest for pattern in self._patterns), default=0)
        self._lead = self._SLACK + max((pattern.lead for pattern in self._patterns), default=0)
        self._text = before[-self._CONTEXT :]
        self._done = len(self._text)
        """Up to here it has been let through."""
        self.found: dict[str, int] = {}
        """How often, by check."""
        self.blocked: str | None = None
        """The check by which it is blocked."""

    def add(self, piece: str) -> str:
        """What may leave now."""
        self._text += piece
        last = max(self._text.rfind(" "), self._text.rfind("\n"))
        return self._let_out(max(last - self._lead, len(self._text) - self._longest))

    def end(self) -> str:
        """The rest."""
        return self._let_out(len(self._text))

    def _let_out(self, upto: int) -> str:
        if upto <= self._done:
            return ""
        found = places(self._text, self._patterns, self._done)
        cut, whole = upto, len(self._text)
        while upto < whole and (earlier := min((place.start for place in found if place.start < cut < place.end), default=cut)) < cut:
            cut = earlier
        if cut <= self._done:
            return ""
        kept = [place for place in found if place.start < cut]
        self.blocked = next((place.finder.check for place in kept if place.finder in self._blocking), None)
        if self.blocked is not None:
            return ""
        for place in kept:
            self.found[place.finder.check] = self.found.get(place.finder.check, 0) + 1
        spans = [(place.start - self._done, place.end - self._done, place.finder.kind) for place in kept]
        out = redacted(self._text[self._done : cut], spans)
        begin = max(0, cut - self._CONTEXT)
        self._text, self._done = self._text[begin:], cut - begin
        return out
