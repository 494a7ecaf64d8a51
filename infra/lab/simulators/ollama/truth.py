"""What really happened on the node, for tests and measurements: more than any Ollama would tell."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Truth:
    """Counters since the start or the last reset. Tokens are the simulator's own (see `inference`)."""

    requests: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    in_flight: int = 0
    most_in_flight: int = 0
    loads: int = 0
    load_failures: int = 0
    evictions: int = 0
    expirations: int = 0
    crashes: int = 0
    clients_gone: int = 0
    prompt_tokens: int = 0
    cached_prompt_tokens: int = 0
    answer_tokens: int = 0
    tokens_for_nobody: int = 0
    """Read or written after the client had gone."""
    pulled_bytes: int = 0
    """Fetched of models: more than their size is fetched twice."""

    def begin(self, endpoint: str) -> None:
        """A request has arrived."""
        self.requests[endpoint] += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)

    def end(self) -> None:
        """The node has nothing more to do for a request."""
        self.in_flight -= 1

    def reset(self) -> None:
        """Count from 0 again; what is in flight stays."""
        for name in self.__slots__:
            value = getattr(self, name)
            if isinstance(value, Counter):
                value.clear()
            elif name != "in_flight":
                setattr(self, name, 0)
        self.most_in_flight = self.in_flight

    def as_dict(self) -> dict[str, Any]:
        """All counters by name."""
        return {name: dict(value) if isinstance(value := getattr(self, name), Counter) else value for name in self.__slots__}
