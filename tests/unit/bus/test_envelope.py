"""Reading headers: everything derivable is derived, everything else is refused with the header's name."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maypole.schemas import envelope as names
from maypole.schemas.envelope import Stamp, flow_of, lineage, read_envelope, read_identity, rfc3339
from maypole.schemas.errors import Undecodable, UnreadableHeader

FOREIGN = [("ce_id", b"e1"), ("ce_type", b"a.b"), ("ce_correlationid", b"f1")]


def test_three_headers_are_enough_for_a_root() -> None:
    envelope = read_envelope(FOREIGN)
    assert envelope.is_root
    assert (envelope.event_id, envelope.type, envelope.flow_id) == ("e1", "a.b", "f1")
    assert (envelope.state_version, envelope.choreography, envelope.idempotency_key) == (1, "", "e1")


def test_what_is_stamped_is_read_back() -> None:
    common = lineage(
        flow_id=b"f1",
        time=rfc3339(0).encode(),
        state_version=3,
        choreography=b"c" * 64,
        causation_id=b"e1",
        business_key="Müller 7",
        observer=True,
    )
    headers = Stamp("a.b", "/agents/x").headers("e2", "00-a-b-01", "k=v", common)
    envelope = read_envelope(headers)
    assert envelope.causation_id == "e1" and envelope.business_key == "Müller 7" and envelope.observer
    assert envelope.state_version == 3 and envelope.source == "/agents/x" and envelope.time == "1970-01-01T00:00:00.000000Z"
    assert [name for name, _ in headers].count("traceparent") == 1


@pytest.mark.parametrize("missing", ["ce_id", "ce_type", "ce_correlationid"])
def test_a_missing_header_is_named(missing: str) -> None:
    with pytest.raises(Undecodable, match=missing):
        read_envelope([(name, value) for name, value in FOREIGN if name != missing])


@pytest.mark.parametrize("repeated", sorted(names.ATTRIBUTES))
def test_a_repeated_header_is_refused_by_name(repeated: str) -> None:
    with pytest.raises(Undecodable, match=repeated):
        read_envelope([*FOREIGN, (repeated, b"1"), (repeated, b"1")])


def test_headers_of_others_may_repeat() -> None:
    assert read_envelope([*FOREIGN, ("x-hop", b"1"), ("x-hop", b"2")]).event_id == "e1"


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("ce_stateversion", b"seven"),
        ("ce_stateversion", b"0"),
        ("ce_stateversion", b"99999999999"),
        ("ce_subject", b"\xff\xfe"),
        ("content-type", b"application/json"),
        ("ce_specversion", b"0.3"),
        ("ce_dataref", b"blob:1"),
    ],
)
def test_an_unreadable_header_is_named(header: str, value: bytes) -> None:
    with pytest.raises(Undecodable, match=header):
        read_envelope([*FOREIGN, (header, value)])


@pytest.mark.parametrize("header", ["ce_id", "ce_type", "ce_correlationid"])
@pytest.mark.parametrize("value", [b"", b"x" * 1025, "事".encode() * 342, None], ids=["empty", "long", "long in bytes", "null"])
def test_ids_and_types_are_neither_empty_nor_endless_nor_null(header: str, value: bytes | None) -> None:
    with pytest.raises(Undecodable, match=header):
        read_envelope([*((name, old) for name, old in FOREIGN if name != header), (header, value)])


def test_what_is_copied_into_all_that_a_step_writes_has_a_limit_in_bytes() -> None:
    assert read_envelope([*FOREIGN, ("ce_subject", b"k" * 1024), ("tracestate", b"s" * 1024)])[7:10] == ("k" * 1024, None, "s" * 1024)
    with pytest.raises(UnreadableHeader, match="ce_subject of 1 to 1024 bytes, found 1026: '事事"):
        read_envelope([*FOREIGN, ("ce_subject", "事".encode() * 342)])


@pytest.mark.parametrize("header", ["ce_id", "ce_type", "ce_correlationid", "ce_subject"])
def test_a_nul_in_a_text_that_stores_keep_is_refused_by_name_because_postgresql_takes_none(header: str) -> None:
    headers = [*((name, old) for name, old in FOREIGN if name != header), (header, b"a\0b")]
    with pytest.raises(UnreadableHeader) as refused:
        read_envelope(headers)
    assert str(refused.value) == f"expected text without NUL characters in the header {header}, found {headers[-1][1]!r}"
    assert (refused.value.header, refused.value.byte) == (header, 1)


def test_of_an_event_whose_business_key_has_a_nul_the_rest_is_told() -> None:
    envelope = read_identity([*FOREIGN, ("ce_subject", b"a\0b")])
    assert envelope is not None and (envelope.event_id, envelope.flow_id, envelope.business_key) == ("e1", "f1", None)


@pytest.mark.parametrize("header", ["traceparent", "tracestate"])
@pytest.mark.parametrize("value", ["ü".encode(), b"x" * 1025], ids=["not ASCII", "long"])
def test_a_trace_context_that_cannot_be_read_is_as_good_as_absent(header: str, value: bytes) -> None:
    assert getattr(read_envelope([*FOREIGN, (header, value)]), header) is None


def test_what_can_be_told_of_an_event_with_broken_headers_is_told() -> None:
    broken = [*FOREIGN, ("ce_choreography", b"abc"), ("ce_stateversion", b"zero"), ("traceparent", b"1"), ("traceparent", b"2")]
    envelope = read_identity(broken)
    assert envelope is not None
    assert (envelope.event_id, envelope.flow_id, envelope.choreography) == ("e1", "f1", "abc")
    assert read_identity([("ce_correlationid", b"f1")]) is None


header_names = st.sampled_from(sorted(names.ATTRIBUTES)) | st.text(max_size=20)


@given(st.lists(st.tuples(header_names, st.none() | st.binary(max_size=40)), max_size=20))
def test_any_headers_are_read_or_refused_with_one_error(headers: list[tuple[str, bytes | None]]) -> None:
    try:
        envelope = read_envelope(headers)
    except Undecodable:
        return
    assert flow_of(headers) == envelope.flow_id


@pytest.mark.parametrize(
    ("more", "header", "byte"),
    [
        ([("ce_id", b"e2")], "ce_id", None),
        ([("ce_subject", b"ab\xff")], "ce_subject", 2),
        ([("ce_stateversion", b"many")], "ce_stateversion", None),
        ([("ce_stateversion", b"0")], "ce_stateversion", None),
        ([("content-type", b"text/plain")], "content-type", None),
        ([("ce_specversion", b"0.3")], "ce_specversion", None),
        ([("ce_dataref", b"blob")], "ce_dataref", None),
    ],
)
def test_the_header_that_cannot_be_read_is_told_and_the_byte_where_it_broke(
    more: list[tuple[str, bytes | None]], header: str, byte: int | None
) -> None:
    with pytest.raises(UnreadableHeader) as refused:
        read_envelope([*FOREIGN, *more])
    for error in (refused.value, pickle.loads(pickle.dumps(refused.value))):
        assert (error.header, error.byte, header in str(error)) == (header, byte, True)
