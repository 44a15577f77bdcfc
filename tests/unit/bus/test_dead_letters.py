"""A dead letter never has more bytes than its topic takes, and says what it is without."""

from __future__ import annotations

import pytest

from maypole.bus.dead_letters import LEFT_OUT, Reason, dead_letter, fitting
from maypole.bus.ports import Delivery, Headers, Record
from maypole.bus.record_sizes import bytes_of

IDS = [("ce_id", b"e1"), ("ce_type", b"a.b"), ("ce_correlationid", b"f1")]


def letter(*, key: int = 4, value: int = 10, headers: Headers = ()) -> Record:
    original = Delivery("a.b", 3, 77, 0, b"k" * key, b"v" * value, [*IDS, *headers])
    return dead_letter("one", original, Reason.UNDECODABLE, "cannot be read", 0, 0.0)


def test_what_fits_stays_as_it_is_to_the_last_byte() -> None:
    whole = letter(value=5000)
    assert fitting(whole, bytes_of(whole)) is whole
    assert fitting(whole, bytes_of(whole) - 1).value is None


@pytest.mark.parametrize(
    ("large", "without"),
    [
        (letter(value=50_000), b"value of 50000 bytes"),
        (letter(key=50_000), b"value of 10 bytes, key of 50000 bytes, 0 headers"),
        (letter(headers=[("x-hop", b"x" * 50_000), ("x-other", b"")]), b"value of 10 bytes, key of 4 bytes, 2 headers"),
        (letter(headers=[("ce_subject", b"x" * 50_000)]), b"value of 10 bytes, key of 4 bytes, 1 headers"),
        (letter(headers=[("ce_time", b"t" * 900)] * 60), b"value of 10 bytes, key of 4 bytes, 59 headers"),
        (letter(headers=[("dlq-left-out", b"a lie"), ("dlq-" + "x" * 50_000, b"")], value=50_000), b"value of 50000 bytes"),
    ],
    ids=["value", "key", "headers of others", "a header of ours", "one header many times", "headers that look like ours"],
)
def test_what_does_not_fit_goes_without_it_and_says_where_all_of_it_lay(large: Record, without: bytes) -> None:
    small = fitting(large, 10_000)
    told = dict(small.headers)
    assert bytes_of(small) <= 10_000 and small.value is None
    assert told[LEFT_OUT] == without
    assert (told["dlq-topic"], told["dlq-partition"], told["dlq-offset"], told["dlq-reason"]) == (b"a.b", b"3", b"77", b"undecodable")
    assert [told[name] for name, _ in IDS] == [value for _, value in IDS], "of which event it is can be told still"
    assert small.key in (b"kkkk", None)
