"""What people read is held to the code: what a document names and tells to type exists, and figures say how to make them again."""

from __future__ import annotations

import json
import re
import shlex
from functools import cache

import pytest

from infra.cli.main import main
from infra.lab.versus.versus import table
from tests.contract.test_layout import ROOT, tracked
from tests.contract.test_runbooks import check_make, named, parse, typed, words_of

DOCUMENTS = [name for name in tracked() if name.endswith(".md") and not name.startswith("schemas/")]
README = (ROOT / "README.md").read_text()
_CODE = re.compile(r"`([^`\n]+)`")
_PATH = re.compile(r"[\w.-]+(?:/[\w.{},*-]+)+|[\w-]+\.(?:py|md|yml|yaml|json)")
_WORD = re.compile(r"\b(?:test_\w+|[a-z]+_\w+|[A-Z][a-z]+[A-Z]\w+)\b")
_FREE = re.compile(
    r"(?:.*/)?x\.py|(?:tenant|tutti|v1|t|[.]tutti|[.]venv|tutti-local)/.*"
    r"|(?:smart|clerk|steps|tools|policies|values|it|office)\.(?:yaml|json)"
)
"""Names that stand for others, names of ids and models, and files of the reader's own."""
_OF_OTHERS = frozenset({"KafkaUser"})


@cache
def _places() -> frozenset[str]:
    """Every run of folders and files of every tracked path, with and without its ending."""
    found: set[str] = set()
    for name in tracked():
        parts = name.split("/")
        found |= {"/".join(parts[i:j]) for i in range(len(parts)) for j in range(i + 1, len(parts) + 1)}
    return frozenset(found | {re.sub(r"\.\w+\Z", "", name) for name in found})


@cache
def _words() -> frozenset[str]:
    """Every word of what is no document."""
    files = [name for name in tracked() if not name.endswith((".md", ".lock", ".png")) and not name.startswith("schemas/examples")]
    return frozenset(word for name in files for word in re.findall(r"\w+", (ROOT / name).read_text(errors="replace")))


def _spelled_out(name: str) -> list[str]:
    """`a/{b,c}` is two."""
    found = re.search(r"\{([^}]*)\}", name)
    return [name.replace(found[0], one) for one in found[1].split(",")] if found else [name]


def _is_there(name: str) -> bool:
    """`a/b.c` is also what module b has as c."""
    module, _, attribute = name.rpartition(".")
    return name in _places() or (module in _places() and attribute in _words())


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_a_document_names_is_there(document: str) -> None:
    """Paths, whole or their ends (of a file also without its ending); tests, classes, functions, fields, settings, metrics."""
    codes = _CODE.findall(re.sub(r"^```.*?^```", "", (ROOT / document).read_text(), flags=re.MULTILINE | re.DOTALL))
    paths = {one for code in codes if _PATH.fullmatch(code) and not _FREE.fullmatch(code) for one in _spelled_out(code)}
    assert {name for name in paths if "*" not in name and not _is_there(name)} == set()
    words = {word for code in codes if "/" not in code for word in _WORD.findall(code)}
    assert words - _words() - _places() - _OF_OTHERS == set()


def _anchors(text: str) -> set[str]:
    """As they are made of headings: letters, digits and hyphens."""
    return {re.sub(r"[^\w -]", "", found).strip().lower().replace(" ", "-") for found in re.findall(r"^#+ (.+)", text, re.MULTILINE)}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_a_document_links_to_is_there(document: str) -> None:
    """Files beside it, and headings in them."""
    for link in re.findall(r"\]\(([^)\s]+)\)", (ROOT / document).read_text()):
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = (ROOT / document).parent / path if path else ROOT / document
        assert target.exists(), link
        assert not anchor or anchor in _anchors(target.read_text()), link


@pytest.mark.parametrize("decision", [name for name in DOCUMENTS if name.startswith("infra/decisions/")])
def test_a_decision_names_the_command_that_shows_it_again(decision: str) -> None:
    """Its last line: targets of make, tests, modules; each is there."""
    *_, last = (ROOT / decision).read_text().split("\n\n**Again.** ")
    commands = [words for code in _CODE.findall(last) if (words := words_of(code)) and words[0] in ("make", "pytest", "python")]
    assert commands
    assert len(last.splitlines()) == 1
    for program, *words in commands:
        if program == "make":
            check_make(words)
        else:
            files = [word for word in words if word.endswith(".py")] or [word.replace(".", "/") for word in words if "." in word]
            assert files, words
            assert all((ROOT / file).exists() or (ROOT / f"{file}.py").exists() for file in files), words


def test_headings_that_others_refer_to_are_there() -> None:
    """ "ARCHITECTURE, law 2", "ARCHITECTURE, worker" in code and decisions."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    headings = {match.lower() for match in re.findall(r"^## \d+ ([^:\n]+)", text, re.MULTILINE)} | {f"law {n}" for n in range(1, 11)}
    referred = {
        (name, found.strip().lower())
        for name in tracked()
        if name != "ARCHITECTURE.md" and name.endswith((".py", ".md", "Makefile"))
        for found in re.findall(r"ARCHITECTURE, ([a-z]+(?: [0-9]+| protocol)?)", (ROOT / name).read_text())
    }
    assert {name for name in referred if name[1] not in headings} == set()


def _typed(line: str) -> list[str]:
    """A line without its comment, redirections, and what another program would put in; `a|b` is two."""
    call = re.sub(r"<\(echo '.*?'\)", "FILE", line.split(" # ", maxsplit=1)[0].split("   #", maxsplit=1)[0])
    words = shlex.split(re.sub(r" <.*", "", call))
    at = next((n for n, word in enumerate(words) if re.fullmatch(r"[a-z-]+(?:\|[a-z-]+)+", word)), None)
    return [shlex.join(words)] if at is None else [shlex.join([*words[:at], one, *words[at + 1 :]]) for one in words[at].split("|")]


_BEGINS = re.compile(r"(?:[A-Z_]+=\S+ )*(?:tutti|make) ")
LINES = [(line, True) for line in typed(README)] + [(line, False) for line in named(README)]
"""What stands in a block is whole; in a sentence a command may be named without what it needs."""


@pytest.mark.parametrize(("call", "whole"), [(call, whole) for line, whole in LINES if _BEGINS.match(line) for call in _typed(line)])
def test_what_the_readme_tells_to_type_is_understood(call: str, whole: bool) -> None:
    """By the command line, down to options; by the Makefile."""
    program, *words = words_of(call)
    if program == "make":
        check_make([word for word in words if "*" not in word])
    else:
        parse(main, "tutti", words, whole=whole)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_is_to_be_typed_needs_nothing_that_a_fresh_machine_lacks(document: str) -> None:
    """There is no `python` on its path, only that of `.venv`; and no variable that nobody has set."""
    for line in typed((ROOT / document).read_text()):
        assert not re.match(r"(?:[A-Z_]+=\S+ )*(?:python|pip)\d?\b", line), line
        assert not re.search(r"\$\{?[A-Za-z]", line), line


def test_the_readmes_figures_are_those_of_the_record() -> None:
    """Of `make bench-versus RECORD=1`."""
    record = json.loads((ROOT / "infra" / "lab" / "records" / "versus.json").read_text())
    assert "\n".join(table(record["runs"])) in README
