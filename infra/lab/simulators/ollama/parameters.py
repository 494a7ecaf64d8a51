"""Everything that makes one simulated node differ from another; each a named value with a unit. Profiles are examples of whole nodes.

Speeds follow from bytes: a decoded token reads all weights once, so tokens/s = rate ÷ weights. A model may state its own speeds instead.
Rates and speeds may be infinite: that part then takes no time at all.
"""

from __future__ import annotations

import re
from enum import StrEnum
from math import inf
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, field_validator

GIGABYTE = 1_000_000_000

SERIAL_FAMILIES = ("mllama", "qwen3vl", "qwen35", "qwen3next", "lfm2", "nemotron_h")
"""Families that Ollama runs one request at a time, whatever OLLAMA_NUM_PARALLEL says."""


class _Values(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelParameters(_Values):
    """One model on the node's disk."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}$")
    size_gb: PositiveFloat = 1.0
    """Weights, on disk and in memory."""
    family: str = "llama"
    parameter_size: str = "1B"
    context_length: PositiveInt = 32_768
    """What the model was trained for; a longer `num_ctx` is cut to it."""
    bytes_per_context_token: NonNegativeInt = 32_768
    """Key-value cache of one token of one sequence."""
    capabilities: tuple[Literal["completion", "tools", "thinking", "embedding", "vision"], ...] = ("completion", "tools")
    embedding_dimensions: PositiveInt = 384
    prefill_tokens_per_second: PositiveFloat | None = None
    decode_tokens_per_second: PositiveFloat | None = None

    def named(self, name: str) -> ModelParameters:
        """The same under another name. Raises ValidationError."""
        return ModelParameters.model_validate(self.model_dump() | {"name": name})

    @property
    def weights_bytes(self) -> int:
        return int(self.size_gb * GIGABYTE)

    @property
    def serial(self) -> bool:
        """Whether Ollama forces one request at a time."""
        return "embedding" in self.capabilities or self.family.startswith(SERIAL_FAMILIES)


class FailureMode(StrEnum):
    """What can go wrong with one request, in the order in which chance is asked."""

    ERROR_500 = "error_500"
    """HTTP 500 before anything is computed."""
    BUSY_503 = "busy_503"
    """HTTP 503 although the queue is not full."""
    LOAD_FAILED = "load_failed"
    """The load that this request causes takes its time and fails."""
    HANG = "hang"
    """Holds its slot for `hang_seconds`, says nothing, then drops the connection."""
    SLOW = "slow"
    """Every token takes at least `slow_token_seconds`."""
    MID_STREAM_ERROR = "mid_stream_error"
    """An error line after `fail_after_tokens` tokens of a 200 stream."""
    DISCONNECT = "disconnect"
    """The connection is cut after `fail_after_tokens` tokens."""
    TRUNCATED = "truncated"
    """The stream ends in order, but without `done: true`."""
    INVALID_JSON = "invalid_json"
    """An answer that was to be JSON is not."""
    REPETITION = "repetition"
    """The answer repeats one phrase up to `num_predict`."""
    CRASH = "crash"
    """The runner dies after `fail_after_tokens` tokens, with all requests on it."""


class Trigger(_Values):
    """A failure that does not depend on chance: it strikes the requests that meet every condition given."""

    mode: FailureMode
    contains: str = ""
    """The prompt holds this text."""
    model: str = ""
    """The request is for this model."""
    every: PositiveInt = 1
    """Of the requests that match, each n-th: the n-th, 2n-th, ..."""
    times: PositiveInt | None = None
    """At most so often; None for ever."""


class Failures(_Values):
    """Chance per request of each mode, and deterministic triggers, which are asked first."""

    chances: dict[FailureMode, float] = Field(default_factory=dict)
    triggers: tuple[Trigger, ...] = Field(default=(), max_length=256)
    fail_after_tokens: NonNegativeInt = 3
    hang_seconds: NonNegativeFloat = 60.0
    slow_token_seconds: NonNegativeFloat = 0.5

    @field_validator("chances")
    @classmethod
    def _probabilities(cls, chances: dict[FailureMode, float]) -> dict[FailureMode, float]:
        if any(not 0 <= chance <= 1 for chance in chances.values()):
            raise ValueError("a chance is between 0 and 1")
        return chances


class Script(_Values):
    """A fixed answer for prompts that hold `contains` and match `pattern` (a regular expression, searched). First match wins."""

    answer: str
    contains: str = ""
    pattern: str = ""
    model: str = ""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        return pattern


class Parameters(_Values):
    """One node: hardware, Ollama's variables, models, failures, answers."""

    name: str = "custom"
    seed: int = 0
    """Of the texts: equal prompts to equal models with equal seeds give equal answers, on every node."""

    vram_gb: NonNegativeFloat = 24.0
    ram_gb: PositiveFloat = 64.0
    load_gb_per_second: PositiveFloat = 1.0
    """From disk."""
    cached_load_gb_per_second: PositiveFloat = 4.0
    """From the page cache: models loaded before, as many as fit into half the RAM, most recent first."""
    load_fixed_seconds: NonNegativeFloat = 0.5
    decode_gb_per_second: PositiveFloat = 400.0
    prefill_gb_per_second: PositiveFloat = 20_000.0
    offload_slowdown: PositiveFloat = 8.0
    """A part of the weights that lies in RAM is read so many times slower."""
    decode_sharing: float = Field(default=0.3, ge=0, le=1)
    """How much parallel sequences slow one another: 0 not at all, 1 the total stays that of one."""
    prefill_interference: float = Field(default=0.5, ge=0, lt=1)
    """While any prompt is read, the others' tokens come slower by this share."""
    jitter: float = Field(default=0.1, ge=0, le=1)
    """Each token's time is drawn from 1 ± this share."""

    num_parallel: PositiveInt = 1
    max_loaded_models: PositiveInt = 3
    max_queue: NonNegativeInt = 512
    keep_alive_seconds: float = 300.0
    """Below 0 for ever, 0 unload when idle."""
    load_timeout_seconds: PositiveFloat = 300.0
    default_context: PositiveInt = 4_096
    default_batch: PositiveInt = 512

    answer_tokens: tuple[PositiveInt, PositiveInt] = (24, 64)
    """Least and most words of an answer that nothing else limits."""
    json_token: PositiveInt | None = 4
    """Characters of a token of JSON; None: its words are its tokens."""
    max_answer_tokens: PositiveInt = 16_384
    """No answer is longer, whatever `num_predict` says."""
    models: tuple[ModelParameters, ...] = Field(default=(), max_length=256)
    """On its disk when it starts."""
    library: tuple[ModelParameters, ...] = Field(default=(), max_length=256)
    """What it can pull."""
    pull_gb_per_second: PositiveFloat = 0.1
    failures: Failures = Failures()
    scripts: tuple[Script, ...] = Field(default=(), max_length=4_096)

    def decode_speed(self, model: ModelParameters) -> float:
        """Tokens/s of one sequence alone, completely in fast memory."""
        return model.decode_tokens_per_second or self.decode_gb_per_second / model.size_gb

    def prefill_speed(self, model: ModelParameters) -> float:
        """Prompt tokens/s, completely in fast memory."""
        return model.prefill_tokens_per_second or self.prefill_gb_per_second / model.size_gb

    def with_(self, **changes: Any) -> Parameters:
        """A checked copy with other values."""
        return Parameters.model_validate(self.model_dump() | changes)


def parse_model(text: str) -> ModelParameters:
    """`name`, `name:size_gb` or `name:tag:size_gb`; a name that holds `embed` or `minilm` is an embedding model. Raises ValueError."""
    head, _, size = text.rpartition(":")
    name, size_gb = (head, float(size)) if head and re.fullmatch(r"\d+(\.\d+)?", size) else (text, 1.0)
    embeds = "embed" in name or "minilm" in name
    return ModelParameters(name=name, size_gb=size_gb, capabilities=("embedding",) if embeds else ("completion", "tools"))


_MODELS = (
    ModelParameters(name="gemma3:270m", size_gb=0.29, family="gemma3", parameter_size="270M", bytes_per_context_token=18_432),
    ModelParameters(name="llama3.2:1b", size_gb=1.3, parameter_size="1.2B", context_length=131_072),
    ModelParameters(name="llama3.1:8b", size_gb=4.9, parameter_size="8.0B", context_length=131_072, bytes_per_context_token=131_072),
    ModelParameters(
        name="qwen3:8b",
        size_gb=5.2,
        family="qwen3",
        parameter_size="8.2B",
        context_length=40_960,
        bytes_per_context_token=147_456,
        capabilities=("completion", "tools", "thinking"),
    ),
    ModelParameters(
        name="all-minilm",
        size_gb=0.046,
        family="bert",
        parameter_size="23M",
        context_length=512,
        bytes_per_context_token=0,
        capabilities=("embedding",),
    ),
)
_LARGE = ModelParameters(
    name="qwen3:32b",
    size_gb=20.2,
    family="qwen3",
    parameter_size="32.8B",
    context_length=40_960,
    bytes_per_context_token=262_144,
    capabilities=("completion", "tools", "thinking"),
)

PROFILES: dict[str, Parameters] = {
    "gpu-server": Parameters(
        name="gpu-server",
        vram_gb=80,
        ram_gb=512,
        load_gb_per_second=3,
        cached_load_gb_per_second=10,
        decode_gb_per_second=450,
        prefill_gb_per_second=40_000,
        num_parallel=4,
        default_context=32_768,
        models=(*_MODELS, _LARGE),
    ),
    "workstation": Parameters(name="workstation", num_parallel=2, models=_MODELS),
    "mini-pc": Parameters(
        name="mini-pc",
        vram_gb=0,
        ram_gb=16,
        load_gb_per_second=0.5,
        cached_load_gb_per_second=2,
        decode_gb_per_second=50,
        prefill_gb_per_second=600,
        decode_sharing=0.8,
        models=_MODELS,
    ),
    "instant": Parameters(
        name="instant",
        vram_gb=1_000,
        ram_gb=1_000,
        load_gb_per_second=inf,
        cached_load_gb_per_second=inf,
        load_fixed_seconds=0,
        decode_gb_per_second=inf,
        prefill_gb_per_second=inf,
        jitter=0,
        num_parallel=64,
        max_loaded_models=16,
        models=_MODELS,
    ),
}
"""Figures are plausible, not measured on such machines; `instant` takes no time at all."""
