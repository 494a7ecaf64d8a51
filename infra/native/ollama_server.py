"""An Ollama server as a component: where it is, which models it has, how one is started here."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from infra.native import http
from infra.native.embedded.template import MODEL
from infra.native.errors import NativeError

PULL_SECONDS = 120.0
QUIET_THREADS = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
"""Spinning threads on two busy cores fall to one token per second."""


def address(environment: Mapping[str, str]) -> str:
    """Base URL that OLLAMA_HOST means to a client: scheme and port are optional, an any-address is this machine."""
    given = environment.get("OLLAMA_HOST", "").strip().rstrip("/") or "127.0.0.1:11434"
    scheme, _, rest = given.rpartition("://")
    host, colon, port = rest.rpartition(":")
    if not colon or not port.isdigit():
        host, port = rest, {"http": "80", "https": "443"}.get(scheme, "11434")
    if host in ("", "0.0.0.0", "[::]", "::"):  # noqa: S104  (compared, never bound)
        host = "127.0.0.1"
    return f"{scheme or 'http'}://{host}:{port}"


def models(url: str) -> tuple[str, ...] | None:
    """Names of the models that an Ollama has; None when none answers there."""
    tags = http.get_json(f"{url}/api/tags")
    return None if not isinstance(tags, dict) else tuple(str(model["name"]) for model in tags.get("models") or ())


def version(url: str) -> str:
    """As it says itself; `?` when it does not."""
    answer = http.get_json(f"{url}/api/version")
    return str(answer.get("version", "?")) if isinstance(answer, dict) else "?"


def installed(cache: Path) -> Path:
    """Where `make ollama` puts the program."""
    return cache / "ollama" / "bin" / "ollama"


def find(cache: Path) -> str | None:
    """An `ollama` on the PATH, or the one in the cache."""
    ours = installed(cache)
    return shutil.which("ollama") or (str(ours) if ours.exists() else None)


def environment(port: int, program: str, cache: Path, *, slots: int) -> dict[str, str]:
    """Variables of an Ollama started here: local, models kept loaded. A person's own program keeps its own models."""
    chosen = {
        "OLLAMA_HOST": f"127.0.0.1:{port}",
        "OLLAMA_NUM_PARALLEL": str(slots),
        "OLLAMA_CONTEXT_LENGTH": "2048",
        "OLLAMA_KEEP_ALIVE": "30m",
        "OLLAMA_NO_CLOUD": "1",
        "GIN_MODE": "release",
        **QUIET_THREADS,
    }
    if program == str(installed(cache)):
        root = cache / "ollama"
        chosen |= {"OLLAMA_MODELS": str(root / "models"), "HOME": str(root / "home")}
    return chosen


def pull(program: str | None, url: str) -> tuple[str, ...]:
    """The small model, pulled into the Ollama at `url`. Raises NativeError when it cannot be."""
    if program is None:
        raise NativeError(f"the Ollama at {url} has no model; pull one, for example: ollama pull {MODEL}")
    variables = {**os.environ, "OLLAMA_HOST": url}
    command = [program, "pull", MODEL]
    try:
        done = subprocess.run(command, env=variables, stdin=subprocess.DEVNULL, capture_output=True, timeout=PULL_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise NativeError(f"the Ollama at {url} has no model, and pulling {MODEL} took longer than {PULL_SECONDS:.0f} s") from None
    if done.returncode != 0:
        raise NativeError(f"the Ollama at {url} has no model, and {MODEL} could not be pulled")
    return models(url) or ()
