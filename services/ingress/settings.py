"""Settings of the ingress: environment variables `TUTTI_INGRESS__<NAME>`. Bounds of everything that callers can make grow."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_settings import BaseSettings

from services.ingress.http import cors
from shared.addresses import networks_of
from shared.contracts.base import CLASSES, Count, Ordinal, PositiveSeconds, PriorityClass, Seconds, Sentence
from shared.contracts.limits import DEADLINE_SECONDS
from shared.estimates import ANSWER_TOKENS
from shared.scheduling.host_lanes import LaneBounds
from shared.settings import of_service


class CallbackSettings(BaseModel):
    """`TUTTI_INGRESS__CALLBACKS__<NAME>`. Both `secrets_file` and `hosts` must be given: without them no callback is taken, and `results`
    is not read.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    secrets_file: Sentence = ""
    """Of each tenant the secrets that sign, TOML or JSON (`callbacks/allowed.py` shows one)."""
    hosts: Sentence = ""
    """Who may be called: names, `.example.org` for all below it, `*` for every name; an address as it is written. Separated by commas."""
    networks: Sentence = ""
    """Networks that names may lead to although they are not public: `10.1.0.0/16, fd00::/8`."""
    http: bool = False
    """Plain http, too: whoever listens reads the answers."""
    ports: tuple[Annotated[int, Field(ge=1, le=65_535)], ...] = Field(default=(443, 8443), max_length=100)
    """Ports that may be called: those of https."""
    ca_file: Sentence = ""
    """Certificates that receivers' are checked by, instead of the system's."""
    public_url: Sentence = ""
    """Of the ingresses, before the links in deliveries."""

    timeout_seconds: PositiveSeconds = 10.0
    """Of one try, from the look-up of the name to the last byte."""
    patience_seconds: PositiveSeconds = 5.0
    """What waits longer for its turn goes to `delays`, so that it holds nobody up. This counts as no try."""
    attempts: Ordinal = 16
    """Tries of one delivery; then it goes to the dead letters."""
    first_pause_seconds: PositiveSeconds = 5.0
    """After the first failure, about; each next one is twice as long, up to the longest."""
    longest_pause_seconds: PositiveSeconds = 21_600.0
    """Six hours: a receiver that is away for a night is asked again in the morning."""
    oldest_seconds: PositiveSeconds = 259_200.0
    """From the first try: then it goes to the dead letters, whatever was tried."""

    lanes: LaneBounds = LaneBounds()
    """What finds no room in them goes to `delays`, as does what waits too long."""

    @field_validator("networks")
    @classmethod
    def _readable(cls, value: str) -> str:
        networks_of(value)
        return value


class IngressSettings(BaseSettings):
    """Seconds, bytes and counts."""

    model_config = of_service("ingress")

    redis_url: Sentence = ""
    """`redis://host:port/db` of the status store; empty: status is kept in memory only."""
    redis_connections: Ordinal = 8
    """Of this instance to the status store."""
    redis_timeout_seconds: PositiveSeconds = 0.5
    """Of one call; a store that is slower counts as away, and status comes from memory."""
    status_ttl_seconds: Ordinal = 86_400
    """How long the store keeps what is known of a job, from its last event on."""

    keys_file: Sentence = ""
    """API keys and their limits, JSON or TOML (`access.py` shows one); without it the ingress is open to everybody."""
    answer_tokens: Ordinal = ANSWER_TOKENS
    """What an answer is estimated at when the caller sets no max_tokens."""

    origins: Sentence = "local"
    """Web pages that may call: `local` (localhost, 127.0.0.1 and [::1], any port), origins such as `https://chat.example.org`, or `*`;
    several are separated by commas."""
    body_bytes: Ordinal = 8 * 1024 * 1024
    """Of one request's body, also after it is unpacked."""
    bodies_bytes: Ordinal = 64 * 1024 * 1024
    """Of the bodies of all requests that are on their way into a job; and as many of all large answers on their way to clients."""
    head_seconds: Seconds = 5.0
    """A stream's head waits so long for the first piece: what fails before has a status of its own, what fails later is an event."""
    first_word_seconds: PositiveSeconds = 1.0
    """A repeated id that no store vouches for: so long the planner is waited for, who may know another request under it."""
    watched_jobs: Ordinal = 100_000
    """Jobs whose end a token account waits for."""
    in_flight: Ordinal = 4_096
    """Callers that may wait at once in this instance, for an answer or with `?wait=` for an end."""
    follows: Ordinal = 1_000
    """Streamed jobs of `POST /v1/jobs` whose chunks are kept for `GET .../events`; and open event streams."""
    outbox_records: Ordinal = 20_000
    """Records on their way to Kafka; beyond it callers are refused (503)."""

    deadline_seconds: dict[PriorityClass, PositiveSeconds] = Field(max_length=len(CLASSES), default=DEADLINE_SECONDS)
    """Deadline of a caller who waits and names none."""
    deadline_grace_seconds: Seconds = 1.0
    """A caller waits this much longer than the deadline for the planner's own word on it."""
    accept_seconds: PositiveSeconds = 5.0
    """Kafka must acknowledge a job within this, or the caller gets 503."""
    retry_after_seconds: PositiveSeconds = 2.0
    """Sent with a 503 when nothing better is known."""
    no_node_wait_seconds: Seconds = 3.0
    """An interactive caller waits this long for a node that could serve him to appear, then gets 503."""
    node_lost_seconds: PositiveSeconds = 150.0
    """A node that has not registered for so long is not counted; workers register at least every 60 s."""
    stuck_seconds: PositiveSeconds = 30.0
    """A client that takes nothing of its answer for so long is cut off; so is one that is still here so long after its deadline."""
    max_wait_seconds: PositiveSeconds = 300.0
    """Largest `?wait=` of `POST /v1/jobs`."""
    stream_seconds: PositiveSeconds = 3_600.0
    """An event stream ends after this; its client goes on from its last id."""
    heartbeat_seconds: PositiveSeconds = 15.0
    """Silence on an event stream after which a comment is sent."""

    places: bool = True
    """Whoever waits is told his place in line and when his job is likely to start. It is a number only, but made of others' jobs: a
    tenant that watches it learns how busy the cluster is."""

    journal_jobs: Ordinal = 10_000
    """Jobs whose recent events are kept in memory, for status without a store."""
    journal_bytes: Ordinal = 32 * 1024 * 1024
    """The same in bytes, for status and for event streams."""
    journal_events_per_job: Ordinal = 256
    """Of one job; the oldest are dropped."""
    events_lookback: Count = 2_000
    """Events per partition that are read again at start when no store remembers a position."""
    events_pause_seconds: Seconds = 0.25
    """Pause between two polls of `job-events` while nobody waits here: larger batches, less work per event. A status is that much older."""
    flush_seconds: PositiveSeconds = 0.25
    """Status is written to the store at most this often."""

    backlog_wait_seconds: dict[PriorityClass, PositiveSeconds] = Field(default_factory=dict, max_length=len(CLASSES))
    """429 when a new job of the class would wait longer than this, even if its deadline lies later."""
    backlog_jobs: Ordinal = 5_000_000
    """429 when so many jobs of one class wait, also when no rate is known. Kafka keeps them for days only."""
    callbacks: CallbackSettings = CallbackSettings()
    """Webhooks (`services/ingress/callbacks`)."""
    sweep_seconds: PositiveSeconds = 0.1
    """Between two looks for callers whose deadline has passed or whose client has gone."""
    backlog_seconds: PositiveSeconds = 1.0
    """How often the ends of `jobs.*` and the planners' positions are read for the admission estimate; also the liveness probe of Kafka."""

    @field_validator("origins")
    @classmethod
    def _readable(cls, value: str) -> str:
        cors.parse(value)
        return value
