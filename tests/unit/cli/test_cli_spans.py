"""What people are told of their spans is what happens to them."""

from __future__ import annotations

import json

import pytest

from maypole.services.cli.connection import trace_url
from maypole.settings import Settings
from tests.unit.cli.conftest import Maypole

COLLECTOR = "http://127.0.0.1:1"


@pytest.mark.parametrize(
    ("environment", "exported"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": COLLECTOR}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": COLLECTOR}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": COLLECTOR, "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": COLLECTOR, "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": COLLECTOR, "MAYPOLE_TRACING": "off"}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
    ],
)
def test_a_link_is_printed_exactly_where_spans_are_exported(
    monkeypatch: pytest.MonkeyPatch, maypole: Maypole, environment: dict[str, str], exported: bool
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = Settings(jaeger_url="http://127.0.0.1:2", tracing="off" if environment.get("MAYPOLE_TRACING") == "off" else "fast")
    assert trace_url(settings, "abc") == ("http://127.0.0.1:2/trace/abc" if exported else None)
    (told,) = (row for row in json.loads(maypole("doctor", "-o", "json").out) if row["check"] == "spans")
    assert ("exported to" in told["found"] or told["status"] == "warning") is exported, told


def test_without_an_address_of_jaeger_there_is_no_link(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", COLLECTOR)
    assert trace_url(Settings(), "abc") is None


@pytest.mark.parametrize(
    ("environment", "status", "found"),
    [
        ({"OTEL_TRACES_EXPORTER": "console"}, "ok", "exported by console"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:port"}, "warning", "http://127.0.0.1:port: Port could not be cast"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_ENDPOINT": "127.0.0.1:1"}, "warning", "127.0.0.1:1: "),
    ],
)
def test_a_doctor_survives_any_address_of_a_collector(
    monkeypatch: pytest.MonkeyPatch, maypole: Maypole, environment: dict[str, str], status: str, found: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    (told,) = (row for row in json.loads(maypole("doctor", "-o", "json").out) if row["check"] == "spans")
    assert told["status"] == status
    assert told["found"].startswith(found)
