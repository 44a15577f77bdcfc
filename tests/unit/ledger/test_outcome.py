"""Any records survive the round trip; any bytes are records or `OutcomeUnreadable`."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maypole.bus.ledger.outcome import _NAMES, OutcomeUnreadable, decode_records, encode_records
from maypole.bus.ports import Record

QUICK = settings(max_examples=200, deadline=None, derandomize=True)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
BYTES = st.none() | st.binary(max_size=300)
HEADERS = st.lists(st.tuples(st.sampled_from(_NAMES) | TEXT, BYTES), max_size=20)
RECORDS = st.lists(st.builds(Record, TEXT, BYTES, BYTES, HEADERS), max_size=5)


@QUICK
@given(RECORDS)
def test_records_come_back_as_they_were(records: list[Record]) -> None:
    assert decode_records(encode_records(records)) == records


@QUICK
@given(RECORDS, st.integers(0, 10_000))
def test_an_outcome_that_was_cut_short_is_fewer_whole_records_or_unreadable(records: list[Record], at: int) -> None:
    data = encode_records(records)
    cut = data[: at % len(data)]
    try:
        found = decode_records(cut)
    except OutcomeUnreadable:
        return
    assert found == records[: len(found)] and len(found) < len(records)


@QUICK
@given(st.binary(max_size=200))
def test_any_bytes_are_records_or_unreadable(data: bytes) -> None:
    for candidate in (data, b"\x01" + data):
        try:
            decode_records(candidate)
        except OutcomeUnreadable:
            pass


@pytest.mark.parametrize("length", [0, 253, 254, 255, 65_536])
def test_lengths_at_the_edges_of_their_encoding(length: int) -> None:
    records = [Record("t", b"k" * length, b"v" * length, [("x" * length, b"h" * length)])]
    assert decode_records(encode_records(records)) == records


def test_the_names_of_headers_cost_a_byte_each() -> None:
    assert len(encode_records([Record("t", None, None, [(name, b"") for name in _NAMES])])) == 1 + 2 + 1 + 1 + 1 + 2 * len(_NAMES)


def test_the_codes_of_names_never_change() -> None:
    """Rows outlive releases: a name may be added at the end, and none may move."""
    known = (
        "content-type ce_specversion ce_id ce_type ce_source ce_time ce_subject ce_correlationid ce_causationid ce_idempotencykey "
        "ce_choreography ce_observer ce_dataref ce_datadigest ce_stateversion traceparent tracestate"
    )
    assert _NAMES[: len(known.split())] == tuple(known.split())


def test_an_outcome_of_a_later_version_is_named() -> None:
    with pytest.raises(OutcomeUnreadable, match="version 1"):
        decode_records(b"\x02abc")
