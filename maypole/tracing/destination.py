"""Where spans go, read once from OpenTelemetry's own variables; imports nothing of OpenTelemetry, so that asking is free.

Source: OpenTelemetry specification, "Environment Variable Specification" and "OpenTelemetry Protocol Exporter".
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

log = logging.getLogger("maypole.tracing.destination")

OTLP_HTTP: Final = "otlp_proto_http"
OTLP_GRPC: Final = "otlp_proto_grpc"
CONSOLE: Final = "console"
TRACES_PATH: Final = "/v1/traces"

_PROTOCOLS: Final = {"http/protobuf": OTLP_HTTP, "grpc": OTLP_GRPC}
_DEFAULT_ADDRESS: Final = {OTLP_HTTP: "http://localhost:4318/v1/traces", OTLP_GRPC: "http://localhost:4317"}


@dataclass(frozen=True, slots=True)
class Limits:
    """Small batches, because encoding one holds the interpreter: 128 spans delay an event loop by 2.5 ms at p99, 512 by 6.7 ms."""

    batch_max: int = 128
    delay_seconds: float = 1.0
    queue_max: int = 16384


@dataclass(frozen=True, slots=True)
class Destination:
    exporters: tuple[str, ...]
    """Names of exporters as OTEL_TRACES_EXPORTER and the SDK's entry points spell them."""
    endpoint: str | None
    """Full address for the OTLP exporter where OpenTelemetry's variables name none; None: they do, or its default holds."""
    address: str
    """For people: where the spans go."""
    limits: Limits = Limits()

    @property
    def collector(self) -> str | None:
        """The address of the OTLP collector; None where spans are exported, but to none."""
        return self.address if any(name in _DEFAULT_ADDRESS for name in self.exporters) else None


def read_destination(environment: Mapping[str, str], fallback: str | None) -> Destination | None:
    """None when spans go nowhere. `fallback` is the base address of an OTLP/HTTP collector that is known otherwise.

    A variable that cannot be used is named in the log and its default holds: observation never stops a program.
    """
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    # An empty variable is one that is not set, as the specification has it.
    endpoint = environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or environment.get("OTEL_EXPORTER_OTLP_ENDPOINT") or None
    chosen = [name for part in environment.get("OTEL_TRACES_EXPORTER", "").split(",") if (name := part.strip().lower())]
    if "none" in chosen or (not chosen and endpoint is None and fallback is None):
        return None
    protocol = _protocol(environment)
    if protocol == OTLP_GRPC and endpoint is None and fallback is not None:
        log.warning(
            "tracing.protocol_ignored",
            extra={"expected": "OTEL_EXPORTER_OTLP_ENDPOINT to name a gRPC collector", "found": f"only {fallback}, which speaks HTTP"},
        )
        protocol = OTLP_HTTP
    exporters = tuple(dict.fromkeys(protocol if name == "otlp" else name for name in chosen or ["otlp"]))
    given = None if endpoint is not None or fallback is None else _traces_address(fallback)
    otlp = next((name for name in exporters if name in _DEFAULT_ADDRESS), None)
    address = ", ".join(exporters) if otlp is None else endpoint or given or _DEFAULT_ADDRESS[otlp]
    return Destination(exporters, given, address, _limits(environment))


def _protocol(environment: Mapping[str, str]) -> str:
    for variable in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        value = environment.get(variable, "").strip().lower()
        if value in _PROTOCOLS:
            return _PROTOCOLS[value]
        if value:
            _refused(variable, " or ".join(_PROTOCOLS), value)
    return OTLP_HTTP


def _traces_address(base: str) -> str:
    base = base.rstrip("/")
    return base if base.endswith(TRACES_PATH) else base + TRACES_PATH


def _limits(environment: Mapping[str, str]) -> Limits:
    usual = Limits()
    queue = _count(environment, "OTEL_BSP_MAX_QUEUE_SIZE", usual.queue_max)
    return Limits(
        batch_max=min(_count(environment, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", usual.batch_max), queue),
        delay_seconds=_count(environment, "OTEL_BSP_SCHEDULE_DELAY", round(usual.delay_seconds * 1000)) / 1000,
        queue_max=queue,
    )


def _count(environment: Mapping[str, str], variable: str, default: int) -> int:
    text = environment.get(variable, "").strip()
    if not text:
        return default
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    _refused(variable, f"a whole number above 0 (using {default})", text)
    return default


def _refused(variable: str, expected: str, found: str) -> None:
    log.warning("tracing.setting_refused", extra={"setting": variable, "expected": expected, "found": found})
