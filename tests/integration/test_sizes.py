"""What is too large or too many for the broker is a failed step with the sizes in its dead letter, and holds nobody up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # documented, and not exported
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from maypole.bus import Agent, Event
from maypole.bus.composition import Platform, open_platform
from maypole.bus.hook import Untraced
from maypole.bus.ports import Record, RecordTooLarge, TopicSpec
from maypole.bus.record_sizes import value_bytes_max
from maypole.schemas.avro import schema_of
from maypole.schemas.codec import Writer
from maypole.schemas.errors import ContractRefused
from maypole.schemas.identifiers import FlowId, root_traceparent
from maypole.services.saga import State
from maypole.settings import Settings
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
    largest = value_bytes_max({topic: TOPIC_BYTES}, [topic])[topic] - 8  # of which the schema's id and the text's length take eight
    value = Writer(Wanted, schema_of(Wanted).derived_id).encode(Wanted(bytes=largest, events=1))
    headers = [
        ("ce_id", b"e" * 1024), ("ce_type", b"sizes.wanted"), ("ce_correlationid", flow.encode()), ("ce_subject", b"k" * 1024),
        ("traceparent", root_traceparent(flow).encode()), ("tracestate", b"s=".ljust(1024, b"s")),
    ]  # fmt: skip
    async with running(platform, agent):
        await platform.sink.publish([Record("sizes.wanted", flow.encode(), value, headers)])
        assert (await ended(platform, flow)).state is State.COMMITTED
    (written,) = await read_topic(platform, topic)
    assert len(written.value or b"") == largest + 8
    carried = dict(written.headers)
    assert len(carried["ce_subject"] or b"") == len(carried["ce_causationid"] or b"") == len(carried["tracestate"] or b"") == 1024


@pytest.mark.parametrize("name", ["business_key", "idempotency_key"])
async def test_a_key_that_no_record_could_carry_is_refused_where_it_is_said(platform: Platform, name: str) -> None:
    bus, wanted = platform.bus("tests", Untraced()), Wanted(bytes=1, events=1)
    with pytest.raises(ContractRefused, match=f"{name}: expected printable text of 1 to 1024 bytes in UTF-8"):
        await bus.publish(wanted, **{name: "事" * 342})  # type: ignore[arg-type]
    await bus.publish(wanted, **{name: "事" * 341})  # type: ignore[arg-type]


async def test_a_record_larger_than_the_usual_is_buried_whole_in_a_topic_that_is_made_for_it(platform: Platform) -> None:
    topic, name = unique_topic("sizes.asked"), unique_agent("reading")
    await platform.transport.cluster.create([TopicSpec(topic, 1, {"max.message.bytes": "5000000"})])
    async with running(platform, reading(name, topic)):
        await platform.sink.publish([Record(topic, b"k", b"x" * 4_900_000, [])])
        ((letter, why),) = await letters(platform, name, 1)
    assert letter.value == b"x" * 4_900_000 and "dlq-left-out" not in why
    limits = {
        own: (await platform.transport.cluster.topic_config(own))["max.message.bytes"] for own in (f"{name}.dlq", f"{name}.retry.30s")
    }
    assert set(limits.values()) == {str(5_000_000 + 64 * 1024)}


async def test_a_record_larger_than_an_old_dead_letter_topic_takes_is_buried_with_its_place(
    platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    topic, name = unique_topic("sizes.asked"), unique_agent("reading")
    old = [TopicSpec(topic, 1, {"max.message.bytes": "5000000"}), TopicSpec(f"{name}.dlq", 1, {"max.message.bytes": "2097152"})]
    await platform.transport.cluster.create(old)
    async with running(platform, reading(name, topic)):
        await platform.sink.publish([Record(topic, b"k", value, []) for value in (b"first", b"x" * 3_000_000, b"last")])
        (first, large, last) = await letters(platform, name, 3)
    assert [letter.value for letter, _ in (first, large, last)] == [b"first", None, b"last"]
    why = large[1]
    assert (why["dlq-left-out"], why["dlq-topic"], why["dlq-partition"], why["dlq-offset"]) == ("value of 3000000 bytes", topic, "0", "1")
    (told,) = [vars(record) for record in caplog.records if record.getMessage() == "agent.topic_too_small"]
    assert (told["topic"], told["bytes_max"], told["expected"]) == (f"{name}.dlq", 2097152, 5_065_536)
    assert f"--topic {name}.dlq --add-config max.message.bytes=5065536" in told["try"]
    assert told["levelno"] == logging.WARNING


def reading(name: str, topic: str) -> Agent:
    agent = Agent(name)

    class Asked(Event, type=topic):
        text: str

    @agent.on(Asked)
    async def read(asked: Asked) -> None: ...

    return agent


async def test_a_limit_lowered_under_way_ends_the_agent_with_what_to_do_and_nothing_is_done_twice(kafka: str, tmp_path: Path) -> None:
    topic, name = unique_topic("sizes.written"), unique_agent("writing")
    begun, go_on = asyncio.Event(), asyncio.Event()
    calls = 0

    class Written(Event, type=topic):
        text: str

    def made() -> Agent:
        agent = Agent(name)

        @agent.on(Wanted)
        async def write(wanted: Wanted) -> Written:
            nonlocal calls
            calls += 1
            begun.set()
            await go_on.wait()
            return Written(text="x" * wanted.bytes)

        return agent

    async with open_platform(Settings(home=tmp_path, kafka=kafka)) as platform:
        for declaration in platform.catalog.view.active():
            await platform.catalog.retire(declaration["name"])
        await platform.transport.cluster.create([TopicSpec(topic, 1, {"max.message.bytes": str(TOPIC_BYTES)})])
        async with ending(platform, made()) as under_way:
            flow = (await platform.bus("tests", Untraced()).publish(Wanted(bytes=50_000, events=1))).flow_id
            await begun.wait()
            await asyncio.to_thread(limit, kafka, topic, 20_000)
            go_on.set()
        async with ending(platform, made(), starts=False) as started_again:
            pass
        for error in (*under_way, *started_again):
            assert isinstance(error, RecordTooLarge) and error.topic == topic
            assert "step " in str(error) and "the topic takes 20000 now" in str(error), str(error)
            assert f"--topic {topic} --add-config max.message.bytes=5" in str(error)
        assert (len(under_way), len(started_again)) == (1, 1)
        await asyncio.to_thread(limit, kafka, topic, TOPIC_BYTES)
        async with running(platform, made(), temporary=False):
            assert (await ended(platform, flow)).state is State.COMMITTED
        await platform.catalog.retire(name)
    assert calls == 1


@asynccontextmanager
async def ending(platform: Platform, agent: Agent, *, starts: bool = True) -> AsyncIterator[list[BaseException]]:
    """An agent that is expected to end by itself: then with why it did."""
    why: list[BaseException] = []
    runner = platform.runner(agent, Untraced())
    agent_run = asyncio.create_task(runner.run())
    if starts:
        await runner.ready.wait()
    yield why
    async with asyncio.timeout(30):
        (error,) = await asyncio.gather(agent_run, return_exceptions=True)
    while isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions
    assert error is not None
    why.append(error)


def limit(kafka: str, topic: str, size: int) -> None:
    entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
    admin = AdminClient({"bootstrap.servers": kafka})
    (altered,) = admin.incremental_alter_configs([ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])]).values()
    altered.result(20)
