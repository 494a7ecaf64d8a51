"""Settings of one worker: environment variables with prefix `TUTTI_WORKER__`, for example `TUTTI_WORKER__SLOTS=4`."""

from __future__ import annotations

import os
import re
import socket
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, StringConstraints
from pydantic_core import from_json
from pydantic_settings import BaseSettings, NoDecode

from services.worker.owner.manners import OwnerSettings, SleepSettings
from shared.contracts.base import ID, Capability, Cost, Count, Label, ModelName, Ordinal, PositiveSeconds, Seconds, Sentence
from shared.contracts.node import GigabytesPerSecond
from shared.contracts.usage import Price
from shared.settings import of_service

OLLAMA_PORT = 11434


def _names(value: Any) -> Any:
    """Accept `research,code` besides a JSON list: the way for a name that has a comma."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return tuple(from_json(value))
    return tuple(name for part in value.split(",") if (name := part.strip()))


def header_value(value: SecretStr) -> SecretStr:
    """What an HTTP header can carry. Raises ValueError."""
    if not re.fullmatch(r"[\x21-\x7e]{1,4096}", value.get_secret_value()):
        raise ValueError("a key is 1 to 4,096 printable ASCII characters without spaces")
    return value


Tags = Annotated[tuple[Capability, ...], Field(max_length=64), NoDecode, BeforeValidator(_names)]
Models = Annotated[tuple[ModelName, ...], Field(max_length=256), NoDecode, BeforeValidator(_names)]
Member = Annotated[str, StringConstraints(pattern=r"^(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):[0-9]{1,5}$", max_length=260)]
Members = Annotated[tuple[Member, ...], Field(max_length=64), NoDecode, BeforeValidator(_names)]
Address = Annotated[str, StringConstraints(pattern=r"^(?:https?://[^\s/?#]+(?:/[^\s?#]*)?)?$", max_length=2_048)]
Secret = Annotated[SecretStr, AfterValidator(header_value)]


class _LoadProfile(BaseModel):
    """Load-time options of one model on this node. Sent with every call or never: a change makes Ollama load the model again."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_ctx: Ordinal | None = None
    num_batch: Ordinal | None = None
    num_gpu: int | None = Field(default=None, ge=-1, le=10_000)
    main_gpu: int | None = Field(default=None, ge=0, le=10_000)
    use_mmap: bool | None = None
    num_thread: Ordinal | None = None
    draft_num_predict: Ordinal | None = None


class WorkerSettings(BaseSettings):
    """Every bound and habit of a worker. Seconds unless the name says otherwise."""

    model_config = of_service("worker")

    node: str = Field(default="", pattern=rf"^(?:{ID})?$", max_length=128)
    """Node id; the host name when empty. Two workers must never share one: the later one wins."""
    slots: int = Field(default=1, ge=1, le=10_000)
    """Concurrent inferences that the endpoint really runs (OLLAMA_NUM_PARALLEL); more would queue inside it, unseen."""
    slots_least: Ordinal | None = None
    """Between this and `slots`, the number is used at which most tokens a second are written; it is found by trying. Absent: `slots`."""
    warms: bool = True
    """Load what is likely to be asked for within the hour, by the calls of the whole cluster, where nothing has to leave memory for it."""
    most_models: Ordinal | None = None
    """Models that the endpoint keeps in memory at once (OLLAMA_MAX_LOADED_MODELS); its default is assumed when absent."""
    agents: Tags = ()
    """Capabilities to serve, and no others; all that the models allow when empty (every agent, with any chat model)."""
    tags: Tags = ()
    """What jobs may ask of a node by word: a place, a kind of machine, who may use it."""
    models: Models = ()
    """Models to offer; all of the endpoint's when empty."""

    tools: Sentence = ""
    """File of the tools that this process serves instead of models (`services/worker/tools/declared`); `tutti run worker --tools`."""

    members: Members = ()
    """`host:port` of each server that the endpoint splits its model over (as llama.cpp's RPC servers): without one it serves nothing."""
    ram_bytes: Count | None = None
    """Memory of the machine."""
    vram_bytes: Count | None = None
    """In place of what is found here: the sums, where one model is split over several machines."""
    bandwidth: GigabytesPerSecond = 0.0
    """GB a second at which weights are read, where it is known better than by the product's name; 0: by that."""
    cost_per_hour: Cost = 0.0
    """Of this machine, in the cluster's currency: told to the cluster; calls are charged by `prices`."""

    backend: Label = "ollama"
    """How the endpoint is spoken to: `ollama`, `openai` (any server of that dialect), `embedded` (the project's own llama.cpp), `tools`."""
    url: Address = ""
    """Base address of the endpoint; OLLAMA_HOST or the local default when empty."""
    api_key: Secret | None = None
    """Sent to the endpoint as a bearer token."""
    prices: dict[ModelName, Price] = Field(default={}, max_length=1_000)
    """Model name, or `*`, to price."""
    rate_per_second: float | None = Field(default=None, ge=1e-4, le=1e6)
    """Calls a second that the endpoint allows; no limit when absent."""
    rate_burst: Ordinal = 1
    """Calls at once after a pause."""
    rate_group: Label = ""
    """Workers of this group use one account: its rate, which each of them names, is divided among those that live; all pause together."""
    embed_batch_seconds: Seconds = 0.003
    """How long an embedding step waits for others that can share its call."""
    embed_batch_texts: Ordinal = 256
    """Most texts in one shared call."""
    embed_batch_longest_seconds: PositiveSeconds = 1.0
    """So long it may take: its size, in characters, is found by trying, for each model."""
    models_folder: Sentence = ""
    """Where the endpoint keeps its models, as this process sees it: its free space is told, so that pulls find room. OLLAMA_MODELS when
    empty, else Ollama's usual place where the endpoint is on this machine."""
    keep_alive: Label = "5m"
    """How long Ollama keeps a model in memory after a call; -1: until it must go."""
    profiles: dict[ModelName, _LoadProfile] = Field(default={}, max_length=1_000)
    """Model name, or `*`, to load-time options."""
    default_temperature: float = Field(default=0.7, ge=0, le=5)
    """Sent when a step names none: endpoints disagree about their own default."""
    default_max_tokens: int = Field(default=1024, ge=1, le=1_000_000)
    """Sent when a step names none, so that no generation is endless."""
    truncate_prompts: bool = False
    """Let the endpoint cut an overlong prompt silently, or drop its beginning while it writes, instead of refusing it."""
    allow_cloud: bool = False
    """Accept models that the endpoint forwards to another host."""

    continues: Literal["never", "trailing", "flag"] = "never"
    """Whether an OpenAI-compatible endpoint goes on with an answer that is begun: as the last message (llama.cpp), or only when told so
    by `continue_final_message` (vLLM). Where it does not, a stream that breaks after its first text ends with an error."""

    connect_timeout_seconds: PositiveSeconds = 5.0
    """To reach the endpoint."""
    first_token_timeout_seconds: PositiveSeconds = 300.0
    """From the call to the first token: a model may have to be loaded."""
    between_tokens_timeout_seconds: PositiveSeconds = 60.0
    """From one token to the next: a model that writes is not loaded any more."""
    total_timeout_seconds: PositiveSeconds = 1800.0
    """Of one call, whatever it does."""
    sweep_seconds: PositiveSeconds = 0.25
    """Resolution of the timeouts above."""

    breaker_failures: int = Field(default=3, ge=1, le=1_000)
    """So many failures in a row, of the endpoint and of different steps, and a model is left alone; half as many that come at once."""
    breaker_seconds: PositiveSeconds = 1.0
    """Until it is probed; twice as long after each probe, or step, that fails then."""
    breaker_longest_seconds: PositiveSeconds = 60.0
    """Longest time until the next probe."""

    prefetch_limit: Count = 512
    """Most places beyond the slots."""
    inbox_limit: Ordinal = 2048
    """Most steps taken and not started; beyond it they are released."""
    credits_seconds: PositiveSeconds = 1.0
    """Places are offered at least so often: silence of five of these is a lost node."""
    credits_coalesce_seconds: PositiveSeconds = 0.005
    """What changes within this is told at once."""
    credits_relaxed_seconds: PositiveSeconds = 0.25
    """The same while routers know all places that there are, or still hold most of those last offered and `relaxed_places` are free."""
    credits_waited_for_seconds: PositiveSeconds = 0.05
    """The same while routers say that steps wait."""
    relaxed_places: Ordinal = 8
    """So many free places are enough for the steps of a quarter of a second."""
    credit_round_trip_seconds: PositiveSeconds = 0.05
    """From announcing places to reading the steps that use them: at least this; measured from there on, up to 0.5 s."""
    router_gone_seconds: PositiveSeconds = 5.0
    """A router, or a planner, that has not announced itself for so long."""

    renew_seconds: PositiveSeconds = 5.0
    """Between two renewals of claims: four fit into the planner's lease."""
    earlier_silent_seconds: PositiveSeconds = 10.0
    """An earlier boot of this node that has neither told its places nor renewed a claim for so long is gone: two renew periods."""
    commit_seconds: PositiveSeconds = 0.25
    """Between two commits of positions while steps run: what ended in it is run again after a SIGKILL."""
    commit_idle_seconds: PositiveSeconds = 0.025
    """Without a step for so long the worker is idle, and commits at once."""
    kept_outcomes: Ordinal = 2000
    """Newest ends that are kept: an attempt that comes again is told the same."""
    kept_outcome_bytes: Ordinal = 32 * 1024 * 1024
    """The same in bytes."""
    remembered_stops: Ordinal = 10_000
    """Steps that were stopped before they came; a step that was forgotten is run in vain."""

    chunk_min_seconds: PositiveSeconds = 0.025
    """Text of a stream is gathered for so long (one token at a time would be a record each),"""
    chunk_max_seconds: PositiveSeconds = 0.1
    """and for so long where there are many streams."""
    chunk_buffer_bytes: Ordinal = 8 * 1024 * 1024
    """Of all streams together, on their way to Kafka; beyond it endpoints are read no further."""

    probe_seconds: PositiveSeconds = 5.0
    """What changes at the endpoint is in Kafka within a heartbeat (10 s): so long until it is asked, a few seconds for its answer."""
    probe_unreachable_seconds: PositiveSeconds = 1.0
    """The same while it does not answer."""
    register_seconds: PositiveSeconds = 60.0
    """The node's record is written at least so often, changed or not."""
    node_expiry_seconds: PositiveSeconds = 180.0
    """A node not heard of for this long, by this worker's own watch, may lose its mailbox number."""
    owner: OwnerSettings = OwnerSettings()
    """The machine's owner goes first (`worker/owner/manners.py`)."""
    sleep: SleepSettings = SleepSettings()
    """The machine sleeps when nothing is to do."""
    drain_quiet_seconds: PositiveSeconds = 0.25
    """How long the mailbox must stay empty after places were withdrawn, before the worker leaves."""

    def node_id(self) -> str:
        """The node id in force. Of a host's name what an id cannot say becomes a hyphen."""
        return self.node or re.sub(r"[^A-Za-z0-9._:-]", "-", socket.gethostname()).strip("._:-")[:128] or "node"

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
