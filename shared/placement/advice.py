"""Advice: what is wrong with a node, and what to do. Pure. What its worker has seen comes with the record; the rest the record shows."""

from __future__ import annotations

import re

from shared.contracts.node import Advice, Node, NodeModel

ENDPOINT = "endpoint"
"""Its model endpoint is not to be had; a worker that knows why says so itself."""
SILENT_SECONDS = 5.0
"""Workers tell of their places at least every second: within one heartbeat who has died is known."""
SLOW_TOKENS = 3.0
"""Tokens a second below which people do not wait for an answer."""
OLDEST_OLLAMA = (0, 30)
"""The first with llama.cpp's server as its only engine, of which all that is known and tested here holds."""
SPILLS = 0.02
"""A share of a model outside graphics memory that is worth a word."""
_GIB = 2**30
_ORDER = ("bad", "warn", "note")
_VERSION = re.compile(r"(\d{1,9})\.(\d{1,9})")


def advice(node: Node, silent_seconds: float, announced_seconds: float) -> list[Advice]:
    """The worst first. Seconds since this reader heard of its places, and since it announced itself."""
    found = list(node.advice)
    if node.maintenance:
        found.append(_said("maintenance", "note", "An administrator has taken it out of service: `tutti nodes resume` takes it back."))
    elif node.draining:
        found.append(_said("draining", "note", "It takes no new work: it is leaving, or was told to."))
    if node.asleep:
        text = "Its machine sleeps. A router wakes it when something waits for it (TUTTI_ROUTER__WAKE__ADDRESSES)."
        found.append(_said("asleep", "note", text))
    elif silent_seconds > SILENT_SECONDS and not (node.draining and not node.maintenance):
        text = f"Silent for {silent_seconds:.0f} s: its worker has ended, or its machine sleeps. Start it with `tutti run worker`."
        found.append(_said("silent", "bad", text))
    if node.yields:
        found.append(_said("yields", "note", f"It yields to the machine's owner: {node.yields}."))
    if not node.reachable and not any(one.code == ENDPOINT for one in found):
        text = "Its model endpoint does not answer. Is it running, and does its worker have the right address?"
        found.append(_said(ENDPOINT, "bad", text))
    if node.waits:
        text = "It waits until an earlier process of this worker is known to have ended; that takes a few seconds."
        found.append(_said("waits", "bad", text))
    if node.reachable and not node.models and "tool" not in node.backend:
        found.append(_said("no-model", "bad", "It has no model. Give it one, such as `ollama pull gemma3:270m`."))
    if (pause := node.pause_seconds - announced_seconds) > 0:
        text = f"Its endpoint asked for quiet (Retry-After), {pause:.0f} s more: its limit is reached."
        found.append(_said("paused", "warn", text))
    found += [spill for model in node.models if (spill := _spill(node, model)) is not None][:1]
    if (old := _old(node)) is not None:
        found.append(old)
    found += _slow(node) if not found else []
    if node.simulated:
        found.append(_said("simulated", "note", "Simulated: its answers are made up."))
    return sorted(found, key=lambda one: _ORDER.index(one.level))


def _spill(node: Node, model: NodeModel) -> Advice | None:
    """A part of a resident model lies outside graphics memory; by the endpoint's word, else by the file's size."""
    if not (model.resident and node.hardware.vram_bytes):
        return None
    size, inside = model.loaded_bytes, model.vram_bytes
    if not size:
        size, inside = model.size_bytes, node.hardware.vram_bytes
    if inside >= size * (1 - SPILLS):
        return None
    outside = f"{(size - inside) / _GIB:.1f} of {size / _GIB:.1f} GiB"
    what = "Take a smaller quantisation, window or number of slots"
    text = f"{model.name} is larger than its graphics memory: {outside} are on the CPU. {what}."
    return _said("spills", "warn", text)


def _old(node: Node) -> Advice | None:
    version = _VERSION.match(node.version)
    if node.backend != "ollama" or node.simulated or version is None:
        return None
    found, least = (int(version[1]), int(version[2])), ".".join(map(str, OLDEST_OLLAMA))
    if found >= OLDEST_OLLAMA or found == (0, 0):  # 0.0.0 is a build of one's own
        return None
    why = "its engine treats windows, options and failures otherwise than is asked of it"
    text = f"Ollama {node.version[:20]} is older than {least}: {why}. Update it."
    return _said("old-ollama", "warn", text)


def _slow(node: Node) -> list[Advice]:
    """Told where nothing else explains it."""
    slow = [model for model in node.models if model.resident and 0 < (model.decode_tokens_per_second or 0.0) < SLOW_TOKENS]
    if not slow:
        return []
    speed = slow[0].decode_tokens_per_second
    return [_said("slow", "warn", f"{slow[0].name} writes {speed:.1f} tokens/s here. A smaller model suits this machine.")]


def _said(code: str, level: str, text: str) -> Advice:
    return Advice.model_validate({"code": code, "level": level, "text": text[:320]})
