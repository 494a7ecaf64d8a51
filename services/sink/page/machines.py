"""Machines: nodes as they announce themselves and their places, with advice where something is wrong. Pure; time is passed in."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from services.sink.handlers import read_announcement
from shared.contracts.base import NodeId
from shared.contracts.credits import CREDITS, Credits
from shared.contracts.node import Node, NodeModel
from shared.kafka.port import Record
from shared.processing.node_table import NodeTable

SILENT_SECONDS = 10.0
"""Workers tell of their places at least every second."""
MOST_SHOWN = 300
_MOST_MODELS = 32
_SLOW_TOKENS = 3.0
"""Tokens a second below which people do not wait for an answer."""


class Advice(NamedTuple):
    """What to do, in one sentence. `bad`: the node serves nobody; `warn`: it serves badly; `note`: it is so on purpose."""

    level: Literal["bad", "warn", "note"]
    text: str


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
            "advice": [one._asdict() for one in self._advice(node, now)],
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


def advice(node: Node, silent_seconds: float, announced_seconds: float) -> list[Advice]:
    """What is wrong with a node, the worst first. Seconds since this reader heard of its places, and since it announced itself."""
    found = []
    if node.draining:
        found.append(Advice("note", "It takes no new work: it is leaving, or was told to."))
    elif node.asleep:
        found.append(Advice("note", "Its machine sleeps. A router wakes it when something waits for it (TUTTI_ROUTER__WAKE__ADDRESSES)."))
    elif silent_seconds > SILENT_SECONDS:
        found.append(
            Advice(
                "bad", f"Silent for {silent_seconds:.0f} s: its worker has ended, or its machine sleeps. Start it with `tutti run worker`."
            )
        )
    if node.yields:
        found.append(Advice("note", f"It yields to the machine's owner: {node.yields}."))
    if not node.reachable:
        found.append(Advice("bad", "Its model endpoint does not answer. Is it running, and does its worker have the right address?"))
    if node.waits:
        found.append(Advice("bad", "It waits until an earlier process of this worker is known to have ended; that takes a few seconds."))
    if node.reachable and not node.models and "tool" not in node.backend:
        found.append(Advice("bad", "It has no model. Give it one, such as `ollama pull gemma3:270m`."))
    if (pause := node.pause_seconds - announced_seconds) > 0:
        found.append(Advice("warn", f"Its endpoint asked for quiet (Retry-After), {pause:.0f} s more: its limit is reached."))
    if node.hardware.vram_bytes:
        large = [model.name for model in node.models if model.resident and model.size_bytes > node.hardware.vram_bytes]
        if large:
            found.append(
                Advice("warn", f"{large[0]} is larger than its graphics memory, so a part runs on the CPU. Take a smaller quantisation.")
            )
    slow = [model for model in node.models if model.resident and 0 < (model.decode_tokens_per_second or 0.0) < _SLOW_TOKENS]
    if slow and not found:
        speed = slow[0].decode_tokens_per_second
        found.append(Advice("warn", f"{slow[0].name} writes {speed:.1f} tokens/s here. A smaller model suits this machine."))
    if node.simulated:
        found.append(Advice("note", "Simulated: its answers are made up."))
    order = ("bad", "warn", "note")
    return sorted(found, key=lambda one: order.index(one.level))
