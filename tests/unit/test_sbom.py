"""The list of what is shipped holds the lock file, whole; what is otherwise in it is told."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from infra.lab.sbom import OURS, differences, document, licence, read_lock

ROOT = Path(__file__).parents[2]
LOCKS = sorted(path.name for path in ROOT.glob("requirements*.lock"))


@pytest.mark.parametrize("name", LOCKS)
def test_it_holds_the_whole_lock(name: str) -> None:
    """Counted a second time, in the plainest way; and every package is needed by somebody."""
    text = (ROOT / name).read_text()
    locked = read_lock(text)
    assert len(locked) == sum(line[:1].isalnum() for line in text.splitlines())
    assert sum(len(one.hashes) for one in locked.values()) == text.count("--hash=sha256:")
    made = document(locked, "1.2.3")
    assert differences(made, locked) == []
    found: dict[str, Any] = json.loads(made)
    assert found["metadata"]["component"]["version"] == "1.2.3"
    needs = {entry["ref"]: set(entry.get("dependsOn", ())) for entry in found["dependencies"]}
    assert {part["bom-ref"] for part in found["components"]} == set().union(*needs.values())
    assert any(ref.startswith("pkg:pypi/aiokafka@") for ref in needs[OURS])


def test_what_is_otherwise_is_told() -> None:
    locked = read_lock("a==1 \\\n    --hash=sha256:" + "0" * 64 + "\n    # via b\nb==2\n    # via tutti-cluster (pyproject.toml)\n")
    found: dict[str, Any] = json.loads(document(locked, "1"))
    part = next(one for one in found["components"] if one["name"] == "a")
    for change, told in (
        ({"version": "9"}, "a==1 is missing"),
        ({"version": "9"}, "a==9 is not locked"),
        ({"hashes": []}, "a==1 has other hashes"),
        ({"name": "c"}, "a==1 is missing"),
    ):
        other = found | {"components": [part | change, *(one for one in found["components"] if one is not part)]}
        assert told in differences(json.dumps(other), locked)


def test_a_line_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="no line"):
        read_lock("--extra-index-url https://somewhere\n")


_PERMISSIVE = re.compile(r"MIT|BSD|Apache|PSF|Python Software Foundation|ISC")


def test_no_licence_of_what_is_shipped_conflicts_with_ours() -> None:
    """Ours is Apache-2.0. MPL-2.0 binds changes of its own files alone: certifi's list of authorities, which is shipped as it is."""
    said = {one.name: licence(one.name) for one in read_lock((ROOT / "requirements-image.lock").read_text()).values()}
    others = {name for name, found in said.items() if found is not None and not _PERMISSIVE.search(found)}
    assert others == {"certifi"}
    assert "MPL 2.0" in (said["certifi"] or "")
