"""Vetoes: pairs of questions that look alike and are not the same are vetoed; what is only worded otherwise mostly is not."""

from __future__ import annotations

from collections import Counter
from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.lab.questions import pairs
from shared.validators.questions.terms import LONGEST, number, read, stem
from shared.validators.questions.vetoes import Veto, veto

FAMILIES = ("number", "negation", "entity", "date", "unit", "order", "wording")
QUESTION = st.sampled_from([pair.asked for pair in pairs("tuning")])


@pytest.mark.parametrize("name", ["tuning", "holdout"])
def test_of_every_family_of_near_misses_at_most_one_in_a_hundred_passes(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """By the vetoes alone, whatever the similarity. On the pairs that nothing was tuned on, all families together."""
    count, passed = Counter[str](), Counter[str]()
    for pair in pairs(name):
        count[pair.family] += 1
        passed[pair.family] += veto(pair.asked, pair.stored) is None
    with capsys.disabled():
        print(f"\n{name}: " + ", ".join(f"{family or 'paraphrases'} {passed[family]}/{count[family]}" for family in count), end=" ")  # noqa: T201
    false, near = sum(passed[family] for family in FAMILIES), sum(count[family] for family in FAMILIES)
    assert min(count[family] for family in FAMILIES) >= 40
    assert count[""] >= (60 if name == "tuning" else 40)
    assert false <= 0.01 * near
    assert passed[""] >= 0.4 * count[""]


@pytest.mark.parametrize(
    ("asked", "stored", "reason"),
    [
        ("How many days are in 3 weeks?", "How many days are in 4 weeks?", Veto.NUMBERS),
        ("How many days are in three weeks?", "How many days are in 3 weeks?", None),
        ("Who came twenty-first?", "Who came 21st?", None),
        ("Which foods are safe?", "Which foods aren't safe?", Veto.NEGATION),
        ("Is it reversible?", "Is it irreversible?", Veto.NEGATION),
        ("What is the capital of Niger?", "What is the capital of Nigeria?", Veto.NAMES),
        ('Who wrote "Emma"?', 'Who wrote "Ulysses"?', Veto.NAMES),
        ("What does `rm -r` do?", "What does `rm -f` do?", Veto.NAMES),
        ("Is the shop open on Monday?", "Is the shop open on Sunday?", Veto.TIMES),
        ("Who is the president?", "Who was the president?", Veto.TIMES),
        ("Is 5 mg much?", "Is 5 g much?", Veto.UNITS),
        ("Is 20 MB much?", "Is 20 Mb much?", Veto.UNITS),
        ("How long is 3 km?", "How long is 3 kilometres?", None),
        ("How do I get from Rome to Oslo?", "How do I get from Oslo to Rome?", Veto.ORDER),
        ("How do I get to Oslo?", "How do I get from Oslo?", Veto.ORDER),
        ("Does the dog bite the man?", "Does the man bite the dog?", Veto.ORDER),
        ("What is 7 - 3?", "What is 3 - 7?", Veto.ORDER),
        ("What is (1+2)*3?", "What is 1+(2*3)?", Veto.ORDER),
        ("Where did it begin?", "When did it begin?", Veto.QUESTION),
        ("Is it safe to eat eggs?", "Should I eat eggs, is it safe?", Veto.QUESTION),
        ("Who owes me money?", "Who do I owe money?", Veto.WORDING),
        ("What is my name?", "What is your name?", Veto.WORDING),
        ("What is the capital of France?", "Was ist die Hauptstadt von Frankreich?", Veto.LANGUAGE),
        ("Kann man das nicht ändern?", "Kann man das ändern?", Veto.NEGATION),
        ("Wie komme ich von Rom nach Oslo?", "Wie komme ich von Oslo nach Rom?", Veto.ORDER),
        ("巴黎的人口是多少", "伦敦的人口是多少", Veto.WORDING),
        ("x" * (LONGEST + 1), "y", Veto.LENGTH),
        ("Who painted the Mona Lisa?", "The Mona Lisa was painted by whom?", None),
        ("How do I undo the last commit in git?", "In git, how can the last commit be undone?", None),
    ],
)
def test_what_a_veto_is_for(asked: str, stored: str, reason: Veto | None) -> None:
    found = veto(asked, stored)
    assert (found is None) == (reason is None), found
    if reason not in (Veto.ORDER, Veto.QUESTION, Veto.WORDING):
        assert found == reason


@given(QUESTION, QUESTION)
def test_a_veto_is_symmetric_and_nothing_differs_from_itself(one: str, other: str) -> None:
    assert veto(one, other) == veto(other, one)
    assert veto(one, one) is None


@given(QUESTION, st.sampled_from(["42", "Zanzibar", "never", "kilograms", "yesterday", "zebra", "`x()`", "a@b.example", "≤", "unless"]))
def test_what_is_added_to_a_question_is_seen(question: str, more: str) -> None:
    """Nothing that is not known to carry nothing is passed over."""
    assert veto(question, f"{question.rstrip('?.!')} {more}?") is not None


@given(st.text(max_size=LONGEST), st.text(max_size=LONGEST))
def test_any_text_is_read(one: str, other: str) -> None:
    assert veto(one, other) == veto(other, one)


def test_a_question_takes_less_than_a_millisecond() -> None:
    """Both of them read anew."""
    measured = []
    for pair in pairs("tuning"):
        read.cache_clear()
        begun = perf_counter()
        veto(pair.asked, pair.stored)
        measured.append(perf_counter() - begun)
    assert sorted(measured)[len(measured) // 2] < 0.001


def test_inflections_meet_and_words_do_not() -> None:
    for forms in ("boil boils boiled boiling", "ship ships shipped shipping", "move moved moving moves", "city cities", "release released"):
        assert len({stem(form) for form in forms.split()}) == 1, forms
    for words in ("note not", "plan plane", "car care", "hop hope", "employee employer", "new newer"):
        assert len({stem(word) for word in words.split()}) == 2, words


def test_numbers_have_one_form() -> None:
    assert [number(said) for said in ("1,000", "3rd", "v3.11", "1960s", "2.50")] == ["1000", "3", "3.11", "1960s", "2.50"]
