"""One flow is one trace: the bus's hook on OpenTelemetry. The bus finds it as a plugin and never imports it."""

from maypole.tracing.opening import open_tracing

__all__ = ["open_tracing"]
