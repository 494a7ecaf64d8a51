"""Small HTTP questions to local components: is it there, what does it say."""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.error
import urllib.request
from typing import Any

_direct = urllib.request.build_opener(
    urllib.request.ProxyHandler({}),
    urllib.request.HTTPSHandler(context=ssl._create_unverified_context()),  # noqa: S323, SLF001
)
"""Local components are never behind a proxy, and whether they answer does not depend on the name in their certificate."""


def get_json(url: str, *, timeout_seconds: float = 2.0) -> Any:
    """The JSON at `url`; None when nobody answers, or not with 200 and JSON."""
    try:
        with _direct.open(url, timeout=timeout_seconds) as response:
            return json.load(response)
    except (OSError, ValueError, http.client.HTTPException):
        return None


def answers(url: str, *, timeout_seconds: float = 2.0) -> bool:
    """Whether a GET of `url` gives 200."""
    try:
        with _direct.open(url, timeout=timeout_seconds) as response:
            return bool(response.status == 200)
    except (OSError, http.client.HTTPException):
        return False


def refusal(url: str, *, timeout_seconds: float = 2.0) -> str | None:
    """The body of an error answer, one line, at most 300 characters; None when there is none."""
    try:
        with _direct.open(url, timeout=timeout_seconds):
            return None
    except urllib.error.HTTPError as error:
        return " ".join(error.read(2000).decode(errors="replace").split())[:300]
    except (OSError, http.client.HTTPException):
        return None
