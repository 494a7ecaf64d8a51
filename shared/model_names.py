"""Names of models: `auto`, and when two spellings are one model. Pure."""

from __future__ import annotations

from collections.abc import Collection

AUTO = "auto"
"""Any model that can do it."""
_LATEST = ":latest"
_LONGEST = 200
"""As `contracts.base.ModelName` has it."""


def canonical(model: str) -> str:
    """Ollama's full name: without a tag `latest` is meant. A colon before the last slash is a registry's port, no tag. Of a name that has
    no room for a tag there is no other spelling.
    """
    return model if ":" in model.rpartition("/")[2] or len(model) + len(_LATEST) > _LONGEST else model + _LATEST


def spelling(wanted: str, known: Collection[str]) -> str | None:
    """How the model that is wanted is spelled there; None: it is not there."""
    if wanted in known:
        return wanted
    return next((name for name in (canonical(wanted), wanted.removesuffix(_LATEST)) if name in known), None)
