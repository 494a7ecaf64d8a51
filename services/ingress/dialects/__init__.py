"""Dialects: foreign requests become jobs; answers, streams and problems become foreign responses. Pure; no routes.

Every folder whose `__init__` makes a `Dialect` is served; `tutti` has routes of its own, since its jobs outlive their calls.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module

from services.ingress.dialects.port import Dialect


def served() -> list[Dialect]:
    """All of them."""
    modules = [import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__) if found.ispkg]
    return [value for module in modules for value in vars(module).values() if isinstance(value, Dialect)]
