"""The part of Helm's `values.schema.json` that follows from the code: which settings there are.

What is misspelt there is refused before it is installed; as an environment variable a service would pass it over.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable
from typing import Any

from shared.service.configuration import ShellSettings
from shared.services import SERVICES
from shared.topics import TopicSettings

PATH = "helm/tutti/values.schema.json"
SAID_ELSEWHERE = {"kafka_servers", "topics", "http_port", "http_ports", "instance", "boot", "dead_boot"}
"""Of what every process is told: other values say it, or each pod is another."""


def generated(text: str) -> str:
    """The schema `text` with the names of settings as they are now; all else is kept by hand."""
    schema: dict[str, Any] = json.loads(text)
    of = schema["properties"]
    of["topics"]["properties"]["settings"] = _only(TopicSettings.model_fields)
    common = _only(name for name in ShellSettings.model_fields if name not in SAID_ELSEWHERE)
    common["properties"]["grace_seconds"] = {"type": "number", "exclusiveMinimum": 0, "maximum": 3_600}
    of["settings"] = common | {"required": ["grace_seconds"]}
    for service in SERVICES:
        names = _only(getattr(importlib.import_module(f"{service.module}.settings"), f"{service.name.title()}Settings").model_fields)
        if service.name == "worker":
            schema["$defs"]["pool"]["properties"]["settings"] = names
        else:
            own = {"properties": {"settings": names, "stores": names}}
            of["services"]["properties"][service.name] = {"allOf": [{"$ref": "#/$defs/service"}, own]}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _only(names: Iterable[str]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": {name: {} for name in sorted(names)}}
