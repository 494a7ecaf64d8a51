"""Rendering: what a receiver gets, by the form of Standard Webhooks 1.0 (standardwebhooks.com). Pure.

webhook-id: whk_<32 hex digits>       of the job and its life: the same at each try, so that a receiver drops repeats
webhook-timestamp: <seconds>          of this try
webhook-signature: v1,<base64>        HMAC-SHA256 of "<id>.<timestamp>.<body>"; one a key, separated by spaces
"""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections.abc import Iterable
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from pydantic_core import to_json

from shared.contracts import ids
from shared.contracts.ids import digest_of
from shared.contracts.result import Result


def delivery_id(result: Result) -> str:
    """Another life of the same id has another one."""
    return "whk_" + digest_of(f"{result.job} {result.accepted_at!r}".encode())


def body_of(result: Result, public_url: str = "") -> bytes:
    """The end, as `GET /v1/jobs/{id}` has it in `result`. Of a large answer it says how large it is, and `url` leads to it."""
    job = ids.public(result.job)
    data: dict[str, Any] = result.model_dump(mode="json", exclude_none=True, exclude={"callback"}) | {"job": job}
    answer = result.answer
    if answer is not None and answer.blob is not None:
        data["answer"] |= {"text": "", "blob": {"size": answer.blob.size}}
    tenant = ids.owner(result.job)
    data["url"] = f"{public_url.rstrip('/')}/v1/jobs/{job}" + ("" if tenant is None else f"?tenant={tenant}")
    moment = datetime.fromtimestamp(result.finished_at, UTC).isoformat(timespec="milliseconds")
    return to_json({"type": f"job.{result.status.value}", "timestamp": moment.replace("+00:00", "Z"), "data": data})


def headers_of(identifier: str, body: bytes, keys: Iterable[bytes], now: float) -> dict[str, str]:
    """`now`: seconds since the Unix epoch."""
    stamp = str(int(now))
    signed = f"{identifier}.{stamp}.".encode() + body
    marks = (b64encode(hmac.digest(key, signed, sha256)).decode() for key in keys)
    return {
        "content-type": "application/json",
        "user-agent": "tutti",
        "webhook-id": identifier,
        "webhook-timestamp": stamp,
        "webhook-signature": " ".join(f"v1,{mark}" for mark in marks),
    }
