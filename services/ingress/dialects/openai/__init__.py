"""OpenAI's chat completions, completions, responses, embeddings and list of models."""

from __future__ import annotations

from services.ingress.dialects.openai import completions, embeddings, requests, response_objects, response_requests, responses
from services.ingress.dialects.port import Dialect, Inquiry
from shared.contracts.chat import Operation

CHAT = Dialect(
    path="/v1/chat/completions",
    summary="Chat completion, whole or as server-sent events (`stream`): chat.completion.chunk events ended by [DONE].",
    request=requests.ChatRequest,
    to_job=requests.to_job,
    answer=responses.completion,
    stream=responses.ChunkWriter,
    batched=True,
    inquiries=(
        Inquiry("/v1/models", "Models of the registered nodes.", responses.models),
        Inquiry("/v1/models/{model:path}", "One model.", responses.model),
        *(
            Inquiry(path, "Refused: not supported.", responses.unsupported, method="POST")
            for path in ("/v1/rerank", "/v1/audio/transcriptions", "/v1/audio/translations", "/v1/audio/speech", "/v1/images/generations")
        ),
    ),
)
COMPLETIONS = Dialect(
    path="/v1/completions",
    summary="Completion of one prompt, the older form, whole or as server-sent events (`stream`).",
    request=completions.CompletionRequest,
    to_job=completions.to_job,
    answer=completions.answer,
    stream=completions.TextWriter,
    batched=True,
)
RESPONSES = Dialect(
    path="/v1/responses",
    summary="A response: whole, as server-sent events (`stream`), or asked for later (`background`).",
    request=response_requests.ResponseRequest,
    to_job=response_requests.to_job,
    answer=response_objects.whole,
    stream=response_objects.ResponseWriter,
)
EMBEDDINGS = Dialect(
    path="/v1/embeddings",
    summary="Embeddings of one or more texts, in their order; numbers, or base64 of little-endian 32-bit floats.",
    request=embeddings.EmbeddingsRequest,
    to_job=embeddings.to_job,
    answer=embeddings.answer,
    stream=completions.TextWriter,
    operation=Operation.EMBED,
    batched=True,
)
