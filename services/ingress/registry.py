"""Registry: which nodes and models there are, folded from `nodes`. Time is passed in; a node that is silent too long is not counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import TypedDict

from services.ingress.admission.suitability import Offer, offer_of
from shared.contracts.node import Node
from shared.model_names import AUTO, spelling

AUTO_MODELS = (AUTO, "tutti/auto")
"""Names by which a caller leaves the model to the cluster."""
_MAX_NODES = 4_096


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What the nodes offer, as of the last refresh. `live`: registered lately, reachable and not draining."""

    models: tuple[str, ...] = ()
    live_models: frozenset[str] = frozenset()
    live_capabilities: frozenset[str] = frozenset()
    operations: frozenset[tuple[str, str]] = frozenset()
    """(model, operation) that some node can do."""
    nodes: int = 0
    live_nodes: int = 0
    simulated: bool = False
    """All live nodes are simulators."""
    offers: Mapping[str, Offer] = field(default_factory=dict)
    """Of each model, on all nodes that ever registered and were not withdrawn."""
    any_offer: Mapping[str, Offer] = field(default_factory=dict)
    """Of each operation: what the models that can do it have together, which is what `auto` has."""

    def offer(self, models: Iterable[str], operation: str) -> Offer | None:
        """What these models offer, each standing for the others; None when nothing is known of one of them."""
        found = [self.any_offer.get(operation) if name == AUTO else self._offer(name) for name in models]
        known = [offer for offer in found if offer is not None]
        return reduce(Offer.either, known) if known and len(known) == len(found) else None

    def _offer(self, name: str) -> Offer | None:
        found = spelling(name, self.offers)
        return None if found is None else self.offers[found]

    @property
    def names(self) -> tuple[str, ...]:
        """Everything that a caller may ask for."""
        return (*AUTO_MODELS, *self.models)

    def resolve(self, model: str) -> str | None:
        """The registered spelling of `model`, or None."""
        return spelling(model, self.models)

    def knows_any(self, models: Iterable[str]) -> bool:
        """Whether `auto` or a registered model is among `models`; true while no node is registered, since nothing is known then."""
        return self.nodes == 0 or any(model == AUTO or self.resolve(model) is not None for model in models)

    def missing(self, models: Iterable[str], capability: str) -> tuple[str, ...]:
        """What no live node offers of what a job needs; empty when some node could serve it."""
        if self.live_nodes == 0:
            return ("a live node",)
        if capability not in self.live_capabilities:
            return (f"capability {capability}",)
        wanted = tuple(models)
        if any(model == AUTO or (self.resolve(model) or model) in self.live_models for model in wanted):
            return ()
        return tuple(f"a live node with model {model}" for model in wanted)


class Registry:
    """The newest registration of each node."""

    def __init__(self, lost_seconds: float) -> None:
        self._lost_seconds = lost_seconds
        self._nodes: dict[str, tuple[Node, float]] = {}
        self._away: dict[str, Node] = {}
        """Lost ones: they may come back, with the window that a job waits for."""
        self.complete = False
        """Everything that was in the topic at start has been read: from then on `catalogue` is a fact."""
        self.catalogue = Catalogue()

    def apply(self, key: str, node: Node | None, now: float) -> None:
        """A registration read at `now` (monotonic seconds); None is a tombstone."""
        self._away.pop(key, None)
        if node is None:
            self._nodes.pop(key, None)
        elif key in self._nodes or len(self._nodes) < _MAX_NODES:
            self._nodes[key] = (node, now)

    def refresh(self, now: float) -> None:
        """Put lost nodes aside and compute the catalogue again."""
        for key in [key for key, (_, seen) in self._nodes.items() if now - seen > self._lost_seconds]:
            self._away[key] = self._nodes.pop(key)[0]
        while len(self._away) > _MAX_NODES:
            del self._away[next(iter(self._away))]
        nodes = [node for node, _ in self._nodes.values()]
        live = [node for node in nodes if node.reachable and not node.draining]
        self.catalogue = Catalogue(
            models=tuple(sorted({model.name for node in nodes for model in node.models})),
            live_models=frozenset(model.name for node in live for model in node.models),
            live_capabilities=frozenset(capability for node in live for capability in node.capabilities),
            operations=frozenset((model.name, operation) for node in nodes for model in node.models for operation in model.operations),
            nodes=len(nodes),
            live_nodes=len(live),
            simulated=bool(live) and all(node.simulated for node in live),
            **_offers([*nodes, *self._away.values()]),
        )

    def nodes(self) -> list[Node]:
        """Every registered node, by id."""
        return [self._nodes[key][0] for key in sorted(self._nodes)]


class _Offers(TypedDict):
    offers: dict[str, Offer]
    any_offer: dict[str, Offer]


def _offers(nodes: Iterable[Node]) -> _Offers:
    found = _Offers(offers={}, any_offer={})
    for model in (model for node in nodes for model in node.models):
        offer = offer_of(model)
        _merge(found["offers"], model.name, offer)
        for operation in model.operations:
            _merge(found["any_offer"], operation, offer)
    return found


def _merge(offers: dict[str, Offer], name: str, offer: Offer) -> None:
    offers[name] = offers[name].either(offer) if name in offers else offer
