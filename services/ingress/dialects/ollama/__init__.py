"""Ollama's chats, generations, embeddings and lists of models, so that its clients work as they are."""

from __future__ import annotations

from functools import partial

from services.ingress.dialects.ollama import requests, responses
from services.ingress.dialects.ollama.inquiries import INQUIRIES
from services.ingress.dialects.ollama.tasks import TASKS
from services.ingress.dialects.port import Dialect
from shared.contracts.chat import Operation

CHAT = Dialect(
    path="/api/chat",
    summary="Chat as Ollama has it: lines of JSON unless `stream` is false.",
    request=requests.OllamaChat,
    to_job=requests.chat,
    answer=responses.chat,
    stream=partial(responses.LineWriter, chat=True),
    problem=responses.problem,
    stream_headers=responses.STREAM_HEADERS,
    heartbeat=b"",
    at_once=lambda asked, now: (
        responses.unloaded(asked.model, now, message={"role": "assistant", "content": ""}) if asked.empty and asked.unloads else None
    ),
    inquiries=INQUIRIES,
    tasks=TASKS,
)
GENERATE = Dialect(
    path="/api/generate",
    summary="A completion as Ollama has it: lines of JSON unless `stream` is false.",
    request=requests.OllamaGenerate,
    to_job=requests.generate,
    answer=responses.generation,
    stream=partial(responses.LineWriter, chat=False),
    problem=responses.problem,
    stream_headers=responses.STREAM_HEADERS,
    heartbeat=b"",
    at_once=lambda asked, now: responses.unloaded(asked.model, now, response="") if asked.empty and asked.unloads else None,
)
EMBED = Dialect(
    path="/api/embed",
    summary="Embeddings of one or more texts, as Ollama has them.",
    request=requests.OllamaEmbed,
    to_job=requests.embed,
    answer=responses.embedded,
    stream=partial(responses.LineWriter, chat=False),
    operation=Operation.EMBED,
    problem=responses.problem,
    at_once=lambda asked, _: None if asked.texts else responses.no_vectors(asked.model),
)
EMBEDDINGS = Dialect(
    path="/api/embeddings",
    summary="The embedding of one text, in Ollama's older form.",
    request=requests.OllamaEmbeddings,
    to_job=requests.embeddings,
    answer=responses.embedding,
    stream=partial(responses.LineWriter, chat=False),
    operation=Operation.EMBED,
    problem=responses.problem,
)
