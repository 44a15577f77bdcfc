"""A dead letter goes back to the agent that failed, unchanged, only where its failure decided nothing, and each time once."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maypole.bus.choreography import Choreography, derive_choreography
from maypole.bus.dead_letters import Reason, dead_letter
from maypole.bus.moves import Origin
from maypole.bus.ports import Delivery, Record
from maypole.bus.redrive import (
    Copies,
    NoLetter,
    Standing,
    causes,
    letter_of,
    new_flow_key,
    newest_first_of_each,
    pinned_by_start,
    redriven,
    standing,
)
from maypole.schemas.envelope import Envelope, read_envelope
from maypole.schemas.identifiers import FlowId

FLOW = "11111111-1111-4111-8111-111111111111"
HEADERS = [("ce_id", b"e1"), ("ce_type", b"a.b"), ("ce_correlationid", FLOW.encode()), ("own", None), ("own", b"\xff")]
CHOREOGRAPHY = derive_choreography("a.b", [{"name": "one", "subscriptions": [{"on": "a.b", "emits": [], "kind": "events"}]}])
Headers = Sequence[tuple[str, bytes | None]]


def delivered(record: Record, partition: int = 3, offset: int = 9) -> Delivery:
    return Delivery(record.topic, partition, offset, 0, record.key, record.value, record.headers)


def buried(original: Delivery, agent: str = "one", reason: Reason = Reason.REJECTED) -> Delivery:
    return delivered(dead_letter(agent, original, reason, "why", 2, 1000))


def asked(headers: Headers = HEADERS) -> Delivery:
    return Delivery("a.b", 1, 7, 0, b"\x00key", b"\x00\xffvalue", headers)


def headers_of(record: Record | Delivery) -> dict[str, bytes | None]:
    return dict(record.headers)


def envelope(**headers: str) -> Envelope:
    return read_envelope([*HEADERS, *((f"ce_{name}", value.encode()) for name, value in headers.items())])


def test_the_copy_is_the_original_at_the_agents_own_address() -> None:
    copy = redriven(buried(asked()), 1, 2000)
    assert (copy.topic, copy.key, copy.value) == ("one.retry.0s", b"\x00key", b"\x00\xffvalue")
    assert list(copy.headers[: len(HEADERS)]) == HEADERS
    assert headers_of(copy) | dict(HEADERS) == dict(HEADERS) | {
        "retry-due": b"1970-01-01T00:00:02.000000Z", "retry-attempt": b"1",
        "retry-topic": b"a.b", "retry-partition": b"1", "retry-offset": b"7",
        "dlq-replays": b"1", "dlq-first-failed-at": b"1970-01-01T00:00:01.000000Z",
    }  # fmt: skip


header = st.tuples(st.text(max_size=12).filter(lambda name: not name.startswith(("dlq-", "retry-"))), st.none() | st.binary(max_size=8))


@given(st.none() | st.binary(max_size=9), st.none() | st.binary(max_size=9), st.lists(header, max_size=6), st.integers(1, 4))
def test_however_often_it_fails_and_is_sent_again_the_original_and_its_place_stay(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes | None]], times: int
) -> None:
    record = Delivery("a.b", 1, 7, 0, key, value, headers)
    for replays in range(1, times + 1):
        letter = buried(record)
        assert letter_of(letter).origin == Origin("a.b", 1, 7)
        assert letter_of(letter).replays == replays - 1
        record = delivered(redriven(letter, replays, 5))
        assert (record.key, record.value, list(record.headers[: len(headers)])) == (key, value, headers)
        assert len(record.headers) == len(headers) + 7, "what was added is replaced, not repeated"
    assert headers_of(record)["dlq-first-failed-at"] == b"1970-01-01T00:00:01.000000Z"


def test_a_letter_is_settled_by_a_copy_that_counts_more_than_it_does_and_by_no_other() -> None:
    copies, first = Copies(), buried(asked())
    elsewhere = buried(asked()._replace(offset=8))
    assert not copies.settles(letter_of(first))
    copy = delivered(redriven(first, 1, 0))
    copies.saw("one", copy)
    assert copies.settles(letter_of(first))
    assert copies.settles(letter_of(first._replace(offset=10))), "a crash made the agent write the same letter twice"
    assert not copies.settles(letter_of(elsewhere))
    others = buried(asked(), "two")
    assert not copies.settles(letter_of(others)), "another agent's failure on the same record"
    copies.saw("two", delivered(redriven(others, 1, 0)))
    assert copies.settles(letter_of(others))
    again = buried(copy)
    assert not copies.settles(letter_of(again)), "the copy failed too, which is news"
    copies.saw("one", delivered(redriven(again, 2, 0)))
    copies.saw("one", copy)
    assert copies.settles(letter_of(again)), "copies of different keys may be read in any order"
    assert copies.replays_of(letter_of(first)) == 2


def test_records_of_a_retry_topic_that_are_no_redriven_copies_settle_nothing() -> None:
    copies, letter = Copies(), buried(asked())
    copy = redriven(letter, 1, 0)
    for missing in ("retry-topic", "retry-partition", "retry-offset", "dlq-replays"):
        copies.saw("one", delivered(copy._replace(headers=[each for each in copy.headers if each[0] != missing])))
    assert not copies.settles(letter_of(letter))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dlq-topic", b""),
        ("dlq-agent", b"\xff"),
        ("dlq-agent", b"two"),
        ("dlq-partition", b"x"),
        ("dlq-offset", b"9" * 5000),
        ("dlq-reason", None),
    ],
)
def test_what_no_agent_wrote_is_no_letter_and_the_header_is_named(name: str, value: bytes | None) -> None:
    letter = buried(asked())
    forged = letter._replace(headers=[(each, value if each == name else found) for each, found in letter.headers])
    with pytest.raises(NoLetter, match=name):
        letter_of(forged)


@pytest.mark.parametrize(
    ("agent", "read", "pinned", "expected"),
    [
        ("one", None, None, Standing.NO_FLOW),
        ("one", None, CHOREOGRAPHY, Standing.NO_FLOW),
        ("one", envelope(choreography=CHOREOGRAPHY.hash), CHOREOGRAPHY, Standing.DECIDED),
        ("two", envelope(choreography=CHOREOGRAPHY.hash), CHOREOGRAPHY, Standing.OBSERVED),
        ("one", envelope(choreography=CHOREOGRAPHY.hash, observer="true"), CHOREOGRAPHY, Standing.OBSERVED),
        ("one", envelope(choreography=CHOREOGRAPHY.hash, observer="true"), None, Standing.OBSERVED),
        ("one", envelope(choreography=CHOREOGRAPHY.hash), None, Standing.UNTOLD),
    ],
)
def test_a_step_runs_again_only_where_its_failure_decided_nothing(
    agent: str, read: Envelope | None, pinned: Choreography | None, expected: Standing
) -> None:
    assert standing(letter_of(buried(asked(), agent)), read, pinned) is expected
    assert expected.runs_again == (expected in (Standing.NO_FLOW, Standing.OBSERVED))


def test_an_agent_takes_part_by_the_join_that_the_event_is_a_part_of() -> None:
    subscriptions = [{"on": ["a.b", "c.d"], "emits": [], "kind": "events"}]
    joining = derive_choreography("a.b", [{"name": "two", "subscriptions": [{"on": "a.b", "emits": ["c.d"], "kind": "events"}]},
                                          {"name": "one", "subscriptions": subscriptions}])  # fmt: skip
    assert standing(letter_of(buried(asked())), envelope(), joining) is Standing.DECIDED


def test_a_command_that_failed_for_good_is_a_matter_of_the_flow_even_when_its_headers_are_broken() -> None:
    command = buried(asked()._replace(topic="one.commands"))
    assert standing(letter_of(command), None, None) is Standing.DECIDED


def test_whoever_reacts_to_ends_of_flows_only_watches_them() -> None:
    ended = buried(asked()._replace(topic="maypole.flow.ended"))
    assert standing(letter_of(ended), envelope(choreography=CHOREOGRAPHY.hash), None) is Standing.OBSERVED


def test_a_subscription_that_came_later_observes_even_where_its_agent_takes_part_otherwise() -> None:
    later = buried(asked()._replace(topic="c.d"))
    assert standing(letter_of(later), envelope(choreography=CHOREOGRAPHY.hash), CHOREOGRAPHY) is Standing.OBSERVED


def test_a_flow_that_others_may_have_started_is_pinned_by_its_first_start() -> None:
    mine = envelope(choreography=CHOREOGRAPHY.hash)
    assert not pinned_by_start(mine)
    assert pinned_by_start(mine._replace(choreography=""))
    assert pinned_by_start(mine._replace(flow_id=FlowId("foreign")))
    assert not pinned_by_start(mine._replace(flow_id=FlowId("foreign"), causation_id="e0"))
    assert not pinned_by_start(mine._replace(choreography="", observer=True))


def test_a_new_flow_is_named_by_where_its_event_failed_and_how_often() -> None:
    first = letter_of(buried(asked()))
    repeated = letter_of(buried(asked())._replace(offset=10))
    assert new_flow_key(first) == new_flow_key(repeated) == "dlq/one/a.b/1/7/0"
    others = [buried(asked(), "two"), buried(asked()._replace(offset=8)), buried(delivered(redriven(buried(asked()), 1, 0)))]
    assert len({new_flow_key(first), *(new_flow_key(letter_of(other)) for other in others)}) == 4


def test_the_root_of_a_new_flow_says_where_it_comes_from_and_is_a_root_all_the_same() -> None:
    noted = causes(letter_of(buried(asked())), "one/3/9", envelope())
    assert dict(noted) == {
        "redriven-letter": b"one/3/9", "redriven-flow": FLOW.encode(), "redriven-event": b"e1", "dlq-replays": b"1",
    }  # fmt: skip
    assert read_envelope([*HEADERS, *noted]).is_root
    assert letter_of(buried(asked([*HEADERS, *noted]))).replays == 1, "a flow of flows has a limit too"


def test_of_several_letters_about_one_record_the_newest_failure_counts_and_of_repetitions_the_first() -> None:
    first = letter_of(buried(asked()))
    later = first._replace(replays=1)
    other = first._replace(agent="two")
    places = [("p0", first), ("p1", first), ("p2", later), ("p3", later), ("q0", other)]
    assert newest_first_of_each(places) == {("one", first.origin): "p2", ("two", first.origin): "q0"}
