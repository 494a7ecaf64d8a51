"""Ollama's lists of models and its word about itself. Pure. Models are made at the nodes: what would make one is refused by name."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from pydantic_core import to_json

from services.ingress.dialects.ollama.requests import ModelNamed
from services.ingress.dialects.ollama.responses import instant
from services.ingress.dialects.port import Inquired, Inquiry, ModelShown
from shared.errors import Unsupported

API_VERSION = "0.34.0"
"""Of Ollama's interface that is spoken here; clients ask for it before they use newer parts."""
_ARCHITECTURE = "tutti"
_FOR_EVER = "2300-01-01T00:00:00Z"
"""How long a model stays loaded is its node's matter."""
_ABILITIES = ("tools", "vision", "thinking")


def _running(_: Inquired) -> bytes:
    return b"Ollama is running"


def _version(_: Inquired) -> bytes:
    return to_json({"version": API_VERSION})


def _tags(asked: Inquired) -> bytes:
    return to_json({"models": [_model(one) for one in asked.known.all()]})


def _loaded(asked: Inquired) -> bytes:
    """What some node has in its memory."""
    loaded = [_model(one) | {"context_length": one.window or 0, "expires_at": _FOR_EVER} for one in asked.known.all() if one.resident]
    return to_json({"models": loaded})


def _show(asked: Inquired) -> bytes:
    named = ModelNamed.model_validate_json(asked.body)
    one = asked.known.one(named.asked)
    info: dict[str, Any] = {"general.architecture": _ARCHITECTURE}
    if one.window is not None:
        info[f"{_ARCHITECTURE}.context_length"] = one.window
    return to_json({**_model(one), "modelfile": "", "parameters": "", "template": "", "model_info": info, "capabilities": _abilities(one)})


def _abilities(one: ModelShown) -> list[str]:
    """In the dialect's words. A name that leaves the choice to the cluster chats."""
    words = {"chat": "completion", "generate": "completion", "embed": "embedding"}
    found = {words[operation] for operation in one.operations if operation in words} or {"completion"}
    return [*sorted(found), *(ability for ability in _ABILITIES if ability in one.abilities)]


def _model(one: ModelShown) -> dict[str, Any]:
    """A name without a file, or whose nodes have different ones, has a digest of its own: clients cut it to its first twelve digits."""
    details = {"parent_model": "", "format": "", "family": "", "families": (), "parameter_size": "", "quantization_level": one.quantisation}
    shown: dict[str, Any] = {"name": one.name, "model": one.name, "modified_at": instant(0.0), "size": one.size}
    shown["digest"] = one.digest or sha256(one.name.encode()).hexdigest()
    shown |= {"details": details, "available": one.available}
    return shown | ({"simulated": True} if one.simulated else {})


def _nodes_own(_: Inquired) -> bytes:
    raise Unsupported("models are made and pushed at the nodes, not through the cluster")


INQUIRIES = (
    Inquiry("/", "That somebody is here, in the words that clients look for.", _running, media="text/plain; charset=utf-8", public=True),
    Inquiry("/api/version", "The version of the interface.", _version, public=True),
    Inquiry("/api/tags", "Models of the registered nodes.", _tags),
    Inquiry("/api/ps", "Models that some node has loaded.", _loaded),
    Inquiry("/api/show", "One model.", _show, method="POST", body=ModelNamed),
    *(Inquiry(f"/api/{what}", "Refused: models are the nodes' own.", _nodes_own, method="POST") for what in ("push", "create")),
)
