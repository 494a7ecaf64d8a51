"""Features: what a step's words tell, over prompts in several languages; whatever the text, it is told, and in bounded time."""

from __future__ import annotations

from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.agents.features import LOOKED_AT, QueryFeatures, query_of
from shared.contracts.blob import BlobRef
from shared.contracts.chat import ChatMessage, Operation
from shared.contracts.job import InputRef
from shared.contracts.step import StepRequest


def asked(text: str, **fields: object) -> QueryFeatures:
    return query_of(StepRequest(messages=(ChatMessage(role="user", content=text),), **fields))


PROMPTS = [
    ("code", "en", "Write a Python function that merges two sorted lists."),
    ("code", "en", "Why does this fail?\n```\nfor (i = 0; i < n; i++) { a[i] = 1 }\n```"),
    ("code", "de", "Schreibe mir ein Programm in Java, das eine Datei von der Platte liest."),
    ("code", "fr", "Écris une fonction Rust qui trie les mots dans un texte."),
    ("code", "es", "Escribe una función en TypeScript para la suma de los números."),
    ("code", "ru", "Напиши функцию на Python, которая сортирует список."),
    ("code", "zh", "用Python写一个函数,计算列表的平均值"),
    ("code", "ja", "SQLのコードを書いてください"),
    ("code", "en", "SELECT name FROM users WHERE id = 1;\nis this query safe in the sql of today?"),
    ("maths", "en", "Solve the equation 3x + 5 = 20 and tell me what x is."),
    ("maths", "en", "A train leaves at 9 with 120 people; 35 get out. How many are left in it?"),
    ("maths", "de", "Berechne die Ableitung von sin(x) und den Wert für x = 2."),
    ("maths", "fr", "Résous l'équation et donne la dérivée de la fonction."),
    ("maths", "zh", "求这个方程的积分"),
    ("maths", "ru", "Докажи, что уравнение имеет два корня."),
    ("maths", "", r"\int_0^1 \frac{dx}{1+x^2}"),
    ("creative", "en", "Write a short poem for my mother in the style of Whitman."),
    ("creative", "en", "Tell me a story of the two bears and the moon."),
    ("creative", "de", "Schreibe ein Gedicht über den Herbst und die Liebe."),
    ("creative", "fr", "Écris un poème sur la mer et les étoiles."),
    ("creative", "es", "Escribe un cuento sobre el mar y la luna."),
    ("creative", "it", "Scrivi una poesia sul mare e la luna, che non è lunga."),
    ("creative", "ja", "春についての俳句を作ってください"),
    ("creative", "ko", "봄에 대한 시를 써 주세요"),
    ("factual", "en", "What is the capital of Australia?"),
    ("factual", "de", "Wer war der erste Kanzler und wo ist er geboren?"),
    ("factual", "fr", "Quelle est la capitale de l'Australie ?"),
    ("factual", "es", "¿Cuál es la capital de Australia y por qué?"),
    ("factual", "pt", "Explique o que é a fotossíntese para uma criança."),
    ("factual", "ar", "ما هي عاصمة أستراليا؟"),
    ("factual", "zh", "请解释光合作用"),
    ("factual", "ko", "호주의 수도는 어디입니까"),
    ("other", "en", "Thank you, that is good to hear."),
    ("other", "", "hello"),
    ("other", "de", "Danke, das ist nicht schlecht."),
    ("other", "", ""),
]


@pytest.mark.parametrize(("kind", "language", "text"), PROMPTS, ids=[text[:24] for _, _, text in PROMPTS])
def test_a_prompt_is_of_its_kind_and_language(kind: str, language: str, text: str) -> None:
    found = asked(text)
    assert (found.kind, found.language) == (kind, language)


MISTAKEN = [
    ("creative", "Write a summary of the history of the poem."),
    ("other", "Go on."),
    ("code", "Is the java class on the island a good program?"),
]


@pytest.mark.parametrize(("kind", "text"), MISTAKEN)
def test_what_words_alone_cannot_tell_is_known(kind: str, text: str) -> None:
    """As the module says: the price of a rule of words."""
    assert asked(text).kind == kind


def test_what_a_model_must_be_able_to_do_is_told() -> None:
    plain = asked("hi")
    assert (plain.tools, plain.schema, plain.picture) == (False, False, False)
    assert asked("hi", tools=({"type": "function"},)).tools
    assert asked("hi", format="json")[:1] == ("factual",)
    seen = StepRequest(messages=(ChatMessage(role="user", content="what is it?", images=("aGk=",)),))
    assert query_of(seen).picture


def test_only_the_last_words_of_a_user_tell_the_kind() -> None:
    """Not the system's, nor what a model said."""
    talk = (
        ChatMessage(role="system", content="You write python code."),
        ChatMessage(role="user", content="What is the capital of Peru?"),
        ChatMessage(role="assistant", content="```\nLima\n```"),
    )
    assert query_of(StepRequest(messages=talk)).kind == "factual"
    assert query_of(StepRequest(operation=Operation.GENERATE, prompt="Write a poem")).kind == "creative"


def test_of_what_lies_in_a_blob_only_the_size_is_known() -> None:
    blob = BlobRef(digest="b" * 32, partition=0, first=0, last=0, chunks=1, size=90_000, written_at=0.0)
    there = InputRef(blob=blob, characters=80_000, longest=90_000, fewest_tokens=9_000, images=True, tools=True)
    assert query_of(StepRequest(input_ref=there)) == QueryFeatures("other", 30_000, "", tools=True, schema=False, picture=True)


@given(st.text(max_size=400), st.sampled_from(list(Operation)))
def test_whatever_is_asked_there_is_an_answer(text: str, operation: Operation) -> None:
    assert asked(text, operation=operation) == asked(text, operation=operation)


HOSTILE = ["(" * 10, "1 ", "a=", "def a(", "select , ", "</a", "\\frac", "->  ", "x", "?", " ", "}\n", "\u4e00", "write a poem "]


@pytest.mark.parametrize("piece", HOSTILE)
def test_a_megabyte_takes_no_longer_than_its_ends(piece: str) -> None:
    """Beyond the looked at ends only lengths count: some milliseconds, however large, whatever is repeated."""
    text = piece * (1_000_000 // len(piece))
    assert len(text) > 100 * LOOKED_AT
    begun = process_time()
    asked(text)
    assert process_time() - begun < 0.25
