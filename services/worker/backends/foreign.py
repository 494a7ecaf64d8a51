"""What a model endpoint says is foreign input: an odd number counts as unknown, an odd entry of a list is left out and said once.

What nobody thought of is caught by one guard around the port: it is the call's or the probe's failure, never the worker's end.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Self

from services.worker.backends.base import Around, Backend, BackendProbe, Completion, Delta, ModelCall, ModelCallFailed
from shared.contracts.base import MOST, sentence
from shared.contracts.chat import LEAST_LOGPROB, MOST_CALLS
from shared.contracts.failure import FailureKind as K
from shared.contracts.node import NodeModel
from shared.contracts.step import Step
from shared.telemetry import logs

log = logs.get(__name__)

MOST_MODELS = 256
MOST_CHARACTERS = 8 * 1024 * 1024
"""Of one answer: what a message can say."""
_MOST_SAID = 1_000
_LONGEST_MS = 1e12
_ODD = (ValueError, TypeError, LookupError, AttributeError)
"""What reading an entry of another shape raises; pydantic's errors are ValueErrors."""


def count(value: Any) -> int:
    """Tokens or bytes; 0 for what is no count."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MOST:
        return 0
    return int(value)


def milliseconds(value: Any) -> float:
    """A duration; 0 for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _LONGEST_MS:
        return 0.0
    return float(value)


def nanoseconds(value: Any) -> float:
    """A duration in milliseconds, given in nanoseconds; 0 for what is none."""
    return milliseconds(value / 1e6) if isinstance(value, int | float) and abs(value) <= _LONGEST_MS * 1e6 else 0.0


def mapping(value: Any) -> dict[str, Any]:
    """An object; empty for what is none."""
    return value if isinstance(value, dict) else {}


def entries(value: Any) -> list[Any]:
    """The first entries of a list; none of what is no list."""
    return value[:MOST_MODELS] if isinstance(value, list) else []


def words(value: Any) -> str:
    """A version, a digest, a quantisation: one short text; empty for what is none."""
    return sentence(value[:128]) if isinstance(value, str) else ""


def within(characters: int, calls: int) -> None:
    """Raises INVALID_OUTPUT for an answer that no message can say: its characters and its tool calls."""
    if characters > MOST_CHARACTERS:
        raise ModelCallFailed(K.INVALID_OUTPUT, f"the answer has more than {MOST_CHARACTERS} characters")
    if calls > MOST_CALLS:
        raise ModelCallFailed(K.INVALID_OUTPUT, f"the answer has more than {MOST_CALLS} tool calls")


def vectors_of(step: Step, found: Sequence[Any]) -> tuple[tuple[float, ...], ...]:
    """As many as the step has texts. Raises MODEL_ERROR."""
    if len(found) != len(step.texts):
        raise ModelCallFailed(K.MODEL_ERROR, f"{len(step.texts)} texts gave {len(found)} embeddings")
    return tuple(tuple(vector) for vector in found)


class MeanLogprob:
    """Folds the log-probabilities of an answer's tokens: `[{"logprob": -0.1, ...}, ...]`. What is no number says nothing of its token."""

    def __init__(self) -> None:
        self._sum, self._tokens = 0.0, 0

    def add(self, tokens: Any) -> None:
        """Those of one piece; none of what is no list."""
        for token in tokens if isinstance(tokens, list) else ():
            value = mapping(token).get("logprob")
            if isinstance(value, int | float) and not isinstance(value, bool):
                self._sum += min(0.0, max(LEAST_LOGPROB, value))
                self._tokens += 1

    @property
    def mean(self) -> float | None:
        """None where nothing was told."""
        return self._sum / self._tokens if self._tokens else None


class ModelList:
    """Reads the entries of a list of models one by one."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def model(self, entry: Any, read: Callable[[dict[str, Any]], NodeModel]) -> NodeModel | None:
        """The model; None for an entry that cannot be read: of another shape, or with a name that no message can say."""
        try:
            return read(entry if isinstance(entry, dict) else {})
        except _ODD as error:
            self._left_out(entry, error)
            return None

    def _left_out(self, entry: Any, error: Exception) -> None:
        named = mapping(entry)
        name = sentence(repr(named.get("name") or named.get("id") or entry))[:200]
        if name not in self._said and len(self._said) < _MOST_SAID:
            self._said.add(name)
            log.warning("model_left_out", model=name, error=type(error).__name__)


class _GuardedBackend(Around):
    """Another backend, of which nothing but `ModelCallFailed` comes out."""

    def __init__(self, inner: Backend) -> None:
        super().__init__(inner)
        self._said: set[str] = set()

    def call(self, call: ModelCall) -> AsyncIterator[Delta | Completion]:
        with self:
            return _Pieces(self._inner.call(call), self)

    async def probe(self) -> BackendProbe:
        with self:
            return await self._inner.probe()

    async def models(self) -> tuple[NodeModel, ...]:
        with self:
            return await self._inner.models()

    def __enter__(self) -> None:
        """Any number of times at once: nothing is kept."""

    def __exit__(self, _kind: object, error: BaseException | None, _where: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, ModelCallFailed):
            raise self.failed(error) from error

    def failed(self, error: Exception) -> ModelCallFailed:
        """Said once a place."""
        place = logs.place_of(error)
        if place not in self._said and len(self._said) < _MOST_SAID:
            self._said.add(place)
            log.warning("endpoint_not_understood", error=type(error).__name__, at=place)
        return ModelCallFailed(K.MODEL_ERROR, "the endpoint said something that cannot be read")


class _Pieces:
    """The pieces of a guarded call. No generator of its own: every piece of every stream would pass through one more."""

    def __init__(self, pieces: AsyncIterator[Delta | Completion], of: _GuardedBackend) -> None:
        self._pieces, self._of = pieces, of

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delta | Completion:
        try:
            return await anext(self._pieces)
        except (ModelCallFailed, StopAsyncIteration):
            raise
        except Exception as error:
            raise self._of.failed(error) from error

    async def aclose(self) -> None:
        with self._of:
            await self._pieces.aclose()  # type: ignore[attr-defined]  # every backend's call is an async generator


def guarded(backend: Backend) -> Backend:
    """The backend behind the guard, once."""
    return backend if isinstance(backend, _GuardedBackend) else _GuardedBackend(backend)
