"""The workers that serve one file of tools: one node for each tool that has permits, one for all others.

A permit of a tool is a slot of its node, which is named after the tool in the whole cluster: of two processes that serve it, the later one
takes it over, and begins only when the earlier is gone (`boots`), so there are never more permits than are declared. Two that are started
again and again take it from one another: run one. What waits for a permit waits with the routers, where tenants take turns; the node
offers no place beyond its permits.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any

from services.worker.app import build
from services.worker.settings import WorkerSettings
from services.worker.tools.declared import ToolsFile, read_tools
from shared.contracts.chat import TOOLS
from shared.service import Build, Environment, Service


def builds() -> list[tuple[str, Build]]:
    """What a process of workers runs, by its environment. Raises ConfigurationError, ValidationError."""
    if not os.environ.get("TUTTI_WORKER__TOOLS"):
        return [("worker", build)]
    settings = WorkerSettings()
    return [(name, partial(_built, own)) for name, own in nodes_of(read_tools(settings.tools), settings).items()]


def nodes_of(file: ToolsFile, settings: WorkerSettings) -> dict[str, WorkerSettings]:
    """Name within the process → settings. The first is `worker`, whose port is known."""
    always: dict[str, Any] = {"backend": "tools", "agents": (TOOLS,)}
    rest = tuple(name for name, tool in file.tools.items() if tool.at_once is None)
    found = [("tools", always | {"node": f"{settings.node_id()[:120]}.tools", "slots": file.slots, "models": rest})] if rest else []
    for name, tool in file.tools.items():
        if tool.at_once is not None:
            found.append((name, always | {"node": f"tool.{name}", "slots": tool.at_once, "models": (name,), "prefetch_limit": 0}))
    names = ("worker", *(f"worker-{name}" for name, _ in found[1:]))
    return {name: settings.model_copy(update=own) for name, (_, own) in zip(names, found, strict=True)}


def _built(settings: WorkerSettings, environment: Environment) -> Service:
    return build(environment, settings)
