"""`tutti critique`: a file is checked as a critic does it; what is found, where, and the exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from infra.cli.main import main

TEXT = "Write to bob@example.com, please."


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return str(path)


def tutti(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["critique", *arguments])


def test_what_is_found_is_told(file: str) -> None:
    found = tutti(file, "--check", "personal_data", "--check", "secrets")
    assert found.exit_code == 1
    assert "email" in found.output
    assert "9-24" in found.output
    verdict = json.loads(tutti(file, "--check", 'personal_data=["email"]', "--json").stdout)
    assert verdict["counts"] == {"personal_data": 1}


def test_without_a_finding_it_succeeds(file: str) -> None:
    found = tutti(file, "--check", "secrets", "--check", "max_chars=500")
    assert found.exit_code == 0
    assert "nothing found" in found.output


def test_redacted(file: str) -> None:
    assert tutti(file, "--check", "personal_data", "--redact").stdout == "Write to [email], please."


def test_documents_are_compared_with(file: str, tmp_path: Path) -> None:
    source = tmp_path / "source.txt"
    source.write_text("bob is at example.com; please write to him")
    assert tutti(file, "--check", "support=0.5", "--document", str(source)).exit_code == 0
    assert tutti(file, "--check", "support=0.5").exit_code == 1


@pytest.mark.parametrize("check", ["unheard_of", "max_chars=no json", "max_chars=-1", 'json_schema={"pattern": "x"}'])
def test_a_check_that_is_none_is_wrong_usage(file: str, check: str) -> None:
    found = tutti(file, "--check", check)
    assert found.exit_code == 2
    assert "Traceback" not in found.output
