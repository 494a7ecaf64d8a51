"""Anthropic's messages, so that its clients work as they are."""

from __future__ import annotations

from services.ingress.dialects.anthropic import requests, responses
from services.ingress.dialects.port import Dialect, Inquiry

MESSAGES = Dialect(
    path="/v1/messages",
    summary="A message as Anthropic has it, whole or as server-sent events (`stream`).",
    request=requests.MessagesRequest,
    to_job=requests.to_job,
    answer=responses.message,
    stream=responses.MessageWriter,
    problem=responses.problem,
    inquiries=(
        Inquiry(
            "/v1/messages/count_tokens",
            "How many tokens a request has, estimated.",
            responses.counted,
            method="POST",
            body=requests.Counted,
        ),
    ),
)
