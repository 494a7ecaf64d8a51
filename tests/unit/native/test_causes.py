"""What a failed download tells its user: one line for the known causes, what the program printed for the others."""

from __future__ import annotations

import pytest

from infra.native.causes import explain

PIP = """\
WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError([Errno -3] Temporary failure in name resolution')
ERROR: Could not find a version that satisfies the requirement click==8.3.0 (from versions: none)
ERROR: No matching distribution found for click==8.3.0
"""
PIP_FULL = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n"
MAVEN = """\
[ERROR] Plugin maven-dependency-plugin:3.8.1 could not be resolved: Could not transfer artifact from central: Unknown host
[ERROR] Re-run Maven using the -X switch to enable full debug logging.
"""
MAVEN_CERTIFICATE = "[ERROR] Could not transfer artifact: PKIX path building failed: unable to find valid certification path\n"
APT = "W: Failed to fetch InRelease  Temporary failure resolving 'mirror'\nE: Unable to locate package maven\n"
APT_LOCK = "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 812 (unattended-upgr)\n"
GO = "go: module lookup: dial tcp: lookup proxy: no such host\n"


@pytest.mark.parametrize(
    ("output", "cause"),
    [
        (PIP, "cannot be reached"),
        (PIP_FULL, "disk is full"),
        (PIP + PIP_FULL, "disk is full"),
        (MAVEN, "cannot be reached"),
        (MAVEN_CERTIFICATE, "certificate"),
        (APT, "cannot be reached"),
        (APT_LOCK, "another package manager"),
        (GO, "cannot be reached"),
        ("error: [Errno 13] Permission denied: '/root/.cache'\n", "may not be written"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.\n", "lock file"),
    ],
)
def test_a_known_cause_is_one_line(output: str, cause: str) -> None:
    """What failed, why, and the program's own words for it."""
    text = explain("the packages could not be installed", output)
    assert text.startswith("the packages could not be installed: ")
    assert cause in text
    assert "\n" not in text
    assert len(text) < 500


def test_an_unknown_cause_keeps_the_end_of_what_was_printed() -> None:
    """Nothing is guessed, and nothing is without bound."""
    text = explain("it failed", "x" * 10_000 + "\nSomething else\n")
    assert text.startswith("it failed:\n")
    assert text.endswith("Something else")
    assert len(text) < 2_000
