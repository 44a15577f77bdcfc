"""What an agent cannot take: buried unchanged, with the reason beside it, and nothing behind it is held up."""

from __future__ import annotations

import pytest

from maypole.bus.composition import Platform
from maypole.bus.hook import Untraced
from maypole.schemas.identifiers import FlowId
from maypole.services.saga import State
from tests.support.asking import Asked, answering, encoded, foreign
from tests.support.world import ended, letters, read_topic, running


async def test_an_event_under_the_required_confidence_is_refused_with_field_value_and_rule(platform: Platform) -> None:
    agent = answering()
    async with running(platform, agent):
        bus = platform.bus("tests", Untraced())
        good = await bus.publish(Asked(text="good", confidence=0.70))
        bad = await bus.publish(Asked(text="bad", confidence=0.69))
        assert (await ended(platform, good.flow_id)).state is State.COMMITTED
        assert (await ended(platform, bad.flow_id)).state is State.COMPENSATED
        ((letter, why),) = await letters(platform, agent.name, 1)
    assert why["dlq-reason"] == "contract_refused" and why["dlq-attempts"] == "0"
    assert "confidence" in why["dlq-error"] and "0.69" in why["dlq-error"] and "confidence >= 0.7" in why["dlq-error"]
    (original,) = [record for record in await read_topic(platform, "delivery.asked") if record.key == bad.flow_id.encode()]
    assert (letter.key, letter.value) == (original.key, original.value)
    assert list(letter.headers)[: len(original.headers)] == list(original.headers)
    assert (why["dlq-topic"], why["dlq-partition"], why["dlq-offset"]) == ("delivery.asked", str(original.partition), str(original.offset))


POISON: list[tuple[str, list[tuple[str, bytes]], bytes, str]] = [
    ("no bytes", [], b"", "undecodable"),
    ("not the wire format", [], b"hello", "undecodable"),
    ("an unknown schema", [], b"\x00\x7f\xff\xff\xff\x00", "undecodable"),
    ("a truncated value", [], encoded(Asked(text="x" * 40))[:12], "undecodable"),
    ("trailing bytes", [], encoded(Asked(text="x")) + b"\x00", "undecodable"),
    ("a repeated header", [("ce_id", b"again")], encoded(Asked(text="x")), "undecodable"),
    ("an undecodable header", [("ce_subject", b"\xff\xfe")], encoded(Asked(text="x")), "undecodable"),
    ("another type than its topic", [], encoded(Asked(text="x")), "contract_refused"),
    ("a child without choreography", [("ce_causationid", b"e0")], encoded(Asked(text="x")), "contract_refused"),
    ("a choreography nobody knows", [("ce_causationid", b"e0"), ("ce_choreography", b"f" * 64)], encoded(Asked(text="x")), "unknown_flow"),
]


@pytest.mark.parametrize(("what", "more", "value", "reason"), POISON, ids=[row[0].replace(" ", "-") for row in POISON])
async def test_poison_goes_to_the_dead_letters_unchanged_and_does_not_hold_up_what_follows(
    platform: Platform, what: str, more: list[tuple[str, bytes]], value: bytes, reason: str
) -> None:
    agent = answering()
    flow = f"poison-{agent.name}"
    poison = foreign(Asked(text="x"), flow, "e1", *more, value=value)
    if what.startswith("another type"):
        poison = poison._replace(headers=[(name, b"other.type" if name == "ce_type" else old) for name, old in poison.headers])
    async with running(platform, agent):
        await platform.sink.publish([poison])
        ((letter, why),) = await letters(platform, agent.name, 1)
        after = await platform.bus("tests", Untraced()).publish(Asked(text="good"))
        assert (await ended(platform, after.flow_id)).state is State.COMMITTED
    assert why["dlq-reason"] == reason and why["dlq-error"] and why["dlq-agent"] == agent.name
    assert (letter.key, letter.value) == (poison.key, poison.value)
    assert list(letter.headers)[: len(poison.headers)] == list(poison.headers)


async def test_an_undecodable_root_of_a_known_flow_is_journaled(platform: Platform) -> None:
    agent = answering()
    flow = FlowId(f"broken-{agent.name}")
    async with running(platform, agent):
        await platform.sink.publish([foreign(Asked(text="x"), flow, value=b"\x00\x00")])
        state = await ended(platform, flow)
    assert state.state is State.COMPENSATED
    assert [failed.reason for failed in state.failed.values() if failed.agent == agent.name] == ["undecodable"]


@pytest.mark.parametrize("broken", [("ce_stateversion", b"zero"), ("ce_subject", b"\xff")])
async def test_unreadable_headers_of_a_flow_that_can_be_told_are_journaled(platform: Platform, broken: tuple[str, bytes]) -> None:
    agent = answering()
    flow = FlowId(f"unreadable-{agent.name}")
    async with running(platform, agent):
        await platform.sink.publish([foreign(Asked(text="x"), flow, "e1", broken)])
        state = await ended(platform, flow)
    assert [failed.reason for failed in state.failed.values()] == ["undecodable"]


async def test_a_dead_letter_that_dies_again_says_only_why_it_died_last(platform: Platform) -> None:
    agent = answering()
    record = foreign(
        Asked(text="x"), "f", "e1", ("dlq-reason", b"rejected"), ("dlq-replays", b"3"), ("dlq-first-failed-at", b"then"), value=b""
    )
    async with running(platform, agent):
        await platform.sink.publish([record])
        ((letter, why),) = await letters(platform, agent.name, 1)
    names = [name for name, _ in letter.headers]
    assert len(names) == len(set(names))
    assert (why["dlq-reason"], why["dlq-replays"], why["dlq-first-failed-at"]) == ("undecodable", "3", "then")


async def test_a_poison_record_as_large_as_a_broker_takes_is_buried_too(platform: Platform) -> None:
    agent = answering()
    value = b"\x00" + b"j" * 1_040_000
    async with running(platform, agent):
        await platform.sink.publish([foreign(Asked(text="x"), f"large-{agent.name}", value=value)])
        ((letter, why),) = await letters(platform, agent.name, 1)
    assert why["dlq-reason"] == "undecodable"
    assert letter.value == value
