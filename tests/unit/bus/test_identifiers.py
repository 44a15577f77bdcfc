"""Identities are derived from causes, and from nothing else."""

from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st

from maypole.schemas.identifiers import (
    NAMESPACE,
    EventId,
    FlowId,
    StepId,
    command_id_of,
    derive,
    flow_id_of,
    joined_trigger,
    journal_event_id,
    new_flow_id,
    output_event_id,
    root_event_id,
    root_traceparent,
    step_id_of,
    trace_id_of,
)

fields = st.lists(st.text(max_size=300), min_size=1, max_size=5)


def test_the_ids_on_the_wire_never_change() -> None:
    assert golden() == GOLDEN


def golden() -> dict[str, str]:
    flow = flow_id_of("research.requested", "order-7")
    root = root_event_id(flow, "research.requested")
    step = step_id_of(flow, "research", "research.requested", root)
    return {
        "flow": flow,
        "root": root,
        "step": step,
        "output": output_event_id(step, "research.completed", 0),
        "join": joined_trigger([EventId("b"), EventId("a")]),
        "command": command_id_of(flow, step, "fence", 1),
        "journal": journal_event_id("maypole.step.completed", step),
        "trace": trace_id_of(flow),
        "traceparent": root_traceparent(flow),
    }


GOLDEN = {
    "journal": "edcd5424-0a7d-5615-8a8c-e41ec8922175",
    "flow": "ad82c4b7-81e5-5c7d-b8fa-17df11370a1d",
    "root": "e4cbcba3-dc5d-51d7-b6bf-5d3037f936d6",
    "step": "6e1de930-f746-5ef6-9b3a-6f207dbf6d6f",
    "output": "dae55cc9-61e2-5620-abc7-6b17a97eea0e",
    "join": "e4d2bd0b-cb25-50e9-aec4-dcf830ccbd99",
    "command": "94f2884d-44e4-59ac-b886-b16f71b29f2c",
    "trace": "1277ba28bedceb7929a4a76b0962ec49",
    "traceparent": "00-1277ba28bedceb7929a4a76b0962ec49-138cb9d13057f136-01",
}


@given(fields, fields)
def test_different_causes_have_different_ids_even_where_their_concatenation_is_the_same(one: list[str], other: list[str]) -> None:
    assert (derive(*one) == derive(*other)) == (one == other)


@given(fields)
def test_an_id_is_the_name_based_uuid_of_its_length_prefixed_fields(parts: list[str]) -> None:
    import hashlib

    joined = b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in parts)
    expected = uuid.UUID(bytes=hashlib.sha1(NAMESPACE.bytes + joined).digest()[:16], version=5)
    assert derive(*parts) == str(expected)


def test_the_parts_of_a_join_make_one_trigger_in_any_order() -> None:
    assert joined_trigger([EventId("a"), EventId("b")]) == joined_trigger([EventId("b"), EventId("a")])


def test_a_flow_without_a_key_is_never_started_twice() -> None:
    assert new_flow_id() != new_flow_id()


def test_outputs_of_one_step_differ_by_type_and_index() -> None:
    step = StepId("s")
    assert len({output_event_id(step, "a.b", 0), output_event_id(step, "a.b", 1), output_event_id(step, "a.c", 0)}) == 3


def test_the_low_half_of_a_trace_id_is_uniform_enough_for_ratio_samplers() -> None:
    sampled = sum(int(trace_id_of(FlowId(str(number)))[16:], 16) < 2**63 for number in range(2000))
    assert 850 < sampled < 1150
