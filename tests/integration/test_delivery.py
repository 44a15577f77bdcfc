"""The life of a delivery, on a broker in memory and on real Kafka: what is published, journaled and committed, and in which order."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from maypole.bus import Agent, Context, Event, Published, Reject
from maypole.bus.composition import Platform
from maypole.bus.hook import Untraced
from maypole.bus.ports import Receipt, Record, Sink, TopicPartition
from maypole.schemas.identifiers import FlowId, digest_of, output_event_id, root_event_id, root_traceparent, step_id_of
from maypole.schemas.journal import Effect, FlowStarted, StepCompleted
from maypole.services.saga import State
from tests.support.asking import Answered, Asked, Told, answering, foreign
from tests.support.names import unique_agent
from tests.support.world import ended, eventually, headers_of, journal_of, letters, read_topic, running, state_of


async def test_a_flow_goes_from_agent_to_agent_and_commits(platform: Platform) -> None:
    first, second = answering(), Agent(unique_agent("telling"))

    @second.on(Answered)
    async def tell(answered: Answered) -> Told:
        return Told(text=answered.text + "!")

    async with running(platform, first, second):
        published = await platform.bus("tests", Untraced()).publish(Asked(text="hello"), business_key="order-7")
        state = await ended(platform, published.flow_id)
    assert state.state is State.COMMITTED

    flow = published.flow_id
    step = step_id_of(flow, first.name, "delivery.asked", published.event_id)
    (answered,) = [record for record in await read_topic(platform, "delivery.answered") if record.key == flow.encode()]
    headers = headers_of(answered)
    text = {name: value.decode() for name, value in headers.items() if value is not None}
    assert len(answered.headers) == len(headers), "each header once"
    assert text["ce_id"] == output_event_id(step, "delivery.answered", 0) == text["ce_idempotencykey"]
    assert text["ce_causationid"] == published.event_id and text["ce_correlationid"] == flow
    assert text["ce_source"] == f"/agents/{first.name}" and text["ce_stateversion"] == "2" and text["ce_subject"] == "order-7"
    assert text["ce_choreography"] == published.choreography and text["content-type"] == "application/avro"
    assert text["traceparent"] == root_traceparent(flow), "without an observer the trace context is handed on"
    assert answered.value is not None and answered.value[0] == 0

    journal = await journal_of(platform, flow)
    started = journal[0][1]
    assert isinstance(started, FlowStarted) and started.roots[0].event_id == root_event_id(flow, "delivery.asked")
    completed = {record.step_id: record for _, record in journal if isinstance(record, StepCompleted)}
    assert completed[step].outputs[0].digest == digest_of(answered.value)
    assert completed[step].parents == (published.event_id,) and completed[step].effect is Effect.NONE


async def test_everything_finished_is_committed_and_nothing_is_handled_twice(platform: Platform) -> None:
    agent, seen = Agent(unique_agent()), []

    @agent.on(Asked)
    async def count(asked: Asked) -> None:
        seen.append(asked.text)

    bus = platform.bus("tests", Untraced())
    async with running(platform, agent):
        flows = [(await bus.publish(Asked(text=str(number)))).flow_id for number in range(20)]
        for flow in flows:
            await ended(platform, flow)
    async with running(platform, agent):
        last = await bus.publish(Asked(text="last"))
        await ended(platform, last.flow_id)
    assert sorted(seen) == sorted([*map(str, range(20)), "last"])
    partitions = [
        TopicPartition("delivery.asked", number) for number in range((await platform.transport.cluster.topics())["delivery.asked"])
    ]
    committed = await platform.transport.cluster.committed(agent.name, partitions)
    ends = await platform.transport.cluster.watermarks(partitions)
    assert all(committed[at] == ends[at][1] for at in partitions)


async def test_events_of_one_flow_are_handled_in_order_while_other_flows_go_on(platform: Platform) -> None:
    agent, order = Agent(unique_agent(), concurrency=8), defaultdict(list)
    release, started = asyncio.Event(), asyncio.Event()

    class Ticked(Event, type="delivery.ticked"):
        number: int

    @agent.on(Ticked)
    async def follow(ticked: Ticked, context: Context) -> None:
        order[context.flow_id].append(("begin", ticked.number))
        if context.flow_id.startswith("slow") and ticked.number == 0:
            started.set()
            await release.wait()
        order[context.flow_id].append(("end", ticked.number))

    slow, quick = f"slow-{agent.name}", f"quick-{agent.name}"
    async with running(platform, agent):
        # One adoption per flow, then children of it: the records of a flow lie in one partition.
        for flow in (slow, quick):
            await platform.sink.publish([foreign(Ticked(number=0), flow, f"{flow}-0")])
        await started.wait()
        choreography = (await eventually(lambda: journal_of(platform, FlowId(slow)), bool))[0][0].choreography.encode()
        child = [("ce_causationid", b"x"), ("ce_choreography", choreography)]
        for number in range(1, 6):
            for flow in (slow, quick):
                await platform.sink.publish([foreign(Ticked(number=number), flow, f"{flow}-{number}", *child)])

        async def done(flow: str) -> int:
            return len(order[FlowId(flow)])

        await eventually(lambda: done(quick), lambda count: count == 12)
        assert order[FlowId(slow)] == [("begin", 0)], "the flow waits behind its first event, and only this flow"
        release.set()
        await eventually(lambda: done(slow), lambda count: count == 12)
    expected = [step for number in range(6) for step in (("begin", number), ("end", number))]
    assert order[FlowId(slow)] == order[FlowId(quick)] == expected


async def test_a_subscriber_by_topic_name_reads_with_the_writers_schema(platform: Platform) -> None:
    agent, seen = Agent(unique_agent("audit")), []

    @agent.on("delivery.asked")
    def look(asked: Any) -> None:
        seen.append(dict(asked))
        with pytest.raises(TypeError):
            asked["text"] = "changed"

    async with running(platform, agent):
        published = await platform.bus("tests", Untraced()).publish(Asked(text="hello", confidence=0.9))
        assert (await ended(platform, published.flow_id)).state is State.COMMITTED
    assert seen == [{"text": "hello", "confidence": 0.9}]


async def test_a_root_without_subscriber_stays_running_and_names_nobody(platform: Platform) -> None:
    class Shouted(Event, type="delivery.shouted"):
        text: str

    published = await platform.bus("tests", Untraced()).publish(Shouted(text="anybody?"))
    state = await state_of(platform, published.flow_id)
    assert published.subscribers == () and state.state is State.RUNNING and not state.has_subscriber


class Gate:
    """A sink that holds records of one topic back until it is opened, and tells when the first has come."""

    def __init__(self, sink: Sink, topic: str) -> None:
        self._sink = sink
        self._topic = topic
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()
        self.passed: list[str] = []

    async def publish(self, records: Sequence[Record]) -> Sequence[Receipt]:
        if any(record.topic == self._topic for record in records):
            self.reached.set()
            await self.opened.wait()
        receipts = await self._sink.publish(records)
        self.passed += [record.topic for record in records]
        return receipts


async def position_of(platform: Platform, agent: Agent, published: Published) -> int:
    await asyncio.sleep(0)  # in memory the question alone gives nobody a turn
    at = TopicPartition(published.topic, published.partition)
    return (await platform.transport.cluster.committed(agent.name, [at]))[at]


@pytest.mark.parametrize("held", ["maypole.journal", "delivery.answered"])
@pytest.mark.parametrize("pure", [True, False], ids=["pure", "recorded"])
async def test_what_comes_later_waits_for_what_comes_first(platform: Platform, held: str, pure: bool) -> None:
    """Journal, outputs, commit: each only after the one before is acknowledged."""
    agent = answering(pure=pure)
    gate = Gate(platform.sink, held)
    async with running(replace(platform, sink=gate), agent):
        published = await platform.bus("tests", Untraced()).publish(Asked(text="hello"))
        await gate.reached.wait()
        for _ in range(20):  # questions to the broker, so that whatever does not wait gets its chance
            assert await position_of(platform, agent, published) == published.offset
        assert "delivery.answered" not in gate.passed
        gate.opened.set()
        assert (await ended(platform, published.flow_id)).state is State.COMMITTED
        await eventually(lambda: position_of(platform, agent, published), lambda offset: offset == published.offset + 1)
    assert gate.passed.index("maypole.journal") < gate.passed.index("delivery.answered")


async def test_a_flow_is_journaled_before_its_root_leaves(platform: Platform) -> None:
    gate = Gate(platform.sink, "maypole.journal")
    publishing = asyncio.create_task(replace(platform, sink=gate).bus("tests", Untraced()).publish(Asked(text="hello")))
    await gate.reached.wait()
    before = len(await read_topic(platform, "delivery.asked"))
    assert "delivery.asked" not in gate.passed
    gate.opened.set()
    await publishing
    assert gate.passed == ["maypole.journal", "delivery.asked"]
    assert len(await read_topic(platform, "delivery.asked")) == before + 1


@pytest.mark.parametrize("held", ["maypole.journal", "dlq"])
async def test_a_failed_step_is_journaled_then_buried_then_committed(platform: Platform, held: str) -> None:
    agent = Agent(unique_agent())

    @agent.on(Asked)
    async def refuse(asked: Asked) -> None:
        raise Reject("no")

    buried = f"{agent.name}.dlq"
    gate = Gate(platform.sink, buried if held == "dlq" else held)
    async with running(replace(platform, sink=gate), agent):
        published = await platform.bus("tests", Untraced()).publish(Asked(text="x"))
        await gate.reached.wait()
        for _ in range(20):
            assert await position_of(platform, agent, published) == published.offset
        assert buried not in gate.passed
        gate.opened.set()
        await letters(platform, agent.name, 1)
        await eventually(lambda: position_of(platform, agent, published), lambda offset: offset == published.offset + 1)
    assert gate.passed.index("maypole.journal") < gate.passed.index(buried)


async def test_an_event_that_no_agent_declares_is_readable_by_whoever_subscribes_by_name(platform: Platform) -> None:
    class Whispered(Event, type="delivery.whispered"):
        text: str

    agent, seen = Agent(unique_agent("audit")), []

    @agent.on("delivery.whispered")
    async def look(whispered: Any) -> None:
        seen.append(whispered["text"])

    async with running(platform, agent):
        published = await platform.bus("tests", Untraced()).publish(Whispered(text="psst"))
        assert (await ended(platform, published.flow_id)).state is State.COMMITTED
    assert seen == ["psst"]
