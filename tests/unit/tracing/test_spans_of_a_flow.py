"""Kinds, parents, ids, attributes and links of the spans of a flow, as the bus makes them."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.trace import SpanKind, StatusCode

from maypole.bus.hook import Processing, Tracing
from maypole.bus.ports import Receipt
from maypole.schemas.identifiers import EventId, FlowId, root_span_id_of, root_traceparent, trace_id_of
from tests.unit.tracing.recorder import FLOW, Kept, attributes_of, delivery, envelope, hexadecimal, parent_of, recording

FOREIGN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OUR_SEND = f"00-{trace_id_of(FLOW)}-00000000000000aa-01"


def begin(tracing: Tracing, **changes: Any) -> Processing:
    return tracing.processing("analysis", delivery(), envelope(**changes), "step-1", 12.4)


def test_the_root_of_a_trace_is_derived_from_the_flow_and_needs_no_end_of_it() -> None:
    kept = Kept()
    with recording(kept, "shop") as tracing:
        root = tracing.started(FLOW, "research.requested", "order-7", None)
    start = kept.named("start research.requested")
    assert hexadecimal(start) == (trace_id_of(FLOW), root_span_id_of(FLOW))
    assert (start.kind, start.parent, start.links) == (SpanKind.INTERNAL, None, ())
    assert root.traceparent == root_traceparent(FLOW)
    assert attributes_of(start)["maypole.flow.id"] == FLOW
    assert attributes_of(start)["maypole.business.key"] == "order-7"


def test_the_first_send_is_a_child_of_the_root_and_tells_where_its_record_lies() -> None:
    kept = Kept()
    with recording(kept, "shop") as tracing:
        sending = tracing.started(FLOW, "research.requested", "order-7", None).sending("research.requested", EventId("e1"), FLOW, None)
        sending.acknowledged(Receipt(partition=3, offset=99))
    send = kept.named("send research.requested")
    assert sending.traceparent == "00-{}-{}-01".format(*hexadecimal(send))
    assert (send.kind, parent_of(send), send.status.status_code) == (SpanKind.PRODUCER, root_span_id_of(FLOW), StatusCode.UNSET)
    assert attributes_of(send) == {
        "messaging.system": "kafka",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": "research.requested",
        "messaging.destination.partition.id": "3",
        "messaging.kafka.offset": 99,
        "messaging.message.id": "e1",
        "messaging.message.conversation_id": FLOW,
        "maypole.flow.id": FLOW,
        "maypole.business.key": "order-7",
        "maypole.state.version": 1,
    }


def test_processing_is_a_child_of_the_send_that_its_record_names() -> None:
    kept = Kept()
    with recording(kept) as tracing:
        processing = begin(tracing, traceparent=OUR_SEND)
        processing.ended("ok", 1)
    process = kept.named("process research.completed")
    assert processing.traceparent == "00-{}-{}-01".format(*hexadecimal(process))
    assert (hexadecimal(process)[0], parent_of(process), process.kind) == (trace_id_of(FLOW), "00000000000000aa", SpanKind.CONSUMER)
    assert process.parent is not None
    assert process.parent.is_remote
    assert attributes_of(process) == {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "research.completed",
        "messaging.destination.partition.id": "2",
        "messaging.kafka.offset": 41,
        "messaging.consumer.group.name": "analysis",
        "messaging.message.id": "event-1",
        "messaging.message.conversation_id": FLOW,
        "maypole.flow.id": FLOW,
        "maypole.business.key": "order-7",
        "maypole.causation.id": "event-0",
        "maypole.step.id": "step-1",
        "maypole.state.version": 2,
        "maypole.delivery.attempt": 1,
        "maypole.queue_wait_ms": 12,
        "maypole.outcome": "ok",
    }


def test_what_a_step_sends_is_a_child_of_its_processing() -> None:
    kept = Kept()
    with recording(kept) as tracing:
        processing = begin(tracing, traceparent=OUR_SEND)
        with processing.handling():
            pass
        sending = processing.sending("analysis.ready", EventId("event-2"), FLOW, "event-1")
        sending.acknowledged(Receipt(0, 7))
        processing.ended("ok", 1)
    send = kept.named("send analysis.ready")
    assert parent_of(send) == hexadecimal(kept.named("process research.completed"))[1]
    found = attributes_of(send)
    assert (found["maypole.causation.id"], found["maypole.step.id"], found["maypole.state.version"]) == ("event-1", "step-1", 3)


def test_a_send_whose_offset_the_broker_does_not_tell_carries_none() -> None:
    kept = Kept()
    with recording(kept) as tracing:
        begin(tracing).sending("analysis.ready", EventId("event-2"), FLOW, "event-1").acknowledged(Receipt(0, -1))
    assert "messaging.kafka.offset" not in attributes_of(kept.named("send analysis.ready"))


def test_a_failed_send_is_an_error_and_its_processing_by_itself_is_not() -> None:
    kept = Kept()
    with recording(kept) as tracing:
        processing = begin(tracing)
        processing.sending("analysis.ready", EventId("event-2"), FLOW, "event-1").failed("too large")
        processing.ended("revoked", 1)
    send, process = kept.named("send analysis.ready"), kept.named("process research.completed")
    assert (send.status.status_code, send.status.description) == (StatusCode.ERROR, "too large")
    assert (process.status.status_code, attributes_of(process)["maypole.outcome"]) == (StatusCode.UNSET, "revoked")


def test_attempts_are_siblings_each_linked_to_the_one_before_and_only_failed_ones_are_errors() -> None:
    kept = Kept()
    with recording(kept) as tracing:
        processing = begin(tracing, traceparent=OUR_SEND)
        for attempt in (1, 2):
            with pytest.raises(RuntimeError), processing.handling():
                raise RuntimeError("busy")
            processing.attempt_failed(attempt, RuntimeError("busy"), last=False)
        with processing.handling():
            pass
        processing.sending("analysis.ready", EventId("event-2"), FLOW, "event-1").acknowledged(Receipt(0, 7))
        processing.ended("ok", 3)
    one, two, three = kept.all_named("process research.completed")
    assert {parent_of(span) for span in (one, two, three)} == {"00000000000000aa"}
    assert [attributes_of(span)["maypole.delivery.attempt"] for span in (one, two, three)] == [1, 2, 3]
    assert [attributes_of(span)["maypole.outcome"] for span in (one, two, three)] == ["retry", "retry", "ok"]
    assert [span.status.status_code for span in (one, two, three)] == [StatusCode.ERROR, StatusCode.ERROR, StatusCode.UNSET]
    assert [link.context for link in two.links] == [one.context]
    assert [link.context for link in three.links] == [two.context]
    assert [event.name for event in one.events] == ["exception", "retry_scheduled"]
    assert attributes_of(one)["error.type"] == "RuntimeError"
    assert parent_of(kept.named("send analysis.ready")) == hexadecimal(three)[1]
    assert processing.traceparent == "00-{}-{}-01".format(*hexadecimal(three)), "the journal names the attempt that counted"


def test_an_undo_is_a_child_of_the_processing_that_its_command_names_linked_to_the_step_undone() -> None:
    kept, undone = Kept(), f"00-{trace_id_of(FLOW)}-00000000000000bb-01"
    command = envelope(event_id=EventId("command-1"), type="maypole.compensate", traceparent=OUR_SEND)
    with recording(kept) as tracing:
        compensating = tracing.compensating("analysis", command, "step-1", undone)
        with compensating.handling():
            trace.get_tracer("user").start_span("delete draft").end()
        compensating.attempt_failed(1, ConnectionError("away"), last=False)
        with compensating.handling():
            pass
        compensating.ended("compensated", 2)
    one, two = kept.all_named("compensate analysis")
    assert {(parent_of(span), span.kind) for span in (one, two)} == {("00000000000000aa", SpanKind.INTERNAL)}
    assert [span.status.status_code for span in (one, two)] == [StatusCode.ERROR, StatusCode.UNSET]
    assert [[f"{link.context.span_id:016x}" for link in span.links] for span in (one, two)] == [
        ["00000000000000bb"], ["00000000000000bb", hexadecimal(one)[1]],
    ]  # fmt: skip
    about = attributes_of(two)
    assert (about["maypole.outcome"], about["maypole.step.id"], about["maypole.flow.id"]) == ("compensated", "step-1", FLOW)
    assert (about["maypole.command.id"], about["maypole.delivery.attempt"]) == ("command-1", 2)
    assert parent_of(kept.named("delete draft")) == hexadecimal(one)[1]


def test_what_becomes_of_a_breaker_stands_on_the_attempt_that_moved_it_and_to_wait_is_no_error() -> None:
    kept = Kept()
    with recording(kept) as tracing:
        processing = begin(tracing)
        with processing.handling():
            processing.breaker_moved("opened", "dependency model", "5 consecutive failures")
        processing.held("model is away")
        processing.breaker_moved("half_open", "dependency model", "60 s have passed")
        with processing.handling():
            processing.breaker_moved("closed", "dependency model", "the probe succeeded")
        processing.ended("ok", 1)
    waited, done = kept.all_named("process research.completed")
    assert [event.name for event in waited.events] == ["breaker_opened"]
    assert [event.name for event in done.events] == ["breaker_half_open", "breaker_closed"]
    assert attributes_of(waited)["maypole.breaker"] == "dependency model" and attributes_of(waited)["maypole.breaker.state"] == "opened"
    assert attributes_of(waited)["maypole.outcome"] == "retry" and attributes_of(waited)["maypole.outcome.detail"] == "model is away"
    assert [attributes_of(span)["maypole.delivery.attempt"] for span in (waited, done)] == [1, 1], "to wait is no attempt"
    assert [span.status.status_code for span in (waited, done)] == [StatusCode.UNSET] * 2
    assert [link.context for link in done.links] == [waited.context]


def test_a_dead_letter_is_an_error_that_says_why() -> None:
    kept = Kept()
    with recording(kept) as tracing:
        processing = begin(tracing)
        processing.attempt_failed(3, ValueError("no"), last=True)
        processing.ended("dead_letter", 3, "attempts_exhausted: ValueError: no")
    process = kept.named("process research.completed")
    assert process.status.status_code is StatusCode.ERROR
    assert [event.name for event in process.events] == ["exception", "dead_lettered"]
    assert attributes_of(process)["maypole.outcome"] == "dead_letter"
    assert attributes_of(process)["maypole.outcome.detail"] == "attempts_exhausted: ValueError: no"


def test_a_delivery_given_up_between_two_attempts_leaves_the_attempts_it_made() -> None:
    kept = Kept()
    with recording(kept) as tracing:
        processing = begin(tracing)
        processing.attempt_failed(1, ValueError("no"), last=False)
        processing.ended("revoked", 1)
    assert attributes_of(kept.named("process research.completed"))["maypole.outcome"] == "retry"


def test_an_error_whose_text_cannot_be_encoded_does_not_cost_the_batch() -> None:
    kept = Kept()
    with recording(kept) as tracing:
        processing = begin(tracing)
        processing.attempt_failed(1, ValueError("half a \ud83d face"), last=True)
        processing.ended("dead_letter", 1, "rejected: half a \ud83d face")
    assert b"half a ? face" in encode_spans(kept.spans).SerializeToString()


@pytest.mark.parametrize("found", [None, FOREIGN])
def test_an_event_of_a_foreign_client_hangs_at_the_derived_root_that_its_adopter_makes(found: str | None) -> None:
    kept = Kept()
    with recording(kept) as tracing:
        processing = begin(tracing, causation_id=None, traceparent=found, tracestate="vendor=1" if found else None)
        root = tracing.started(FLOW, "research.completed", None, found)
        processing.ended("ok", 1)
    start, process = kept.named("start research.completed"), kept.named("process research.completed")
    assert hexadecimal(start) == (trace_id_of(FLOW), root_span_id_of(FLOW))
    assert (hexadecimal(process)[0], parent_of(process)) == hexadecimal(start)
    assert process.links == ()
    assert root.traceparent == root_traceparent(FLOW)
    linked = [f"{link.context.trace_id:032x}-{link.context.span_id:016x}" for link in start.links]
    assert linked == ([] if found is None else [FOREIGN[3:52]])


@pytest.mark.parametrize(
    "found",
    [
        "",
        "nonsense",
        "00-" + "0" * 32 + "-" + "0" * 16 + "-01",
        f"00-{trace_id_of(FLOW)}-{'0' * 16}-01",
        f"00-{trace_id_of(FLOW)}-00f067aa0ba902b7",
        f"00-{trace_id_of(FLOW)}-00f067aa0ba902b7-01-more",
        f"ff-{trace_id_of(FLOW)}-00f067aa0ba902b7-01",
        f"00-{trace_id_of(FLOW).upper()}-00f067aa0ba902b7-01",
        f"00-{trace_id_of(FLOW)}-00f067aa0ba902b\N{ARABIC-INDIC DIGIT SEVEN}-01",
        "00-" + "f" * 5000,
        "\n",
    ],
)
def test_a_traceparent_that_cannot_be_read_is_ignored(found: str) -> None:
    kept = Kept()
    with recording(kept) as tracing:
        begin(tracing, traceparent=found).ended("ok", 1)
        tracing.started(FlowId("another"), "research.requested", None, found)
    process = kept.named("process research.completed")
    assert (hexadecimal(process)[0], parent_of(process)) == (trace_id_of(FLOW), root_span_id_of(FLOW))
    assert kept.named("start research.requested").links == ()


def test_publishing_within_a_span_of_the_users_links_the_root_to_it_and_stays_a_trace_of_its_own() -> None:
    kept = Kept()
    ambient = TracerProvider(shutdown_on_exit=False).get_tracer("web").start_span("POST /questions")
    with recording(kept, "web") as tracing, trace.use_span(ambient):
        tracing.started(FLOW, "research.requested", None, None)
    start = kept.named("start research.requested")
    assert start.parent is None
    assert [link.context for link in start.links] == [ambient.get_span_context()]


def test_a_flow_that_is_not_sampled_is_recorded_nowhere_and_says_so_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    kept = Kept()
    with recording(kept) as tracing:
        root = tracing.started(FLOW, "research.requested", None, None)
        sending = root.sending("research.requested", EventId("e1"), FLOW, None)
        sending.acknowledged(Receipt(0, 0))
        processing = begin(tracing, traceparent=sending.traceparent)
        processing.ended("ok", 1)
        foreign = begin(tracing, causation_id=None, traceparent=FOREIGN)
    assert kept.spans == []
    assert root.traceparent == root_traceparent(FLOW)[:-2] + "00"
    for traceparent in (sending.traceparent, processing.traceparent, foreign.traceparent):
        assert traceparent.startswith(f"00-{trace_id_of(FLOW)}-")
        assert traceparent.endswith("-00")


def test_a_sampler_by_ratio_keeps_whole_flows_or_none_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    kept = Kept()
    flows = [FlowId(f"flow-{number}") for number in range(200)]
    with recording(kept) as tracing:
        for flow in flows:
            tracing.started(flow, "a.b", None, None).sending("a.b", EventId("e"), flow, None).acknowledged(Receipt(0, 0))
            # By a foreign client: the verdict on the root that somebody else makes is the same.
            begin(tracing, flow_id=flow, causation_id=None, traceparent=FOREIGN).ended("ok", 1)
    spans: dict[str, list[ReadableSpan]] = {}
    for span in kept.spans:
        spans.setdefault(hexadecimal(span)[0], []).append(span)
    assert {len(found) for found in spans.values()} == {3}
    assert 60 < len(spans) < 140


def test_tracestate_is_carried_along_the_flow() -> None:
    kept = Kept()
    with recording(kept) as tracing:
        processing = begin(tracing, traceparent=OUR_SEND, tracestate="vendor=1,other=2")
        sending = processing.sending("analysis.ready", EventId("event-2"), FLOW, "event-1")
        plain = begin(tracing, traceparent=OUR_SEND).sending("analysis.ready", EventId("event-2"), FLOW, "event-1")
    assert processing.tracestate == sending.tracestate == "vendor=1,other=2"
    assert plain.tracestate is None


def test_ids_of_spans_do_not_repeat_when_the_program_seeds_its_random_numbers() -> None:
    import random

    kept = Kept()
    with recording(kept) as tracing:
        for _ in range(2):
            random.seed(7)
            begin(tracing).ended("ok", 1)
    one, two = kept.spans
    assert hexadecimal(one)[1] != hexadecimal(two)[1]
