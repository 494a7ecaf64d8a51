"""Settings that every process shares: environment variables with prefix `TUTTI_`, nested by `__`.

For example `TUTTI_TOPICS__HOME_PARTITIONS=24`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, Field, Secret, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.contracts.base import Label, Ordinal, PositiveSeconds, Sentence
from shared.contracts.bounds import fault_of
from shared.errors import ConfigurationError
from shared.topics import TopicSettings

M = TypeVar("M", bound=BaseModel)

_FILE_BYTES = 4 * 1024 * 1024
"""Ten thousand keys are two million."""


class DeadLetterCapSettings(BaseModel):
    """A partition of which more than `share` of the last `window` records, and at least `at_least`, were dead-lettered is stopped."""

    share: float = Field(default=0.5, gt=0, le=1)
    """Of the window; of more the partition is stopped. 1: never."""
    window: Ordinal = 1_000
    """Records that are looked back at."""
    at_least: Ordinal = 200
    """Fewer dead letters stop nothing."""


class _SealingSettings(BaseModel):
    """Bodies sealed at rest in Kafka (`shared.sealing`): the same for every process of a cluster."""

    keys_file: Sentence = ""
    """The cluster keys, one a line (`tutti seals make-key`): the first wraps, all unwrap. Empty: nothing is sealed."""
    writes: bool = True
    """False: opens what is sealed and seals nothing, while a cluster is on its way to sealing, or back."""
    jobs: Literal["any", "sealed"] = "any"
    """`sealed`: a job that some producer wrote in the clear is refused."""


class KafkaSettings(BaseSettings):
    """How Kafka is reached: by services, the command line, the launcher (`shared.kafka.client.security` makes options of it)."""

    model_config = SettingsConfigDict(env_prefix="TUTTI_", env_nested_delimiter="__", extra="ignore", frozen=True)

    kafka_servers: Sentence = "127.0.0.1:19092"
    """Bootstrap servers, comma-separated."""
    kafka_compression: Literal["none", "lz4"] = "none"
    """Of what is produced. Small batches gain little and pay with CPU and latency; lz4 is for thin networks (decision 0002)."""
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """How brokers are spoken to: TLS or not, with a name or without."""
    kafka_ca_file: Sentence = ""
    """Authorities that the brokers' certificates are checked by, PEM; empty: the machine's own."""
    kafka_cert_file: Sentence = ""
    """This client's own certificate, where the brokers ask for one: PEM."""
    kafka_key_file: Sentence = ""
    """Its key."""
    kafka_sasl_mechanism: Literal["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"] = "SCRAM-SHA-512"
    """How the password is proven; PLAIN shows it to the broker."""
    kafka_sasl_username: Sentence = ""
    """This process's name at the broker."""
    kafka_sasl_password: Secret[Sentence] = Secret("")
    """Better in a file: an environment is seen by whoever may look at the process."""
    kafka_sasl_password_file: Sentence = ""
    """Instead of the variable: a file that holds the password and nothing else."""
    sealing: _SealingSettings = _SealingSettings()
    """Bodies at rest (`shared/sealing`)."""


class ClusterSettings(KafkaSettings):
    """Base of each service's settings."""

    topics: TopicSettings = TopicSettings()
    """Names and numbers of topics: the same for every process of a cluster."""
    dead_letter_cap: DeadLetterCapSettings = DeadLetterCapSettings()
    """When too much of a partition is no good."""
    patterns: Sentence = ""
    """Folder of an operator's own patterns, for planner and ingress: each file is run as code, every Pattern in it is offered."""
    instance: str = Field(default="", pattern=r"^[A-Za-z0-9._-]*$", max_length=100)
    """Name of this process in logs and groups; host and a random part when empty."""
    boot: Label = ""
    """Name of this life of the process, given by whoever starts it."""
    dead_boot: Label = ""
    """Name of the life before, whose process whoever starts this one saw end."""
    host: Label = "127.0.0.1"
    """Address that the health, metrics and API server listens on."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least weight of what is logged."""
    grace_seconds: PositiveSeconds = 30.0
    """Between SIGTERM and giving up on work in progress."""


def operators_file(name: str, what: str, kind: type[M], read: Callable[[bytes], Any], form: str) -> M:
    """A file that an operator wrote, in `form`, which `read` reads. Raises ConfigurationError, which says where it is wrong and quotes
    nothing of it.
    """
    path = Path(name)
    try:
        content = path.read_bytes()
        if len(content) > _FILE_BYTES:
            raise ConfigurationError(f"the {what} file {path} has more than {_FILE_BYTES} bytes")
        return kind.model_validate(read(content))
    except OSError as error:
        raise ConfigurationError(f"the {what} file {path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        _, place, message = fault_of(error)
        raise ConfigurationError(f"the {what} file {path} is wrong at {place or 'its top'}: {message}") from None
    except Exception as error:  # each reader has errors of its own
        if isinstance(error, ConfigurationError):
            raise
        raise ConfigurationError(f"the {what} file {path} is not {form}") from None


def of_service(name: str) -> SettingsConfigDict:
    """How a service's own settings are read: `TUTTI_<NAME>__<SETTING>`."""
    return SettingsConfigDict(env_prefix=f"TUTTI_{name.upper()}__", env_nested_delimiter="__", extra="ignore", frozen=True)
