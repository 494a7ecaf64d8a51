"""Embedding in this process by sentence-transformers (extra `semantic`), from a folder on this machine: one thread, beside the event loop.

The library is imported when the service starts, by no other process, and only there: it takes seconds and most of a gigabyte.
"""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from services.cache.semantic.embedding import EmbedderAway, Embedding, embedding
from shared.errors import ConfigurationError
from shared.telemetry import logs

log = logs.get(__name__)
MOST_AT_ONCE = 64


class LocalEmbedder:
    """Implements `Embedder`. Raises ConfigurationError where the library or the folder is not there."""

    def __init__(self, folder: str) -> None:
        if find_spec("sentence_transformers") is None:
            raise ConfigurationError("the embedder `local` needs sentence-transformers: pip install 'tutti-cluster[semantic]'")
        self._folder = Path(folder)
        if not folder or not self._folder.is_dir():
            raise ConfigurationError("TUTTI_CACHE__EMBEDDER_PATH names no folder with a model")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embedder")
        self._model: Any = None
        self._version, self._waiting = "", 0
        self.trouble: str | None = "the embedder is still loading"

    async def run(self) -> None:
        """Load it and embed once, so that no lookup waits for what is made at first use."""
        try:
            self._version, self._model = await asyncio.get_running_loop().run_in_executor(self._thread, self._load)
        except Exception as error:  # whatever a library raises of a folder
            self.trouble = f"the embedder does not load ({type(error).__name__})"
            log.exception("embedder_does_not_load")
            return
        self.trouble = None

    async def embed(self, text: str) -> Embedding:
        if self._model is None or self._waiting >= MOST_AT_ONCE:
            raise EmbedderAway(self.trouble or "too many texts wait for their vectors")
        self._waiting += 1
        try:
            numbers = await asyncio.get_running_loop().run_in_executor(self._thread, self._encode, text)
        except RuntimeError as error:  # of the library, or the thread is gone
            raise EmbedderAway(f"the embedder has failed ({type(error).__name__})") from error
        finally:
            self._waiting -= 1
        return embedding(numbers, "local", self._version)

    async def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _load(self) -> tuple[str, Any]:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a folder needs no network, and gets none
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(1)
        model = SentenceTransformer(str(self._folder), device="cpu", local_files_only=True)
        model.encode(["warm"])
        return _version(self._folder), model

    def _encode(self, text: str) -> list[float]:
        return [float(number) for number in self._model.encode([text])[0]]


def _version(folder: Path) -> str:
    """Of all its files."""
    digest = blake2b(digest_size=16)
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            digest.update(str(file.relative_to(folder)).encode())
            with file.open("rb") as content:
                while block := content.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()
