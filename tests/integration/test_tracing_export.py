"""Spans of real flows, exported over OTLP to a collector on this machine and read with the official protobuf classes."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent import futures
from contextlib import ExitStack, asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import monotonic
from typing import Any

import grpc  # type: ignore[import-untyped]  # ships no types
import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from maypole.bus import Agent, Bus, Event
from maypole.bus.composition import Platform, open_platform, open_tracing
from maypole.bus.hook import Tracing, Untraced
from maypole.bus.kafka.embedded import EmbeddedKafka
from maypole.bus.ports import Receipt, Record
from maypole.schemas.avro import schema_of
from maypole.schemas.codec import Writer
from maypole.schemas.identifiers import EventId, FlowId, root_span_id_of, trace_id_of
from maypole.schemas.topics import JOURNAL, event_topic
from maypole.settings import Settings
from tests.support.names import unique_agent
from tests.support.world import ended, eventually, read_topic, running
from tests.unit.tracing.recorder import FLOW, delivery, envelope

FOREIGN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Collector:
    """Takes what is exported. It can be told to answer with an error, or not at all."""

    def __init__(self) -> None:
        self.received: list[tuple[str, Span]] = []
        self.headers: list[dict[str, str]] = []
        self.status = 200
        self.answering = threading.Event()
        self.answering.set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.answering.wait(20)
                if collector.status == 200:
                    collector.take(trace_service_pb2.ExportTraceServiceRequest.FromString(body), dict(self.headers))
                try:
                    self.send_response(collector.status)
                    self.send_header("content-length", "0")
                    self.end_headers()
                except OSError:
                    pass  # it has gone, as it should from a collector that hangs

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def take(self, request: Any, headers: dict[str, str]) -> None:
        self.headers.append({name.lower(): value for name, value in headers.items()})
        for resource in request.resource_spans:
            names = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.received += [(names["service.name"], span) for span in scope.spans]

    def spans(self, flow: FlowId) -> list[tuple[str, Span]]:
        return [(service, span) for service, span in self.received if span.trace_id.hex() == trace_id_of(flow)]

    def close(self) -> None:
        self.answering.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    opened = Collector()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    with EmbeddedKafka() as kafka:
        yield kafka.bootstrap


@asynccontextmanager
async def traced(broker: str, home: Path, *agents: Agent, otlp: str) -> AsyncIterator[tuple[Platform, Bus]]:
    """The agents, each a service of its own, and a publisher; when the block is left, all spans are out."""
    settings = Settings(home=home, kafka=broker, otlp_endpoint=otlp)
    async with open_platform(settings) as platform:
        with ExitStack() as stack:
            hooks = {agent.name: stack.enter_context(open_tracing(settings, agent.name, agent.version)) for agent in agents}
            web = stack.enter_context(open_tracing(settings, "web", "1"))
            async with asyncio.TaskGroup() as group:
                stop = asyncio.Event()
                ready = asyncio.Barrier(len(agents) + 1)
                for agent in agents:
                    group.create_task(_run(platform, agent, hooks[agent.name], ready, stop))
                await ready.wait()
                yield platform, platform.bus("web", web)
                stop.set()


async def _run(platform: Platform, agent: Agent, tracing: Tracing, ready: asyncio.Barrier, stop: asyncio.Event) -> None:
    async with running(platform, agent, tracing=tracing):
        await ready.wait()
        await stop.wait()


class Asked(Event, type="tracing.asked"):
    text: str


class Found(Event, type="tracing.found"):
    text: str


class Told(Event, type="tracing.told"):
    text: str


def finder(failures: int = 0) -> Agent:
    agent = Agent(unique_agent("finder"))
    left = failures

    @agent.on(Asked)
    async def find(asked: Asked) -> Found:
        nonlocal left
        if left:
            left -= 1
            raise ConnectionError("the library is closed")
        with trace.get_tracer("library").start_as_current_span("look up"):
            return Found(text=asked.text)

    return agent


def teller() -> Agent:
    agent = Agent(unique_agent("teller"))

    @agent.on(Found)
    async def tell(found: Found) -> list[Told]:
        return [Told(text=found.text), Told(text=found.text.upper())]

    return agent


def attribute(span: Span, name: str) -> Any:
    (value,) = [pair.value for pair in span.attributes if pair.key == name]
    return getattr(value, value.WhichOneof("value"))


async def test_one_flow_is_one_trace_whose_parents_are_its_causes(collector: Collector, broker: str, tmp_path: Path) -> None:
    find, tell = finder(), teller()
    async with traced(broker, tmp_path, find, tell, otlp=collector.address) as (platform, bus):
        published = await bus.publish(Asked(text="maypole"), business_key="order-7")
        assert (await ended(platform, published.flow_id)).state == "committed"
        records = [
            record for topic in ("tracing.asked", "tracing.found", "tracing.told", JOURNAL) for record in await read_topic(platform, topic)
        ]

    spans = collector.spans(published.flow_id)
    by_id = {span.span_id: (service, span) for service, span in spans}
    assert len(by_id) == len(spans) == 8

    def line(span: Span, service: str) -> tuple[str, ...]:
        """The span and its causes, up to the root."""
        here = (f"{service}: {span.name}",)
        return here if not span.parent_span_id else here + line(by_id[span.parent_span_id][1], by_id[span.parent_span_id][0])

    root = ("web: send tracing.asked", "web: start tracing.asked")
    found = (f"{find.name}: process tracing.asked", *root)
    told = (f"{tell.name}: process tracing.found", f"{find.name}: send tracing.found", *found)
    assert sorted(line(span, service) for service, span in spans) == sorted(
        [root[1:], root, found, (f"{find.name}: look up", *found), told[1:], told, *[(f"{tell.name}: send tracing.told", *told)] * 2]
    ), "no orphan, nothing beside"
    (start,) = [span for _, span in spans if not span.parent_span_id]
    assert start.span_id.hex() == root_span_id_of(published.flow_id)
    assert {span.status.code for _, span in spans} == {Status.STATUS_CODE_UNSET}
    kinds = {span.name.split()[0]: span.kind for _, span in spans}
    assert kinds["start"] == kinds["look"] == Span.SPAN_KIND_INTERNAL
    assert (kinds["send"], kinds["process"]) == (Span.SPAN_KIND_PRODUCER, Span.SPAN_KIND_CONSUMER)

    (first,) = [span for _, span in spans if span.name == "send tracing.asked"]
    assert (attribute(first, "messaging.destination.partition.id"), attribute(first, "messaging.kafka.offset")) == (
        str(published.partition),
        published.offset,
    )
    ours = [record for record in records if record.key == published.flow_id.encode()]
    assert len(ours) == 4 + 3, "four events, and three journal records about them"
    for record in ours:
        (traceparent,) = [value for name, value in record.headers if name == "traceparent"]
        named = (traceparent or b"").decode().split("-")
        assert named[1] == trace_id_of(published.flow_id)
        if record.topic != JOURNAL:
            assert by_id[bytes.fromhex(named[2])][1].name == f"send {record.topic}"


async def test_attempts_and_the_error_of_one_that_failed_are_seen(collector: Collector, broker: str, tmp_path: Path) -> None:
    async with traced(broker, tmp_path, finder(failures=1), otlp=collector.address) as (platform, bus):
        published = await bus.publish(Asked(text="maypole"))
        await ended(platform, published.flow_id)
    attempts = [span for _, span in collector.spans(published.flow_id) if span.name.startswith("process")]
    assert [span.status.code for span in attempts] == [Status.STATUS_CODE_ERROR, Status.STATUS_CODE_UNSET]
    assert len({span.parent_span_id for span in attempts}) == 1
    assert [link.span_id for link in attempts[1].links] == [attempts[0].span_id]
    (send,) = [span for _, span in collector.spans(published.flow_id) if span.name == "send tracing.found"]
    assert send.parent_span_id == attempts[1].span_id


async def test_the_root_of_a_foreign_flow_is_made_by_whoever_adopts_it_and_links_to_the_trace_it_came_from(
    collector: Collector, broker: str, tmp_path: Path
) -> None:
    flow = FlowId(f"foreign {unique_agent()}")
    async with traced(broker, tmp_path, finder(), otlp=collector.address) as (platform, _):
        await platform.ensure([event_topic("tracing.asked")])
        value = Writer(Asked, schema_of(Asked).derived_id).encode(Asked(text="from afar"))
        headers = [("ce_id", b"f-1"), ("ce_type", b"tracing.asked"), ("ce_correlationid", flow.encode()), ("traceparent", FOREIGN.encode())]
        await platform.sink.publish([Record("tracing.asked", flow.encode(), value, headers)])
        await eventually(lambda: read_topic(platform, "tracing.found"), lambda found: any(record.key == flow.encode() for record in found))
    spans = {span.name: span for _, span in collector.spans(flow)}
    assert set(spans) == {"start tracing.asked", "process tracing.asked", "look up", "send tracing.found"}
    start = spans["start tracing.asked"]
    assert (start.span_id.hex(), start.parent_span_id) == (root_span_id_of(flow), b"")
    assert [f"00-{link.trace_id.hex()}-{link.span_id.hex()}-01" for link in start.links] == [FOREIGN]
    assert spans["process tracing.asked"].parent_span_id == start.span_id


async def test_a_program_that_only_publishes_exports_its_own_spans_when_it_leaves(
    collector: Collector, broker: str, tmp_path: Path
) -> None:
    async with Bus.connect(Settings(home=tmp_path, kafka=broker, otlp_endpoint=collector.address), publisher="shop") as bus:
        published = await bus.publish(Asked(text="anybody?"))
    assert sorted((service, span.name) for service, span in collector.spans(published.flow_id)) == [
        ("shop", "send tracing.asked"),
        ("shop", "start tracing.asked"),
    ]


def test_the_standard_variables_say_where_and_with_which_headers(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.address)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=maypole")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
    with open_tracing(Settings(otlp_endpoint="http://127.0.0.1:1"), "web", "1") as tracing:
        tracing.started(FLOW, "tracing.asked", None, None)
    assert [span.name for _, span in collector.spans(FLOW)] == ["start tracing.asked"]
    assert {headers["x-tenant"] for headers in collector.headers} == {"maypole"}


def test_grpc_goes_through_the_exporter_of_the_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[str] = []

    class Service(trace_service_pb2_grpc.TraceServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 -- the protocol's name
            received.extend(span.name for resource in request.resource_spans for scope in resource.scope_spans for span in scope.spans)
            return trace_service_pb2.ExportTraceServiceResponse()

    server = grpc.server(futures.ThreadPoolExecutor(1))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Service(), server)  # type: ignore[no-untyped-call]  # generated
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
        with open_tracing(Settings(), "web", "1") as tracing:
            tracing.started(FLOW, "tracing.asked", None, None)
    finally:
        server.stop(None).wait()
    assert received == ["start tracing.asked"]


def deliver(tracing: Tracing, count: int) -> float:
    """Seconds that the deliveries and one send of each took."""
    began = monotonic()
    for _ in range(count):
        processing = tracing.processing("analysis", delivery(), envelope(), "step-1", 0)
        with processing.handling():
            pass
        processing.sending("analysis.ready", EventId("event-2"), FLOW, "event-1").acknowledged(Receipt(0, 7))
        processing.ended("ok", 1)
    return monotonic() - began


def warnings(caplog: pytest.LogCaptureFixture, address: str) -> list[str]:
    """Those about one collector: an export that hung may end, and say so, during a later test."""
    about = [record for record in caplog.records if address in str(vars(record).get("address", address))]
    return [record.getMessage() for record in about if record.levelno >= logging.WARNING]


def test_a_collector_that_hangs_slows_nothing_and_leaving_takes_three_seconds(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    collector.answering.clear()
    with open_tracing(Settings(otlp_endpoint=collector.address), "analysis", "1") as tracing:
        assert deliver(tracing, 1000) < 20
        left = monotonic()
    assert 2.5 < monotonic() - left < 20
    assert warnings(caplog, collector.address) == ["tracing.spans_lost"]


@pytest.mark.parametrize("deliveries", [1, 1000])
def test_a_collector_that_is_not_there_costs_one_line_and_no_time(caplog: pytest.LogCaptureFixture, deliveries: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    with open_tracing(Settings(otlp_endpoint=address), "analysis", "1") as tracing:
        assert deliver(tracing, deliveries) < 20
        left = monotonic()
    assert monotonic() - left < 2.9, "less than waiting for it would take"
    assert warnings(caplog, address) == ["tracing.export_failed"]


@pytest.mark.parametrize("status", [400, 503])
def test_a_collector_that_refuses_costs_one_line_and_no_time(collector: Collector, caplog: pytest.LogCaptureFixture, status: int) -> None:
    collector.status = status
    with open_tracing(Settings(otlp_endpoint=collector.address), "analysis", "1") as tracing:
        assert deliver(tracing, 1000) < 20
        left = monotonic()
    assert monotonic() - left < 2.9, "less than waiting for it would take"
    assert warnings(caplog, collector.address) == ["tracing.export_failed"]


async def test_without_an_observer_a_trace_goes_through_the_process_whole(collector: Collector, broker: str, tmp_path: Path) -> None:
    silent = finder()
    async with traced(broker, tmp_path, teller(), otlp=collector.address) as (platform, bus), running(platform, silent, tracing=Untraced()):
        published = await bus.publish(Asked(text="through"))
        await ended(platform, published.flow_id)
    spans = {span.name: span for _, span in collector.spans(published.flow_id)}
    assert spans["process tracing.found"].parent_span_id == spans["send tracing.asked"].span_id
