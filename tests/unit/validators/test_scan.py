"""Scan: what is found and what is not, the same in any pieces, and in bounded time on texts that were made to be slow."""

from __future__ import annotations

import time
from inspect import signature
from random import Random
from typing import Any, get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.contracts.critique import WINDOWED, CheckSet, PersonalKind
from shared.validators.checks import COMPARED, RULES, critique
from shared.validators.scan import StreamFilter, finders_of, places, redacted

ALL = CheckSet(personal_data=get_args(PersonalKind), secrets=True, toxicity=True, forbidden=("Project Nightfall", "don't say"))
KEY = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYzzEXAMPLEKEY"
FOUND = {
    "write to bob.x+y@mail.example.co.uk now": "email",
    "call +49 (0)170 1234567 today": "phone",
    "call 030/1234567-89 today": "phone",
    "or 555-234-5678.": "phone",
    "(555) 234-5678": "phone",
    "IBAN DE89 3704 0044 0532 0130 00 BITTE": "iban",
    "GB82WEST12345698765432": "iban",
    "4111 1111 1111 1111 10/27": "card",
    "378282246310005": "card",
    "it is 192.168.0.17.": "ip",
    "at 2001:db8:85a3::8a2e:370:7334 now": "ip",
    "SSN 078-05-1120": "ssn",
    "AKIAIOSFODNN7EXAMPLE": "aws",
    "ghp_" + "a1B2" * 9: "github",
    "xoxb-123456789012-abcdef": "slack",
    "sk-proj-" + "aB3_" * 8: "api_key",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N": "jwt",
    "postgres://me:s3cretpass@db/x": "url",
    "-----BEGIN RSA PRIVATE KEY-----": "private_key",
    'api_key = "q8w7e6r5t4"': "assigned",
    "Passwort: hunter2xyz": "assigned",
    KEY: "random",
    "you stupid bitch": "words",
    "verpiss  dich".replace("  ", " "): "words",
    "the project\nnightfall": "phrase",
    "DON\u2019T SAY": "phrase",
}
HIDDEN = (
    "AB12 DE89 3704 0044 0532 0130 00",
    "DE89370400440532013000 GB82WEST12345698765432",
    "1 4111 1111 1111 1111",
    "12 +49 170 1234567",
)


@pytest.mark.parametrize("text", HIDDEN)
def test_what_stands_behind_something_that_is_none(text: str) -> None:
    assert places(text, finders_of(ALL))


NOT_FOUND = (
    "on 2024-01-15 10:30:00 there were 1,234,567 of 100 200 300",
    "version 1.2.3.4567, at 3.14159265358979",
    "4111 1111 1111 1112",
    "DE88 7704 1844 1532 9130 00",
    "std::vector<int> a::b 12:30:45",
    "000-12-3456 666-12-3456 order 123-45-67890",
    "someone@nowhere and @handle",
    "password = <your password here>",
    "token: ${TOKEN_OF_YOURS}",
    "d41d8cd98f00b204e9800998ecf8427e 0123456789abcdef0123456789abcdef01234567",
    "AVeryLongIdentifierThatNamesSomethingInJava",
    "https://example.com/a/long/path/with-many-words/and-2-numbers/in-it",
    "Scunthorpe, a class assessment, cockpit, Dickens, shitake is not it",
    "The sky-skating task-sk-12",
)


@pytest.mark.parametrize("text", FOUND)
def test_what_is_found(text: str) -> None:
    assert FOUND[text] in {place.finder.kind for place in places(text, finders_of(ALL))}


@pytest.mark.parametrize("text", NOT_FOUND)
def test_what_only_looks_like_it(text: str) -> None:
    assert [(place.finder.kind, text[place.start : place.end]) for place in places(text, finders_of(ALL))] == []


WORDS = (*FOUND, *NOT_FOUND, "plain words", "\n", " ", "1 2 3 4 5 6 7 8 9 0 " * 4, "1" * 60, "a" * 700, "\u00fc", "+", "(", "x=", ":", "@")


def filtered(text: str, cuts: list[int], **more: Any) -> tuple[str, list[str], dict[str, int]]:
    stream, pieces, at = StreamFilter([ALL], **more), [], 0
    for cut in [*sorted(cuts), len(text)]:
        pieces.append(stream.add(text[at:cut]))
        at = cut
    pieces.append(stream.end())
    return "".join(pieces), pieces, stream.found


@example(["or 555-234-5678.", "4111 1111 1111 1111", "10/27"], [" "] * 12, None)
@example(["555-234-5678", "4111 1111 1111 1111"], [" "] * 12, None)
@given(st.lists(st.sampled_from(WORDS), max_size=12), st.lists(st.sampled_from(["", " ", ", ", "\n"]), min_size=12, max_size=12), st.data())
def test_in_any_pieces_the_same_as_at_once(words: list[str], joints: list[str], data: st.DataObject | None) -> None:
    """And what was let out is what a critic redacts: nothing is found in it a second time."""
    text = "".join(word + joint for word, joint in zip(words, joints, strict=False))
    cuts = [] if data is None else data.draw(st.lists(st.integers(0, len(text)), max_size=20))
    whole, _, counts = filtered(text, [])
    assert filtered(text, cuts)[0] == whole
    assert filtered(text, list(range(len(text))))[0] == whole
    verdict = critique([text], ALL)
    assert whole == redacted(text, [(each.start, each.end, each.kind) for each in verdict.findings])
    assert counts == verdict.counts
    assert critique([whole], ALL).counts.keys() <= {"forbidden"} & verdict.counts.keys()


def test_what_is_let_out_lags_by_little() -> None:
    """The last word, and what a number in groups may have before it."""
    stream, let = StreamFilter([CheckSet(personal_data=("email", "phone"), secrets=True)]), 0
    for number in range(400):
        let += len(stream.add(f"word{number % 10} "))
        assert 6 * (number + 1) - let <= 90
    assert StreamFilter([ALL]).add("") == ""


def test_a_stream_that_is_blocked_lets_nothing_of_it_out() -> None:
    text = f"all is well here, and here, and it goes on like this for a while; then {KEY} and more and more " + "words " * 50
    stream, out = StreamFilter([], blocks=[CheckSet(secrets=True)]), ""
    for sign in text:
        out += stream.add(sign)
        if stream.blocked:
            break
    assert stream.blocked == "secrets"
    assert text.startswith(out)
    assert KEY[:6] not in out


def test_what_stands_before_is_known() -> None:
    """Of an answer that is continued: what was shown is not looked at again, but what it ends with counts."""
    assert StreamFilter([ALL], "see x").add("4111 1111 1111 1111 ok. ") + "" == ""
    assert filtered("4111 1111 1111 1111 ok", [], before="x")[0] == "4111 1111 1111 1111 ok"
    assert filtered("4111 1111 1111 1111 ok", [], before="x ")[0] == "[card] ok"


HOSTILE = {
    "one word": "a" * 200_000,
    "digits": "1" * 200_000,
    "digits apart": "1 " * 100_000,
    "digits in signs": "1-(" * 66_000,
    "ats": "a@" * 100_000,
    "dots": "a." * 100_000,
    "an address that never ends": "a@" + "b." * 100_000,
    "colons": ":" * 200_000,
    "keys": "eyJ" * 66_000,
    "upper": "AB12 " * 40_000,
    "spaces": " " * 200_000,
    "dashes": "-----BEGIN " * 18_000,
    "assignments": "password=" * 22_000,
    "orders": "ignore all the your my " * 8_000,
    "quotes": '"' * 200_000,
    "open quotes": '"' + "a" * 200_000,
    "citations": "[1,1,1" * 33_000,
    "refusals": "i am " * 40_000,
    "slashes": "://" * 66_000,
}


def test_what_compares_is_known() -> None:
    """By who looks at documents."""
    assert {name for name, rule in RULES.items() if "documents" in signature(rule).parameters} == {*COMPARED}


@pytest.mark.parametrize("name", HOSTILE)
def test_every_check_is_linear_whatever_the_text(name: str) -> None:
    """Twice the text, about twice the time; and nothing takes seconds."""
    text = HOSTILE[name]
    checks = CheckSet(
        **ALL.model_dump(exclude_defaults=True),
        refusal=True, repetition=True, language=("en",), required=("x",), citations=True, must_cite=True, quotes=True, sentiment=0.1,
        injection=True, support=0.5, json_schema={}, min_chars=1, max_chars=1,
    )  # fmt: skip
    assert {*checks.asked} == {*RULES} == {*CheckSet.model_fields}
    began = time.perf_counter()
    critique([text], checks, [text])
    assert time.perf_counter() - began < 3.0


def test_what_is_windowed_is_found_in_every_text_and_the_rest_in_the_first() -> None:
    verdict = critique(["fine", "a", "bob@example.com"], CheckSet(min_chars=3, personal_data=("email",)))
    assert [(each.check, each.text) for each in verdict.findings] == [("personal_data", 2)]
    assert {name for name in CheckSet.model_fields if CheckSet.model_validate({name: SETTINGS.get(name, True)}).windowed} == {*WINDOWED}


SETTINGS: dict[str, Any] = {
    "json_schema": {}, "min_chars": 1, "max_chars": 1, "language": ["en"], "required": ["x"], "forbidden": ["x"],
    "personal_data": ["email"], "sentiment": 0.0, "support": 0.5,
}  # fmt: skip


def test_random_text_is_redacted_the_same_in_pieces() -> None:
    """Signs that patterns are made of, in any order."""
    random = Random(5)
    for _ in range(300):
        text = "".join(random.choices("01a@. -:/+(=AEDsk_\n", k=random.randrange(400)))
        cuts = [random.randrange(len(text) + 1) for _ in range(10)]
        assert filtered(text, cuts)[0] == filtered(text, [])[0], text
