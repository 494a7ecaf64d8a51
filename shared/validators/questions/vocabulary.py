"""What the vetoes know of words. English is known well; of German, French, Spanish and Italian only words that carry nothing by themselves.

A word that is not here counts as what a question is about. So a table that is too short costs hits; one that holds too much costs answers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _table(rows: Mapping[str, str]) -> dict[str, str]:
    """Each of the words → what stands for them."""
    return {word: said for said, words in rows.items() for word in words.split()}


FILLERS = {
    "en": """
        a an the this that these those there it its itself be is are am was were been being do does did doing done have has had i my myself
        we our some any of in on at to for from into with by and as so if also just really actually please thanks thank hello hi hey
        would could can will shall may might should must able possible describe define explain exactly currently what which how in
    """,
    "de": """
        der die das den dem des ein eine einen einem einer eines und ist sind war waren wird werden ich mich mir mein meine meinen wir uns
        es zu in im am an auf von vom mit für bei bitte kann können man was welche welcher welches wie wo wer wann warum habe hat gibt
    """,
    "fr": """
        le la les l un une des d du de et est sont était je j me m mon ma mes nous il ce c à au aux en sur pour avec vous plaît peux peut
        quel quelle quels quelles que qu qui quoi comment où quand pourquoi y a t
    """,
    "es": """
        el la los las un una unos unas y es son era yo me mi mis se de del en a al por para con favor puedo puede que qué cuál cuáles quién
        cómo dónde cuándo hay lo
    """,
    "it": """
        il lo la i gli le l un uno una e è sono era io mi mio mia si di del della dei in nel nella a al da per con favore posso può che cosa
        qual quale quali chi come dove quando perché c
    """,
}
TONGUES = {tongue: _set(text) for tongue, text in FILLERS.items()}
ASKING = {
    "en": ("who", "where", "when", "why", "how"),
    "de": ("wer", "wo", "wann", "warum", "wie"),
    "fr": ("qui", "où", "quand", "pourquoi", "comment"),
    "es": ("quién", "dónde", "cuándo", "porqué", "cómo"),
    "it": ("chi", "dove", "quando", "perché", "come"),
}
"""Who, where, when, why, how."""
AUXILIARIES = _set(
    "is are am was were do does did can could will would should must may might shall has have had isn't aren't doesn't don't"
)
OUGHT, CAN = _set("should must ought supposed"), _set("can could may might able possible")
TENSES = _table({"past": "did was were had", "present": "is are am do does", "future": "will shall gonna 'll"})
NEGATIONS = _set("not no never none nobody nothing nowhere neither nor without unless lack except hardly cannot nicht kein ne pas non")
ROLES = _set("to from into than by of for with in on at before after between against under over as")
"""Prepositions: what comes behind one has its role."""
OPPOSED = ({"from"}, {"to", "into"})

NUMBERS = _table({
    "0": "zero", "2": "two second twice double", "3": "three third thrice triple", "4": "four fourth", "5": "five fifth", "6": "six sixth",
    "7": "seven seventh", "8": "eight eighth", "9": "nine ninth", "10": "ten tenth", "11": "eleven eleventh", "12": "twelve twelfth",
    "13": "thirteen", "14": "fourteen", "15": "fifteen", "16": "sixteen", "17": "seventeen", "18": "eighteen", "19": "nineteen",
    "20": "twenty", "30": "thirty", "40": "forty", "50": "fifty", "60": "sixty", "70": "seventy", "80": "eighty", "90": "ninety",
    "100": "hundred", "1000": "thousand", "1000000": "million", "1000000000": "billion", "1/2": "half", "1/4": "quarter", "1": "first once",
    "12x": "dozen dozens",
})  # fmt: skip
"""`one` is left out: it mostly means somebody; who means a number will have another one beside it."""
ROMAN = re.compile(r"(?=[IVXL]{2,6}\Z|[VX]\Z)X{0,3}L?X{0,3}(?:IX|IV|V?I{0,3})")

_UNITS = {
    "%": "percent", "metre": "meter", "km": "kilometre kilometer", "cm": "centimetre centimeter", "mm": "millimetre millimeter",
    "kg": "kilogram kilo", "gram": "gramme", "mg": "milligram", "litre": "liter", "ml": "millilitre milliliter", "mile": "mi",
    "kmh": "km/h kph", "usd": "dollar $", "eur": "euro €", "gbp": "£", "yen": "¥ jpy", "degree": "°", "celsius": "centigrade",
    "hour": "hr hrs h", "minute": "min mins", "foot": "ft", "inch": "in", "ounce": "oz", "pound": "lb lbs", "hectare": "ha",
    "fahrenheit": "", "gallon": "", "cup": "", "teaspoon": "tsp", "tablespoon": "tbsp", "mph": "", "day": "", "week": "", "month": "",
    "year": "", "acre": "", "stone": "", "kelvin": "", "watt": "", "volt": "", "amp": "", "mb": "", "gb": "", "kb": "", "tb": "",
}  # fmt: skip
UNITS = {unit: unit for unit in _UNITS} | _table(_UNITS)
SHORT_UNITS = {"m": "metre", "g": "gram", "l": "litre", "in": "inch", "h": "hour", "c": "celsius", "f": "fahrenheit"}
"""Behind a number or a degree sign only."""
TIMES = _set(
    """
    monday tuesday wednesday thursday friday saturday sunday january february march april may june july august september october november
    december today tomorrow yesterday tonight now then morning noon afternoon evening night midnight am pm spring summer autumn fall winter
    last next century decade early late daily weekly monthly yearly annual weekend weekday holiday easter christmas before after since until
    currently former ago
    """
)

_SAME = {
    "buy": "purchase", "start": "begin commence launch", "make": "create", "delete": "erase", "fix": "repair", "big": "large",
    "bigger": "larger", "biggest": "largest", "fast": "quick rapid", "fastest": "quickest", "faster": "quicker", "small": "little",
    "smallest": "littlest", "child": "kid", "film": "movie", "job": "occupation", "bike": "bicycle", "car": "automobile",
    "picture": "photo image", "doctor": "physician", "happen": "occur", "recommend": "suggest", "summary": "summarize",
    "difference": "differ different", "benefit": "advantage", "email": "e-mail mail", "phone": "telephone", "help": "assist assistance",
    "change": "modify alter", "improve": "better", "choose": "pick select", "find": "locate", "end": "finish", "cost": "price",
    "error": "mistake", "answer": "reply", "tip": "hint advice", "usa": "america", "uk": "britain", "wifi": "wi-fi", "app": "application",
    "receive": "obtain", "allow": "permit", "forbid": "prohibit", "require": "demand", "quit": "exit", "center": "centre",
    "program": "programme", "country": "nation", "city": "town", "person": "human", "shop": "store", "trash": "garbage rubbish",
    "vacation": "holiday", "apartment": "flat", "elevator": "lift", "soccer": "football", "autumn": "fall", "gasoline": "petrol",
    "ill": "sick", "smart": "clever", "easy": "simple", "international": "worldwide", "immediately": "instantly",
    "approximately": "roughly", "frequent": "often", "whole": "entire", "dad": "father", "mum": "mom mother",
}  # fmt: skip
SAME = {first: first for first in _SAME} | _table(_SAME)
"""Words that may stand for one another in a question; the first of a group stands for all."""
IRREGULAR = _table({
    "write": "wrote written", "make": "made", "begin": "began begun", "win": "won", "lead": "led", "sell": "sold", "buy": "bought",
    "speak": "spoke spoken", "sing": "sang sung", "eat": "ate eaten", "go": "went gone", "undo": "undid undone", "get": "got gotten",
    "forget": "forgot forgotten", "build": "built", "pay": "paid", "send": "sent", "take": "took taken", "give": "gave given",
    "see": "saw seen", "say": "said", "tell": "told", "break": "broke broken", "drink": "drank drunk", "drive": "drove driven",
    "choose": "chose chosen", "grow": "grew grown", "know": "knew known", "run": "ran", "teach": "taught", "lose": "lost",
    "come": "came", "hold": "held", "mean": "meant meaning", "child": "children", "man": "men", "woman": "women", "mouse": "mice",
    "foot": "feet", "tooth": "teeth", "catch": "caught", "keep": "kept", "sleep": "slept", "feel": "felt", "beat": "beaten",
})  # fmt: skip

_MEASURES = {"tall": "height", "high": "height", "far": "distance", "old": "age", "fast": "speed", "deep": "depth", "heavy": "weight"}
_MEASURES |= {"wide": "width", "big": "size", "large": "size"}
_ASKED = {"tell": "what ", "show": "what ", "give": "what ", "expl": "what ", "desc": "what ", "list": "what "}
_ASKED |= {"writ": "write", "send": "send", "reco": "recommend", "sugg": "suggest"}
_WHAT = "(?:what|which)(?:'s| is| are|)"
_I = "(?:i|you|we|one|people)"
_IDIOMS: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"(?:can|could|would|will) you (?:please )?(?:tell me|let me know|explain(?: to me)?)\b", ""),
    (r"(?:can|could|would|will) you (?:please )?(?=give|recommend|suggest|write|show|list|help|tell|name|make|summar|translate)", ""),
    (r"(?:tell|show|give|explain to|write|send|recommend|suggest|describe to|list) me\b(?: about\b)?",
     lambda found: _ASKED[found[0][:4].lower()]),
    (r"(?:do you know|i(?:'d| would) like to know|i want to know|i wonder)\b", ""),
    (r"i (?:want|need|would like|'d like) to\b(?=.*\bhow\b)", ""),
    (r"how (?:do|can|could|should|would) i do (?:that|this|it)\b", "how"),
    (rf"{_WHAT} (?:the |a |some |)(?:best |right |proper |good )?(?:way|method|step|command)s? (?:to|of|for|in which)\b", "how do I"),
    (rf"what (?:can|should|must|do) {_I} (?:need to |have to )?do (?:in order )?to\b", "how do I"),
    (r"in (?:what|which) way\b", "how"),
    (rf"how (?:do|can|could|should|would) {_I}\b|how to\b", "how"),
    (r"(?:what(?:'s| is| are) |for what )(?:the )?reasons? (?:that |why |for which )?|how come\b|what makes\b", "why "),
    (r"what time is it\b", "what is the time"),
    (r"(?:at )?what time\b(?= do| does| did| will| is the| can)", "when"),
    (r"(?:which|what) person\b|whom\b", "who"),
    (r"who(?:'s| is| was) the (?:author|writer) of\b", "who wrote"),
    (r"who(?:'s| is| was) the ([a-z]{3,20})(?:er|or) of\b", r"who \1"),
    (r"how many (?:people live|inhabitants are there|people are there) in\b|how many people does\b", "what is the population of"),
    (rf"how ({'|'.join(_MEASURES)})\b", lambda found: "what " + _MEASURES[found[1].lower()]),
    (r"how much (?:does|do|did|will|would) (.{1,80}?) cost\b", r"what is the cost of \1"),
    (r"how much (?:is|are) (?=[\d$€£])", "what is "),
    (r"distance between\b", "distance"), (r"\busing\b", "with"), (r"explain .{1,60}\bto me\b", lambda f: f[0][:-6]),
    (r"\A(?:list|name|what are) (?=\d|two|three|four|five|six|seven|eight|nine|ten)", "what "),
    (r"how much time\b", "how long"),
    (r"how (?:do|does) (.{1,80}? and .{1,80}?) differ\b", r"what is the difference between \1"),
    (r"(?:what(?:'s| is) )?the number of\b|how much\b", "how many"),
    (r"give me a (?:list|summary) of\b|what(?:'s| is) (?:a|the) summary of\b", "summarize"),
    (r"wi-fi\b", "wifi"), (r"e-mail\b", "email"), (r"per cent\b", "percent"),
    (r"turn(ed|ing)? (?:it )?on\b", r"enable"), (r"turn(ed|ing)? (?:it )?off\b", r"disable"),
)  # fmt: skip
IDIOMS = tuple((re.compile(rf"\b(?:{pattern})", re.IGNORECASE), said) for pattern, said in _IDIOMS)
"""Ways of asking that mean one; the order matters."""
