"""Features: what a step's words tell of what it asks: their length, language, kind. Pure. Words are looked up in sets, in time linear in
what is looked at, which is bounded: the first and the last 1,000 characters of the last message of a user; of all else the length.

What it cannot tell: irony, what is meant by "go on", a language or a trade whose words are not here, whether a task is hard. A question
about a poem may count as creative, "java" beside "program" as code though it is of an island. What lies in a blob is not read: only its
length is known, whether it has pictures, and tools. Who is sure names the model, an agent, or options: his word counts.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from shared.contracts.agents import QueryKind
from shared.contracts.step import StepRequest
from shared.estimates import cautious_tokens

LOOKED_AT = 1_000
"""Characters at either end."""
_SAMPLE = 400
"""Characters by which a script is told."""
_TOKENS_OF_A_TOOL = 150
"""Its name, description and schema; few have more."""
_FEWEST_WORDS = 2
"""Different common words of a language, before a text is of it."""


class QueryFeatures(NamedTuple):
    """`tokens`: of all that the model reads, rather too many; `language`: by ISO 639-1, empty where it is not known."""

    kind: QueryKind
    tokens: int
    language: str
    tools: bool
    schema: bool
    picture: bool


class _Words(NamedTuple):
    """Of a subject: whole words, of languages that put spaces between them; parts of any text, in small letters."""

    whole: frozenset[str]
    parts: tuple[str, ...]

    def in_(self, text: str, words: set[str]) -> bool:
        return not self.whole.isdisjoint(words) or any(part in text for part in self.parts)


def _words(whole: str, parts: str = "") -> _Words:
    """`parts`: with a bar between them."""
    return _Words(frozenset(whole.split()), tuple(part for part in parts.split("|") if part))


_SYNTAX = (
    "=>",
    "{\n",
    ";\n",
    "):\n",
    "==",
    "!=",
    "&&",
    "||",
    "->",
    "</",
    "();",
    "[i]",
    "\n    ",
    "import ",
    "console.log",
    "self.",
    "select *",
)
"""Three of them, or one beside a word of the trade, are a program's text."""
_SURE_SYNTAX = ("```", "#include <", "#include<", "traceback (most recent", "public static", "def __init__", "<!doctype html")
_PROGRAMMED_IN = _words(
    "python python3 javascript typescript java golang rust kotlin swift php perl ruby sql bash html css numpy pandas regex"
    " powershell haskell c++ c# postgres postgresql"
)
_CODE = _words(
    "code function script program class method compile compiles compiler refactor debug query stacktrace api parser algorithm unittest"
    " funktion skript programm klasse quelltext fonction programme código función programa codice funzione programma função",
    "unit test|функци|код |кода|программ|скрипт|函数|代码|程序|脚本|関数|コード|プログラム|함수|코드",
)
_MATHS = _words(
    "equation equations integral integrals derivative derivatives theorem theorems probability polynomial eigenvalue eigenvalues modulo"
    " gleichung gleichungen ableitung wahrscheinlichkeit beweise équation équations dérivée probabilité ecuación ecuaciones derivada"
    " equazione equazioni derivata equação",
    "\\frac|\\int|\\sum|\\sqrt|\\begin{|prove that|prime number|уравнени|производн|интеграл|докажи|вероятност"
    "|方程|积分|导数|概率|证明|積分|微分|確率|방정식|적분|미분",
)
_MATHS_SIGNS = frozenset("\u222b\u2211\u221a\u221e\u2264\u2265\u2260\u2202\u03c0")
_SUM = re.compile(r"(?:\d|\b[nxy]) ?[-+*/^=\xd7\xf7] ?\(?\d|\d[xy]\b")
_COUNTS = _words(
    "calculate compute solve berechne wieviel wieviele combien calcule calculez cuánto cuánta cuántos cuántas calcula quanto quanti calcola"
    " quantos",
    "how many|how much|wie viel|сколько|вычисли|реши|多少|计算|几个|いくつ|いくら|計算|몇|얼마|계산",
)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_MAKE = _words(
    "write compose invent imagine brainstorm tell create draft schreib schreibe dichte erfinde erzähl erzähle verfasse"
    " écris écrivez invente inventez raconte racontez imagine compose composez escribe escriba inventa cuéntame escreva scrivi"
    " componi racconta",
    "make up|напиши|сочини|придумай|расскажи|写|编|创作|書いて|書け|作って|써|지어|만들어",
)
_WORK = _words(
    "poem poetry story stories tale song lyrics haiku limerick novel slogan slogans joke jokes dialogue idea ideas ballad sonnet"
    " gedicht geschichte märchen lied witz liedtext roman ideen poème histoire conte chanson blague idées poema cuento historia canción"
    " chiste poesia racconto favola canzone idee conto história canção",
    "names for|стих|рассказ|сказк|песн|шутк|诗|故事|小说|歌词|笑话|詩|物語|小説|俳句|歌詞|시를|이야기|소설|노래",
)
_ASKS = _words(
    "who what when where which why how explain define summarize summarise translate compare list extract describe name"
    " wer was wann wo warum welche welcher welches wie erklär erkläre fasse übersetze vergleiche nenne beschreibe"
    " qui quand où pourquoi quel quelle quels quelles explique expliquez résume résumez traduis quién qué cuándo dónde cuál explica traduce"
    " chi quando dove perché quale spiega riassumi traduci quem onde qual resuma traduza",
    "?|\uff1f|\u061f|кто|что|когда|где |почему|объясни|перевед|什么|谁|哪|为什么|解释|总结|翻译|なぜ|誰|何|いつ|どこ|説明|要約|翻訳"
    "|무엇|누구|언제|어디|왜|설명|요약|번역",
)
_SCRIPTS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("ja", re.compile("[\u3040-\u30ff]")),
    ("ko", re.compile("[\uac00-\ud7af]")),
    ("zh", re.compile("[\u4e00-\u9fff]")),
    ("ru", re.compile("[\u0400-\u04ff]")),
    ("ar", re.compile("[\u0600-\u06ff]")),
    ("el", re.compile("[\u0370-\u03ff]")),
    ("he", re.compile("[\u0590-\u05ff]")),
    ("hi", re.compile("[\u0900-\u097f]")),
    ("th", re.compile("[\u0e00-\u0e7f]")),
)
"""Kana before Han signs, which Japanese has, too. Cyrillic is taken for Russian, Devanagari for Hindi."""
_COMMON = {
    language: frozenset(words.split())
    for language, words in (
        ("en", "the of and to is in that it for what how with this are write you me please"),
        ("de", "der die das und ist ein eine nicht ich wie mit für auf den dem was von zu schreibe mir bitte"),
        ("fr", "le la les des est et une un que dans pour qui pas je comment sur avec du moi en"),
        ("es", "el la los las es y una un que en para por no cómo con del al qué sobre me"),
        ("it", "il la gli le è e una un che in per non come con del di sono perché mi"),
        ("pt", "o a os as é e uma um que em para por não como com do da você sobre me"),
        ("nl", "de het een en is van niet ik hoe met voor op dat wat te zijn schrijf mij"),
    )
}
_WORD = re.compile("[a-z\xdf-\u024f]+[+#]*")
"""Of Latin letters, in small ones: Chinese and Japanese put no space before such a word."""


def query_of(request: StepRequest) -> QueryFeatures:
    """Total: whatever the request is."""
    there, text = request.input_ref, _ends(_said(request)).lower()
    words = set(_WORD.findall(text))
    return QueryFeatures(
        _kind(text, words, schema=request.format is not None),
        _tokens(request),
        _language(text, words),
        bool(request.tools) if there is None else there.tools,
        request.format is not None,
        any(message.images for message in request.messages) if there is None else there.images,
    )


def _said(request: StepRequest) -> str:
    if request.prompt is not None:
        return request.prompt
    return next((message.content for message in reversed(request.messages) if message.role == "user"), "")


def _ends(text: str) -> str:
    return text if len(text) <= 2 * LOOKED_AT else f"{text[:LOOKED_AT]}\n{text[-LOOKED_AT:]}"


def _tokens(request: StepRequest) -> int:
    if request.input_ref is not None:
        return cautious_tokens(request.input_ref.longest)
    texts = (request.prompt or "", *(message.content for message in request.messages))
    size = sum(len(text) if text.isascii() else len(text.encode("utf-8", "replace")) for text in texts)
    before = 0 if request.context is None else request.context.longest
    return cautious_tokens(size + before) + _TOKENS_OF_A_TOOL * len(request.tools)


def _kind(text: str, words: set[str], *, schema: bool) -> QueryKind:
    """The first that fits: code, maths, creative, factual."""
    syntax = sum(text.count(sign) for sign in _SYNTAX)
    if syntax >= 3 or any(sign in text for sign in _SURE_SYNTAX):
        return "code"
    if _CODE.in_(text, words) and (syntax or _PROGRAMMED_IN.in_(text, words)):
        return "code"
    if _MATHS.in_(text, words) or _SUM.search(text) or not _MATHS_SIGNS.isdisjoint(text):
        return "maths"
    if _COUNTS.in_(text, words) and len(_NUMBER.findall(text)) >= 2:
        return "maths"
    if _MAKE.in_(text, words) and _WORK.in_(text, words):
        return "creative"
    return "factual" if schema or _ASKS.in_(text, words) else "other"


def _language(text: str, words: set[str]) -> str:
    """By the script of the beginning's letters, else by common words; empty where neither tells."""
    if not text.isascii():
        sample = text[:_SAMPLE]
        letters = sum(map(str.isalpha, sample))
        for language, script in _SCRIPTS:
            if letters and len(script.findall(sample)) * 4 >= letters:
                return language
    counts = {language: len(words & common) for language, common in _COMMON.items()}
    best = max(counts, key=counts.__getitem__)
    return best if counts[best] >= _FEWEST_WORDS else ""
