"""Vetoes: whether the answer to one question may be given to another one that reads alike. Pure; a miss when in doubt.

Similar is not the same: of pairs that differ in a number, a negation or the order of two names half are more similar than paraphrases are
(decision 0044). So two questions must say the same things; what a known wording may change is in `vocabulary`, what counts in `terms`.
Not seen: irony, words with two meanings, and what a synonym means besides.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from itertools import combinations

from shared.validators.questions import vocabulary
from shared.validators.questions.terms import LONGEST, Reading, Term, read

_MOST_MOVED = 24
"""Of more words nobody tells what has changed places."""


class Veto(StrEnum):
    """In what two questions differ."""

    LENGTH = "length"
    LANGUAGE = "language"
    NAMES = "names"
    NUMBERS = "numbers"
    NEGATION = "negation"
    TIMES = "times"
    UNITS = "units"
    QUESTION = "question"
    ORDER = "order"
    WORDING = "wording"


def veto(asked: str, stored: str) -> Veto | None:
    """The first reason against it; None where none is known. Symmetric."""
    if asked == stored:
        return None
    if max(len(asked), len(stored)) > LONGEST:
        return Veto.LENGTH
    one, other = read(asked), read(stored)
    if one.tongue != other.tongue:
        return Veto.LANGUAGE
    return _difference(one, other) or _question(one, other) or (Veto.ORDER if _reordered(one, other) else None)


def _difference(one: Reading, other: Reading) -> Veto | None:
    mine, others = one.counts(), other.counts()
    left = set((mine - others) | (others - mine))
    if not left:
        return None
    named = {item.said for item in (*one.items, *other.items) if item.name}
    kinds = (
        (Veto.NEGATION, lambda said: said in vocabulary.NEGATIONS or _negates(said, left)),
        (Veto.TIMES, lambda said: said in vocabulary.TIMES),
        (Veto.NUMBERS, lambda said: said[0].isdigit()),
        (Veto.UNITS, lambda said: said.casefold() in vocabulary.UNITS),
        (Veto.NAMES, lambda said: said in named),
    )
    return next((reason for reason, holds in kinds if any(map(holds, left))), Veto.WORDING)


def _negates(said: str, left: set[str]) -> bool:
    """Whether the other text has the word with a prefix that turns its meaning."""
    return any(prefix + said in left for prefix in ("un", "in", "im", "ir", "il", "dis", "non", "non-", "de", "mis", "anti"))


def _question(one: Reading, other: Reading) -> Veto | None:
    if one.asks != other.asks:
        return Veto.QUESTION
    if one.tense and other.tense and one.tense != other.tense:
        return Veto.TIMES
    ought = "ought" in (one.modal, other.modal) and one.asks != "how"
    return Veto.QUESTION if one.modal != other.modal and (ought or one.asks == "polar") else None


def _reordered(one: Reading, other: Reading) -> bool:
    """Whether two things have changed places. Both say the same things, each as often."""
    if one.numbers() != other.numbers():
        return True
    mine, others = _alone(one), _alone(other)
    if any(_opposed(mine[said].role, others[said].role) for said in mine if said in others):
        return True
    both = [said for said in mine if said in others]
    for a, b in combinations(both, 2):
        roles = mine[a].role, mine[b].role
        if roles[0] != roles[1] and roles == (others[b].role, others[a].role):
            return True
    kept = [said for said in both if mine[said].role == others[said].role]
    return _shuffled(kept, [said for said in others if said in set(kept)], joined=one.joined and other.joined, free=one.tongue == "en")


def _alone(reading: Reading) -> dict[str, Term]:
    """What it says once, in its order."""
    counts = reading.counts()
    return {item.said: item for item in reading.items if counts[item.said] == 1}


def _opposed(one: str, other: str) -> bool:
    away, towards = vocabulary.OPPOSED
    return one != other and ("by" in (one, other) or (one in away and other in towards) or (other in away and one in towards))


def _shuffled(one: Sequence[str], other: Sequence[str], *, joined: bool, free: bool) -> bool:
    """Whether more has happened than a part put first, or the verb last as in a passive: a block, or a word, that jumps over several."""
    if list(one) == list(other):
        return False
    if not free or len(one) > _MOST_MOVED:
        return True
    if len(one) > 2 and any([*one[cut:], *one[:cut]] == list(other) for cut in range(1, len(one))):
        return False
    moved = [word for word in one if [said for said in one if said != word] == [said for said in other if said != word]]
    return not any(joined or abs(one.index(word) - other.index(word)) > 1 for word in moved)
