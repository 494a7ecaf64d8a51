"""The page of all settings: variable, default, unit, meaning; out of the classes and the sentences below their fields."""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from collections.abc import Iterator
from enum import Enum
from importlib import import_module
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from infra.cli.settings import CommandLineSettings
from infra.native.settings import NativeSettings
from shared.oidc import OidcSettings
from shared.service.configuration import ShellSettings
from shared.services import SERVICES, AddedServices

PATH = "schemas/settings.md"
_UNITS = {"seconds": "s", "bytes": "bytes", "tokens": "tokens", "days": "days", "records": "records", "ms": "ms"}


class Setting(NamedTuple):
    variable: str
    default: str
    unit: str
    about: str


def groups() -> Iterator[tuple[str, list[Setting]]]:
    """Title and settings of each class that reads variables, in the order of the page."""
    yield "Every service", list(_of(ShellSettings))
    for service in SERVICES:
        yield service.name.capitalize(), list(_of(_own(import_module(f"{service.module}.settings"))))
    yield "Tokens of an issuer: ingress, sink, cache", list(_of(OidcSettings))
    yield "Services from other packages", list(_of(AddedServices))
    yield "Command line", list(_of(CommandLineSettings))
    shared = {setting.variable for setting in _of(ShellSettings)}
    yield "`tutti up`", [setting for setting in _of(NativeSettings) if setting.variable not in shared]


def page() -> str:
    head = "Every setting is an environment variable; lists and maps are JSON. Generated out of the classes that read them, which also hold"
    lines = ["# Settings", "", f"{head} the bounds.", ""]
    for title, settings in groups():
        lines += [f"## {title}", "", "| variable | default | unit | meaning |", "|---|---|---|---|"]
        lines += [f"| `{one.variable}` | {one.default} | {one.unit} | {one.about} |" for one in settings]
        lines.append("")
    return "\n".join(lines)


def _own(module: Any) -> type[BaseSettings]:
    kinds = (kind for kind in vars(module).values() if isinstance(kind, type) and kind.__module__ == module.__name__)
    return next(kind for kind in kinds if issubclass(kind, BaseSettings))


def _of(kind: type[BaseModel], prefix: str | None = None, above: str = "") -> Iterator[Setting]:
    """`above`: what is said of all together, for those that say nothing themselves."""
    before = str(kind.model_config.get("env_prefix", "")) if prefix is None else prefix
    docs = _docs(kind)
    for name, field in kind.model_fields.items():
        inner = _nested(field)
        if inner is not None:
            yield from _of(inner, f"{before}{name.upper()}__", docs.get(name, ""))
            continue
        alias = field.validation_alias
        variable = f"{before}{name.upper()}" if alias is None else str(getattr(alias, "choices", [alias])[0])
        yield Setting(variable, _default(field), _UNITS.get(name.rpartition("_")[2], ""), _cell(docs.get(name, above)))


def _nested(field: FieldInfo) -> type[BaseModel] | None:
    kinds = [kind for kind in (field.annotation, *get_args(field.annotation)) if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return kinds[0] if kinds and isinstance(field.default, BaseModel) else None


def _docs(kind: type[BaseModel]) -> dict[str, str]:
    """What stands below each field, of the class and those that it extends."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if not issubclass(base, BaseModel) or base.__module__.startswith("pydantic"):
            continue
        [definition] = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(definition, ast.ClassDef)
        for field, below in zip(definition.body, definition.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
                found[field.target.id] = str(ast.literal_eval(below.value))
    return found


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "to be given"
    value = field.get_default(call_default_factory=True)
    if value is None or value in ("", (), {}) or hasattr(value, "get_secret_value"):
        return ""
    return f"`{_spelled(value)}`"


def _spelled(value: Any) -> str:
    """As a variable says it."""
    if isinstance(value, tuple | dict):
        return json.dumps(value._asdict() if hasattr(value, "_asdict") else value)
    if isinstance(value, bool):
        return str(value).lower()
    return str(value.value if isinstance(value, Enum) else f"{value:g}" if isinstance(value, float) else value)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
