"""An answer's explanation: bounded whatever a pattern tells, kept beside an answer by reference, shown to people."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import to_json

from infra.cli.answer import show_human
from infra.lab.virtual_loop import run
from shared.clock import LoopClock
from shared.contracts.chat import Answer, FinishReason
from shared.contracts.result import Result, Status
from shared.kafka.memory.memory import MemoryLog
from shared.kafka.port import NewTopic
from shared.patterns.context import EXPLANATION_BYTES, explained
from shared.processing.blobs import Blobs
from shared.topics import Topics, TopicSettings

FACTS = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.from_regex("[a-z]{1,9}", fullmatch=True), FACTS, max_size=5))
def test_what_is_short_stands_as_it_is(facts: dict[str, Any]) -> None:
    answer = Answer(text="a", model="m")
    told = explained(answer, **facts)
    assert (told.explanation, told.changed(explanation=None)) == (facts, answer)
    assert Answer.model_validate_json(told.to_bytes()).to_bytes() == told.to_bytes()


@pytest.mark.parametrize("count", [1, 10, 100, 1_000])
@pytest.mark.parametrize("length", [60, 20_000])
@pytest.mark.parametrize("letter", ["x", "\x00", "😀"])
def test_what_is_long_is_cut_and_what_cannot_fit_is_said(count: int, length: int, letter: str) -> None:
    texts = [letter * length] * count
    told = explained(Answer(), votes=3, texts=texts).explanation
    assert told is not None
    assert len(to_json(told)) <= EXPLANATION_BYTES
    assert told["votes"] == 3 if count <= 10 else "left_out" in told or told["votes"] == 3


def test_what_is_no_json_is_the_patterns_mistake() -> None:
    for fact in (float("nan"), object()):
        with pytest.raises(ValueError):
            explained(Answer(), score=fact)


def test_an_answer_by_reference_keeps_it() -> None:
    """And how the job ended: what lies in the blob is a step's answer."""

    async def scenario() -> None:
        clock = LoopClock()
        log, topics = MemoryLog(clock, random=Random(7)), Topics(TopicSettings(other_partitions=1))
        await (await log.admin()).create_topics([NewTopic(topics.blobs, 1, 1, {})])
        blobs = Blobs(log, clock, topics, service="test", instance="a")
        ref = await blobs.store("t", Answer(text="long").to_bytes())
        answer = explained(Answer(blob=ref, finish_reason=FinishReason.BUDGET), votes=2)
        result = Result(job="j", tenant="t", status=Status.SUCCEEDED, answer=answer, accepted_at=1, finished_at=2)
        whole = (await blobs.whole(result)).answer
        assert whole == Answer(text="long", finish_reason=FinishReason.BUDGET, explanation={"votes": 2})
        await log.close()

    run(scenario())


def test_people_are_shown_it_beside_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    result = Result(job="j", status=Status.SUCCEEDED, answer=explained(Answer(text="42"), votes={"42": 3}), accepted_at=1, finished_at=2)
    show_human(result, "42")
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("42\n", 'how: {"votes": {"42": 3}}\n')
