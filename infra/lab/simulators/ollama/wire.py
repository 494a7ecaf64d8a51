"""Ollama's answers, field by field (0.34): durations in nanoseconds, counts and durations of 0 omitted (but for cached
tokens), RFC 3339 instants. Compared with a real one by tests/integration/test_simulator_calibration.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from math import isinf, log
from typing import Any

from infra.lab.simulators.ollama.parameters import ModelParameters
from infra.lab.simulators.ollama.requests import Work
from infra.lab.simulators.ollama.scheduler import Runner
from shared.model_names import canonical

VERSION = "0.34.0-simulated"
HEADERS = {"x-simulated": "ollama"}
_FOR_EVER_YEARS = 100
_YEAR_SECONDS = 31_557_600


@dataclass(slots=True)
class Measured:
    """Seconds and tokens of one request."""

    started_at: float
    load_seconds: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    prefill_seconds: float = 0.0
    answer_tokens: int = 0
    decode_seconds: float = 0.0

    def fields(self, now: float) -> dict[str, int]:
        """The final chunk's numbers."""
        numbers = {
            "total_duration": _nanoseconds(now - self.started_at),
            "load_duration": _nanoseconds(self.load_seconds),
            "prompt_eval_count": self.prompt_tokens,
            "prompt_eval_cached_count": self.cached_tokens,
            "prompt_eval_duration": _nanoseconds(self.prefill_seconds),
            "eval_count": self.answer_tokens,
            "eval_duration": _nanoseconds(self.decode_seconds),
        }
        return {name: number for name, number in numbers.items() if number or name == "prompt_eval_cached_count"}


def _nanoseconds(seconds: float) -> int:
    return max(0, int(seconds * 1_000_000_000))


def instant(wall: float) -> str:
    """RFC 3339 in UTC, microseconds."""
    second = int(wall)
    return f"{_second(second)}.{int((wall - second) * 1_000_000):06d}Z"


@lru_cache(maxsize=8)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def chunk(work: Work, wall: float, text: str = "", *, thinking: str = "", tool_calls: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """One piece of a stream."""
    head: dict[str, Any] = {"model": work.name, "created_at": instant(wall)}
    if work.endpoint == "generate":
        return head | {"response": text} | ({"thinking": thinking} if thinking else {}) | {"done": False}
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if thinking:
        message["thinking"] = thinking
    if tool_calls:
        message["tool_calls"] = list(tool_calls)
    return head | {"message": message, "done": False}


def likely(work: Work, token: str) -> dict[str, Any]:
    """How likely a token was, where that is asked for: the same for the same question and model."""
    if not work.logprobs:
        return {}
    number = int.from_bytes(sha256(f"{work.model.name}\x1f{work.question}\x1f{token}".encode()).digest()[:4])
    return {"logprobs": [{"token": token, "logprob": log(1.0 - 0.8 * number / 2**32), "bytes": list(token.encode())}]}


def final(body: dict[str, Any], reason: str, numbers: Mapping[str, int]) -> dict[str, Any]:
    """The last chunk of a stream, or the only one of an answer that is not streamed."""
    return body | {"done": True, "done_reason": reason} | dict(numbers)


def details(model: ModelParameters) -> dict[str, Any]:
    """A model's details, which say that it is simulated."""
    return {
        "parent_model": "",
        "format": "gguf",
        "family": model.family,
        "families": [model.family],
        "parameter_size": model.parameter_size,
        "quantization_level": "Q4_K_M",
        "simulated": True,
    }


def _identity(model: ModelParameters) -> dict[str, Any]:
    name = canonical(model.name)
    return {"name": name, "model": name, "size": model.weights_bytes, "digest": sha256(name.encode()).hexdigest()}


def tags(models: Sequence[ModelParameters], started: float) -> dict[str, Any]:
    """GET /api/tags."""
    facts = [{"modified_at": instant(started), "details": details(model), "capabilities": list(model.capabilities)} for model in models]
    return {"models": [_identity(model) | fact for model, fact in zip(models, facts, strict=True)]}


def running(runners: Sequence[Runner], monotonic: float, wall: float) -> dict[str, Any]:
    """GET /api/ps: what is loaded, newest expiry first. A busy runner shows its full keep-alive."""
    shown = [runner for runner in runners if runner.ready.done()]
    left = [(runner.keep_alive_seconds if isinf(runner.expires_at) else runner.expires_at - monotonic, runner) for runner in shown]
    return {"models": [_running(runner, seconds, wall) for seconds, runner in sorted(left, key=lambda pair: -pair[0])]}


def _running(runner: Runner, left: float, wall: float) -> dict[str, Any]:
    until = wall + (_FOR_EVER_YEARS * _YEAR_SECONDS if isinf(left) else left)
    return _identity(runner.want.model) | {
        "size": runner.footprint.total_bytes,
        "details": details(runner.want.model),
        "expires_at": instant(until),
        "size_vram": runner.footprint.vram_bytes,
        "context_length": runner.want.context,
    }


def show(model: ModelParameters, started: float) -> dict[str, Any]:
    """POST /api/show; never loads."""
    return {
        "modelfile": f"# simulated\nFROM {model.name}\n",
        "parameters": "",
        "template": "{{ .Prompt }}",
        "details": details(model),
        "model_info": {
            "general.architecture": model.family,
            "general.parameter_count": int(model.size_gb * 1.8e9),
            f"{model.family}.context_length": model.context_length,
            f"{model.family}.embedding_length": model.embedding_dimensions,
        },
        "capabilities": list(model.capabilities),
        "modified_at": instant(started),
    }
