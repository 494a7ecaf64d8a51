"""`pyproject.toml` and the imports agree: what is imported is declared where it is needed, what is declared is used, and each says why."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections import defaultdict
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from itertools import pairwise

from tests.contract.test_layout import ROOT, tracked

TEXT = (ROOT / "pyproject.toml").read_text()
PROJECT = tomllib.loads(TEXT)["project"]
EXTRAS = PROJECT["optional-dependencies"]
_NAME = re.compile(r"[\w.-]+")
_OF_DEVELOPERS = ("dev", "native")
_PLUGINS = frozenset({"pytest-asyncio", "pytest-timeout", "pytest-xdist"})
"""What pytest loads by itself."""
_APART = frozenset({"dbos", "saq", "torch", "tokenizers"})
"""Of environments of their own: `infra/lab/versus`, `make test-semantic`."""


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _declared(*groups: str) -> set[str]:
    lines = [line for group in groups for line in (PROJECT["dependencies"] if group == "product" else EXTRAS[group])]
    return {_plain(found[0]) for line in lines if (found := _NAME.match(line))}


@cache
def _imports() -> dict[str, set[str]]:
    """Distribution → files that import something of it."""
    providers, found = packages_distributions(), defaultdict(set)
    for name in tracked():
        if not name.endswith(".py"):
            continue
        for node in ast.walk(ast.parse((ROOT / name).read_text())):
            plain = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else plain
            for top in (
                {module.split(".")[0] for module in modules} - set(sys.stdlib_module_names) - {"services", "shared", "infra", "tests"}
            ):
                for one in providers.get(top, [top]):
                    found[_plain(one)].add(name)
    return dict(found)


def _with_parts(names: set[str]) -> set[str]:
    """And what comes with them: starlette with fastapi, yarl with aiohttp. Their versions are those libraries' own affair."""
    found = set(names)
    for name in names:
        try:
            found |= {_plain(match[0]) for line in requires(name) or () if (match := _NAME.match(line))}
        except PackageNotFoundError:
            continue
    return found


def test_what_is_imported_is_declared() -> None:
    """What users run imports nothing of developers'; the laboratory and the tests may."""
    users = _with_parts(_declared("product", *(extra for extra in EXTRAS if extra not in _OF_DEVELOPERS)))
    everybody = users | _with_parts(_declared(*_OF_DEVELOPERS))
    wrong = {
        (name, file)
        for name, files in _imports().items()
        for file in files
        if name not in (everybody if file.startswith(("tests/", "infra/lab/", "infra/native/")) else users) | _APART
    }
    assert wrong == set()


def test_what_is_declared_is_used() -> None:
    """Imported, run as a program, or typing what is."""
    run = " ".join(
        (ROOT / name).read_text() for name in ("Makefile", *(n for n in tracked() if n.startswith("infra/") and n.endswith(".py")))
    )
    names = _declared("product", *EXTRAS)
    named = {name for name in names if re.search(rf"\b{name.replace('-', '[-_]')}\b", run, re.IGNORECASE)}
    typing = {name for name in names if name.removeprefix("types-") in {"pyyaml", "jsonschema", "psutil"}}
    tools = {"import-linter"} if "lint-imports" in run else set()
    assert names - set(_imports()) - named - typing - tools - _PLUGINS == set()


def test_each_says_why() -> None:
    """A comment in the line before it, or behind it; the tools of every project excepted."""
    lines = TEXT[TEXT.index("\ndependencies = [") : TEXT.index("[project.scripts]")].splitlines()
    bare = [line.strip() for before, line in pairwise(lines) if '"' in line and "#" not in line and "#" not in before]
    assert {found[0] for line in bare if (found := _NAME.search(line))} <= {
        "pytest",
        "pytest-asyncio",
        "mypy",
        "ruff",
        "import-linter",
        "types-PyYAML",
        "types-jsonschema",
        "types-psutil",
    }
