"""Spans on their way out are counted when dropped, and never waited for."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from time import monotonic

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanContext, TraceFlags

from maypole.tracing.batches import Batches
from maypole.tracing.destination import Limits

SPAN = ReadableSpan("a span", SpanContext(1, 1, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED)))
UNSAMPLED = ReadableSpan("a span", SpanContext(1, 1, is_remote=False))


class Gate(SpanExporter):
    """Exports nothing until it is opened, and counts."""

    def __init__(self, *, opened: bool = False, result: SpanExportResult = SpanExportResult.SUCCESS) -> None:
        self.sizes: list[int] = []
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.result = result
        if opened:
            self.gate.set()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.entered.set()
        self.gate.wait(10)
        self.sizes.append(len(spans))
        return self.result

    def shutdown(self) -> None:
        self.gate.set()


def messages(caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= level]


def test_batches_are_bounded_and_all_are_exported_on_leaving() -> None:
    exporter = Gate(opened=True)
    batches = Batches(lambda: [exporter], Limits(batch_max=10, delay_seconds=60, queue_max=1000), "here")
    for _ in range(25):
        batches.on_end(SPAN)
    batches.on_end(UNSAMPLED)
    batches.close()
    assert sum(exporter.sizes) == 25
    assert max(exporter.sizes) == 10
    assert (batches.overflowed, batches.unexported) == (0, 0)


def test_a_full_queue_drops_and_counts_without_waiting(caplog: pytest.LogCaptureFixture) -> None:
    exporter = Gate()
    batches = Batches(lambda: [exporter], Limits(batch_max=10, delay_seconds=60, queue_max=50), "here")
    for _ in range(10):
        batches.on_end(SPAN)
    assert exporter.entered.wait(5)
    began = monotonic()
    for _ in range(60):
        batches.on_end(SPAN)
    assert monotonic() - began < 5
    assert batches.overflowed == 10
    exporter.gate.set()
    batches.close()
    assert sum(exporter.sizes) == 60
    assert messages(caplog) == ["tracing.spans_lost"]


def test_leaving_is_bounded_when_the_exporter_hangs(caplog: pytest.LogCaptureFixture) -> None:
    exporter = Gate()
    exporter.shutdown = lambda: None  # type: ignore[method-assign]
    batches = Batches(lambda: [exporter], Limits(delay_seconds=60), "here")
    batches.on_end(SPAN)
    began = monotonic()
    batches.close(0.3)
    assert 0.2 < monotonic() - began < 10
    exporter.gate.set()
    assert messages(caplog) == ["tracing.spans_lost"]
    (record,) = caplog.records
    assert vars(record)["unexported"] == 1


def test_a_collector_that_refuses_again_and_again_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    exporter = Gate(opened=True, result=SpanExportResult.FAILURE)
    batches = Batches(lambda: [exporter], Limits(batch_max=1, delay_seconds=60), "here")
    for _ in range(20):
        batches.on_end(SPAN)
    batches.close()
    assert messages(caplog) == ["tracing.export_failed"]


def test_exporters_that_cannot_be_opened_cost_their_spans_and_nothing_else() -> None:
    batches = Batches(list, Limits(batch_max=1, delay_seconds=60), "nowhere")
    for _ in range(5):
        batches.on_end(SPAN)
    batches.close()
    batches.on_end(SPAN)
    assert batches.overflowed == 1
