"""The table of what is declared: it follows the log, compacted or not; what it says to write gives what was meant."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.agents import table as tables
from shared.agents.built_in import AGENTS, BUILT_IN
from shared.agents.cards import cards_of
from shared.agents.resolving import check_declared
from shared.agents.table import KINDS, Declarations, DeclarationsFull, Entries, Undeclared
from shared.contracts.agents import Agent, Moved, Prompt
from shared.errors import InvalidInput

Line = tuple[str, str, bytes | None]
BODIES = [Agent(system=f"You are number {number}.") for number in range(4)]


def folded(log: list[Line]) -> Declarations:
    table = Declarations()
    for line in log:
        table.on_entry(*line)
    return table


def seen(table: Declarations) -> Any:
    return table._names, table._sizes, table._bytes


def write(table: Declarations, kind: str, entries: Entries) -> list[Line]:
    lines = [(kind, key, value) for key, value in entries.items()]
    for line in lines:
        table.on_entry(*line)
    return lines


DEEDS = st.lists(
    st.tuples(st.sampled_from(["declare", "move", "remove"]), st.sampled_from("ab"), st.sampled_from(["prod", "old"]), st.integers(0, 3))
)


@given(DEEDS)
def test_a_compacted_log_says_the_same(deeds: list[tuple[str, str, str, int]]) -> None:
    """Whatever was declared, moved and removed: of each key the newest entry counts, wherever compaction has come to."""
    writer, log = Declarations(), []
    for at, (deed, name, alias, number) in enumerate(deeds):
        if deed == "remove":
            entries = writer.to_remove("agent", name)
        elif deed == "declare" or not writer.declared("agent", name).aliases:
            entries = writer.to_declare("agent", name, BODIES[number], at=float(at), by="root")
        else:
            entries = writer.to_move("agent", name, alias, "latest", at=float(at), by="root")
        log += write(writer, "agent", entries)
    newest = {(kind, key): place for place, (kind, key, _) in enumerate(log)}
    for dirty in (0, len(log) // 2, len(log)):
        compacted = [line for place, line in enumerate(log) if place >= dirty or newest[line[0], line[1]] == place]
        assert seen(folded(compacted)) == seen(folded(log)) == seen(writer)
    without = [line for place, line in enumerate(log) if newest[line[0], line[1]] == place and line[2] is not None]
    assert seen(folded(without)) == seen(writer)


def test_latest_follows_and_history_is_kept() -> None:
    """An unchanged body makes no new version; an earlier one is latest again under its old version."""
    table = Declarations()
    for at, number in enumerate((0, 1, 1, 0)):
        written = write(table, "agent", table.to_declare("agent", "mine", BODIES[number], at=float(at), by="root"))
        assert len(written) == (2, 2, 0, 1)[at]
    first, second = BODIES[0].version, BODIES[1].version
    assert table.find("agent", "mine").version == first
    assert table.versions("agent", "mine").aliases["latest"] == Moved(version=first, at=3.0, by="root", earlier=(second, first))
    assert table.find("agent", f"mine@{second}").body == BODIES[1]
    write(table, "agent", table.to_move("agent", "mine", "prod", second, at=4.0, by="root"))
    write(table, "agent", table.to_declare("agent", "mine", BODIES[2], at=5.0, by="root"))
    assert (table.find("agent", "mine@prod").body, table.find("agent", "mine").body) == (BODIES[1], BODIES[2])


def test_a_built_in_one_is_replaced_and_comes_back() -> None:
    """An alias of one that is built in keeps its content, whatever the next release has."""
    table = Declarations()
    assert table.find("agent", "critic").body is AGENTS["critic"]
    write(table, "agent", table.to_move("agent", "critic", "prod", "latest", at=1.0, by="root"))
    write(table, "agent", table.to_declare("agent", "critic", BODIES[0], at=2.0, by="root"))
    assert (table.find("agent", "critic").body, table.find("agent", "critic@prod").body) == (BODIES[0], AGENTS["critic"])
    write(table, "agent", table.to_remove("agent", "critic"))
    assert table.find("agent", "critic").body is AGENTS["critic"]
    assert seen(table) == seen(Declarations())


@pytest.mark.parametrize("reference", ["none", "mine@none", "Mine", "mine@", "@prod", "mine@prod@prod", "mine\n", ""])
def test_who_is_not_there_is_unknown_with_what_is(reference: str) -> None:
    table = Declarations()
    write(table, "agent", table.to_declare("agent", "mine", BODIES[0], at=0.0, by=""))
    with pytest.raises(Undeclared, match=r"critic.*mine|aliases: latest") as raised:
        table.find("agent", reference)
    assert (raised.value.code, raised.value.param) == ("unknown_agent", "agent")


def test_a_version_without_its_alias_is_not_declared_yet() -> None:
    """Its writer died in between; who declares it again completes it."""
    table = Declarations()
    entries = table.to_declare("prompt", "p", Prompt(template="x"), at=0.0, by="")
    key = next(iter(entries))
    table.on_entry("prompt", key, entries[key])
    with pytest.raises(Undeclared):
        table.find("prompt", "p")
    assert list(table.to_declare("prompt", "p", Prompt(template="x"), at=1.0, by="")) == ["p:latest"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_named_is_found(kind: str) -> None:
    """Also where the content was passed over, as one of a later release is, and only its alias is here: of new names, and built-in ones."""
    table = Declarations()
    moved = Moved(version="0123456789ab", at=0.0, by="").to_bytes()
    for name in ("late", *BUILT_IN[kind]):
        table.on_entry(kind, f"{name}:latest", moved)
    assert table.names(kind) == []
    assert not cards_of(table)
    whole = Declarations()
    assert [whole.find(kind, name).name for name in whole.names(kind)] == sorted(BUILT_IN[kind])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mine", b"{}"),
        ("Mine@0123456789ab", b"{}"),
        ("mine@prod", b"{}"),
        ("mine@0123456789ab", b"{}"),
        (f"mine@{BODIES[1].version}", b'{"sistem": "x"}'),
        ("mine:prod", b"{}"),
        ("mine:latest", b"[]"),
    ],
)
def test_what_is_no_entry_changes_nothing(key: str, value: bytes) -> None:
    """Also content that is not that of its version: a version never changes."""
    table = Declarations()
    write(table, "agent", table.to_declare("agent", "mine", BODIES[0], at=0.0, by=""))
    before = repr(seen(table))
    with pytest.raises(ValueError):
        table.on_entry("agent", key, value)
    assert repr(seen(table)) == before


@pytest.mark.parametrize("alias", ["0123456789ab", "Prod", "", "a b", "a" * 33, "-a"])
def test_an_alias_is_no_version(alias: str) -> None:
    with pytest.raises(InvalidInput):
        Declarations().to_move("agent", "critic", alias, "latest", at=0.0, by="")


def test_what_does_not_fit_is_refused_and_what_others_wrote_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Number and bytes; readers leave room for writers that did not know of one another."""
    monkeypatch.setattr(tables, "MOST_ENTRIES", 3)
    table, other = Declarations(), Declarations()
    write(table, "agent", table.to_declare("agent", "a", BODIES[0], at=0.0, by=""))
    late = [("agent", key, value) for key, value in other.to_declare("agent", "b", BODIES[0], at=0.0, by="").items()]
    with pytest.raises(DeclarationsFull):
        table.to_declare("agent", "b", BODIES[0], at=0.0, by="")
    for line in late:
        table.on_entry(*line)
    assert table.find("agent", "b").body == BODIES[0]
    monkeypatch.setattr(tables, "MOST_ENTRIES", 99)
    monkeypatch.setattr(tables, "MOST_BYTES", table._bytes)
    with pytest.raises(DeclarationsFull):
        table.to_declare("agent", "a", BODIES[1], at=1.0, by="")


def test_of_many_versions_those_stay_that_an_alias_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MOST_VERSIONS", 8)
    monkeypatch.setattr(tables, "MOST_EARLIER", 3)
    table = Declarations()
    bodies = [Agent(system=f"{number}") for number in range(40)]
    for number, body in enumerate(bodies):
        write(table, "agent", table.to_declare("agent", "mine", body, at=float(number), by=""))
        if number == 0:
            write(table, "agent", table.to_move("agent", "mine", "prod", "latest", at=0.5, by=""))
        of_name = table.declared("agent", "mine")
        named = {each for moved in of_name.aliases.values() for each in (moved.version, *moved.earlier)}
        assert named <= set(of_name.bodies)
        assert len(of_name.bodies) <= 9
    assert table.find("agent", "mine@prod").body == bodies[0]


def test_what_is_built_in_may_be_declared() -> None:
    """Every agent's profile is there; names are those that were promised."""
    table = Declarations()
    for kind, bodies in BUILT_IN.items():
        for name, body in bodies.items():
            check_declared(table, name, body, {"chat"})
            assert KINDS[kind].model_validate_json(body.encoded(exclude_defaults=True)).version == body.version
    own = {name for name, agent in AGENTS.items() if agent.capability == name}
    assert own == {"research", "reasoning", "creative", "code", "critic"}
    assert {AGENTS[name].capability for name in set(AGENTS) - own} == {"chat"}
    with pytest.raises(InvalidInput, match="not both"):
        check_declared(table, "x", Agent(system="a", prompt="b"), {"chat"})
    with pytest.raises(Undeclared):
        check_declared(table, "x", Agent(prompt="b"), {"chat"})
