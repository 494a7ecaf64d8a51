"""Which backend a worker has."""

from __future__ import annotations

from collections.abc import Callable

from services.worker.backends.base import Backend
from services.worker.backends.batching import BatchingBackend
from services.worker.backends.foreign import guarded
from services.worker.backends.in_process import InProcessBackend
from services.worker.backends.members import MembersBackend
from services.worker.backends.ollama import OllamaBackend
from services.worker.backends.openai import OpenAIBackend
from services.worker.settings import WorkerSettings
from shared.clock import Clock
from shared.errors import ConfigurationError


def _tools(settings: WorkerSettings, clock: Clock) -> Backend:
    from services.worker.tools.backend import tools_backend  # and an HTTP client that nobody else needs

    return tools_backend(settings, clock)


BACKENDS: dict[str, Callable[[WorkerSettings, Clock], Backend]] = {
    "ollama": lambda settings, _: OllamaBackend(settings),
    "openai": OpenAIBackend,
    "embedded": OpenAIBackend,
    "tools": _tools,
    "in_process": lambda settings, _: InProcessBackend(settings.models),
}


def backend_of(settings: WorkerSettings, clock: Clock) -> Backend:
    """The backend that the settings name. Raises ConfigurationError."""
    build = BACKENDS.get(settings.backend)
    if build is None:
        raise ConfigurationError(f"TUTTI_WORKER__BACKEND: there is no such backend; known: {', '.join(BACKENDS)}")
    backend = build(settings, clock)
    return MembersBackend(backend, settings.members) if settings.members else backend


def sharing_calls(backend: Backend, settings: WorkerSettings, clock: Clock) -> Backend:
    """Embedding steps that come together share a call."""
    return BatchingBackend(
        guarded(backend),
        clock,
        delay_seconds=settings.embed_batch_seconds,
        most_texts=settings.embed_batch_texts,
        longest_seconds=settings.embed_batch_longest_seconds,
        slots=settings.slots,
    )
