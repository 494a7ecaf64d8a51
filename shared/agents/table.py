"""Declarations: the prompts, agents, profiles, tools and model cards of the registry, in versions with aliases, over those built in.

Keys of the registry are `<kind>/<name>@<version>` (the content) and `<kind>/<name>:<alias>` (Moved). The newest entry of a key counts,
whatever lies between: what is here is the same before and after the topic is compacted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from shared.agents.built_in import BUILT_IN
from shared.contracts.agents import ALIAS, LATEST, NAME, Agent, Declared, ModelCard, Moved, Profile, Prompt, Tool
from shared.errors import InvalidInput

KINDS: Mapping[str, type[Declared]] = {"prompt": Prompt, "agent": Agent, "profile": Profile, "tool": Tool, "card": ModelCard}
MOST_ENTRIES, MOST_BYTES = 4_000, 8 * 1024 * 1024
"""Of all kinds together, versions and aliases; planners and ingresses hold all of them."""
MOST_VERSIONS = 100
"""Of one name. Beyond it those go that no alias names, now or in its history."""
MOST_EARLIER = 50
_SHOWN = 50
_ENTRY = re.compile(rf"({NAME})(?:@([0-9a-f]{{12}})|:({ALIAS}))")
_REFERENCE = re.compile(rf"(?P<name>{NAME})(?:@(?P<at>{ALIAS}))?")
_VERSION = re.compile(r"[0-9a-f]{12}")
_AN_ALIAS = "an alias is 1 to 32 small letters, digits, dots, hyphens, underscores, and no version's name"


class Undeclared(InvalidInput):
    """Nobody has declared what is named. Code and param say of which kind it would be."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message, code=f"unknown_{kind}", param={"tool": "tools", "card": "model"}.get(kind, kind))


class DeclarationsFull(InvalidInput):
    """The registry holds as many declarations as it may."""

    code = "too_many_declarations"


class Found(NamedTuple):
    """What a reference stands for."""

    name: str
    version: str
    body: Declared


Entries = dict[str, bytes | None]
"""Keys behind their kind → values, to be written in this order: an alias never stands before what it names."""


class Versions(NamedTuple):
    """All of one name."""

    bodies: dict[str, Declared]
    aliases: dict[str, Moved]


class Declarations:
    """Fed by `follow_registry`. `complete`: whether all that was declared when reading began is here."""

    def __init__(self) -> None:
        self.complete: Callable[[], bool] = lambda: False
        self._names: dict[str, dict[str, Versions]] = {kind: {} for kind in KINDS}
        self._sizes: dict[tuple[str, str], int] = {}
        self._bytes = 0
        self.changes: dict[str, int] = dict.fromkeys(KINDS, 0)
        """Kind → how many of its entries were read."""
        self.kinds: Mapping[str, Callable[[str, str, bytes | None], None]] = dict.fromkeys(KINDS, self.on_entry)
        """What reads the registry's entries."""

    def on_entry(self, kind: str, key: str, value: bytes | None) -> None:
        """An entry of the registry, in log order. Raises ValueError, DeclarationsFull: what was there before stays."""
        parts = _ENTRY.fullmatch(key)
        if parts is None:
            raise ValueError("the key is neither name@version nor name:alias")
        name, version, alias = parts.groups()
        self.changes[kind] += 1
        read = None if value is None else self._read(kind, key, version, value)
        of_name = self._names[kind].setdefault(name, Versions({}, {}))
        if version is not None:
            of_name.bodies.pop(version, None)
        else:
            of_name.aliases.pop(alias, None)
        if isinstance(read, Moved):
            of_name.aliases[alias] = read
        elif read is not None:
            of_name.bodies[version] = read
        elif not of_name.bodies and not of_name.aliases:
            del self._names[kind][name]
        self._bytes += len(value or b"") - self._sizes.pop((kind, key), 0)
        if value is not None:
            self._sizes[kind, key] = len(value)

    def _read(self, kind: str, key: str, version: str | None, value: bytes) -> Declared | Moved:
        """Others may have written a little more than this process would."""
        self.check_room({(kind, key): len(value)}, spare=2)
        if version is None:
            return Moved.model_validate_json(value)
        body = KINDS[kind].model_validate_json(value)
        if body.version != version:
            raise ValueError("the content is not that of its version")
        return body

    def check_room(self, entries: Mapping[tuple[str, str], int], spare: int = 1) -> None:
        """Whether these may be written besides, within `spare` times the bounds: (kind, key) → bytes. Raises DeclarationsFull."""
        more = sum(key not in self._sizes for key in entries)
        grown = sum(size - self._sizes.get(key, 0) for key, size in entries.items())
        if len(self._sizes) + more > MOST_ENTRIES * spare or self._bytes + grown > MOST_BYTES * spare:
            raise DeclarationsFull(f"the registry holds at most {MOST_ENTRIES} versions and aliases, and {MOST_BYTES} bytes of them")

    def names(self, kind: str) -> list[str]:
        """All that may be named, by alphabet; not where its content was passed over (of a later release) and only the alias is here."""
        return sorted(name for name in {*self._names[kind], *BUILT_IN[kind]} if self._latest(kind, name) is not None)

    def _latest(self, kind: str, name: str) -> Declared | None:
        of_name = self.declared(kind, name)
        moved = of_name.aliases.get(LATEST)
        return BUILT_IN[kind].get(name) if moved is None else of_name.bodies.get(moved.version)

    def versions(self, kind: str, name: str) -> Versions:
        """All versions and aliases of a name. Raises Undeclared."""
        of_name, body = self._names[kind].get(name), BUILT_IN[kind].get(name)
        if of_name is not None and LATEST in of_name.aliases:
            return of_name
        if body is None:
            raise self._unknown(kind, name)
        return Versions({body.version: body}, {LATEST: Moved(version=body.version, at=0.0)})

    def find(self, kind: str, reference: str) -> Found:
        """What `name`, `name@alias` or `name@version` stands for now. Raises as `versions`."""
        parts = _REFERENCE.fullmatch(reference)
        if parts is None:
            raise self._unknown(kind, None)
        name, asked = parts["name"], parts["at"] or LATEST
        of_name = self.versions(kind, name)
        moved = of_name.aliases.get(asked)
        version = asked if moved is None else moved.version
        body = of_name.bodies.get(version)
        if body is None:
            known = ", ".join(sorted(of_name.aliases)[:_SHOWN])
            raise Undeclared(kind, f"the {kind} {name} has no version or alias {asked}; its aliases: {known}")
        return Found(name, version, body)

    def _unknown(self, kind: str, name: str | None) -> Undeclared:
        names = self.names(kind)
        known = ", ".join(names[:_SHOWN]) + (" and others" if len(names) > _SHOWN else "")
        return Undeclared(kind, f"there is no {kind} {name or 'of this form'}; known: {known or 'none'}")

    def declared(self, kind: str, name: str) -> Versions:
        """What the registry has of this name."""
        return self._names[kind].get(name) or Versions({}, {})

    def to_declare(self, kind: str, name: str, body: Declared, *, at: float, by: str) -> Entries:
        """What is to be written so that `latest` is this content; nothing where it is. Of a name with too many versions those go that no
        alias names, now or in its history. Raises DeclarationsFull.
        """
        of_name, version, entries = self.declared(kind, name), body.version, Entries()
        if version not in of_name.bodies:
            entries[f"{name}@{version}"] = body.encoded(exclude_defaults=True)
        if LATEST not in of_name.aliases or of_name.aliases[LATEST].version != version:
            entries[f"{name}:{LATEST}"] = _moved(of_name, LATEST, version, at, by)
        self.check_room({(kind, key): len(value or b"") for key, value in entries.items()})
        if len(of_name.bodies) >= MOST_VERSIONS:
            named = {version, *(each for moved in of_name.aliases.values() for each in (moved.version, *moved.earlier))}
            entries |= {f"{name}@{each}": None for each in of_name.bodies if each not in named}
        return entries

    def to_move(self, kind: str, name: str, alias: str, to: str, *, at: float, by: str) -> Entries:
        """What is to be written so that this alias points where `name@to` does. Raises InvalidInput, DeclarationsFull, and as `find`."""
        if _VERSION.fullmatch(alias) or re.fullmatch(ALIAS, alias) is None:
            raise InvalidInput(_AN_ALIAS, code="invalid_alias", param="alias")
        found, of_name, entries = self.find(kind, f"{name}@{to}"), self.declared(kind, name), Entries()
        if found.version not in of_name.bodies:  # it is built in, and may be another one in the next release
            entries |= self.to_declare(kind, name, found.body, at=at, by=by)
        if alias not in of_name.aliases or of_name.aliases[alias].version != found.version:
            entries[f"{name}:{alias}"] = _moved(of_name, alias, found.version, at, by)
        self.check_room({(kind, key): len(value or b"") for key, value in entries.items()})
        return entries

    def to_remove(self, kind: str, name: str) -> Entries:
        """What is to be written so that nothing of this name is declared; what is built in is there again."""
        of_name = self.declared(kind, name)
        return dict.fromkeys([*(f"{name}:{alias}" for alias in of_name.aliases), *(f"{name}@{version}" for version in of_name.bodies)])


def _moved(of_name: Versions, alias: str, version: str, at: float, by: str) -> bytes:
    before = of_name.aliases.get(alias)
    earlier = () if before is None else (before.version, *before.earlier)[:MOST_EARLIER]
    return Moved(version=version, at=at, by=by, earlier=earlier).to_bytes()
