"""The model of a step that left it open is put into the very bytes that came."""

from __future__ import annotations

import json

import pytest

from services.router.messages import with_model
from shared.contracts.chat import ChatMessage
from shared.contracts.step import Step

LOOKS_LIKE_IT = '{"agent":"x","capability":"chat","operation":"chat","model":"auto"'
STEP = Step(
    agent='a "quoted" \\ agent',
    job="j",
    id="5" * 32,
    home=0,
    messages=(ChatMessage(role="user", content=LOOKS_LIKE_IT),),
    tools=({"model": "auto"},),
)


@pytest.mark.parametrize("value", [STEP.to_bytes(), STEP.to_bytes(STEP.content()), json.dumps(json.loads(STEP.to_bytes())).encode()])
def test_nothing_but_the_model_is_another(value: bytes) -> None:
    """However planners wrote it; what another writer spells otherwise is written anew."""
    assert Step.model_validate_json(with_model(value, STEP, "gemma3:270m")) == STEP.model_copy(update={"model": "gemma3:270m"})
