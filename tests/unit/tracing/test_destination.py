"""Where spans go, as OpenTelemetry's variables say."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from maypole.bus.hook import Untraced
from maypole.settings import Settings
from maypole.tracing import open_tracing
from maypole.tracing.destination import Limits, read_destination

KNOWN = "http://127.0.0.1:4318"


@pytest.mark.parametrize(
    ("environment", "fallback"),
    [
        ({}, None),
        ({"OTEL_TRACES_EXPORTER": "none"}, KNOWN),
        ({"OTEL_SDK_DISABLED": "TRUE"}, KNOWN),
        ({"OTEL_TRACES_EXPORTER": " ", "OTEL_EXPORTER_OTLP_ENDPOINT": ""}, None),
    ],
)
def test_spans_go_nowhere_where_nobody_named_a_collector_or_somebody_said_no(environment: dict[str, str], fallback: str | None) -> None:
    assert read_destination(environment, fallback) is None


@pytest.mark.parametrize(
    ("environment", "fallback", "exporters", "endpoint", "address"),
    [
        ({}, KNOWN, ("otlp_proto_http",), KNOWN + "/v1/traces", KNOWN + "/v1/traces"),
        ({}, KNOWN + "/v1/traces", ("otlp_proto_http",), KNOWN + "/v1/traces", KNOWN + "/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:1"}, KNOWN, ("otlp_proto_http",), None, "http://c:1"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:1", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://t:2/x"},
            None,
            ("otlp_proto_http",),
            None,
            "http://t:2/x",
        ),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, None, ("otlp_proto_http",), None, "http://localhost:4318/v1/traces"),
        ({"OTEL_TRACES_EXPORTER": "console"}, None, ("console",), None, "console"),
        ({"OTEL_TRACES_EXPORTER": "otlp, console"}, KNOWN, ("otlp_proto_http", "console"), KNOWN + "/v1/traces", KNOWN + "/v1/traces"),
        (
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:1"},
            None,
            ("otlp_proto_grpc",),
            None,
            "http://c:1",
        ),
        (
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_TRACES_EXPORTER": "otlp"},
            None,
            ("otlp_proto_grpc",),
            None,
            "http://localhost:4317",
        ),
    ],
)
def test_the_more_particular_variable_wins(
    environment: dict[str, str], fallback: str | None, exporters: tuple[str, ...], endpoint: str | None, address: str
) -> None:
    destination = read_destination(environment, fallback)
    assert destination is not None
    assert (destination.exporters, destination.endpoint, destination.address) == (exporters, endpoint, address)


def test_grpc_is_not_spoken_to_a_collector_that_is_known_by_its_http_address(caplog: pytest.LogCaptureFixture) -> None:
    destination = read_destination({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, KNOWN)
    assert destination is not None
    assert destination.exporters == ("otlp_proto_http",)
    assert [record.getMessage() for record in caplog.records] == ["tracing.protocol_ignored"]


def test_limits_are_those_of_the_environment_and_a_wrong_one_is_named_while_its_default_holds(caplog: pytest.LogCaptureFixture) -> None:
    destination = read_destination(
        {"OTEL_BSP_MAX_QUEUE_SIZE": "64", "OTEL_BSP_SCHEDULE_DELAY": "250", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "-3"}, KNOWN
    )
    assert destination is not None
    assert destination.limits == Limits(batch_max=64, delay_seconds=0.25, queue_max=64)
    assert [vars(record)["setting"] for record in caplog.records if record.levelno == logging.WARNING] == ["OTEL_BSP_MAX_EXPORT_BATCH_SIZE"]


@pytest.mark.parametrize("settings", [Settings(), Settings(tracing="off", otlp_endpoint=KNOWN)])
def test_where_spans_go_nowhere_nothing_is_recorded(settings: Settings) -> None:
    with open_tracing(settings, "analysis", "1") as tracing:
        assert isinstance(tracing, Untraced)


def test_the_sdk_is_not_imported_where_spans_go_nowhere() -> None:
    program = (
        "import sys\n"
        "from maypole.settings import Settings\n"
        "from maypole.tracing import open_tracing\n"
        "with open_tracing(Settings(), 'a', '1'): pass\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')], sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30, env={"PATH": ""})
