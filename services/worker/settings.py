"""Settings of one worker: environment variables with prefix `TUTTI_WORKER__`, for example `TUTTI_WORKER__SLOTS=4`."""

from __future__ import annotations

import os
import re
import socket
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt, SecretStr
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from shared.contracts.base import MOST_COST

BackendKind = Literal["ollama", "openai", "embedded", "in_process"]
OLLAMA_PORT = 11434


def _names(value: Any) -> Any:
    """Accept `research,code` besides a JSON list."""
    if not isinstance(value, str):
        return value
    return tuple(part for part in re.split(r"[\s,\[\]\"']+", value) if part)


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_names)]


class LoadProfile(BaseModel):
    """Load-time options of one model on this node. Sent with every call or never: a change makes Ollama load the model again."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_ctx: PositiveInt | None = None
    num_batch: PositiveInt | None = None
    num_gpu: int | None = None
    main_gpu: int | None = None
    use_mmap: bool | None = None
    num_thread: PositiveInt | None = None
    draft_num_predict: PositiveInt | None = None


class Price(BaseModel):
    """What a million tokens cost, in the cluster's currency."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt_per_million: NonNegativeFloat = 0.0
    completion_per_million: NonNegativeFloat = 0.0

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """The price of one call."""
        return min((prompt_tokens * self.prompt_per_million + completion_tokens * self.completion_per_million) / 1e6, MOST_COST)


class WorkerSettings(BaseSettings):
    """Every bound and habit of a worker. Seconds unless the name says otherwise."""

    model_config = SettingsConfigDict(env_prefix="TUTTI_WORKER__", env_nested_delimiter="__", extra="ignore", frozen=True)

    node: str = ""
    """Node id; the host name when empty. Two workers must never share one: the later one wins."""
    slots: PositiveInt = 1
    """Concurrent inferences that the endpoint really runs (OLLAMA_NUM_PARALLEL); more would queue inside it, unseen."""
    agents: Names = ()
    """Capabilities to serve; all that the models allow when empty."""
    tags: Names = ()
    models: Names = ()
    """Models to offer; all of the endpoint's when empty."""

    backend: BackendKind = "ollama"
    url: str = ""
    """Base address of the endpoint; OLLAMA_HOST or the local default when empty."""
    api_key: SecretStr | None = None
    prices: dict[str, Price] = {}
    """Model name, or `*`, to price."""
    rate_per_second: PositiveFloat | None = None
    """Calls a second that the endpoint allows; no limit when absent."""
    rate_burst: PositiveInt = 1
    embed_batch_seconds: NonNegativeFloat = 0.003
    """How long an embedding step waits for others that can share its call."""
    embed_batch_texts: PositiveInt = 256
    """Most texts in one shared call."""
    keep_alive: str = "5m"
    profiles: dict[str, LoadProfile] = {}
    """Model name, or `*`, to load-time options."""
    default_temperature: NonNegativeFloat = 0.7
    """Sent when a step names none: endpoints disagree about their own default."""
    default_max_tokens: PositiveInt = 1024
    """Sent when a step names none, so that no generation is endless."""
    truncate_prompts: bool = False
    """Let the endpoint cut an overlong prompt silently instead of refusing it."""
    allow_cloud: bool = False
    """Accept models that the endpoint forwards to another host."""

    continues: Literal["never", "trailing", "flag"] = "never"
    """Whether an OpenAI-compatible endpoint goes on with an answer that is begun: as the last message (llama.cpp), or only when told so
    by `continue_final_message` (vLLM). Where it does not, a stream that breaks after its first text ends with an error."""

    connect_timeout_seconds: PositiveFloat = 5.0
    first_token_timeout_seconds: PositiveFloat = 300.0
    """From the call to the first token: a model may have to be loaded."""
    between_tokens_timeout_seconds: PositiveFloat = 60.0
    total_timeout_seconds: PositiveFloat = 1800.0
    sweep_seconds: PositiveFloat = 0.25
    """Resolution of the timeouts above."""

    prefetch_limit: int = Field(default=512, ge=0)
    """Most places beyond the slots."""
    inbox_limit: PositiveInt = 2048
    """Most steps taken and not started; beyond it they are released."""
    credits_seconds: PositiveFloat = 1.0
    credits_coalesce_seconds: PositiveFloat = 0.005
    credits_relaxed_seconds: PositiveFloat = 0.05
    """The same while routers still hold most of the places last offered, and at least `relaxed_places` are free."""
    relaxed_places: PositiveInt = 8
    credit_round_trip_seconds: PositiveFloat = 0.05
    """From announcing places to reading the steps that use them: at least this; measured from there on, up to 0.5 s."""
    router_gone_seconds: PositiveFloat = 5.0

    renew_seconds: PositiveFloat = 5.0
    commit_seconds: PositiveFloat = 0.005
    """Shortest time between two commits of positions."""
    kept_outcomes: PositiveInt = 2000
    kept_outcome_bytes: PositiveInt = 32 * 1024 * 1024
    remembered_stops: PositiveInt = 10_000

    chunk_min_seconds: PositiveFloat = 0.025
    chunk_max_seconds: PositiveFloat = 0.1
    chunk_buffer_bytes: PositiveInt = 8 * 1024 * 1024

    probe_seconds: PositiveFloat = 10.0
    probe_unreachable_seconds: PositiveFloat = 1.0
    register_seconds: PositiveFloat = 60.0
    node_expiry_seconds: PositiveFloat = 180.0
    """A node not heard of for this long, by this worker's own watch, may lose its mailbox number."""
    drain_quiet_seconds: PositiveFloat = 0.25
    """How long the mailbox must stay empty after places were withdrawn, before the worker leaves."""

    def node_id(self) -> str:
        """The node id in force."""
        return self.node or socket.gethostname()

    def base_url(self) -> str:
        """The endpoint's address in force, without a trailing slash."""
        if self.url:
            return self.url.rstrip("/")
        if self.backend == "ollama":
            return ollama_url(os.environ.get("OLLAMA_HOST", ""))
        return "http://127.0.0.1:8081"

    def profile(self, model: str) -> dict[str, Any]:
        """Load-time options of `model`; empty when none are set."""
        profile = self.profiles.get(model) or self.profiles.get("*")
        return profile.model_dump(exclude_none=True) if profile else {}

    def price(self, model: str) -> Price | None:
        """The price of `model`, if it has one."""
        return self.prices.get(model) or self.prices.get("*")


def ollama_url(value: str) -> str:
    """What OLLAMA_HOST means to a client: scheme, host and port are optional; an any-address means this machine."""
    text = value.strip().strip("\"'").rstrip("/")
    scheme, _, rest = text.rpartition("://")
    host, colon, port = rest.rpartition(":")
    if not colon or not port.isdigit():
        host, port = rest, {"http": "80", "https": "443"}.get(scheme, str(OLLAMA_PORT))
    if host in ("", "0.0.0.0", "[::]", "::"):  # noqa: S104  (compared, never bound)
        host = "127.0.0.1"
    return f"{scheme or 'http'}://{host}:{port}"
