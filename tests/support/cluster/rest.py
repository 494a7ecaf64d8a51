"""A caller of an ingress without sockets: one request on its ASGI application, perhaps given up half-way."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote


@dataclass(slots=True)
class Answer:
    """What the caller has received. `status` is 0 until the head came."""

    status: int = 0
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    complete: bool = False

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(slots=True)
class Request:
    """One call. `body` is sent as JSON, bytes as they are. The client disconnects when it is `leaving`, or `gives_up_after` seconds."""

    method: str
    path: str
    body: Any = None
    headers: tuple[tuple[bytes, bytes], ...] = ()
    gives_up_after: float | None = None
    answer: Answer = field(default_factory=Answer)
    leaving: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, application: Any) -> None:
        """Send it and receive the answer; runs in the ingress's process, and dies with it."""
        body = b"" if self.body is None else self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        path, _, query = self.path.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": self.method,
            "scheme": "http",
            "path": unquote(path),
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(b"host", b"simulated"), *self.headers, (b"content-type", b"application/json")],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8080),
        }
        sent = False

        async def receive() -> dict[str, Any]:
            nonlocal sent
            if not sent:
                sent = True
                return {"type": "http.request", "body": body, "more_body": False}
            with suppress(TimeoutError):
                async with asyncio.timeout(self.gives_up_after if self.gives_up_after is not None else 1e6):
                    await self.leaving.wait()
            return {"type": "http.disconnect"}

        await application(scope, receive, self._on_message)

    async def _on_message(self, message: Any) -> None:
        answer = self.answer
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            answer.body += message.get("body", b"")
            answer.complete = not message.get("more_body", False)
