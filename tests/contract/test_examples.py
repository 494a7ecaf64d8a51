"""Recorded examples: what was once written in the log is read by every later version, with nothing lost.

The files under schemas/examples are frozen. A new message or field comes with a new file (any name after the message's); the digests
of the old ones stay as they are. `digests.txt` has the form of sha256sum.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel, TypeAdapter

from infra.schemas.messages import contracts, messages, schema
from shared.contracts.base import VERSION
from shared.contracts.control import CONTROL
from shared.contracts.credits import CREDITS
from shared.contracts.event import EVENT, JobSnapshot
from shared.contracts.outcome import OUTCOME
from shared.contracts.reply import REPLY
from shared.contracts.versions import NEWEST, VERSIONS, version_of
from shared.topics import FAMILIES

FOLDER = Path(__file__).parents[2] / "schemas" / "examples"
EXAMPLES = sorted(FOLDER.glob("v*/*.json"))
READERS: dict[str, TypeAdapter[Any]] = {"outcomes": OUTCOME, "job-events": EVENT, "replies": REPLY, "credits": CREDITS, "controls": CONTROL}


def name_of(path: Path) -> str:
    return path.name.split(".")[0]


def identify(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


@pytest.mark.parametrize("path", EXAMPLES, ids=identify)
def test_every_example_is_read_and_nothing_is_lost(path: Path) -> None:
    """Today's model knows all that it said, and reads what it writes as the same."""
    recorded, model = json.loads(path.read_bytes()), contracts()[name_of(path)]
    read = model.model_validate_json(path.read_bytes())
    assert missing(recorded, read.model_dump(mode="json", exclude_none=True)) == []
    assert model.model_validate_json(read.to_bytes()) == read


def missing(before: Any, after: Any, place: str = "") -> list[str]:
    """What `before` says and `after` does not; `after` may say more (defaults)."""
    if isinstance(before, dict) and isinstance(after, dict):
        return [
            m
            for key, value in before.items()
            for m in (missing(value, after[key], f"{place}.{key}") if key in after else [f"{place}.{key}"])
        ]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [m for n, (b, a) in enumerate(zip(before, after, strict=True)) for m in missing(b, a, f"{place}[{n}]")]
    return [] if before == after else [place]


@pytest.mark.parametrize("path", EXAMPLES, ids=identify)
def test_a_topics_reader_finds_the_examples_class(path: Path) -> None:
    """Where a topic carries several messages, its union reads the example as the class it is an example of."""
    for family in FAMILIES:
        if name_of(path) in family.messages and family.pattern in READERS:
            assert type(READERS[family.pattern].validate_json(path.read_bytes())).__name__ == name_of(path)


@pytest.mark.parametrize("path", [path for path in EXAMPLES if int(path.parent.name[1:]) in range(VERSION, NEWEST + 1)], ids=identify)
def test_an_example_of_this_version_fits_its_schema(path: Path) -> None:
    """Schema and model say the same."""
    Draft202012Validator(schema(contracts()[name_of(path)])).validate(json.loads(path.read_bytes()))


_NO_JOBS = ("JobSnapshot", "TakenAhead", "BatchChanged")  # no snapshot quotes them
_QUOTED = [
    path
    for path in EXAMPLES
    for family in FAMILIES
    if family.pattern == "job-events" and name_of(path) in family.messages and name_of(path) not in _NO_JOBS
]


@pytest.mark.parametrize("path", _QUOTED, ids=identify)
def test_a_snapshot_is_of_the_version_of_what_it_quotes(path: Path) -> None:
    """Whatever an event holds, also what asks by being there (`"cache": {}`): a planner that would misread the event meets its snapshot."""
    recorded = json.loads(path.read_bytes())
    asks = recorded | {"request": recorded["request"] | {"cache": {}}} if "request" in recorded else recorded
    for found in (recorded, asks):
        event = EVENT.validate_python(found)
        fact = event.to_bytes().decode()
        snapshot = JobSnapshot(epoch=0, job="j", at=0.0, snapshot="s", part=0, parts=1, facts=(fact,))
        assert version_of(snapshot) == max(VERSIONS["job_snapshot"], version_of(event))


def test_every_message_has_a_minimal_and_a_full_example() -> None:
    """A new message comes with both."""
    present = {path.name for path in EXAMPLES}
    assert {f"{name}.{kind}.json" for name in messages() for kind in ("minimal", "full")} - present == set()


def test_every_field_of_every_contract_stands_in_an_example() -> None:
    """A new field comes with an example that has it."""
    seen: defaultdict[str, set[str]] = defaultdict(set)
    for path in EXAMPLES:
        collect(contracts()[name_of(path)].model_validate_json(path.read_bytes()), seen)
    unseen = {f"{name}.{field}" for name, kind in contracts().items() for field in set(kind.model_fields) - seen[name]}
    assert unseen == set()


def collect(value: Any, seen: defaultdict[str, set[str]]) -> None:
    if isinstance(value, BaseModel):
        for kind in type(value).__mro__:
            seen[kind.__name__] |= value.model_fields_set
        for field in value.model_fields_set:
            collect(getattr(value, field), seen)
    elif isinstance(value, tuple | dict):
        for item in value.values() if isinstance(value, dict) else value:
            collect(item, seen)


def test_recorded_examples_are_frozen() -> None:
    """A changed or vanished file would hide that old records are no longer read."""
    recorded = {line.split("  ")[1]: line.split("  ")[0] for line in (FOLDER / "digests.txt").read_text().splitlines()}
    present = {path.relative_to(FOLDER).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in EXAMPLES}
    assert present == recorded
