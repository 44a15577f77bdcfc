"""Foreign clients: whoever speaks Kafka, Avro and CloudEvents can start a flow and read what we publish."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event
from cloudevents.core.formats.json import JSONFormat
from confluent_kafka import Producer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from maypole.bus import Agent, Event
from maypole.bus.composition import Platform, open_platform
from maypole.bus.hook import Untraced
from maypole.bus.ports import Delivery
from maypole.schemas.avro import DERIVED_ID_MIN, schema_of
from maypole.schemas.codec import Writer, schema_id_of
from maypole.schemas.identifiers import FlowId
from maypole.services.saga import State
from maypole.settings import Settings
from tests.support.names import unique_agent
from tests.support.world import ended, eventually, headers_of, read_topic, running


class Asked(Event, type="interop.asked"):
    text: str


class Answered(Event, type="interop.answered"):
    text: str


def answering() -> Agent:
    agent = Agent(unique_agent("answering"))

    @agent.on(Asked)
    async def answer(asked: Asked) -> Answered:
        return Answered(text=asked.text.upper())

    return agent


@pytest.fixture
async def platform(kafka: str, tmp_path: Path) -> AsyncIterator[Platform]:
    async with open_platform(Settings(home=tmp_path, kafka=kafka)) as platform:
        yield platform


async def produced(bootstrap: str, topic: str, key: str, value: bytes, headers: list[tuple[str, str | bytes | None]]) -> None:
    """As any program would: confluent-kafka with its own defaults, its own partitioner included."""
    producer = Producer({"bootstrap.servers": bootstrap})
    producer.produce(topic, value, key, headers=headers)
    assert await asyncio.to_thread(producer.flush, 20) == 0


async def answer_to(platform: Platform, flow: FlowId) -> Delivery:
    async def ask() -> list[Delivery]:
        return [record for record in await read_topic(platform, "interop.answered") if record.key == flow.encode()]

    return (await eventually(ask, bool))[0]


def root(flow: str) -> list[tuple[str, str | bytes | None]]:
    return [("ce_id", b"order-1"), ("ce_type", b"interop.asked"), ("ce_correlationid", flow.encode())]


async def test_a_plain_producer_starts_a_flow_with_three_headers(platform: Platform, kafka: str) -> None:
    agent = answering()
    flow = FlowId(f"plain-{agent.name}")
    value = Writer(Asked, schema_of(Asked).derived_id).encode(Asked(text="hello"))
    async with running(platform, agent):
        await produced(kafka, "interop.asked", flow, value, root(flow))
        assert (await ended(platform, flow)).state is State.COMMITTED


async def test_a_foreign_traceparent_does_not_become_the_flows_trace(platform: Platform, kafka: str) -> None:
    agent = answering()
    flow = FlowId(f"traced-{agent.name}")
    value = Writer(Asked, schema_of(Asked).derived_id).encode(Asked(text="hello"))
    stranger = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with running(platform, agent):
        await produced(kafka, "interop.asked", flow, value, [*root(flow), ("traceparent", stranger)])
        answered = await answer_to(platform, flow)
    assert [name for name, _ in answered.headers].count("traceparent") == 1


async def test_the_cloudevents_sdk_reads_what_is_published(platform: Platform) -> None:
    agent = answering()
    async with running(platform, agent):
        published = await platform.bus("tests", Untraced()).publish(Asked(text="hello"), business_key="order 7, größer")
        answered = await answer_to(platform, published.flow_id)
    message = KafkaMessage(headers={name: value or b"" for name, value in answered.headers}, key=answered.key, value=answered.value or b"")
    event = from_binary_event(message, JSONFormat())
    assert event.get_specversion() == "1.0" and event.get_type() == "interop.answered"
    assert event.get_source() == f"/agents/{agent.name}" and event.get_subject() == "order 7, größer"
    assert event.get_extension("correlationid") == published.flow_id and event.get_extension("causationid") == published.event_id
    assert event.get_extension("stateversion") == "2" and event.get_datacontenttype() == "application/avro"
    assert event.get_time() is not None and event.get_id() == (headers_of(answered)["ce_id"] or b"").decode()


async def test_confluents_serializers_and_ours_read_each_other_through_a_registry(kafka: str, registry_url: str, tmp_path: Path) -> None:
    agent = answering()
    flow = FlowId(f"registry-{agent.name}")
    settings = Settings(home=tmp_path, kafka=kafka, registry_url=registry_url)
    # Confluent's deserializer asks for associations, which Apicurio has not; one in some hundred of its "not found" never
    # leaves it. This client would wait for ever, unless it is told how long; then it asks again.
    with SchemaRegistryClient({"url": registry_url, "timeout": 5}) as client:
        serialize, deserialize = AvroSerializer(client, schema_of(Asked).text), AvroDeserializer(client)
        async with open_platform(settings) as platform, running(platform, agent):
            value = await asyncio.to_thread(serialize, {"text": "hello"}, SerializationContext("interop.asked", MessageField.VALUE))
            await produced(kafka, "interop.asked", flow, value, root(flow))
            assert (await ended(platform, flow)).state is State.COMMITTED
            answered = await answer_to(platform, flow)
        assert answered.value is not None
        assert schema_id_of(answered.value) < DERIVED_ID_MIN, "the id is the registry's"
        read = await asyncio.to_thread(deserialize, answered.value, SerializationContext("interop.answered", MessageField.VALUE))
    assert read == {"text": "HELLO"}
