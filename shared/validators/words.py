"""Words: what language and mood a text has, whether it gives a model orders, and how much of it stands in documents. By short lists.

Heuristics, each with its rule in its docstring. No library does it here: what is well kept needs a model's weights or megabytes of tables.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from itertools import islice

from shared.contracts.critique import Language

_READ = 20_000
"""Characters from a text's beginning by which its language and mood are judged."""
_LEAST_LETTERS = 40
_LEAST_WORDS = 6
"""Fewer tell no language."""
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)?")
_TOKEN = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]{2,}")
_SCRIPTS: tuple[tuple[Language, str], ...] = (
    ("ja", "\u3040-\u30ff"), ("ko", "\uac00-\ud7af"), ("zh", "\u4e00-\u9fff"), ("ar", "\u0600-\u06ff"), ("he", "\u0590-\u05ff"),
    ("el", "\u0370-\u03ff"), ("ru", "\u0400-\u04ff"), ("hi", "\u0900-\u097f"), ("th", "\u0e00-\u0e7f"),
)  # fmt: skip
_SCRIPT_OF = tuple((language, re.compile(f"[{signs}]")) for language, signs in _SCRIPTS)


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_LINES: tuple[tuple[Language, str], ...] = (
    ("en", "the and of to is that it for was are with this be have not you from they which but what can in on at by or as its has had we"),
    ("de", "der die das und ist nicht ein eine zu den mit von auf für sich des dem im auch es an wird als oder ich sie aus bei"),
    ("fr", "le la les et des est une dans que pour qui pas sur par avec ce du au plus sont il elle nous vous mais ou cette"),
    ("es", "el la los las y que en es una por con para no del se su al lo como más pero sus este esta está son"),
    ("it", "il la che di e un una per non è con del della sono le dei gli come anche più nel alla questo ma si"),
    ("pt", "o os as e que de um uma para não com do da em no na por mais dos como mas foi ao são você isso"),
    ("nl", "de het een en van is dat op te zijn met voor niet aan er om ook als bij door naar maar worden deze"),
    ("pl", "i w nie na się z do to jest że o jak po co tak za od przez być dla czy ale był oraz tego"),
    ("sv", "och att det som en på är av för med den till inte om ett har jag var men från kan eller så vid"),
    ("tr", "ve bir bu da de için ile ne çok gibi olan var daha kadar olarak ama değil ki sonra her mi"),
)
"""Words without meaning of their own, that a few lines of any prose have."""
_STOP: dict[Language, frozenset[str]] = {language: _set(words) for language, words in _LINES}
_GOOD = _set(
    "good great excellent amazing wonderful love loved loves like happy glad perfect best nice helpful thanks thank pleased enjoy enjoyed "
    "fantastic beautiful awesome brilliant delighted gut toll super wunderbar ausgezeichnet danke gern freut hilfreich schön prima "
    "perfekt zufrieden liebe"
)
_BAD = _set(
    "bad terrible awful horrible hate hated hates angry sad worst poor useless broken fail failed failure wrong disappointing disappointed "
    "annoying stupid ugly disgusting pathetic worthless schlecht schrecklich furchtbar hasse wütend traurig nutzlos kaputt falsch dumm "
    "enttäuscht enttäuschend ärgerlich peinlich"
)
_NOT = _set("not no never n't don't doesn't isn't wasn't nicht kein keine nie")
_ORDERS = re.compile(
    r"\b(?:ignore|disregard|forget|override)\s{1,4}(?:(?:all|any|of|the|your|my|these|those)\s{1,4}){0,3}(?:previous|prior|above|earlier|preceding)"
    r"\s{1,4}(?:instructions?|prompts?|rules|messages?|text)\b"
    r"|\b(?:ignoriere|vergiss|missachte)\s{1,4}(?:(?:alle|die|deine|sämtliche)\s{1,4}){0,2}(?:vorherigen|bisherigen|obigen|vorigen)\s{1,4}"
    r"(?:anweisungen|regeln|befehle|nachrichten)\b"
    r"|\b(?:reveal|print|show|repeat|output)\s{1,4}(?:me\s{1,4})?(?:your|the)\s{1,4}(?:system\s{1,4})?(?:prompt|instructions)\b"
    r"|\byou\s{1,4}are\s{1,4}now\s{1,4}(?:in\s{1,4})?(?:dan|developer\s{1,4}mode|jailbroken|unrestricted|a\s{1,4}different)\b|\bdo\s{1,4}not\s{1,4}(?:tell|inform)\s{1,4}the\s{1,4}user\b"
    r"|\b(?:new|updated)\s{1,4}system\s{1,4}(?:prompt|instructions?)\b|<\|im_start\|>|<\|system\|>|\[/?inst\]|<</?sys>>",
    re.IGNORECASE,
)


def language_of(text: str) -> Language | None:
    """By its script, else by which language's stop words are most of its words: a tenth at least, and a third more than the next one's.

    None: it is too short, or tells none of those that are known here.
    """
    read = text[:_READ]
    words = [word.casefold() for word in _WORD.findall(read)]
    letters = sum(map(len, words))
    for language, signs in _SCRIPT_OF:
        found = len(signs.findall(read))
        if found >= _LEAST_LETTERS // 4 and found > letters * (0.1 if language == "ja" else 0.4):
            return language
    if letters < _LEAST_LETTERS or len(words) < _LEAST_WORDS:
        return None
    counts = sorted(((sum(word in stop for word in words), language) for language, stop in _STOP.items()), reverse=True)
    (most, language), (next_, _) = counts[:2]
    return language if most >= len(words) / 10 and 3 * most >= 4 * next_ else None


def sentiment_of(text: str) -> float:
    """-1 to 1: good words less bad ones, of all that are either; a `not` up to two words before turns one. 0 where there are none."""
    words = [word.casefold().replace("\u2019", "'") for word in _WORD.findall(text[:_READ])]
    good = bad = 0
    for at, word in enumerate(words):
        if word in _GOOD or word in _BAD:
            turned = any(before in _NOT for before in words[max(0, at - 2) : at])
            good, bad = (good + 1, bad) if (word in _GOOD) != turned else (good, bad + 1)
    return (good - bad) / (good + bad) if good + bad else 0.0


def orders_in(text: str, most: int) -> list[tuple[int, int]]:
    """Where phrases stand by which a text gives a model orders; heuristic, English and German. At most so many."""
    return [match.span() for match in islice(_ORDERS.finditer(text), most)]


@lru_cache(1)
def _common() -> frozenset[str]:
    return frozenset(word for stop in _STOP.values() for word in stop)


def tokens_of(texts: Iterable[str]) -> frozenset[str]:
    """Words of content and numbers, in one form."""
    found = {token.replace(",", "") if token[0].isdigit() else token for text in texts for token in _TOKEN.findall(text.casefold())}
    return frozenset(found - _common())


def support_of(text: str, known: frozenset[str]) -> float:
    """Which share of a text's words of content, numbers and names stands in the documents whose tokens are `known`; numbers count thrice,
    since a wrong one is worse. A longer form of a known word counts. 1 where there is nothing to support. It says nothing of truth.
    """
    tokens = tokens_of((text,))
    weights = {token: 3 if token[0].isdigit() else 1 for token in tokens}
    stems = {token[:6] for token in known if len(token) >= 6}
    there = sum(weight for token, weight in weights.items() if token in known or (len(token) >= 6 and token[:6] in stems))
    return there / sum(weights.values()) if weights else 1.0
