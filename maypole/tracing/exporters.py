"""Opening the SDK's exporters by name. Slow to import (a tenth of a second), so it is done off the event loop, when first needed."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from typing import Final

from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SpanExporter

from maypole.tracing.destination import CONSOLE, OTLP_GRPC, OTLP_HTTP, Destination

log = logging.getLogger("maypole.tracing.exporters")

EXPORTER_LOGGERS: Final = (
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
)
"""Where the OTLP exporters tell of every retry."""

OpenExporters = Callable[[], Sequence[SpanExporter]]


def open_exporters(destination: Destination) -> Sequence[SpanExporter]:
    """Those that can be opened; each that cannot is named in the log with what it lacks."""
    opened = []
    for name in destination.exporters:
        try:
            opened.append(_open(name, destination.endpoint))
        except ImportError as error:
            needs = "pip install 'maypole[grpc]'" if name == OTLP_GRPC else f"the package of the exporter {name}"
            log.error("tracing.exporter_missing", extra={"exporter": name, "error": str(error), "needs": needs})
        except Exception as error:  # noqa: BLE001 -- whatever an exporter refuses its settings with, delivery goes on
            log.error("tracing.exporter_refused", extra={"exporter": name, "error": str(error)})
    return opened


def _open(name: str, endpoint: str | None) -> SpanExporter:
    if name == CONSOLE:
        # Not standard output, which belongs to a command's data.
        return ConsoleSpanExporter(out=sys.stderr)
    if name == OTLP_HTTP:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as OverHttp

        return OverHttp(endpoint=endpoint)
    if name == OTLP_GRPC:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as OverGrpc

        return OverGrpc(endpoint=endpoint)
    for plugin in entry_points(group="opentelemetry_traces_exporter", name=name):
        exporter: SpanExporter = plugin.load()()
        return exporter
    raise ImportError(f"OTEL_TRACES_EXPORTER: expected otlp, console, none or an installed exporter, found {name!r}")
