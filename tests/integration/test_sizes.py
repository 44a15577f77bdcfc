"""What is too large or too many for the broker is a failed step with the sizes in its dead letter, and holds nobody up."""

from __future__ import annotations

import pytest

from maypole.bus import Agent, Event
from maypole.bus.composition import Platform
from maypole.bus.hook import Untraced
from maypole.bus.ports import Record, TopicSpec
from maypole.schemas.avro import schema_of
from maypole.schemas.codec import Writer
from maypole.schemas.errors import ContractRefused
from maypole.schemas.identifiers import FlowId, root_traceparent
from maypole.services.saga import State
from tests.support.names import unique_agent, unique_topic
from tests.support.world import ended, letters, read_topic, running

TOPIC_BYTES = 100_000


class Wanted(Event, type="sizes.wanted"):
    bytes: int
    events: int


def writing(name: str, topic: str, *, pure: bool) -> Agent:
    agent = Agent(name)

    class Written(Event, type=topic):
        text: str

    @agent.on(Wanted, pure=pure)
    async def write(wanted: Wanted) -> list[Written]:
        return [Written(text="x" * wanted.bytes)] * wanted.events

    return agent


@pytest.mark.parametrize("pure", [True, False], ids=["pure", "recorded"])
@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (Wanted(bytes=TOPIC_BYTES, events=1), "at most 91808 bytes on this topic"),
        (Wanted(bytes=1, events=12_000), "12000 events"),
    ],
    ids=["one event is too large", "so many that the journal cannot take it"],
)
async def test_what_the_broker_would_not_take_is_a_failed_step(platform: Platform, wanted: Wanted, said: str, pure: bool) -> None:
    topic = unique_topic("sizes.written")
    await platform.transport.cluster.create([TopicSpec(topic, 1, {"max.message.bytes": str(TOPIC_BYTES)})])
    agent = writing(unique_agent("writing"), topic, pure=pure)
    bus = platform.bus("tests", Untraced())
    async with running(platform, agent):
        too_much = await bus.publish(wanted)
        assert (await ended(platform, too_much.flow_id)).state is State.COMPENSATED
        ((_, why),) = await letters(platform, agent.name, 1)
        # As much as fits goes through, and what follows is not held up.
        enough = await bus.publish(Wanted(bytes=91_000, events=1))
        assert (await ended(platform, enough.flow_id)).state is State.COMMITTED
    assert why["dlq-reason"] == "contract_refused" and said in why["dlq-error"], why["dlq-error"]
    assert {record.key for record in await read_topic(platform, topic)} == {enough.flow_id.encode()}


@pytest.mark.parametrize("pure", [True, False], ids=["pure", "recorded"])
@pytest.mark.parametrize(("key_bytes", "output_bytes"), [(1_048_000, 10), (200_000, 890_000)])
async def test_a_business_key_too_large_to_be_carried_along_is_a_dead_letter(
    platform: Platform, key_bytes: int, output_bytes: int, pure: bool
) -> None:
    agent = writing(unique_agent("writing"), unique_topic("sizes.written"), pure=pure)
    flow = FlowId(f"foreign-{agent.name}")
    value = Writer(Wanted, schema_of(Wanted).derived_id).encode(Wanted(bytes=output_bytes, events=1))
    headers = [("ce_id", b"order-1"), ("ce_type", b"sizes.wanted"), ("ce_correlationid", flow.encode()), ("ce_subject", b"k" * key_bytes)]
    async with running(platform, agent):
        await platform.sink.publish([Record("sizes.wanted", flow.encode(), value, headers)])
        ((letter, why),) = await letters(platform, agent.name, 1)
        enough = await platform.bus("tests", Untraced()).publish(Wanted(bytes=10, events=1))
        assert (await ended(platform, enough.flow_id)).state is State.COMMITTED
    assert why["dlq-reason"] == "undecodable" and f"ce_subject of 1 to 1024 bytes, found {key_bytes}" in why["dlq-error"], why
    assert dict(letter.headers)["ce_subject"] == b"k" * key_bytes, "as it was"


@pytest.mark.parametrize("pure", [True, False], ids=["pure", "recorded"])
async def test_the_largest_output_fits_beside_the_longest_headers(platform: Platform, pure: bool) -> None:
    topic = unique_topic("sizes.written")
    await platform.transport.cluster.create([TopicSpec(topic, 1, {"max.message.bytes": str(TOPIC_BYTES)})])
    agent = writing(unique_agent("writing"), topic, pure=pure)
    flow = FlowId(agent.name.ljust(1024, "f"))
    value = Writer(Wanted, schema_of(Wanted).derived_id).encode(Wanted(bytes=TOPIC_BYTES - 8 * 1024 - 10, events=1))
    headers = [
        ("ce_id", b"e" * 1024), ("ce_type", b"sizes.wanted"), ("ce_correlationid", flow.encode()), ("ce_subject", b"k" * 1024),
        ("traceparent", root_traceparent(flow).encode()), ("tracestate", b"s=".ljust(1024, b"s")),
    ]  # fmt: skip
    async with running(platform, agent):
        await platform.sink.publish([Record("sizes.wanted", flow.encode(), value, headers)])
        assert (await ended(platform, flow)).state is State.COMMITTED
    (written,) = await read_topic(platform, topic)
    carried = dict(written.headers)
    assert len(carried["ce_subject"] or b"") == len(carried["ce_causationid"] or b"") == len(carried["tracestate"] or b"") == 1024


@pytest.mark.parametrize("name", ["business_key", "idempotency_key"])
async def test_a_key_that_no_record_could_carry_is_refused_where_it_is_said(platform: Platform, name: str) -> None:
    bus, wanted = platform.bus("tests", Untraced()), Wanted(bytes=1, events=1)
    with pytest.raises(ContractRefused, match=f"{name}: expected printable text of 1 to 1024 bytes in UTF-8"):
        await bus.publish(wanted, **{name: "事" * 342})  # type: ignore[arg-type]
    await bus.publish(wanted, **{name: "事" * 341})  # type: ignore[arg-type]
