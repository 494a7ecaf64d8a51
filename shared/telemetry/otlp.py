"""Spans to a collector, by OpenTelemetry's own library (extra `otel`), which is imported only where spans are sent.

Nothing of its pipeline is used: our spans are over when they are told of, and have ids of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from shared.errors import ConfigurationError
from shared.telemetry import gen_ai, logs

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

log = logs.get(__name__)


class Span(NamedTuple):
    """Ids in hex, times in epoch seconds. `calls`: something outside, as a model. `error`: what kind of failure; None: it went well."""

    name: str
    trace: str
    id: str
    parent: str | None
    begin: float
    end: float
    attributes: Mapping[str, Any]
    error: str | None = None
    calls: bool = False


Export = Callable[[Sequence[Span]], bool]
"""Blocks; whether the collector has them."""


def otlp(endpoint: str, timeout_seconds: float) -> Export:
    """To a collector, by OTLP over HTTP. Raises ConfigurationError where the extra is not installed."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        raise ConfigurationError("sending traces needs tutti-cluster[otel]") from None
    return through(OTLPSpanExporter(endpoint=endpoint, timeout=timeout_seconds))


def through(exporter: SpanExporter) -> Export:
    """By any exporter of that library."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExportResult
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

    resource, scope = Resource.create({"service.name": "tutti"}), InstrumentationScope("tutti")

    def context(trace: str, span: str) -> SpanContext:
        return SpanContext(int(trace, 16), int(span, 16), is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))

    def made(span: Span) -> ReadableSpan:
        return ReadableSpan(
            span.name,
            context(span.trace, span.id),
            None if span.parent is None else context(span.trace, span.parent),
            resource,
            span.attributes if span.error is None else {**span.attributes, gen_ai.ERROR: span.error},
            kind=SpanKind.CLIENT if span.calls else SpanKind.INTERNAL,
            status=Status(StatusCode.UNSET) if span.error is None else Status(StatusCode.ERROR, span.error),
            start_time=int(span.begin * 1e9),
            end_time=int(span.end * 1e9),
            instrumentation_scope=scope,
        )

    def export(spans: Sequence[Span]) -> bool:
        try:
            return exporter.export([made(span) for span in spans]) is SpanExportResult.SUCCESS
        except Exception as error:
            log.failure("traces_not_sent", error)
            return False

    return export
