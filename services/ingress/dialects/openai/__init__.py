"""OpenAI's chat completions and list of models."""

from __future__ import annotations

from services.ingress.dialects.openai import requests, responses
from services.ingress.dialects.port import Dialect, ListForm

CHAT = Dialect(
    path="/v1/chat/completions",
    summary="Chat completion, whole or as server-sent events (`stream`): chat.completion.chunk events ended by [DONE].",
    request=requests.ChatRequest,
    to_job=requests.to_job,
    answer=responses.completion,
    stream=responses.ChunkWriter,
    models=ListForm("/v1/models", "/v1/models/{model:path}", responses.models, responses.model),
)
