"""A durable workflow of one step behind HTTP: `dbos_app.py PORT DATABASE_URL`. In an environment of its own."""

from __future__ import annotations

import json
import sys
from typing import Any

import uvicorn
from dbos import DBOS


@DBOS.step()  # type: ignore[untyped-decorator]
async def ask_model(prompt: str) -> str:
    return f"simulated answer to {len(prompt)} characters"


@DBOS.workflow()  # type: ignore[untyped-decorator]
async def answer(prompt: str) -> str:
    return str(await ask_model(prompt))


async def app(scope: Any, receive: Any, send: Any) -> None:
    message = await receive()
    text = await answer(json.loads(message["body"])["prompt"])
    body = json.dumps({"text": text}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    port, url = sys.argv[1:]
    DBOS(config={"name": "versus", "system_database_url": url, "run_admin_server": False, "log_level": "ERROR"})
    DBOS.launch()
    uvicorn.run(app, port=int(port), loop="uvloop", http="httptools", lifespan="off", log_level="critical", access_log=False)
