"""OpenAI's embeddings: texts become a Job, vectors a list in the same order, as numbers or as base64 of 32-bit floats. Pure."""

from __future__ import annotations

import struct
from base64 import b64encode
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic_core import to_json

from services.ingress.dialects.openai.requests import metadata_of
from services.ingress.dialects.port import Asked, Terms, Told, UnsupportedParameter, as_many, origin, refuse_unsupported
from shared.contracts.base import MOST, Text
from shared.contracts.chat import Answer
from shared.contracts.job import Job
from shared.contracts.usage import Usage

_MOST_TEXTS = 512
_Token = Annotated[int, Field(ge=0, le=MOST)]
_Tokens = Annotated[tuple[_Token, ...], Field(max_length=1_000_000)]


_Lists = Annotated[tuple[_Tokens, ...], Field(max_length=_MOST_TEXTS)]


class EmbeddingsRequest(Asked):
    """The body of `POST /v1/embeddings`. Texts as tokens are refused: models have tokenizers of their own."""

    input: Text | Annotated[tuple[Text, ...], Field(min_length=1, max_length=_MOST_TEXTS)] | _Tokens | _Lists
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: _Token | None = None
    user: str | None = Field(default=None, max_length=512)

    def wishes(self) -> bool:
        """Whether vectors go out as base64."""
        return self.encoding_format == "base64"


def to_job(request: EmbeddingsRequest, terms: Terms) -> Job:
    """The job that answers the request. Raises UnsupportedParameter, and as `Terms.job`."""
    refuse_unsupported(request, {"dimensions": ()})
    texts = as_many(request.input)
    words = tuple(text for text in texts if isinstance(text, str))
    if len(words) < len(texts) or not words:
        raise UnsupportedParameter("input", "input is a text or a list of texts: tokens are not supported")
    return terms.embedding(words, metadata=metadata_of(None, request.user))


def answer(told: Told, found: Answer, consumed: Usage) -> bytes:
    """The list of vectors."""
    data = [_embedding(number, vector, packed=told.wishes) for number, vector in enumerate(found.embeddings)]
    tokens = {"prompt_tokens": consumed.prompt_tokens, "total_tokens": consumed.prompt_tokens}
    return to_json({"object": "list", "data": data, "model": found.model or told.model, "usage": tokens, "tutti": origin(found)})


def _embedding(number: int, vector: tuple[float, ...], *, packed: bool) -> dict[str, Any]:
    shown = b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode() if packed else vector
    return {"object": "embedding", "index": number, "embedding": shown}
