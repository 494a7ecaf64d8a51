"""`infra/runbooks`: pages for bad days. What they tell to type exists, and so does what they name; alerts lead to them and back."""

from __future__ import annotations

import re
import shlex
from copy import copy
from pathlib import Path

import click
import pytest
import yaml
from pydantic_settings import BaseSettings

from infra.cli.adopt import adopt
from infra.cli.main import main
from infra.cli.settings import CommandLineSettings
from infra.native.settings import NativeSettings
from shared.agents.table import KINDS as DECLARED
from shared.contracts.budget import KIND as TENANT
from shared.contracts.keys import KIND as KEY
from shared.contracts.maintenance import KIND as MAINTENANCE
from shared.contracts.schedule import KIND as SCHEDULE
from shared.contracts.tasks import PIN
from shared.services import SERVICES
from shared.topics import FAMILIES, Topics
from tests.contract.test_alerts import LABELS
from tests.support.chart import is_setting, settings_of

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "infra" / "runbooks"
PAGES = {path.name: path.read_text() for path in sorted(FOLDER.glob("*.md"))}
RULES = yaml.safe_load((ROOT / "infra" / "alerts" / "rules.yml").read_text())["groups"][0]["rules"]
ALERTS = {rule["alert"]: rule["annotations"].get("runbook", "") for rule in RULES}
MOST_LINES = 80
"""A page is read by somebody in a hurry."""
_ASSIGNMENT = re.compile(r"[A-Z_][A-Z0-9_]*=.*")
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HERE = frozenset({"tutti", "make", "curl", "kcat", "echo", "docker", "helm", "export", ".venv/bin/python"})
"""All that documents tell to type: what a fresh machine may not have (`python`) is no word of it."""
_CODE = re.compile(r"`([^`\n]+)`")


def typed(text: str) -> list[str]:
    """Lines of the blocks that name no language: what is to be typed, and what that says."""
    return [line for language, block in _BLOCK.findall(text) if not language for line in block.splitlines()]


def named(text: str) -> list[str]:
    """What stands in a sentence as code."""
    return _CODE.findall(_BLOCK.sub("", text))


def commands(text: str) -> list[str]:
    """Each line that a page tells to type, and each command that it names."""
    return [found for found in (*(line.split(" # ")[0].strip() for line in typed(text)), *named(text)) if found]


def words_of(command: str) -> list[str]:
    """Without what stands before it."""
    words = shlex.split(command)
    while words and (words[0] == "export" or _ASSIGNMENT.fullmatch(words[0])):
        words.pop(0)
    return words


CALLS = [(name, call) for name, text in PAGES.items() for call in commands(text) if words_of(call)[:1] in (["tutti"], ["make"])]


@pytest.mark.parametrize(("page", "call"), CALLS)
def test_what_is_to_be_typed_is_understood(page: str, call: str) -> None:
    """By the command line, down to options and the number of arguments; by the Makefile, with variables that its target reads."""
    program, *words = words_of(call)
    if program == "make":
        check_make(words)
    else:
        parse(main, "tutti", words)


def parse(command: click.Command, name: str, words: list[str], *, whole: bool = True) -> None:
    """Else a usage error. `whole`: with all that it needs."""
    if isinstance(command, click.Group) and words:
        found = command.get_command(click.Context(command), words[0])
        assert found is not None, f"{name} has no {words[0]}"
        parse(found, f"{name} {words[0]}", words[1:], whole=whole)
    elif words:  # a command that is only named has none of its arguments
        click.Command(name, params=[_anywhere(parameter, whole) for parameter in command.params]).make_context(name, list(words))


def _anywhere(parameter: click.Parameter, whole: bool) -> click.Parameter:
    """A file that a page names need not be here."""
    found = copy(parameter)
    found.type = click.STRING if isinstance(parameter.type, click.Path | click.File) else parameter.type
    found.required = found.required and whole
    return found


def check_make(words: list[str]) -> None:
    """There is such a target, and it reads these variables."""
    makefile = (ROOT / "Makefile").read_text()
    targets = [word for word in words if "=" not in word]
    for target in targets:
        rule = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
        assert rule is not None, target
        reads = rule[1] + "".join(found[2] for found in re.finditer(r"^(\w+) =(.*)", makefile, re.MULTILINE) if f"$({found[1]})" in rule[1])
        for word in words:
            assert "=" not in word or f"$({word.split('=')[0]})" in reads, word


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_names_exists(page: str) -> None:
    """Settings, metrics, topics, services' groups, files, other pages; and it is short."""
    text = PAGES[page]
    own: list[type[BaseSettings]] = [NativeSettings, CommandLineSettings, *(settings_of(service.name) for service in SERVICES)]
    for name in re.findall(r"\bTUTTI_[A-Z_]+[A-Z]\b(?!…|\.\.)", text):
        assert is_setting(name, *own), name
    for name in re.findall(r"\btutti_\w+", text):
        assert name in LABELS or f"{name}_total" in LABELS, name
    for link in re.findall(r"\]\(([^)#]+)", text):
        assert (FOLDER / link).exists(), link
    for path in re.findall(r"`?((?:infra|helm|tests|shared)/[\w./-]+\w)`?", text):
        assert (ROOT / path).exists(), path
    names = {topic.name for topic in Topics().all()} | {re.sub(r"{\w+}", "*", family.pattern) for family in FAMILIES}
    roots = {name.split(".")[0] for name in names}
    for code in _CODE.findall(text):
        if code.split(".")[0] in roots and "." in code:
            assert code in names or code.removesuffix(".*") in roots, code
    assert len(text.splitlines()) <= MOST_LINES


def test_whatever_is_declared_can_be_declared_again() -> None:
    """Kafka's data may be lost: the page names the command of every kind of entry that people write to the registry."""
    others = {PIN: "models pin", MAINTENANCE: "nodes maintain", SCHEDULE: "schedules put", KEY: "keys create", TENANT: "tenants put"}
    own = {kind: f"{'model' if kind == 'card' else kind}s {'declare' if kind == 'tool' else 'set'}" for kind in DECLARED}
    for command in (own | others).values():
        assert f"`tutti {command}" in PAGES["from-nothing.md"], command
    told = adopt.help or ""
    assert [kind for kind in own | others if kind not in told] == [SCHEDULE], "these have an option"


@pytest.mark.parametrize("page", PAGES)
def test_a_page_says_when_it_was_tried(page: str) -> None:
    """And on what: its last section."""
    tried = PAGES[page].split("\n## Tried\n")
    assert len(tried) == 2, "it ends with: ## Tried"
    assert re.match(r"20\d\d-\d\d-\d\d", tried[1].strip())


def test_alerts_lead_to_a_page_that_names_them() -> None:
    """Each has one; a page's line `Alerts:` is the way back."""
    for name, page in ALERTS.items():
        assert page, name
        assert (ROOT / page).is_file(), name
    for page, text in PAGES.items():
        named = re.search(r"^Alerts: (.+)\.\n", text, re.MULTILINE)
        told = set(_CODE.findall(named[1])) if named else set()
        assert told == {name for name, led in ALERTS.items() if led == f"infra/runbooks/{page}"}, page
