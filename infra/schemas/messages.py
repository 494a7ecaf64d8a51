"""Which contract classes are messages, found by name: the topic registry names them, the contract modules define them."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import Any

import shared.contracts
from shared.contracts.base import VERSION, Contract
from shared.topics import FAMILIES

DIALECT = "https://json-schema.org/draft/2020-12/schema"


@cache
def contracts() -> dict[str, type[Contract]]:
    """Every public contract class by name, in the order of names."""
    found: dict[str, type[Contract]] = {}
    for module in pkgutil.iter_modules(shared.contracts.__path__):
        names = vars(importlib.import_module(f"shared.contracts.{module.name}"))
        found.update({name: value for name, value in names.items() if not name.startswith("_") and _is_contract(value)})
    return dict(sorted(found.items()))


def _is_contract(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Contract) and value is not Contract


@cache
def messages() -> dict[str, type[Contract]]:
    """The classes that are record values, in the registry's order. A name that no class has is a KeyError."""
    classes = contracts()
    return {name: classes[name] for family in FAMILIES for name in family.messages}


def schema(message: type[Contract]) -> dict[str, Any]:
    """What a reader of this version accepts."""
    body = message.model_json_schema(mode="validation")
    return {"$schema": DIALECT, "$id": f"tutti:v{VERSION}:{message.__name__.lstrip('_')}", **body}
