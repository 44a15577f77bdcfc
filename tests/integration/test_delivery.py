"""The life of a delivery, on a broker in memory and on real Kafka: what is published, journaled, buried, committed, and in which order."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import pytest
from pydantic import Field

from maypole.bus import Agent, Context, Event, IdempotencyConflict, Published, Reject, at_least
from maypole.bus.composition import Platform
from maypole.bus.hook import Outcome, Processing, Untraced
from maypole.bus.ports import Delivery, Receipt, Record, Sink, TopicPartition
from maypole.bus.start_checks import ConflictingSchemas
from maypole.schemas.avro import schema_of
from maypole.schemas.codec import Writer
from maypole.schemas.envelope import Envelope
from maypole.schemas.identifiers import EventId, FlowId, digest_of, output_event_id, root_event_id, root_traceparent, step_id_of
from maypole.schemas.journal import Effect, FlowEnded, FlowStarted, StepCompleted
from maypole.schemas.topics import event_topic
from maypole.services.saga import State
from tests.support.names import unique_agent
from tests.support.world import ended, eventually, headers_of, ids, journal_of, letters, read_topic, running, state_of


class Asked(Event, type="delivery.asked"):
    text: str
    confidence: Annotated[float, Field(ge=0, le=1)] = 1.0


class Answered(Event, type="delivery.answered"):
    text: str


class Told(Event, type="delivery.told"):
    text: str


def answering(name: str | None = None) -> Agent:
    agent = Agent(name or unique_agent("answering"))

    @agent.on(Asked, require=at_least("confidence", 0.7))
    async def answer(asked: Asked) -> Answered:
        return Answered(text=asked.text.upper())

    return agent


def encoded(event: Event) -> bytes:
    return Writer(type(event), schema_of(type(event)).derived_id).encode(event)


def foreign(event: Event, flow: str, event_id: str = "foreign-1", *more: tuple[str, bytes], value: bytes | None = None) -> Record:
    """A root as any Kafka client may write it."""
    event_type = type(event).event_type
    headers = [("ce_id", event_id.encode()), ("ce_type", event_type.encode()), ("ce_correlationid", flow.encode()), *more]
    return Record(event_type, flow.encode(), encoded(event) if value is None else value, headers)


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


async def test_an_event_under_the_required_confidence_is_refused_with_field_value_and_rule(platform: Platform) -> None:
    agent = answering()
    async with running(platform, agent):
        bus = platform.bus("tests", Untraced())
        good = await bus.publish(Asked(text="good", confidence=0.70))
        bad = await bus.publish(Asked(text="bad", confidence=0.69))
        assert (await ended(platform, good.flow_id)).state is State.COMMITTED
        assert (await ended(platform, bad.flow_id)).state is State.ABORTING
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
    assert state.state is State.ABORTING
    assert [failed.reason for failed in state.failed.values() if failed.agent == agent.name] == ["undecodable"]


@pytest.mark.parametrize("broken", [("ce_stateversion", b"zero"), ("ce_subject", b"\xff")])
async def test_unreadable_headers_of_a_flow_that_can_be_told_are_journaled(platform: Platform, broken: tuple[str, bytes]) -> None:
    agent = answering()
    flow = FlowId(f"unreadable-{agent.name}")
    async with running(platform, agent):
        await platform.sink.publish([foreign(Asked(text="x"), flow, "e1", broken)])
        state = await ended(platform, flow)
    assert [failed.reason for failed in state.failed.values()] == ["undecodable"]


async def test_a_foreign_root_that_names_an_unknown_choreography_pins_its_flow_to_nothing(platform: Platform) -> None:
    agent = answering()
    flow = FlowId(f"lost-{agent.name}")
    async with running(platform, agent):
        await platform.sink.publish([foreign(Asked(text="x"), flow, "e1", ("ce_choreography", b"f" * 64))])
        ((_, why),) = await letters(platform, agent.name, 1)
        assert why["dlq-reason"] == "unknown_flow"
        assert await journal_of(platform, flow) == []


async def test_whoever_subscribes_to_the_ends_of_flows_observes(platform: Platform) -> None:
    agent, seen = Agent(unique_agent("watcher")), []

    @agent.on("maypole.flow.ended")
    async def watch(end: Any) -> None:
        seen.append(end["state"])

    flow = FlowId(f"ended-{agent.name}")
    async with running(platform, agent):
        await platform.sink.publish([foreign(FlowEnded(state="committed", reason=""), flow)])

        async def states() -> list[str]:
            return list(seen)

        assert await eventually(states, bool) == ["committed"]
    assert await journal_of(platform, flow) == []
    assert await read_topic(platform, f"{agent.name}.dlq") == []


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


@pytest.mark.parametrize("failing", ["reject", "raise", "invalid", "cancel"])
async def test_whatever_a_handler_raises_or_returns_the_agent_goes_on(platform: Platform, failing: str) -> None:
    agent = Agent(unique_agent())

    @agent.on(Asked, attempts_max=1)
    async def misbehave(asked: Asked) -> Answered | None:
        if asked.text == "good":
            return None
        if failing == "invalid":
            return Answered.model_construct(text=5)  # type: ignore[arg-type]
        if failing == "cancel":
            raise asyncio.CancelledError
        raise (Reject if failing == "reject" else ValueError)("half a pair \ud800")

    async with running(platform, agent):
        bus = platform.bus("tests", Untraced())
        bad = await bus.publish(Asked(text="bad"))
        assert (await ended(platform, bad.flow_id)).state is State.ABORTING
        good = await bus.publish(Asked(text="good"))
        assert (await ended(platform, good.flow_id)).state is State.COMMITTED


async def test_two_agents_of_one_process_that_contradict_each_other_are_not_both_announced(platform: Platform) -> None:
    one, two = Agent(unique_agent("emitting")), Agent(unique_agent("reading"))

    class Made(Event, type="delivery.made"):
        number: int

    @one.on(Asked)
    async def make(asked: Asked) -> Made:
        return Made(number=1)

    class OtherMade(Event, type="delivery.made"):
        number: str

    @two.on(OtherMade)
    async def read(made: OtherMade) -> None: ...

    with pytest.raises(ExceptionGroup) as stopped:
        async with running(platform, one, two):
            raise AssertionError("both were announced")
    assert stopped.group_contains(ConflictingSchemas, match="delivery.made")


async def test_a_rejected_event_is_not_tried_again(platform: Platform) -> None:
    agent, calls = Agent(unique_agent()), []

    @agent.on(Asked)
    async def refuse(asked: Asked) -> None:
        calls.append(asked)
        raise Reject("the account is closed")

    async with running(platform, agent):
        published = await platform.bus("tests", Untraced()).publish(Asked(text="x"))
        state = await ended(platform, published.flow_id)
    (failed,) = [record for record in state.failed.values() if record.agent == agent.name]
    assert (failed.reason, failed.detail, failed.attempts, len(calls)) == ("rejected", "the account is closed", 1, 1)


async def test_a_handler_that_forgets_to_return_its_event_is_refused(platform: Platform) -> None:
    agent = Agent(unique_agent())

    @agent.on(Asked)
    async def forget(asked: Asked) -> Answered:
        return None  # type: ignore[return-value]

    async with running(platform, agent):
        published = await platform.bus("tests", Untraced()).publish(Asked(text="x"))
        state = await ended(platform, published.flow_id)
    (failed,) = [record for record in state.failed.values() if record.agent == agent.name]
    assert failed.reason == "contract_refused" and "Answered" in failed.detail and "| None" in failed.detail


async def test_any_other_exception_is_tried_three_times(platform: Platform) -> None:
    agent, attempts = Agent(unique_agent()), []

    @agent.on(Asked, pivot=True)
    async def fail(asked: Asked, context: Context) -> None:
        attempts.append((context.attempt, context.idempotency_key))
        raise ConnectionError("the service is away")

    async with running(platform, agent):
        published = await platform.bus("tests", Untraced()).publish(Asked(text="x"))
        state = await ended(platform, published.flow_id)
        ((_, why),) = await letters(platform, agent.name, 1)
    (failed,) = [record for record in state.failed.values() if record.agent == agent.name]
    assert (failed.reason, failed.attempts) == ("attempts_exhausted", 3) and "the service is away" in failed.detail
    assert why["dlq-attempts"] == "3"
    assert [attempt for attempt, _ in attempts] == [1, 2, 3]
    assert len({key for _, key in attempts}) == 1, "every attempt acts under one key"


async def test_an_attempt_that_recovers_leaves_no_dead_letter(platform: Platform) -> None:
    agent, attempts = Agent(unique_agent()), []

    @agent.on(Asked)
    async def recover(asked: Asked, context: Context) -> None:
        attempts.append(context.attempt)
        if context.attempt == 1:
            raise ConnectionError("away for a moment")

    async with running(platform, agent):
        published = await platform.bus("tests", Untraced()).publish(Asked(text="x"))
        assert (await ended(platform, published.flow_id)).state is State.COMMITTED
    assert attempts == [1, 2]
    assert await read_topic(platform, f"{agent.name}.dlq") == []


async def test_a_handler_that_takes_longer_than_its_deadline_is_cancelled_and_counted(platform: Platform) -> None:
    agent, cancelled = Agent(unique_agent()), []

    @agent.on(Asked, timeout_seconds=0.2, attempts_max=2)
    async def hang(asked: Asked) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(asked)

    async with running(platform, agent):
        published = await platform.bus("tests", Untraced()).publish(Asked(text="x"))
        state = await ended(platform, published.flow_id)
    (failed,) = [record for record in state.failed.values() if record.agent == agent.name]
    assert failed.reason == "attempts_exhausted" and "longer than 0.2 s" in failed.detail and len(cancelled) == 2


async def test_a_time_limit_inside_a_handler_is_its_own(platform: Platform) -> None:
    agent = Agent(unique_agent())

    @agent.on(Asked)
    async def impatient(asked: Asked) -> Answered:
        try:
            async with asyncio.timeout(0.05):
                await asyncio.Event().wait()
        except TimeoutError:
            return Answered(text="in time")
        raise AssertionError("unreachable")

    async with running(platform, agent):
        published = await platform.bus("tests", Untraced()).publish(Asked(text="x"))
        state = await ended(platform, published.flow_id)
    assert agent.name in {record.agent for record in state.completed.values()}


async def test_an_undeclared_output_is_refused_by_name(platform: Platform) -> None:
    agent = Agent(unique_agent())

    @agent.on(Asked)
    async def stray(asked: Asked) -> Answered:
        return Told(text="not declared")  # type: ignore[return-value]

    async with running(platform, agent):
        published = await platform.bus("tests", Untraced()).publish(Asked(text="x"))
        await ended(platform, published.flow_id)
        ((_, why),) = await letters(platform, agent.name, 1)
    assert why["dlq-reason"] == "contract_refused" and "Told" in why["dlq-error"] and "Answered" in why["dlq-error"]


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


async def test_the_same_key_gives_the_same_ids_and_another_event_under_it_is_refused(platform: Platform) -> None:
    agent = answering()
    key = unique_agent("key")
    async with running(platform, agent):
        bus = platform.bus("tests", Untraced())
        one = await bus.publish(Asked(text="once"), idempotency_key=key)
        two = await bus.publish(Asked(text="once"), idempotency_key=key)
        assert (one.flow_id, one.event_id, one.choreography) == (two.flow_id, two.event_id, two.choreography)
        with pytest.raises(IdempotencyConflict, match=key):
            await bus.publish(Asked(text="something else"), idempotency_key=key)
        assert (await ended(platform, one.flow_id)).state is State.COMMITTED
        # A client that does not ask first is stopped by the agent that gets its root.
        intruder = foreign(Asked(text="something else"), one.flow_id, one.event_id)
        await platform.sink.publish([intruder])
        ((letter, why),) = await letters(platform, agent.name, 1)
    assert why["dlq-reason"] == "idempotency_conflict" and letter.value == intruder.value
    answers = [record for record in await read_topic(platform, "delivery.answered") if record.key == one.flow_id.encode()]
    assert set(ids(answers)) == {
        output_event_id(step_id_of(one.flow_id, agent.name, "delivery.asked", one.event_id), "delivery.answered", 0)
    }
    assert (await state_of(platform, one.flow_id)).state is State.COMMITTED


async def test_a_foreign_root_is_adopted_once_though_two_agents_get_it(platform: Platform) -> None:
    one, two = answering(), answering()
    flow = FlowId(f"foreign-{one.name}")
    async with running(platform, one, two):
        await platform.sink.publish([foreign(Asked(text="hello"), flow)])
        state = await ended(platform, flow)
    journal = await journal_of(platform, flow)
    started = [(envelope, record) for envelope, record in journal if isinstance(record, FlowStarted)]
    assert started and len({envelope.event_id for envelope, _ in started}) == 1, "whoever adopts writes the same record"
    assert state.state is State.COMMITTED and {one.name, two.name} <= {record.agent for record in state.completed.values()}
    answers = [record for record in await read_topic(platform, "delivery.answered") if record.key == flow.encode()]
    assert {headers_of(record)["ce_choreography"] for record in answers} == {started[0][1].choreography.encode()}
    assert len(answers) == 2


async def test_an_agent_outside_the_choreography_only_observes(platform: Platform) -> None:
    inside = answering()
    async with running(platform, inside):
        published = await platform.bus("tests", Untraced()).publish(Asked(text="hello"))
        await ended(platform, published.flow_id)
    late, acting, acted = answering(), Agent(unique_agent("acting")), []

    @acting.on(Asked, pivot=True)
    async def act(asked: Asked) -> None:
        acted.append(asked)

    outcomes: list[tuple[str, str]] = []

    class Observer(Untraced):
        """Takes down how each delivery of the flow ended."""

        def processing(self, agent: str, delivery: Delivery, envelope: Envelope, step_id: str, queued_ms: float) -> Processing:
            inner = super().processing(agent, delivery, envelope, step_id, queued_ms)

            class Watched:
                def __getattr__(self, name: str) -> Any:
                    return getattr(inner, name)

                def ended(self, outcome: Outcome, attempts: int, detail: str | None = None) -> None:
                    if envelope.flow_id == published.flow_id:
                        outcomes.append((agent, outcome))

            return Watched()

    before = len(await journal_of(platform, published.flow_id))
    async with running(platform, late, acting, start="earliest", tracing=Observer()):
        follow_up = await platform.bus("tests", Untraced()).publish(Asked(text="now it takes part"))
        assert (await ended(platform, follow_up.flow_id)).state is State.COMMITTED
        flow = published.flow_id.encode()

        async def observed() -> list[Any]:
            return [
                record
                for record in await read_topic(platform, "delivery.answered")
                if record.key == flow and headers_of(record)["ce_source"] == f"/agents/{late.name}".encode()
            ]

        (output,) = await eventually(observed, bool)
    assert headers_of(output)["ce_observer"] == b"true"
    assert len(await journal_of(platform, published.flow_id)) == before, "nothing of an observer is journaled"
    assert [asked.text for asked in acted] == ["now it takes part"], "what acts on the outside skips a flow that it only observes"
    assert sorted(outcomes) == [(acting.name, "skipped"), (late.name, "ok")]


async def test_a_retired_agent_is_not_waited_for(platform: Platform) -> None:
    stays, goes = answering(), answering()
    async with running(platform, stays):
        async with running(platform, goes):
            during = await platform.bus("tests", Untraced()).publish(Asked(text="both"))
            await ended(platform, during.flow_id)
        after = await platform.bus("tests", Untraced()).publish(Asked(text="one"))
        assert (await ended(platform, after.flow_id)).state is State.COMMITTED
    agents = {step.agent for step in (await state_of(platform, after.flow_id)).expected.values()}
    assert goes.name in {step.agent for step in (await state_of(platform, during.flow_id)).expected.values()}
    assert stays.name in agents and goes.name not in agents


async def test_a_new_agent_starts_at_the_end_and_takes_part_in_the_next_flow_only(platform: Platform) -> None:
    await platform.ensure([event_topic("delivery.asked")])
    bus = platform.bus("tests", Untraced())
    for number in range(50):
        await bus.publish(Asked(text=str(number)))
    agent, seen = Agent(unique_agent("new")), []

    @agent.on(Asked)
    async def look(asked: Asked) -> None:
        seen.append(asked.text)

    async with running(platform, agent):
        published = await bus.publish(Asked(text="next"))
        await ended(platform, published.flow_id)
    assert seen == ["next"]


async def test_agents_that_declare_a_topic_differently_are_told_apart_at_the_start(platform: Platform) -> None:
    one, two = answering(), Agent(unique_agent("other"))

    class AlsoAsked(Event, type="delivery.asked"):
        text: int

    @two.on(AlsoAsked)
    async def look(asked: AlsoAsked) -> None: ...

    class NarrowlyAsked(Event, type="delivery.asked"):
        text: str
        urgent: bool

    three = Agent(unique_agent("narrow"))

    @three.on(NarrowlyAsked)
    async def hurry(asked: NarrowlyAsked) -> None: ...

    emitting = Agent(unique_agent("emitting"))

    @emitting.on("delivery.unheard")
    async def emit(event: Any) -> Asked:
        return Asked(text="")

    async with running(platform, one):
        with pytest.raises(ConflictingSchemas, match=f"{two.name} and {one.name} declare delivery.asked differently") as refused:
            await platform.runner(two, Untraced()).run()
    async with running(platform, emitting):
        # It reads what the other's readers could not write: only whoever writes matters.
        with pytest.raises(ConflictingSchemas, match=f"{three.name} cannot read what {emitting.name} writes.*urgent"):
            await platform.runner(three, Untraced()).run()
    assert "text" in str(refused.value)


async def test_an_agent_that_could_not_read_what_may_still_wait_for_it_is_refused(platform: Platform) -> None:
    name = unique_agent("changing")

    class Before(Event, type="delivery.noted"):
        size: int

    class After(Event, type="delivery.noted"):
        size: str

    def agent(event: type[Event]) -> Agent:
        made = Agent(name)

        async def note(noted: Any) -> None: ...

        made.on(event)(note)
        return made

    async with running(platform, agent(Before), temporary=False):
        pass
    with pytest.raises(ConflictingSchemas, match=f"{name} was announced with another delivery.noted.*agents retire {name}"):
        await platform.runner(agent(After), Untraced()).run()
    await platform.catalog.retire(name)
    async with running(platform, agent(After)):
        pass


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
    at = TopicPartition(published.topic, published.partition)
    return (await platform.transport.cluster.committed(agent.name, [at]))[at]


@pytest.mark.parametrize("held", ["maypole.journal", "delivery.answered"])
async def test_what_comes_later_waits_for_what_comes_first(platform: Platform, held: str) -> None:
    """Journal, outputs, commit: each only after the one before is acknowledged."""
    agent = answering()
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


async def test_what_a_failed_attempt_would_have_emitted_never_leaves(platform: Platform) -> None:
    """Handlers decide; only the bus acts: an event that was made but not returned is nobody's."""
    agent = Agent(unique_agent())

    @agent.on(Asked, attempts_max=2)
    async def stumble(asked: Asked, context: Context) -> Told:
        told = Told(text=f"attempt {context.attempt}")
        if context.attempt == 1:
            raise ConnectionError("after the event was made")
        return told

    async with running(platform, agent):
        published = await platform.bus("tests", Untraced()).publish(Asked(text="x"))
        assert (await ended(platform, published.flow_id)).state is State.COMMITTED

        async def told() -> list[Any]:
            return [record for record in await read_topic(platform, "delivery.told") if record.key == published.flow_id.encode()]

        (record,) = await eventually(told, bool)
    assert b"attempt 2" in (record.value or b"")


async def test_an_event_id_is_a_plain_string_to_foreign_clients(platform: Platform) -> None:
    agent = answering()
    flow = FlowId(f"größe-{agent.name}")
    async with running(platform, agent):
        await platform.sink.publish([foreign(Asked(text="x"), flow, "ein Ereignis")])
        state = await ended(platform, flow)
    assert step_id_of(flow, agent.name, "delivery.asked", EventId("ein Ereignis")) in state.completed


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
