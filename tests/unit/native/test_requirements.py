"""Which missing components are failures, and what a missing program tells its user."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.native import install
from infra.native.errors import AlreadyRunning, MissingTool
from infra.native.paths import locked
from tests.support.native import required


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({"CI": "true"}, True),
        ({"CI": "true", "TUTTI_REQUIRE_REAL": "redis"}, False),
        ({"TUTTI_REQUIRE_REAL": "redis, kafka"}, True),
        ({"CI": ""}, False),
    ],
)
def test_a_missing_component_fails_where_it_is_required(environment: dict[str, str], expected: bool) -> None:
    """A skip on a laptop, a failure in CI, unless an explicit list says otherwise."""
    assert required("kafka", environment) is expected


def test_a_missing_program_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without permission nothing is installed; the message can be pasted into a shell."""
    monkeypatch.setenv(install.FORBID, "1")
    with pytest.raises(MissingTool, match=r"`no-such-program` is missing .*sudo apt-get install -y --no-install-recommends some-package"):
        install.require("no-such-program", ["some-package"], "for this test")


def test_a_lock_keeps_a_second_command_out(tmp_path: Path) -> None:
    """Two `tutti up` in one directory do not race: the second is told."""
    with locked(tmp_path / "lock"), pytest.raises(AlreadyRunning), locked(tmp_path / "lock", wait=False):
        pass
