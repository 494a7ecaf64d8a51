"""Patterns: procedures that turn a job into steps. One file each, without Kafka in it; every Pattern that a file of this folder makes is
known, and every one of the folder that an operator sets (`TUTTI_PATTERNS`, for planner and ingress alike; what lies there is run as code).
"""

from __future__ import annotations

import pkgutil
import re
import sys
from collections.abc import Iterable, Mapping
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from shared.contracts.job import Job
from shared.errors import ConfigurationError
from shared.patterns.port import Pattern, PatternInput, UnknownPattern


class Patterns:
    """What a process knows. Raises ConfigurationError when two patterns have one name and version."""

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        self._all: dict[tuple[str, int], Pattern] = {}
        for pattern in patterns:
            if self._all.setdefault((pattern.name, pattern.version), pattern) is not pattern:
                raise ConfigurationError(f"there are two patterns {pattern.name} of version {pattern.version}")
        newest = sorted(self._all.values(), key=lambda pattern: pattern.version)
        self.current: Mapping[str, Pattern] = {pattern.name: pattern for pattern in newest}
        """What a new job gets."""

    def of(self, name: str, version: int) -> Pattern | None:
        """The one that a job in flight is pinned to."""
        return self._all.get((name, version))

    def hands_on(self, name: str) -> bool:
        """Whether a new job of this pattern may have its input in a blob (`Pattern.hands_on`)."""
        pattern = self.current.get(name)
        return pattern is not None and pattern.hands_on

    def read(self, job: Job) -> tuple[Pattern, PatternInput]:
        """Which pattern a new job gets, and its input. Raises UnknownPattern, InvalidInput."""
        pattern = self.current.get(job.pattern)
        if pattern is None:
            raise UnknownPattern(f"there is no such pattern; known: {', '.join(sorted(self.current))}")
        return pattern, pattern.read(job)


def load(folder: str = "") -> Patterns:
    """The built-in ones, and those of the folder's files. Raises ConfigurationError."""
    modules = [import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
    if folder:
        if not Path(folder).is_dir():
            raise ConfigurationError("TUTTI_PATTERNS names no folder")
        modules += [_module(file.resolve()) for file in sorted(Path(folder).glob("[!_]*.py"))]
    return Patterns(value for module in modules for value in vars(module).values() if isinstance(value, Pattern))


def _module(file: Path) -> ModuleType:
    name = "tutti_pattern_" + re.sub(r"\W", "_", str(file))
    if name in sys.modules:
        return sys.modules[name]
    spec = spec_from_file_location(name, file)
    assert spec is not None, "a .py file has a loader"
    assert spec.loader is not None, "the same"
    module = sys.modules[name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ConfigurationError(f"TUTTI_PATTERNS: {file.name} cannot be loaded: {type(error).__name__}: {error}") from error
    return module


BUILT_IN = load()
