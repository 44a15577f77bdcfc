"""Spans on their way out: a bounded queue and one thread that exports batches of it.

A processor of our own where the SDK has one, because three things are promised that its own does not give: spans that
were dropped are counted, leaving takes a bounded time however the collector behaves, and a collector that is away
costs one line in the log.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from typing import Final

from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, attach, set_value
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from maypole.tracing.destination import Limits
from maypole.tracing.exporters import EXPORTER_LOGGERS, OpenExporters

log = logging.getLogger("maypole.tracing.batches")

FLUSH_SECONDS_MAX: Final = 3.0


class Batches(SpanProcessor):
    """Shared by every service of a process. `on_end` neither waits nor raises; a forked child records nothing."""

    def __init__(self, open_exporters: OpenExporters, limits: Limits, address: str) -> None:
        """`address` says in the log where the spans were going."""
        self._open_exporters = open_exporters
        self._exporters: Sequence[SpanExporter] = ()
        self._limits = limits
        self._address = address
        self._queue: deque[ReadableSpan] = deque()
        self._exporting = 0
        self.overflowed = 0
        """Spans that found the queue full."""
        self.unexported = 0
        """Spans that were taken from the queue, or left in it, and that no collector has."""
        self._away = False
        self._reported = False
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._settled = threading.Event()
        self._thread = threading.Thread(target=self._work, name="maypole spans", daemon=True)
        self._thread.start()

    def on_end(self, span: ReadableSpan) -> None:
        context = span.context
        if context is None or not context.trace_flags.sampled:
            return
        queue = self._queue
        if len(queue) >= self._limits.queue_max or self._stopping.is_set():
            self.overflowed += 1
            return
        queue.append(span)
        if len(queue) >= self._limits.batch_max and not self._wake.is_set():
            self._wake.set()

    def close(self, seconds_max: float = FLUSH_SECONDS_MAX) -> None:
        """Export what is queued and stop; returns within `seconds_max`, and at once when the collector turns out to be away."""
        self._stopping.set()
        self._wake.set()
        if not (self._away and self._exporting):
            self._settled.wait(seconds_max)
        # An exporter that waits for its next try gives up; one that hangs in a call is left to end by itself.
        for exporter in self._exporters:
            exporter.shutdown()
        self._thread.join(0.1)
        lost = self.unexported + len(self._queue) + self._exporting
        if self.overflowed or lost:
            level = logging.INFO if self._reported else logging.WARNING
            log.log(level, "tracing.spans_lost", extra={"overflowed": self.overflowed, "unexported": lost, "address": self._address})
            self._reported = True

    def _work(self) -> None:
        ear = _Ear(self)
        loggers = [logging.getLogger(name) for name in EXPORTER_LOGGERS]
        for logger in loggers:
            logger.addFilter(ear)
        # An instrumented HTTP client would make spans of the export of spans, without end.
        attach(set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))
        try:
            while not self._stopping.is_set():
                full = self._wake.wait(self._limits.delay_seconds)
                self._wake.clear()
                self._export(self._limits.batch_max if full else 1, ear)
            # Away or not a moment ago, what is left is offered once.
            self._away = False
            self._export(1, ear)
        finally:
            for logger in loggers:
                logger.removeFilter(ear)
            self._settled.set()

    def _export(self, at_least: int, ear: _Ear) -> None:
        """Batch after batch while as many as `at_least` are queued."""
        queue = self._queue
        while len(queue) >= at_least:
            if self._stopping.is_set() and self._away:
                return
            if not self._exporters:
                self._exporters = self._open_exporters() or (_Nowhere(),)
            batch = [queue.popleft() for _ in range(min(len(queue), self._limits.batch_max))]
            self._exporting = len(batch)
            results = [_exported(exporter, batch, ear) for exporter in self._exporters]
            self._exporting = 0
            if all(results):
                if self._reported:
                    log.info("tracing.export_resumed", extra={"address": self._address, "unexported": self.unexported})
                self._away = self._reported = False
            else:
                self.unexported += len(batch)
                self._away = True
                if not self._reported:
                    self._reported = True
                    log.warning("tracing.export_failed", extra={"address": self._address, "error": ear.heard})

    def trouble(self) -> None:
        """The exporter said that it could not export and will try again; nobody who is leaving waits for that."""
        self._away = True
        if self._stopping.is_set():
            self._settled.set()


class _Ear(logging.Filter):
    """Hears what the exporters log on the export thread, and keeps it to itself: it is told once, by us."""

    def __init__(self, batches: Batches) -> None:
        super().__init__()
        self._batches = batches
        self._thread = threading.get_ident()
        self.heard = ""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.thread != self._thread:
            return True
        if record.levelno >= logging.WARNING:
            self.heard = self.heard or record.getMessage()
            self._batches.trouble()
        return False


def _exported(exporter: SpanExporter, batch: Sequence[ReadableSpan], ear: _Ear) -> bool:
    ear.heard = ""
    try:
        return exporter.export(batch) is SpanExportResult.SUCCESS
    except Exception as error:  # noqa: BLE001 -- an exporter may be anybody's; its failure is a batch that was not exported
        ear.heard = repr(error)
        return False


class _Nowhere(SpanExporter):
    """None of the exporters could be opened, and that was said."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        pass
