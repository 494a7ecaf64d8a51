"""What Ollama does to its models at a word: pull, delete, copy, load, unload, pin. Each may be said twice; a broken pull goes on."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import AsyncIterator
from math import inf
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from services.worker.backends.base import Completion, Delta, ModelCall, ModelCallFailed
from services.worker.backends.foreign import count, words
from services.worker.backends.http import HttpEndpoint, batches, decode_lines, error_text
from services.worker.settings import WorkerSettings
from shared.contracts.failure import FailureKind as K
from shared.contracts.tasks import Action, TaskProgress
from shared.contracts.usage import Usage

FOR_EVER = -1
WARM = "5m"
"""Of what is loaded before it is asked for, unless calls say more."""
_SECONDS = {"h": 3_600.0, "m": 60.0, "s": 1.0}
_HERE = ("127.0.0.1", "localhost", "::1")
_DISK_STEP = 500_000_000
_NOT_THERE = ("file does not exist", "pull model manifest", "invalid model name", "unauthorized")
"""In errors of a pull: another try gives the same."""
_OUT_OF_ROOM = "no space left"


class OllamaTasks:
    """Of one server. `keep_alive`: of models that are not pinned; `profile(model)`: its load-time options."""

    def __init__(self, endpoint: HttpEndpoint, keep_alive: str, profile: Any) -> None:
        self._endpoint, self._usual, self._profile = endpoint, keep_alive, profile
        self.pinned: set[str] = set()

    def keep_alive(self, model: str) -> str | int:
        """What each call of the model says."""
        return FOR_EVER if model in self.pinned else self._usual

    async def warm(self, model: str) -> None:
        """Into memory, or to stay there, without a question. Raises ModelCallFailed."""
        await self._load(model, None, FOR_EVER if model in self.pinned else max(WARM, self._usual, key=_stays))

    async def perform(self, call: ModelCall) -> AsyncIterator[Delta | Completion]:
        """Its progress, then the end. Raises ModelCallFailed."""
        task, model = call.step.task, call.model
        assert task is not None, "it is a task"
        match task.action:
            case Action.PULL:
                async for progress in self._pull(call):
                    yield Delta(tokens=0, progress=progress)
            case Action.DELETE:
                self.pinned.discard(model)
                await self._unless_unknown("DELETE", "/api/delete", {"model": model})
            case Action.COPY:
                await self._endpoint.tell("POST", "/api/copy", {"source": model, "destination": task.to})
            case Action.UNLOAD:
                self.pinned.discard(model)
                await self._unless_unknown("POST", "/api/generate", {"model": model, "keep_alive": 0})
            case Action.LOAD | Action.PIN | Action.UNPIN:
                (self.pinned.add if task.action is Action.PIN else self.pinned.discard)(model)
                await self._load(model, call.trace)
        said = TaskProgress(status="success", node=call.node)
        yield Delta(tokens=0, progress=said)
        yield Completion(call.answer(text="done"), Usage())

    async def _pull(self, call: ModelCall) -> AsyncIterator[TaskProgress]:
        done = False
        async with self._endpoint.post("/api/pull", {"model": call.model, "stream": True}, call.trace) as response:
            async for lines in batches(response):
                for line in decode_lines(lines):
                    if "error" in line:
                        raise _failed(error_text(line))
                    status = words(line.get("status"))
                    if status == "success":
                        done = True
                    else:
                        total = count(line.get("total"))
                        completed = min(total, count(line.get("completed")))
                        yield TaskProgress(
                            status=status, digest=words(line.get("digest")), total=total, completed=completed, node=call.node
                        )
                if done:
                    break
        if not done:
            raise ModelCallFailed(K.BROKEN_STREAM, "the pull ended before the model was there")

    async def _load(self, model: str, trace: str | None, keep_alive: str | int | None = None) -> None:
        """Nothing is asked of it. What embeds only cannot be asked to generate nothing."""
        body = {"model": model, "keep_alive": keep_alive or self.keep_alive(model), "options": self._profile(model)}
        try:
            async with self._endpoint.post("/api/generate", body, trace):
                pass
        except ModelCallFailed as error:
            if error.kind is not K.BAD_REQUEST and error.kind is not K.UNSUPPORTED:
                raise
            async with self._endpoint.post("/api/embed", {**body, "input": []}, trace):
                pass

    async def _unless_unknown(self, method: str, path: str, body: dict[str, Any]) -> None:
        """What is not there need not go."""
        try:
            await self._endpoint.tell(method, path, body)
        except ModelCallFailed as error:
            if error.kind is not K.UNKNOWN_MODEL:
                raise


def disk_free(settings: WorkerSettings) -> int | None:
    """Bytes that are free where the models lie, rounded down so that they are news seldom; None where that is no folder of this machine."""
    host = urlsplit(settings.base_url()).hostname or ""
    named = settings.models_folder or os.environ.get("OLLAMA_MODELS", "")
    if not named and host not in _HERE:
        return None
    try:
        free = shutil.disk_usage(named or Path.home() / ".ollama" / "models").free
    except (OSError, RuntimeError):  # no such folder, or no home
        return None
    return free // _DISK_STEP * _DISK_STEP


def _stays(keep_alive: str) -> float:
    """Seconds of a duration as Go writes it; a negative one is for ever."""
    parts = re.findall(r"(\d+\.?\d*)([a-zµ]*)", keep_alive)
    return inf if keep_alive.startswith("-") else sum(float(number) * _SECONDS.get(unit, 0.0) for number, unit in parts)


def _failed(message: str) -> ModelCallFailed:
    if _OUT_OF_ROOM in message:
        return ModelCallFailed(K.TOO_LARGE, "the node's disk is full")
    kind = K.BAD_REQUEST if any(word in message for word in _NOT_THERE) else K.MODEL_ERROR
    return ModelCallFailed(kind, message)
