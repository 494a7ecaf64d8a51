"""The layout of ARCHITECTURE, code, checked: places, names, sizes, and what never appears in a tracked file."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections import Counter, defaultdict
from pathlib import Path

import pytest

import infra
import services
import shared
from infra.lab.house import count
from shared.services import PORTS

ROOT = Path(__file__).parents[2]
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 70
ANATOMY = {"__init__.py", "__main__.py", "app.py", "settings.py", "handlers.py"}
CARD = ("consumes", "produces", "owns", "on failure", "scales by")


def tracked() -> list[str]:
    """What git tracks or would track: ignored files are nobody's business."""
    listed = subprocess.run(["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True)
    return [name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


def sources(*folders: str) -> list[Path]:
    return [ROOT / name for name in tracked() if name.endswith(".py") and name.startswith(tuple(f"{folder}/" for folder in folders))]


@pytest.mark.parametrize("package", [services, shared, infra])
def test_packages_come_from_this_tree(package: object) -> None:
    """`services` and `shared` are also names of public distributions."""
    assert Path(str(package.__file__)).parents[1] == ROOT  # type: ignore[attr-defined]


def test_no_package_under_tests() -> None:
    """A folder `tests/unit/services` with an __init__.py would shadow the product."""
    assert not [name for name in tracked() if name.startswith("tests/") and name.endswith("__init__.py")]


def test_files_are_short() -> None:
    """One subject a file."""
    long = {
        str(path.relative_to(ROOT)): count
        for path in sources("services", "shared", "infra", "tests")
        if (count := _lines(path)) > MAX_FILE_LINES
    }
    assert long == {}


def _lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def test_functions_are_short() -> None:
    """One thought a function."""
    long = {
        f"{path.relative_to(ROOT)}:{node.name}": length
        for path in sources("services", "shared", "infra", "tests")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or 0) - node.lineno + 1) > MAX_FUNCTION_LINES
    }
    assert long == {}


def test_the_house_does_not_grow_again() -> None:
    """As counted (decision 0026). Lower them when they have become lower."""
    found = count(ROOT)
    assert found["public classes per 1,000 lines of services and shared"] <= 12
    assert found["support to services and shared"] <= 0.18
    assert found["runs of 8 lines in two services"] == 0


def test_every_module_opens_with_a_card() -> None:
    """The docstring at the top says what the file is for."""
    bare = [
        str(path.relative_to(ROOT))
        for path in sources("services", "shared", "infra")
        if _lines(path) and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert bare == []


@pytest.mark.parametrize("service", PORTS)
def test_every_service_has_the_same_files(service: str) -> None:
    """Knowing one service is knowing all."""
    folder = ROOT / "services" / service
    assert {path.name for path in folder.glob("*.py")} >= ANATOMY


@pytest.mark.parametrize("service", PORTS)
def test_an_app_is_wiring(service: str) -> None:
    """What reads what, and nothing else: the life cycle is the kit's, and what a service does is in its other files."""
    assert len((ROOT / "services" / service / "app.py").read_text().splitlines()) <= 120


@pytest.mark.parametrize("service", PORTS)
def test_every_services_card_is_complete(service: str) -> None:
    """Purpose first, then what it consumes, produces and owns, what happens when it fails, how it scales."""
    card = ast.get_docstring(ast.parse((ROOT / "services" / service / "__init__.py").read_text())) or ""
    assert card.lower().startswith(service)
    assert [entry for entry in CARD if entry not in card.lower()] == []


def test_there_are_no_services_but_the_known_ones() -> None:
    """Every folder under services/ has a port, a row in the README and its files."""
    assert {path.name for path in (ROOT / "services").iterdir() if path.is_dir() and path.name != "__pycache__"} == set(PORTS)


def test_import_rules_know_every_service() -> None:
    """A service that the rules do not name could import another."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    [independent] = [contract for contract in contracts if contract["type"] == "independence"]
    assert set(independent["modules"]) == {f"services.{name}" for name in PORTS}


def test_domain_files_import_neither_kafka_nor_http() -> None:
    """Patterns and policies are plain Python: they run in unit tests and under virtual time."""
    forbidden = {"aiokafka", "faststream", "aiohttp", "fastapi", "starlette", "httpx"}
    for path in sources("shared/patterns", "shared/contracts"):
        assert not _imports(path) & forbidden, path


def _imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    plain = {alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    return plain | {(node.module or "").split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}


def _imported(path: Path) -> set[str]:
    """What it names in imports anywhere: at its top, in a function, for a type checker only."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    named = {f"{node.module}.{alias.name}" for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}
    return named | {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}


def test_nobody_imports_in_a_circle() -> None:
    """Every file can be understood after those that it builds on. A circle is left when whoever needs nobody, or nobody needs, is taken
    away.
    """
    paths = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sources("services", "shared", "infra")
    }
    named = {name: _imported(path) for name, path in paths.items()}
    needs = {name: {n if n in paths else n.rpartition(".")[0] for n in found} & set(paths) - {name} for name, found in named.items()}
    while ends := {name for name in needs if not needs[name] or not any(name in other for other in needs.values())}:
        needs = {name: others - ends for name, others in needs.items() if name not in ends}
    assert needs == {}


def test_nothing_waits_by_what_loses_a_cancellation() -> None:
    """Python 3.11's `wait_for` does (0070): who bounds a call of Kafka's client has `in_time`, all else `asyncio.timeout`."""
    assert [path for path in sources("services", "shared", "infra") if "asyncio.wait_for(" in path.read_text()] == []


def test_the_tree_of_folders_is_whole() -> None:
    """Every folder of shared and infra is named in ARCHITECTURE, code, and every package below: as often as there are some of that name."""
    tree = (ROOT / "ARCHITECTURE.md").read_text().split("\n## 11 Code\n```\n")[1].split("\n```\n")[0]
    paths = {Path(name).parts for name in tracked() if name.startswith(("services/", "shared/", "infra/"))}
    folders = {path[:2] for path in paths if len(path) > 2 and path[0] != "services"}
    folders |= {path[:3] for path in paths if len(path) == 4 and path[3] == "__init__.py"}
    named = Counter(re.findall(r"(?<![\w/])([\w-]+)/(?!\w)", tree))
    assert Counter(folder[-1] for folder in folders) - named == Counter()


_HOME_FOLDER = re.compile(r"(?<![\w.$}~/-])/(?:home|root|Users|work)/[a-z]")
_REGISTRY = re.compile(r"\b(?:[\w-]+\.)*(?:pypi|pythonhosted|npmjs|golang|debian|crates|maven)\.(?:org|io|com)\b(?!/POM)", re.IGNORECASE)


def test_no_machine_path_and_no_registry_address_is_tracked() -> None:
    """A checkout works anywhere: nothing names one machine's folders or one network's package hosts."""
    found = []
    for name in tracked():
        text = (ROOT / name).read_bytes().decode("utf-8", "replace")
        found += [f"{name}: {match.group()}" for pattern in (_HOME_FOLDER, _REGISTRY) for match in pattern.finditer(text)]
    assert found == []


_ANATOMY = frozenset({"__init__", "__main__", "app", "settings", "handlers", "messages", "port", "wiring"})
"""Names of files that mean the same in every part."""
_NAMED_FOR_A_THING = ("shared/contracts/", "/routes/", "/dialects/")
"""Files here are named for the message, resource or form that they speak of, which others may speak of too."""


def test_one_name_has_one_meaning() -> None:
    """No public class, and no module beside the anatomy, of one part is named like another's. Of infra the classes; the lab has its own."""
    classes, modules = defaultdict(set), defaultdict(set)
    for path in sources("services", "shared", "infra"):
        name = path.relative_to(ROOT).as_posix()
        if name.startswith("infra/lab/"):
            continue
        if path.stem not in _ANATOMY and not any(place in name for place in (*_NAMED_FOR_A_THING, "infra/")):
            modules[path.stem].add(name)
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                classes[node.name].add(name)
    assert {name: places for found in (classes, modules) for name, places in found.items() if len(places) > 1} == {}
