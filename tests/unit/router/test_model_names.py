"""Names of models: one rule for who asks, who routes and who runs."""

from __future__ import annotations

import pytest

from shared.contracts.base import ModelName, adapter
from shared.model_names import canonical, spelling


@pytest.mark.parametrize(
    ("wanted", "known", "found"),
    [
        ("gemma3", ("gemma3:latest",), "gemma3:latest"),
        ("gemma3:latest", ("gemma3",), "gemma3"),
        ("gemma3", ("gemma3", "gemma3:latest"), "gemma3"),
        ("gemma3:1b", ("gemma3:latest", "gemma3"), None),
        ("gemma3", ("gemma3:1b",), None),
        ("host:5000/team/gemma3", ("host:5000/team/gemma3:latest",), "host:5000/team/gemma3:latest"),
        ("/models/x.gguf", ("/models/x.gguf",), "/models/x.gguf"),
        ("x", (), None),
    ],
)
def test_a_name_without_a_tag_means_latest(wanted: str, known: tuple[str, ...], found: str | None) -> None:
    """Both ways round; the very spelling first; a registry's port is no tag."""
    assert spelling(wanted, known) == found
    assert found is None or canonical(found) == canonical(wanted)


@pytest.mark.parametrize("characters", [1, 193, 194, 200])
def test_the_full_name_of_a_model_is_one(characters: int) -> None:
    """What answers bear becomes keys of records: a name that no contract takes would end who writes them."""
    full = canonical("x" * characters)
    assert adapter(ModelName).validate_python(full) == canonical(full)
