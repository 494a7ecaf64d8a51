"""Suiting: which model a step gets that asks for `auto` or a tier, in which order others answer in its place, and how it is asked. Pure.

The job pins what there is to choose from when it is accepted (`Team.rated`): what cards say, what was learned, how the fleet was. So the
choice is a function of its first event, the step, and what history says of cost and time: a replay and a successor choose the same, and
routers and workers learn nothing new. The step's id is made without it: where another release chooses otherwise a job goes on.
Arithmetic is exact everywhere (no logarithms, no library's random numbers).

A caller's word counts: whoever names a model, or options, gets them. Embeddings are never chosen: vectors of two models cannot be compared.
That an answer is to fit a schema asks nothing of a model, since endpoints hold any to it by its grammar.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from math import sqrt
from typing import Annotated, Any, NamedTuple

from pydantic import Field, ValidationError

from shared.agents.cards import Cards, applied, said, tier_of
from shared.agents.features import QueryFeatures, query_of
from shared.contracts.agents import MOST_FALLBACKS, MOST_RATED, Belief, ModelCard, QueryKind, RatedModel, Team
from shared.contracts.base import Contract, Count, Label, ModelName, PriorityClass
from shared.contracts.chat import Operation, Options
from shared.contracts.node import Ability
from shared.contracts.step import StepRequest
from shared.estimates import ANSWER_TOKENS
from shared.model_names import AUTO, canonical

MOST_BYTES = 1_024
"""Of an explanation."""
_CHOSEN = frozenset({Operation.CHAT, Operation.GENERATE})
_OF_TIER = {"small": 0.4, "medium": 0.6, "large": 0.8, None: 0.5}
"""Quality where a card says none."""
_WORTH: Mapping[QueryKind, float] = {"code": 1.0, "maths": 1.0, "factual": 0.8, "creative": 0.7, "other": 0.6}
"""How much quality counts: a chat is served by nearly any model. Judged by hand, as the weights below are."""
_LONG_TOKENS, _LONG_WORTH = 4_000, 0.2
_PRICE_AND_TIME = {PriorityClass.INTERACTIVE: (0.1, 0.2), PriorityClass.STANDARD: (0.15, 0.1), PriorityClass.BATCH: (0.25, 0.0)}
"""What the dearest and the slowest lose by that."""
_CARD_COUNTS = 8.0
"""Answers seen that weigh as much as a card's word."""
_MOST_ANSWER = 2_048
_TIGHT = 0.8
"""Of the job's limit of cost: beyond it the cheapest that fits is taken."""
_NOTICED_SECONDS = 10.0
"""Of an answer: where all take less, time counts the less."""
_SLOWEST = 0.1
"""Tokens a second that make a difference."""
_BUSY = 2.0
"""Times as long, where no slot is free."""


def _nothing(_: str) -> Mapping[QueryKind, Belief]:
    return {}


class KnownModels(NamedTuple):
    """What is known of models by now, by their full names: what is believed of one, and what live nodes tell; empty: nobody knows."""

    learned: Callable[[str], Mapping[QueryKind, Belief]] = _nothing
    seen: Mapping[str, RatedModel] = {}


Score = Annotated[float, Field(ge=-4, le=4)]
"""Worth of a quality that is drawn may lie beyond 1, and price and time are taken off."""


class Means(NamedTuple):
    """What is left to a job as its history tells it. `cost`: its limit, None where it has none, and what is `spent` of it."""

    priority_class: PriorityClass = PriorityClass.STANDARD
    seconds: float = 3_600.0
    cost: float | None = None
    spent: float = 0.0


class _ChoiceTold(Contract):
    """How a step's model was chosen, for people. `scores`: best first; `left_out`: why others could not be asked; `more`: not shown."""

    kind: QueryKind
    tokens: Count
    language: Label = ""
    needs: tuple[Ability, ...] = Field(default=(), max_length=4)
    scores: dict[ModelName, Score] = Field(default={}, max_length=MOST_RATED)
    left_out: dict[ModelName, Label] = Field(default={}, max_length=MOST_RATED)
    more: Count = 0
    judged: bool = False
    cheapest: bool = False


class _Seen(NamedTuple):
    row: RatedModel
    cost: float
    seconds: float
    quality: float
    reason: str
    """Why it cannot be asked; empty: it can."""


def may_be_chosen(card: ModelCard) -> bool:
    """For `auto`: its administrator has said how much it can."""
    return card.tier is not None or bool(card.quality)


def rated(of: Cards, names: Iterable[str], capability: str, known: KnownModels) -> tuple[RatedModel, ...]:
    """What a job that names these may choose from, best first by the cards."""
    wanted = set(names)
    tiers = {tier for name in wanted if (tier := tier_of(name)) is not None}
    if capability == Operation.EMBED or not (tiers or AUTO in wanted):
        return ()
    found = (card for card in of.serving(capability) if card.tier in tiers or (AUTO in wanted and may_be_chosen(card)))
    return tuple(_row(card, known.learned(canonical(card.model)), known.seen) for card in islice(found, MOST_RATED))


def _row(card: ModelCard, beliefs: Mapping[QueryKind, Belief], seen: Mapping[str, RatedModel]) -> RatedModel:
    there = seen.get(canonical(card.model))
    own: dict[str, Any] = {
        "model": card.model,
        "tier": card.tier,
        "quality": card.quality,
        "price": card.price,
        "options": card.options,
        "prefers": card.prefers,
        "beliefs": dict(beliefs),
    }
    able = dict.fromkeys(card.abilities, True)
    if there is None:
        return RatedModel.of_valid(**own, window=card.window, abilities=able, state="away" if seen else None)
    told = {"state": there.state, "speed": there.speed, "load_seconds": there.load_seconds}
    return RatedModel.of_valid(**own, **told, window=card.window or there.window, abilities={**able, **there.abilities})


def chosen(request: StepRequest, team: Team, means: Means, draw: Callable[[str], float]) -> tuple[StepRequest, str | None]:
    """The request with what its names stand for, and how that was chosen, if it was. `draw`: a label → a number in [0, 1), the same at
    each run of the job.
    """
    told = None
    if request.operation in _CHOSEN:
        request, told = _chosen(request, team, means, draw)
    return applied(request, team.models), told


def _chosen(request: StepRequest, team: Team, means: Means, draw: Callable[[str], float]) -> tuple[StepRequest, str | None]:
    names = (request.model, *request.fallback_models)
    groups = {name: rows for name in names if (rows := _group(team.rated, name))}
    if not groups:
        return request, None
    query = query_of(request)
    needs = _abilities(query)
    judged = any(query.kind in row.beliefs for rows in groups.values() for row in rows)
    tight = means.cost is not None and means.spent >= _TIGHT * means.cost
    order: list[str] = []
    shown: dict[str, float] = {}
    left_out: dict[str, str] = {}
    led = ""
    for name in names:
        if name not in groups:
            order += [] if tier_of(name) and not any(each.name == name for each in team.models) else [name]
            continue
        seen = _ranked(groups[name], request, query, means, draw if judged else None)
        left_out |= {one.row.model: one.reason for one in seen if one.reason}
        scores = _scores(seen, query, means)
        best = sorted((one for one in seen if not one.reason), key=_place(needs, tight=tight, scores=scores))
        led = led or ("" if order or not best else best[0].row.model)
        order += [one.row.model for one in best]
        shown |= {one.row.model: round(scores[one.row.model], 3) for one in best if one.row.model not in shown}
    told = _told(
        _ChoiceTold(
            kind=query.kind,
            tokens=query.tokens,
            language=query.language,
            needs=needs,
            scores=shown,
            left_out=left_out,
            judged=judged,
            cheapest=tight,
        )
    )
    if not any(name != AUTO for name in order):  # as if there was no choice: who knows the nodes says what is wrong
        return request, told
    row = next((row for row in team.rated if row.model == led), None)
    return _with_models(request, order, row, team.profiles.get(query.kind, Options())), told


def _group(rows: Sequence[RatedModel], name: str) -> list[RatedModel]:
    """What this name is chosen from."""
    if name == AUTO:
        return [row for row in rows if row.tier is not None or row.quality]
    tier = tier_of(name)
    return [] if tier is None else [row for row in rows if row.tier == tier]


def _abilities(query: QueryFeatures) -> tuple[Ability, ...]:
    return (*(("vision",) if query.picture else ()), *(("tools",) if query.tools else ()))


def _with_models(request: StepRequest, order: list[str], first: RatedModel | None, profile: Options) -> StepRequest:
    """`auto` stands last: any model is better than none. `first`: the one that is asked first, if it was chosen."""
    models = tuple(dict.fromkeys(name for name in order if name != AUTO))[: 1 + MOST_FALLBACKS]
    if AUTO in (request.model, *request.fallback_models):
        models = (*models[:MOST_FALLBACKS], AUTO)
    changed: dict[str, Any] = {"model": models[0], "fallback_models": models[1:]}
    if first is not None:
        changed["options"] = Options(**{**said(profile), **said(first.options), **said(request.options)})
        if first.prefers and request.needs.prefers is None:
            changed["needs"] = request.needs.model_copy(update={"prefers": first.prefers})
    return request.model_copy(update=changed)


def _ranked(
    rows: Sequence[RatedModel], request: StepRequest, query: QueryFeatures, means: Means, draw: Callable[[str], float] | None
) -> list[_Seen]:
    """What is to be expected of each. `draw`: some may be better than they are believed to be."""
    answer = request.options.max_tokens or ANSWER_TOKENS
    likely = min(answer, _MOST_ANSWER)  # callers name a bound, not a length
    room = query.tokens + likely
    slowest = min((row.speed for row in rows if row.speed), default=None)
    found = []
    for row in rows:
        cost = 0.0 if row.price is None else row.price.cost(query.tokens, answer)
        speed = row.speed or slowest
        seconds = 0.0 if speed is None else likely / max(speed, _SLOWEST) * (_BUSY if row.state == "busy" else 1.0)
        seconds += (row.load_seconds or 0.0) if row.state == "cold" else 0.0
        denied = any(row.abilities.get(ability) is False for ability in _abilities(query))
        reason = (
            "ability" if denied
            else "window" if row.window is not None and row.window < room
            else "budget" if means.cost is not None and cost > means.cost - means.spent
            else "deadline" if seconds > max(0.0, means.seconds)
            else ""
        )  # fmt: skip
        found.append(_Seen(row, cost, seconds, _quality(row, query.kind, request.capability, draw), reason))
    if all(one.reason for one in found):  # too late by what is expected: still the best that there is
        found = [one._replace(reason="") if one.reason == "deadline" else one for one in found]
    return found


def _quality(row: RatedModel, kind: QueryKind, capability: str, draw: Callable[[str], float] | None) -> float:
    """Expected, from 0 to 1: the card's word, and what was seen since. With `draw` a value that it may well have, of the same spread."""
    by = row.quality
    prior = by.get(kind, by.get(capability, by.get("chat", _OF_TIER[row.tier])))
    belief = row.beliefs.get(kind, Belief())
    count = _CARD_COUNTS + belief.good + belief.bad
    mean = (_CARD_COUNTS * prior + belief.good) / count
    if draw is None:
        return mean
    return mean + (2.0 * draw(row.model) - 1.0) * sqrt(3.0 * mean * (1.0 - mean) / (count + 1.0))


def _scores(seen: Sequence[_Seen], query: QueryFeatures, means: Means) -> dict[str, float]:
    price, time = _PRICE_AND_TIME[means.priority_class]
    worth = min(1.0, _WORTH[query.kind] + (_LONG_WORTH if query.tokens > _LONG_TOKENS else 0.0))
    dearest, slowest = max(one.cost for one in seen) or 1.0, max(_NOTICED_SECONDS, *(one.seconds for one in seen))
    return {one.row.model: worth * one.quality - price * one.cost / dearest - time * one.seconds / slowest for one in seen}


def _place(needs: Sequence[Ability], *, tight: bool, scores: Mapping[str, float]) -> Callable[[_Seen], tuple[Any, ...]]:
    """Who lives before who is away, who says that it can before who does not deny it; the best; the cheapest; by name."""

    def place(one: _Seen) -> tuple[Any, ...]:
        doubts = sum(ability not in one.row.abilities for ability in needs)
        return one.row.state == "away", doubts, one.cost if tight else 0.0, -scores[one.row.model], one.cost, one.row.model

    return place


def _told(choice: _ChoiceTold) -> str:
    """As JSON, the worst left away until it fits."""
    scores, left_out, more = dict(choice.scores), dict(choice.left_out), 0
    while True:
        shown = choice.model_copy(update={"scores": scores, "left_out": left_out, "more": more})
        text = shown.encoded(exclude_defaults=True).decode()
        if len(text.encode()) <= MOST_BYTES or not (scores or left_out):
            return text
        (left_out or scores).popitem()
        more += 1


def read(text: str) -> _ChoiceTold | None:
    """None where it is none, or of a form that this code does not know."""
    try:
        return _ChoiceTold.model_validate_json(text)
    except ValidationError:
        return None


def in_words(told: _ChoiceTold) -> list[str]:
    """Lines for people."""
    parts = (f"about {told.tokens} tokens", told.language, *told.needs)
    how = "the cheapest, since little is left" if told.cheapest else "by score, drawn from what was judged" if told.judged else "by score"
    lines = [f"a query of kind {told.kind} ({', '.join(filter(None, parts))}); models {how}:"]
    lines += [f"  {model}: {score:.2f}" for model, score in told.scores.items()] or ["  none that fits"]
    lines += [f"  not {model}: {reason}" for model, reason in told.left_out.items()]
    return [*lines, f"  and {told.more} more"] if told.more else lines
