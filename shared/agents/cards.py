"""Cards: which model a name means, what answers in its place, and which models are of a tier. Pure, and total: what two administrators have
declared at once may contradict itself, so a name that two cards claim is the first one's by alphabet, and a circle ends where it closes.

A job asks for a card's name, `name@alias`, a synonym, a model that has a card, or `tier:small`. What that stands for is pinned when the job
is accepted (`Team.models`) and put into each of its steps (`applied`): routers and workers know models and their fallbacks only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, get_args

from shared.agents.table import Declarations, Found, Undeclared
from shared.contracts.agents import MOST_FALLBACKS, MOST_NAMES, ModelCard, PinnedModel, QueryKind, Team, Tier
from shared.contracts.chat import Options
from shared.contracts.step import StepRequest
from shared.contracts.usage import Price
from shared.errors import InvalidInput
from shared.model_names import AUTO, canonical

TIER_PREFIX = "tier:"
TIERS: tuple[Tier, ...] = get_args(Tier)
_USUAL_QUALITY = 0.5
"""Of a model of which nobody has said it."""


class Cards:
    """The latest version of each card, by every name that means it."""

    def __init__(self, table: Declarations) -> None:
        self._table = table
        self.latest: dict[str, Found] = {name: table.find("card", name) for name in table.names("card")}
        self._serving: dict[str, list[ModelCard]] = {}
        """By capability."""
        self._named: dict[str, Found] = {}
        for found in self.latest.values():
            self._named.setdefault(canonical(found.name), found)
        for names in (lambda card: card.synonyms, lambda card: (card.model,)):
            for found in self.latest.values():
                for name in names(_card(found)):
                    self._named.setdefault(canonical(name), found)

    def __bool__(self) -> bool:
        return bool(self.latest)

    def find(self, name: str) -> Found | None:
        """The card that a name means; None of a name without one. Raises Undeclared for an alias that a card does not have."""
        found = self._named.get(canonical(name))
        if found is None and name.partition("@")[0] in self.latest and "@" in name:
            return self._table.find("card", name)
        return found

    def serving(self, capability: str) -> list[ModelCard]:
        """The cards that serve the capability, best first, then cheapest, then by name."""
        if capability not in self._serving:
            cards = (_card(found) for found in self.latest.values())
            found = sorted((card for card in cards if serves(card, capability)), key=lambda card: _rank(card, capability))
            if len(self._serving) >= MOST_NAMES:
                self._serving.clear()
            self._serving[capability] = found
        return self._serving[capability]

    def tier(self, name: Tier, capability: str) -> list[ModelCard]:
        """Those of a tier."""
        return [card for card in self.serving(capability) if card.tier == name]

    def chain(self, card: ModelCard) -> Iterator[tuple[str, ModelCard | None]]:
        """(model, its card) of the card itself and of all that may answer in its place, in order, each model once."""
        todo: list[tuple[str, ModelCard | None]] = [(card.model, card)]
        seen = set[str]()
        while todo:
            model, of = todo.pop()
            if canonical(model) not in seen:
                seen.add(canonical(model))
                yield model, of
                todo += [self._meant(name) for name in reversed(of.fallbacks if of is not None else ())]

    def _meant(self, name: str) -> tuple[str, ModelCard | None]:
        with suppress(Undeclared):  # an alias that has gone since: a model of this name, if anybody has one
            if (found := self.find(name)) is not None:
                return _card(found).model, _card(found)
        return name, None

    def names(self) -> Iterator[tuple[str, ModelCard]]:
        """Every name that stands for a card beside the model's own, in the order of the cards."""
        for found in self.latest.values():
            for name in (found.name, *_card(found).synonyms):
                meant = self.find(name)
                if meant is not None and canonical(name) != canonical(_card(meant).model):
                    yield name, _card(meant)


def cards_of(table: Declarations) -> Cards:
    """As the table is now; made anew only where a card has changed."""
    return _indexed(table, table.changes["card"])


@lru_cache(maxsize=64)
def _indexed(table: Declarations, _changes: int) -> Cards:
    return Cards(table)


def _card(found: Found) -> ModelCard:
    assert isinstance(found.body, ModelCard)
    return found.body


def serves(card: ModelCard, capability: str) -> bool:
    """Whether it is for this: `embed` must be said, an agent's is any chat model's."""
    return capability in card.capabilities or (capability != "embed" and "chat" in card.capabilities)


def _rank(card: ModelCard, capability: str) -> tuple[float, float, str]:
    quality = card.quality.get(capability, card.quality.get("chat", _USUAL_QUALITY))
    price = 0.0 if card.price is None else card.price.prompt_per_million + card.price.completion_per_million
    return -quality, price, card.model


def tier_of(name: str) -> Tier | None:
    """The tier that a model's name demands; None of any other name."""
    return next((tier for tier in TIERS if name == TIER_PREFIX + tier), None) if name.startswith(TIER_PREFIX) else None


def resolved(cards: Cards, name: str, capability: str = "chat") -> PinnedModel | None:
    """What a name stands for; None where it is a model without a card. Raises Undeclared."""
    tier = tier_of(name)
    if name == AUTO:
        return None
    if tier is not None:
        members = cards.tier(tier, capability)
        if not members:
            raise Undeclared("card", f"no model card is of tier {tier} for {capability}")
        return _pinned(name, "", [(card.model, card) for card in members], Options())
    found = cards.find(name)
    if found is None:
        return None
    card = _card(found)
    return _pinned(name, f"{found.name}@{found.version}", list(cards.chain(card)), card.options, card.prefers)


def _pinned(
    name: str, card: str, chain: list[tuple[str, ModelCard | None]], options: Options, prefers: tuple[str, ...] = ()
) -> PinnedModel:
    kept = list(dict(chain[: 1 + MOST_FALLBACKS]).items())
    prices: dict[str, Price] = {model: each.price for model, each in kept if each is not None and each.price is not None}
    fallbacks = tuple(model for model, _ in kept[1:])
    return PinnedModel(name=name, card=card, model=kept[0][0], fallback_models=fallbacks, options=options, prices=prices, prefers=prefers)


def pinned_models(cards: Cards, demands: Iterable[Sequence[str]], capability: str) -> tuple[PinnedModel, ...]:
    """Of each demand, a name and those that may stand in for it, what stands for something else, or for more, each once. Raises
    Undeclared, of a tier only where nothing stands in; InvalidInput of too many.
    """
    found: dict[str, PinnedModel] = {}
    for demand in demands:
        lacking: Undeclared | None = None
        for name in demand:
            try:
                one = resolved(cards, name, capability)
            except Undeclared as error:
                lacking = error
                if tier_of(name) is None:
                    raise
            else:
                found |= {} if one is None else {name: one}
        if lacking is not None and not any(tier_of(name) is None or name in found for name in demand):
            raise lacking
    if len(found) > MOST_NAMES:
        raise InvalidInput(f"a job names at most {MOST_NAMES} models that have cards")
    return tuple(found.values())


def applied(request: StepRequest, models: Iterable[PinnedModel]) -> StepRequest:
    """The request with what its names stand for. The fallbacks and options that it names itself go before those of the card."""
    known = {each.name: each for each in models}
    own = known.get(request.model)
    if own is None and known.keys().isdisjoint(request.fallback_models):
        return request
    model = request.model if own is None else own.model
    named = [known[name].model if name in known else name for name in request.fallback_models]
    fallbacks = named or (() if own is None else own.fallback_models)
    given: dict[str, Any] = {**(said(own.options) if own else {}), **said(request.options)}
    changed: dict[str, Any] = {
        "model": model,
        "fallback_models": tuple(dict.fromkeys(name for name in fallbacks if name != model))[:MOST_FALLBACKS],
        "options": Options(**given),
    }
    if own is not None and own.prefers and request.needs.prefers is None:
        changed["needs"] = request.needs.model_copy(update={"prefers": own.prefers})
    return request.model_copy(update=changed)


def said(options: Options) -> dict[str, Any]:
    """What options say: by values, not by what was set: history leaves out what is as it is by default."""
    return {name: value for name, value in options if value not in (None, ())}


def prices_of(request: StepRequest, team: Team) -> dict[str, Price]:
    """What the cards say that the request's models cost."""
    asked = {request.model, *request.fallback_models}
    found = {row.model: row.price for row in team.rated if row.price is not None and row.model in asked}
    return found | {model: price for each in team.models for model, price in each.prices.items() if model in asked}


def check_card(cards: Cards, name: str, card: ModelCard) -> None:
    """Whether this card may be declared beside the others. Raises InvalidInput."""
    if AUTO in (name, card.model, *card.synonyms, *card.fallbacks) or any(
        each.startswith(TIER_PREFIX) for each in (card.model, *card.synonyms, *card.fallbacks)
    ):
        raise InvalidInput(
            f"{AUTO} and {TIER_PREFIX}... stand for models of the cluster's choice: a card names one", code="invalid_card", param="card"
        )
    if unknown := sorted(card.quality.keys() - {"chat", *card.capabilities, *get_args(QueryKind)}):
        raise InvalidInput(
            f"quality of what it is not for: {', '.join(unknown)}; `capabilities` says what it is for", code="invalid_card", param="card"
        )
    for other in cards.latest.values():
        if other.name == name:
            continue
        taken = {canonical(each) for each in (other.name, _card(other).model, *_card(other).synonyms)}
        clash = next((each for each in (name, card.model, *card.synonyms) if canonical(each) in taken), None)
        if clash is not None:
            raise InvalidInput(
                f"{clash} is a name of card {other.name} already; a card's model may have more `synonyms`",
                code="invalid_card",
                param="card",
            )
    _check_no_circle(cards, name, card)


def _check_no_circle(cards: Cards, name: str, card: ModelCard) -> None:
    own = {canonical(each) for each in (name, card.model, *card.synonyms)}
    todo, seen = [*card.fallbacks], set[str]()
    while todo:
        fallback = todo.pop()
        if canonical(fallback) in own:
            raise InvalidInput(f"the chain of fallbacks comes back to {name}", code="invalid_card", param="card")
        found = cards.find(fallback)
        if found is not None and found.name not in seen and found.name != name:
            seen.add(found.name)
            todo += _card(found).fallbacks
