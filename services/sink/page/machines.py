"""Machines: nodes as they announce themselves and their places, with advice where something is wrong. Pure; time is passed in."""

from __future__ import annotations

from typing import Any

from services.sink.handlers import read_announcement
from shared.contracts.base import NodeId
from shared.contracts.credits import CREDITS, Credits
from shared.contracts.node import Advice, Node, NodeModel
from shared.kafka.port import Record
from shared.placement.advice import advice
from shared.processing.node_table import NodeTable

MOST_SHOWN = 300
_MOST_MODELS = 32


class Machines:
    """The fold of `nodes` and `credits`."""

    def __init__(self, now: float) -> None:
        self._table = NodeTable()
        self._credits: dict[NodeId, tuple[Credits, float]] = {}
        self._began = now

    def on_node(self, record: Record, now: float) -> None:
        """Raises InvalidRecord."""
        name, node = read_announcement(record)
        if node is None:
            self._table.on_gone(name)
            self._credits.pop(name, None)
        else:
            self._table.on_node(node, now)

    def on_credits(self, record: Record, now: float) -> None:
        """Raises ValidationError. Presence of routers and planners is passed over."""
        told = CREDITS.validate_json(record.value or b"")
        if isinstance(told, Credits) and self._table.get(told.node) is not None:
            self._credits[told.node] = told, now

    def places(self, now: float) -> tuple[int, int]:
        """Slots of nodes that serve, and how many of them are free."""
        serving = [node for node in self._table if node.at_work and not any(one.level == "bad" for one in self._advice(node, now))]
        busy = sum(min(node.slots, self._credits[node.id][0].running) for node in serving if node.id in self._credits)
        return (slots := sum(node.slots for node in serving)), slots - busy

    def rows(self, now: float) -> dict[str, Any]:
        """The first nodes by name, ready for JSON; `total`: how many there are. Bytes, tokens a second, seconds."""
        nodes = sorted(self._table, key=lambda node: node.id)
        return {"total": len(nodes), "rows": [self._row(node, now) for node in nodes[:MOST_SHOWN]]}

    def _row(self, node: Node, now: float) -> dict[str, Any]:
        told = self._credits.get(node.id)
        credits_ = told[0] if told is not None else None
        resident = set(credits_.resident) if credits_ is not None else {model.name for model in node.models if model.resident}
        return {
            "id": node.id,
            "backend": f"{node.backend} {node.version}".strip(),
            "simulated": node.simulated,
            "slots": node.slots,
            "running": credits_.running if credits_ is not None else 0,
            "queued_tokens": credits_.queued_tokens if credits_ is not None else 0,
            "speed": credits_.decode_tokens_per_second if credits_ is not None else 0.0,
            "capabilities": list(node.capabilities[:_MOST_MODELS]),
            "tags": list(node.tags),
            "cpus": node.hardware.cpu_count,
            "ram": node.hardware.ram_bytes,
            "vram": node.hardware.vram_bytes,
            "accelerator": node.hardware.accelerator or "",
            "models": [_model(model, model.name in resident) for model in node.models[:_MOST_MODELS]],
            "more_models": max(0, len(node.models) - _MOST_MODELS),
            "advice": [one.model_dump() for one in self._advice(node, now)],
        }

    def _advice(self, node: Node, now: float) -> list[Advice]:
        told = self._credits.get(node.id)
        return advice(node, now - (self._began if told is None else told[1]), now - self._table.heard_at(node.id))


def _model(model: NodeModel, resident: bool) -> dict[str, Any]:
    return {
        "name": model.name,
        "bytes": model.size_bytes,
        "quantisation": model.quantisation,
        "window": model.room,
        "resident": resident,
        "decode": model.decode_tokens_per_second,
        "load": model.load_seconds,
    }
