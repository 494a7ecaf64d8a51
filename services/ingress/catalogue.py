"""Registry: which nodes and models there are, folded from `nodes`. Time is passed in; a node that is silent too long is not counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import TypedDict

from services.ingress.admission.suitability import Offer, offer_of
from shared.clock import Clock
from shared.contracts.chat import Operation
from shared.contracts.node import Node
from shared.kafka.port import Log, Record, TopicPartition
from shared.model_names import AUTO, spelling
from shared.processing.folding import fold_each
from shared.processing.node_table import NodeTable
from shared.processing.tail import Tail

PATTERN_PREFIX = "tutti/"
"""Before a pattern's name, where a model's is asked for."""


@dataclass(frozen=True, slots=True)
class _Catalogue:
    """What the nodes offer, as of the last refresh. `live`: registered lately and at work, or asleep: a router wakes it for what waits."""

    models: tuple[str, ...] = ()
    live_models: frozenset[str] = frozenset()
    live_capabilities: frozenset[str] = frozenset()
    slots: Mapping[str, int] = field(default_factory=dict)
    """Of nodes that are awake, by capability."""
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
        return (AUTO, *self.models)

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
    """The table of nodes as a catalogue. Lost ones may come back, with the window that a job waits for."""

    def __init__(self, lost_seconds: float) -> None:
        self.table = NodeTable(lost_seconds)
        self.complete = False
        """Everything that was in the topic at start has been read: from then on `catalogue` is a fact."""
        self.catalogue = _Catalogue()
        self._caught_up: Callable[[], bool] = lambda: False

    def look(self) -> None:
        """Whether all is read by now."""
        self.complete = self.complete or self._caught_up()

    def follow(self, log: Log, clock: Clock, topic: str, instance: str) -> Tail:
        """What feeds it. An unreadable registration is passed over: the worker will register again."""

        def on_records(_: TopicPartition, records: Sequence[Record]) -> None:
            now = clock.monotonic()
            fold_each("ingress", records, lambda record: self.table.on_record(record, now))
            self.refresh(now)

        tail = Tail(log, clock, [TopicPartition(topic, 0)], client_id=f"tutti-ingress-nodes-{instance}", handle=on_records)
        self._caught_up = tail.caught_up
        return tail

    def refresh(self, now: float) -> None:
        """Put lost nodes aside and compute the catalogue again."""
        self.table.expire(now)
        asleep = {node.id: node for node in self.table.known() if node.asleep and not node.draining}
        nodes = [node for node in {**{node.id: node for node in self.table}, **asleep}.values() if not _serves_tools(node)]
        awake = [node for node in nodes if node.at_work]
        live = [*awake, *(node for node in nodes if node.id in asleep)]
        self.catalogue = _Catalogue(
            models=tuple(sorted({model.name for node in nodes for model in node.models})),
            live_models=frozenset(model.name for node in live for model in node.models),
            live_capabilities=frozenset(capability for node in live for capability in node.capabilities),
            slots=_slots(awake),
            operations=frozenset((model.name, operation) for node in nodes for model in node.models for operation in model.operations),
            nodes=len(nodes),
            live_nodes=len(live),
            simulated=bool(live) and all(node.simulated for node in live),
            **_offers(node for node in self.table.known() if not _serves_tools(node)),
        )


def _slots(nodes: Iterable[Node]) -> Mapping[str, int]:
    found: Counter[str] = Counter()
    for node in nodes:
        found.update(dict.fromkeys(node.capabilities, node.slots))
    return found


def _serves_tools(node: Node) -> bool:
    """Its models are tools: nobody asks for them by name, and no chat is answered there."""
    return bool(node.models) and all(model.operations == (Operation.TOOL.value,) for model in node.models)


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
