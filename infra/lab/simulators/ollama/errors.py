"""What a simulated node answers instead of an answer."""

from __future__ import annotations

from typing import Any

BUSY = "server busy, please try again.  maximum pending requests exceeded"
CRASHED = "llama runner process has terminated: exit status 2"


class OllamaError(Exception):
    """An error body of Ollama: `status` before the first chunk, a last line `{"error": ...}` of a 200 stream after it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.status, self.message)


class ConnectionDropped(Exception):
    """The node cuts the connection without another byte."""


def bad_request(message: str) -> OllamaError:
    """400: the request cannot be served as it is."""
    return OllamaError(400, message)


def embedder_not_found(name: str) -> OllamaError:
    """404 as /api/embed words it."""
    return OllamaError(404, f'model "{name}" not found, try pulling it first')


def model_not_found(name: str) -> OllamaError:
    """404 in Ollama's words."""
    return OllamaError(404, f"model '{name}' not found")
