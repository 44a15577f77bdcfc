"""One flow is one trace: three real nodes, every agent its own process, a real Jaeger."""

from __future__ import annotations

from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx

from deploy.local.jaeger import Jaeger
from deploy.local.kafka import KafkaCluster
from maypole.schemas.identifiers import FlowId, root_span_id_of, trace_id_of
from tests.support.commands import Desk
from tests.support.world import eventually

AGENTS = ("research", "analysis", "report", "delivery")
SPANS = 1 + 5 + 4  # the start; a send for the root and for each agent's output; a process for each agent
# Kinds as OTLP numbers them.
INTERNAL, PRODUCER, CONSUMER = 1, 4, 5


async def test_a_flow_over_four_processes_is_one_trace_in_jaeger(kafka3: KafkaCluster, jaeger: Jaeger, tmp_path: Path) -> None:
    desk = Desk(
        tmp_path,
        {"MAYPOLE_KAFKA": kafka3.bootstrap, "OTEL_EXPORTER_OTLP_ENDPOINT": jaeger.otlp, "MAYPOLE_JAEGER_URL": jaeger.url},
    )
    question = '{"question": "What does the assert statement do?", "deliver_to": "%s"}' % (tmp_path / "reports")
    async with AsyncExitStack() as stack:
        for name in AGENTS:
            await stack.enter_async_context(desk.running("run", f"maypole.services.{name}"))
        published = await desk.run("publish", "research.requested", "--data", question, "--follow", "-o", "json")
        assert published.code == 0, published.err
        assert list((tmp_path / "reports").glob("*.md"))
        flow = FlowId(published.json["flow_id"])
        assert published.json["trace_id"] == trace_id_of(flow)
        assert published.json["trace_url"] == f"{jaeger.url}/trace/{trace_id_of(flow)}"
        spans = await eventually(lambda: spans_of(jaeger, trace_id_of(flow)), lambda spans: len(spans) >= SPANS)

    by_id = {span["spanId"]: span for span in spans}
    assert len(by_id) == len(spans)
    (start,) = [span for span in spans if not span.get("parentSpanId")]
    assert start["spanId"] == root_span_id_of(flow)
    assert (start["name"], start["kind"]) == ("start research.requested", INTERNAL)
    assert all(span["parentSpanId"] in by_id for span in spans if span is not start), "no orphan"

    sends = [span for span in spans if span["name"].startswith("send ")]
    processes = [span for span in spans if span["name"].startswith("process ")]
    assert all(span["kind"] == PRODUCER for span in sends)
    assert all(span["kind"] == CONSUMER for span in processes)
    (first,) = [span for span in sends if span["parentSpanId"] == start["spanId"]]
    assert first["name"] == "send research.requested"
    for span in sends:
        if span is not first:
            parent = by_id[span["parentSpanId"]]
            assert parent["name"].startswith("process ")
            assert parent["service"] == span["service"], "the child of its own process"
    for span in processes:
        assert by_id[span["parentSpanId"]]["name"] == span["name"].replace("process ", "send ")
    assert Counter(span["service"] for span in processes) == Counter(AGENTS)
    assert len(sends) == 5
    assert len({span["service"] for span in spans}) == len(AGENTS) + 1, "the command line names itself too"


async def spans_of(jaeger: Jaeger, trace_id: str) -> list[dict[str, Any]]:
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{jaeger.url}/api/v3/traces/{trace_id}")
    if answer.status_code == 404:
        return []
    answer.raise_for_status()
    return [
        {**span, "service": _service(resource)}
        for resource in answer.json()["result"]["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]


def _service(resource: dict[str, Any]) -> str:
    attributes = {attribute["key"]: attribute["value"] for attribute in resource["resource"]["attributes"]}
    assert "host.name" in attributes
    return str(attributes["service.name"]["stringValue"])
