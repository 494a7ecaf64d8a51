"""Why a download or an installation failed, in one line, from what pip, uv, Maven, apt or Go printed.

Standard library only: venv.sh runs this file by itself (`python3 -I causes.py "what failed" < output`) before there is an environment.
"""

from __future__ import annotations

import re
import sys

_LINE_CHARACTERS = 240
_TAIL_CHARACTERS = 1_500

_FULL = r"No space left on device|Disk quota exceeded|have enough free space"
_UNTRUSTED = r"CERTIFICATE_VERIFY_FAILED|PKIX path|certificate verify failed|certificate signed by unknown|invalid peer certificate"
_AWAY = (
    r"Temporary failure (in name resolution|resolving)|Name or service not known|Could not resolve|Unknown host|UnknownHostException"
    r"|no such host|dns error|Network is unreachable|No route to host|Connection (refused|timed out|reset)|[Tt]imed? ?out"
    r"|Could not connect|Unable to connect|Cannot connect to proxy|Tunnel connection failed|error sending request"
)
_BUSY = r"Could not get lock|Unable to acquire the dpkg"
_FORBIDDEN = r"Permission denied|Read-only file system|Operation not permitted"
_CHANGED = r"DO NOT MATCH THE HASHES|[Hh]ash mismatch"
_KNOWN = (
    (_FULL, "the disk is full; make room and run it again"),
    (_UNTRUSTED, "the server's certificate is not trusted here; install its authority's (Debian: package ca-certificates)"),
    (_AWAY, "the network or the package server cannot be reached; run it again when it can"),
    (_BUSY, "another package manager is at work; run it again when it has finished"),
    (_FORBIDDEN, "a file may not be written"),
    (_CHANGED, "a downloaded file is not the one that the lock file pins"),
)
"""(pattern, what it means), the most telling first: a full disk also breaks connections."""


def explain(what: str, output: str) -> str:
    """`what` with its cause and the line that tells it; with the end of `output` when no cause is known."""
    for pattern, meaning in _KNOWN:
        if line := _first(pattern, output):
            return f"{what}: {meaning} ({line})"
    return f"{what}:\n{output.strip()[-_TAIL_CHARACTERS:]}"


def full_disk(output: str) -> str | None:
    """That the disk is full, if a program's log says so; a log has refused connections and other alarming lines of no consequence."""
    line = _first(_FULL, output)
    return f"the disk is full; make room and run it again ({line})" if line else None


def _first(pattern: str, output: str) -> str | None:
    """The first line that matches, cut to a readable length around the match."""
    for line in output.splitlines():
        if found := re.search(pattern, line):
            text = " ".join(line.split())
            if len(text) <= _LINE_CHARACTERS:
                return text
            start = max(0, found.start() - _LINE_CHARACTERS // 2)
            return "..." + " ".join(line[start : start + _LINE_CHARACTERS].split()) + "..."
    return None


if __name__ == "__main__":
    print(explain(sys.argv[1], sys.stdin.read()))  # noqa: T201
