"""Headers: ours and Spring's; malformed ones are refused with a reason, except the trace, which is ignored."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.contracts import headers
from shared.contracts.job import ReplyTo
from shared.errors import InvalidRecord

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_an_envelope_carries_type_version_and_trace() -> None:
    """What every record of ours carries can be read back."""
    envelope = headers.envelope("job", TRACE)
    assert headers.Envelope(envelope).text(headers.TYPE) == "job"
    assert headers.Envelope(envelope).version() == 1
    assert headers.Envelope(envelope).traceparent() == TRACE


def test_a_record_without_headers_is_version_1_and_wants_no_reply() -> None:
    """kcat and curl send none."""
    assert headers.Envelope(()).version() == 1
    assert headers.Envelope(()).traceparent() is None
    assert headers.Envelope(()).reply_address() is None


@given(
    st.builds(
        ReplyTo,
        topic=st.from_regex(r"[A-Za-z0-9._-]{1,249}", fullmatch=True),
        partition=st.none() | st.integers(0, 999_999_999),
        correlation=st.binary(max_size=256),
        multiplex=st.booleans(),
    )
)
def test_our_reply_headers_are_read_back(reply: ReplyTo) -> None:
    """What `reply_headers` writes, `reply_address` reads, bytes unchanged."""
    assert headers.Envelope(headers.reply_headers(reply)).reply_address() == reply


def test_springs_spellings_are_understood() -> None:
    """Spring's correlation id is opaque bytes, its partition four bytes big-endian; the reply speaks the same dialect."""
    correlation = bytes(range(16))
    record = [
        ("kafka_correlationId", correlation),
        ("kafka_replyTopic", b"replies.billing"),
        ("kafka_replyPartition", (258).to_bytes(4, "big")),
    ]
    reply = headers.Envelope(record).reply_address()
    assert reply == ReplyTo(topic="replies.billing", partition=258, correlation=correlation, dialect="spring")
    assert headers.correlation_headers(reply) == (("kafka_correlationId", correlation),)


def test_ours_win_over_springs() -> None:
    """A record with both spellings is answered in ours."""
    reply = headers.Envelope([("kafka_replyTopic", b"replies.spring"), ("reply-topic", b"replies.ours")]).reply_address()
    assert reply is not None
    assert (reply.topic, reply.dialect) == ("replies.ours", "tutti")


@pytest.mark.parametrize(
    "record",
    [
        [("reply-topic", b"\xff")],
        [("reply-topic", b"has space")],
        [("reply-topic", b"")],
        [("reply-topic", b"a" * 250)],
        [("reply-topic", b"replies"), ("reply-partition", b"one")],
        [("reply-topic", b"replies"), ("reply-partition", b"-1")],
        [("reply-topic", b"replies"), ("reply-partition", "²".encode())],
        [("reply-topic", b"replies"), ("reply-partition", b"1234567890")],
        [("reply-topic", b"replies"), ("correlation-id", b"c" * 257)],
        [("kafka_replyTopic", b"replies"), ("kafka_replyPartition", b"1")],
        [("kafka_replyTopic", b"replies"), ("kafka_replyPartition", (-1).to_bytes(4, "big", signed=True))],
    ],
)
def test_a_malformed_reply_address_is_refused(record: list[tuple[str, bytes]]) -> None:
    """The record goes to the dead letters; the reader does not crash."""
    with pytest.raises(InvalidRecord):
        headers.Envelope(record).reply_address()


@pytest.mark.parametrize("value", [b"one", b"", b"-1", b"1.0", b"1234567", b"\xff", "³".encode()])
def test_a_malformed_version_is_refused(value: bytes) -> None:
    """A version is a short decimal number."""
    with pytest.raises(InvalidRecord):
        headers.Envelope([("version", value)]).version()


@pytest.mark.parametrize("value", [b"", b"nonsense", b"\xff\xff", TRACE.upper().encode(), TRACE[:-1].encode(), TRACE.encode() + b"-x"])
def test_a_malformed_trace_is_ignored(value: bytes) -> None:
    """W3C trace context: a receiver that cannot parse it starts anew."""
    assert headers.Envelope([("traceparent", value)]).traceparent() is None


@given(
    st.lists(
        st.tuples(st.sampled_from([*vars(headers).values(), "x"]).filter(lambda v: isinstance(v, str)), st.binary(max_size=300)), max_size=8
    )
)
def test_any_headers_give_an_address_none_or_invalid_record(record: list[tuple[str, bytes]]) -> None:
    """No other exception comes out, whatever a producer sends."""
    with contextlib.suppress(InvalidRecord):
        headers.Envelope(record).version()
    with contextlib.suppress(InvalidRecord):
        headers.Envelope(record).reply_address()
    headers.Envelope(record).traceparent()
