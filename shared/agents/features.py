"""Features: what a step's words tell of what it asks: their length, language, kind. Pure; time is linear in what is looked at, which is
bounded: the first and the last 4,000 characters of the last message of a user; of all else the length.

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

LOOKED_AT = 4_000
"""Characters at either end."""
_TOKENS_OF_A_TOOL = 150
"""Its name, description and schema; few have more."""
_FEWEST_WORDS = 2
"""Common words of a language, before a text is of it."""


class QueryFeatures(NamedTuple):
    """`tokens`: of all that the model reads, rather too many; `language`: by ISO 639-1, empty where it is not known."""

    kind: QueryKind
    tokens: int
    language: str
    tools: bool
    schema: bool
    picture: bool


def _any(*words: str) -> re.Pattern[str]:
    return re.compile("|".join(words), re.IGNORECASE)


def _whole(words: str) -> str:
    return rf"\b(?:{words})\b"


_SYNTAX = _any(
    r"```|#include\s*<|Traceback \(most recent|</\w+>|=>|\{\n|;\n|\)\s*:\n|->\s*\w+:|==|!=|&&|\|\|",
    _whole(r"def \w+\(.*|class \w+[:({].*|function \w*\(.*|public static|console\.log|import \w+\n|select [\w*, ]{1,80} from"),
)
_LANGUAGE_NAME = _any(
    r"(?<![a-z])(?:python3?|javascript|typescript|java|golang|rust|kotlin|swift|php|perl|ruby|sql|bash|html|css|numpy|pandas|regex)(?![a-z])",
    r"powershell|haskell|c\+\+|(?<![a-z])c#",
)
"""Between Latin letters: Chinese and Japanese put no space before it."""
_CODE_WORD = _any(
    _whole(
        "code|function|script|program|class|method|compile[rsd]?|unit ?tests?|refactor|debug|query|regex|stack ?trace|api|parser|algorithm"
    ),
    _whole("funktion|skript|programm|klasse|quelltext|fonction|programme|código|función|programa|codice|funzione|programma|função"),
    "функци|код|программ|скрипт|函数|代码|程序|脚本|関数|コード|プログラム|함수|코드",
)
_MATHS = _any(
    r"\\(?:frac|int|sum|sqrt|begin|lim|partial)\b|[∫∑√∞≤≥≠∂π]|\d\s*[-+*/\xd7\xf7^]\s*\(?\d|[xyn]\s*[-+*/^=]\s*\d|\d[xyn]\b",
    _whole("equations?|integrals?|derivatives?|theorems?|probability|prove that|polynomial|matrix|eigenvalues?|modulo|prime numbers?"),
    _whole(
        "gleichung(?:en)?|ableitung|wahrscheinlichkeit|beweise|équations?|dérivée|probabilité|ecuaci(?:ón|ones)|derivada|equazioni?|derivata"
    ),
    "уравнени|производн|интеграл|докажи|вероятност|方程|积分|导数|概率|证明|方程式|積分|微分|確率|방정식|적분|미분",
)
_COUNTS = _any(
    _whole(
        "how (?:many|much)|calculate|compute|solve|wie ?viele?|berechne|combien|calculez?|cuánt[oa]s?|calcula|quant[oiae]|calcola|quantos"
    ),
    "сколько|вычисли|реши|多少|计算|几个|いくつ|いくら|計算|몇|얼마|계산",
)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_MAKE = _any(
    _whole("write|compose|invent|imagine|brainstorm|make up|tell(?: me)?|create|draft|schreibe?|dichte|erfinde|erzähle?|verfasse"),
    _whole(
        "écri[st]|écrivez|invente[rz]?|raconte[rz]?|imagine[rz]?|compose[rz]?|escrib[ea]|inventa|cuéntame|escreva|scrivi|componi|racconta"
    ),
    "напиши|сочини|придумай|расскажи|写|编|创作|書いて|書け|作って|써|지어|만들어",
)
_WORK = _any(
    _whole("poem|poetry|story|stories|tale|song|lyrics|haiku|limerick|novel|slogans?|jokes?|dialogue|names? for|ideas?|ballad|sonnet"),
    _whole("gedicht|geschichte|märchen|lied|witz|liedtext|slogan|roman|ideen|poème|histoire|conte|chanson|blague|idées"),
    _whole("poema|cuento|historia|canción|chiste|ideas|poesia|racconto|favola|canzone|idee|conto|história|canção"),
    "стих|рассказ|сказк|песн|шутк|诗|故事|小说|歌词|笑话|詩|物語|小説|俳句|歌詞|시를|이야기|소설|노래",
)
_ASKS = _any(
    "[?\uff1f\u061f]",
    _whole("who|what|when|where|which|why|how|explain|define|summari[sz]e|translate|compare|list|extract|describe|name"),
    _whole("wer|was|wann|wo|warum|welche[rs]?|wie|erkläre?|fasse|übersetze|vergleiche|nenne|beschreibe"),
    _whole("qui|quand|où|pourquoi|quel(?:le)?s?|explique[rz]?|résume[rz]?|tradui[st]|quién|qué|cuándo|dónde|por qué|cuál|explica|traduce"),
    _whole("chi|quando|dove|perché|quale|spiega|riassumi|traduci|quem|onde|qual|explique|resuma|traduza"),
    "кто|что|когда|где|почему|объясни|перевед|什么|谁|哪|为什么|解释|总结|翻译|なぜ|誰|何|いつ|どこ|説明|要約|翻訳|무엇|누구|언제|어디|왜|설명|요약|번역",
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
_COMMON: dict[str, frozenset[str]] = {
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
_WORD = re.compile(r"[^\W\d_]+")


def query_of(request: StepRequest) -> QueryFeatures:
    """Total: whatever the request is."""
    there, text = request.input_ref, _ends(_said(request))
    return QueryFeatures(
        _kind(text, schema=request.format is not None),
        _tokens(request),
        language_of(text),
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


def _kind(text: str, *, schema: bool) -> QueryKind:
    """The first that fits: code, maths, creative, factual."""
    syntax = len(_SYNTAX.findall(text, 0, LOOKED_AT))
    if "```" in text or syntax >= 3 or (_CODE_WORD.search(text) and (syntax or _LANGUAGE_NAME.search(text))):
        return "code"
    if _MATHS.search(text) or (_COUNTS.search(text) and len(_NUMBER.findall(text)) >= 2):
        return "maths"
    if _MAKE.search(text) and _WORK.search(text):
        return "creative"
    return "factual" if schema or _ASKS.search(text) else "other"


def language_of(text: str) -> str:
    """By the script of most of its letters, else by common words; empty where neither tells."""
    text = _ends(text)
    letters = sum(map(str.isalpha, text))
    for language, script in _SCRIPTS:
        if letters and len(script.findall(text)) * 4 >= letters:
            return language
    words = {word.lower() for word in _WORD.findall(text)}
    counts = {language: len(words & common) for language, common in _COMMON.items()}
    best = max(counts, key=counts.__getitem__)
    return best if counts[best] >= _FEWEST_WORDS else ""
