"""How Ollama is made to go on with an answer that is begun.

Many templates leave the assistant's last message open, so that the model writes on; others close it, and the model, asked to continue,
says nothing at all. So Ollama renders the conversation without the answer (`_debug_render_only`, which runs no model), and the model is
given that text and the beginning of the answer as they are (`raw`). Where this is not to be had (an older server, tools, images, an
answer that the caller began himself), the beginning is sent as the last message.
"""

from __future__ import annotations

from typing import Any

from services.worker.backends.http import MAX_BODY_BYTES, HttpEndpoint, decode, whole
from services.worker.continuation import begun_by_caller
from shared.contracts.step import Step

_RAW = ("model", "keep_alive", "truncate", "shift", "options", "stream")


async def continuing(endpoint: HttpEndpoint, step: Step, chat: dict[str, Any], trace: str | None) -> tuple[str, dict[str, Any]]:
    """(path, body) of the call that continues; `chat` is the one with the beginning as its last message. Raises ModelCallFailed."""
    if step.tools or begun_by_caller(step) or any(message.images for message in step.messages):
        return "/api/chat", chat
    asked = chat | {
        "messages": chat["messages"][:-1],
        "stream": False,
        "options": chat["options"] | {"num_predict": 1},  # a server that does not know the word answers, shortly
        "_debug_render_only": True,
    }
    async with endpoint.post("/api/chat", asked, trace) as response:
        rendered = (decode(await whole(response, MAX_BODY_BYTES)).get("_debug_info") or {}).get("rendered_template")
    if not isinstance(rendered, str) or not rendered:
        return "/api/chat", chat
    return "/api/generate", {name: chat[name] for name in _RAW} | {"raw": True, "prompt": rendered + (step.prefix or "")}
