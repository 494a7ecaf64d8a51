"""The retrieval tool: an operator's own endpoint is asked for passages, and answers with some."""

from __future__ import annotations

from urllib.parse import urlsplit

from services.worker.backends.base import ModelCallFailed
from services.worker.backends.foreign import entries, mapping, words
from services.worker.backends.http import HttpEndpoint, decode, whole
from services.worker.tools.calling import ToolCall, text_argument
from services.worker.tools.declared import RetrievalTool, token
from shared.contracts.failure import FailureKind as K

MOST_BYTES = 2 * 1024 * 1024


class Retrieval:
    """One endpoint. Raises ConfigurationError where its token is not there."""

    def __init__(self, terms: RetrievalTool, connections: int) -> None:
        parts = urlsplit(terms.url)
        self._terms, self._path = terms, parts.path or "/"
        self._endpoint = HttpEndpoint(
            f"{parts.scheme}://{parts.netloc}", connections=connections, connect_seconds=5.0, headers=token(terms.token_env)
        )

    async def call(self, call: ToolCall) -> str:
        asked = {"query": text_argument(call, "query"), "count": self._terms.passages}
        async with self._endpoint.post(self._path, asked, call.trace) as response:
            found = decode(await whole(response, MOST_BYTES)).get("passages")
        if not isinstance(found, list):
            raise ModelCallFailed(K.MODEL_ERROR, "the endpoint has answered without `passages`")
        passages = [_passage(number, mapping(each)) for number, each in enumerate(entries(found)[: self._terms.passages], 1)]
        return "\n\n".join(passages) or "nothing was found"

    async def close(self) -> None:
        await self._endpoint.close()


def _passage(number: int, found: dict[str, object]) -> str:
    source, text = words(found.get("source")), found.get("text")
    return f"[{number}]{f' ({source})' if source else ''}\n{text if isinstance(text, str) else ''}"
