"""Helm's chart as Python sees it: its values, their schema, and the settings that its environment variables are."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic_settings import BaseSettings

from shared.service.configuration import ShellSettings

CHART = Path(__file__).parents[2] / "helm" / "tutti"
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
VARIANTS = {path.name.removesuffix("-values.yaml"): path for path in sorted((CHART / "ci").glob("*-values.yaml"))}


def settings_of(service: str) -> type[BaseSettings]:
    """The service's own."""
    module = importlib.import_module(f"services.{service}.settings")
    found: type[BaseSettings] = getattr(module, f"{service.title()}Settings")
    return found


def is_setting(name: str, *kinds: type[BaseSettings]) -> bool:
    """Whether an environment variable is a field, however deep, of one of the kinds or of what every process has."""
    of: tuple[type[BaseSettings], ...] = (ShellSettings, *kinds)
    return any(name in _names(kind) or name.startswith(tuple(f"{n}__" for n in _names(kind, nested=True))) for kind in of)


def _names(kind: type[BaseSettings], *, nested: bool = False) -> set[str]:
    """The variables of its fields; with `nested` of those that have fields or entries of their own."""
    prefix = str(kind.model_config.get("env_prefix", ""))
    found: set[str] = set()
    for name, field in kind.model_fields.items():
        if not nested or _has_parts(field.annotation):
            alias = field.validation_alias
            found |= {str(one) for one in getattr(alias, "choices", [alias or f"{prefix}{name}".upper()])}
    return found


def _has_parts(annotation: Any) -> bool:
    return getattr(annotation, "__origin__", annotation) is dict or (isinstance(annotation, type) and issubclass(annotation, BaseModel))


def with_defaults(defaults: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """As the templates merge a service or a pool into its defaults."""
    merged = dict(defaults)
    for name, value in own.items():
        merged[name] = with_defaults(merged[name], value) if isinstance(value, dict) and isinstance(merged.get(name), dict) else value
    return merged


def services() -> Iterator[tuple[str, dict[str, Any]]]:
    """Of values.yaml, whole."""
    for name, own in VALUES["services"].items():
        yield name, with_defaults(VALUES["serviceDefaults"], own)
