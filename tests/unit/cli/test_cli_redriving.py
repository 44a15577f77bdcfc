"""What becomes of dead letters, decided from headers, catalog and journal, and what a crash leaves of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from maypole.bus import Agent, Event
from maypole.bus.composition import Platform, open_platform
from maypole.bus.contracts import announced_schemas
from maypole.bus.dead_letters import Reason, dead_letter, fitting
from maypole.bus.hook import Untraced
from maypole.bus.memory.broker import MemoryBroker
from maypole.bus.memory.transport import MemoryTransport
from maypole.bus.memory.virtual_time import virtual_time
from maypole.bus.ports import Delivery, Receipt, Record
from maypole.schemas.avro import schema_of
from maypole.schemas.codec import Writer
from maypole.schemas.envelope import CORRELATION_ID
from maypole.schemas.topics import JOURNAL, dead_letters, event_topic
from maypole.services.cli.dead_letters import read_copies, read_letters
from maypole.services.cli.redriving import Judge, Verdict, Wish, judge_all, send_all
from maypole.services.coordinator.naming import COORDINATOR
from maypole.settings import Settings
from tests.support.world import headers_of, read_topic


class Wanted(Event, type="judged.wanted"):
    text: str


class Unwanted(Event, type="judged.unwanted"):
    number: int


def subscribing() -> Agent:
    agent = Agent("one")

    @agent.on(Wanted)
    async def want(wanted: Wanted) -> None: ...

    return agent


def encoded(event: Event) -> bytes:
    return Writer(type(event), schema_of(type(event)).derived_id).encode(event)


VALUE = encoded(Wanted(text="x"))


@pytest.fixture
async def platform(tmp_path: Path) -> AsyncIterator[Platform]:
    async with AsyncExitStack() as stack:
        clock = await stack.enter_async_context(virtual_time())
        transport = await stack.enter_async_context(MemoryTransport(MemoryBroker(clock.now)))
        platform = await stack.enter_async_context(open_platform(Settings(home=tmp_path), transport, clock.now))
        await platform.ensure([event_topic("judged.wanted"), dead_letters("one")])
        ids, schemas = announced_schemas([Wanted, Unwanted])
        await platform.catalog.announce({**subscribing().declaration(), "schemas": ids}, schemas)
        yield platform


async def bury(
    platform: Platform, *headers: Sequence[tuple[str, bytes | None]], value: bytes | None = VALUE, topic: str = "judged.wanted"
) -> None:
    originals = [Delivery(topic, 0, offset, 0, b"%d" % offset, value, each) for offset, each in enumerate(headers)]
    await platform.sink.publish([dead_letter("one", original, Reason.REJECTED, "why", 1, 0) for original in originals])


async def judged(platform: Platform, **wish: object) -> list[Verdict]:
    wanted = Wish(**wish)  # type: ignore[arg-type]
    judge = Judge(platform, await read_copies(platform.transport, ["one"]), wanted)
    return await judge_all(judge, lambda: read_letters(platform.transport, ["one"]), lambda _: True, wanted)


async def sent(platform: Platform, **wish: object) -> list[Verdict]:
    bus = platform.bus("tests", Untraced())
    return [
        each
        async for each in send_all(platform, bus, lambda: read_letters(platform.transport, ["one"]), await judged(platform, **wish), "ada")
    ]


def whys(verdicts: Sequence[Verdict]) -> list[tuple[str, str]]:
    return [(verdict.action.value, verdict.why) for verdict in verdicts]


def foreign(flow: str, event_id: str = "e", **more: str) -> list[tuple[str, bytes | None]]:
    told = {
        "ce_id": event_id,
        "ce_type": "judged.wanted",
        "ce_correlationid": flow,
        **{f"ce_{name}": value for name, value in more.items()},
    }
    return [(name, value.encode()) for name, value in told.items()]


async def test_a_letter_without_its_value_is_not_sent_again_and_says_where_all_of_it_lay(platform: Platform) -> None:
    original = Delivery("judged.wanted", 0, 7, 0, b"k", VALUE + bytes(5000), foreign("f"))
    await platform.sink.publish([fitting(dead_letter("one", original, Reason.UNDECODABLE, "why", 1, 0), 4000)])
    for as_new_flow in (False, True):
        (verdict,) = await judged(platform, as_new_flow=as_new_flow)
        assert (verdict.action.value, verdict.why) == ("refused", "left_out")
        assert f"value of {len(VALUE) + 5000} bytes" in verdict.detail and "judged.wanted/0/7" in verdict.detail


class Crashing:
    """A sink that dies at one of its records, having written it or not."""

    def __init__(self, platform: Platform, at: int, *, written: bool) -> None:
        self._sink = platform.sink
        self._left = at
        self._written = written

    async def publish(self, records: Sequence[Record]) -> Sequence[Receipt]:
        before = records[: self._left + self._written]
        if len(before) == len(records) and self._left >= len(records):
            self._left -= len(records)
            return await self._sink.publish(records)
        if before:
            await self._sink.publish(before)
        raise ConnectionAbortedError("crashed")


@pytest.mark.parametrize("written", [False, True])
@pytest.mark.parametrize("at", [0, 1, 199, 200, 449])
async def test_a_crash_at_any_record_leaves_each_letter_sent_once_or_still_to_send(platform: Platform, at: int, written: bool) -> None:
    await bury(platform, *[[("ce_id", b"%d" % number)] for number in range(450)])
    with pytest.raises(ConnectionAbortedError):
        await sent(replace(platform, sink=Crashing(platform, at, written=written)))
    done = len(await read_topic(platform, "one.retry.0s"))
    assert done == at + written
    rest = await sent(platform)
    assert whys(rest).count(("skipped", "redriven_before")) == done
    keys = [record.key or b"" for record in await read_topic(platform, "one.retry.0s")]
    assert sorted(keys) == sorted(b"%d" % number for number in range(450)), "each once"


async def test_letters_of_flows_are_judged_by_what_their_flow_is_pinned_to(platform: Platform) -> None:
    taking_part = await platform.catalog.pin("judged.wanted")
    watching = await platform.catalog.pin("judged.unwanted")
    child = {"causationid": "e0"}
    mine = await platform.bus("tests", Untraced()).publish(Wanted(text="x"), idempotency_key="k")
    await bury(
        platform,
        foreign("f", choreography=taking_part.hash, **child),
        foreign("f", choreography=watching.hash, **child),
        foreign("f", choreography="0" * 64, **child),
        foreign("f", **child),
        foreign(mine.flow_id, event_id="intruder"),
        foreign("never started"),
        foreign("f", choreography=taking_part.hash, observer="true", **child),
    )
    verdicts = await judged(platform)
    assert whys(sorted(verdicts, key=lambda verdict: verdict.letter.origin.offset if verdict.letter else 0)) == [
        ("refused", "decided_flow"), ("step", "observed"), ("refused", "flow_untold"), ("refused", "flow_untold"),
        ("refused", "decided_flow"), ("refused", "flow_untold"), ("step", "observed"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "value", [None, b"", b"\x00\x00\x00\x00\x07x", VALUE[:-1], VALUE + b"x", encoded(Unwanted(number=7))],
    ids=["tombstone", "empty", "unknown schema", "cut", "longer", "another type"],
)  # fmt: skip
async def test_only_an_event_of_the_topics_own_type_starts_a_flow(platform: Platform, value: bytes | None) -> None:
    await bury(platform, [("ce_id", b"e")], value=value)
    assert whys(await sent(platform, as_new_flow=True)) == [("refused", "no_root")]
    assert await read_topic(platform, "judged.wanted") == []


async def test_a_flow_of_flows_ends_at_the_limit(platform: Platform) -> None:
    await bury(platform, foreign("f"))
    for replays in (1, 2, 3):
        done = await sent(platform, as_new_flow=True)
        assert ("flow", "new_flow") in whys(done)
        newest = max(await read_topic(platform, "judged.wanted"), key=lambda record: headers_of(record)["dlq-replays"] or b"")
        assert headers_of(newest)["dlq-replays"] == b"%d" % replays
        await platform.sink.publish([dead_letter("one", newest, Reason.REJECTED, "why", 1, 0)])
    assert ("refused", "replays_max") in whys(await sent(platform, as_new_flow=True))
    assert len({record.key for record in await read_topic(platform, "judged.wanted")}) == 3


async def test_what_was_sent_as_a_step_starts_no_flow_beside_it(platform: Platform) -> None:
    await bury(platform, [("ce_id", b"e")])
    assert whys(await sent(platform)) == [("step", "no_flow")]
    assert whys(await sent(platform, as_new_flow=True)) == [("skipped", "redriven_before")]


async def test_a_letter_that_expired_while_somebody_was_asked_is_told(platform: Platform) -> None:
    await bury(platform, [("ce_id", b"e")])
    verdicts = await judged(platform)

    async def nothing() -> AsyncIterator[Delivery]:
        for record in list[Delivery]():
            yield record

    done = [each async for each in send_all(platform, platform.bus("tests", Untraced()), nothing, verdicts, "ada")]
    assert whys(done) == [("refused", "gone")]


async def test_letters_of_the_coordinator_are_sent_to_nobody_and_say_what_to_do(platform: Platform) -> None:
    await platform.ensure([dead_letters(COORDINATOR)])
    flow = [(CORRELATION_ID, b"f1"), ("ce_id", b"e1"), ("ce_type", b"maypole.step.failed")]
    for offset, reason in enumerate((Reason.COMPENSATION_FAILED, Reason.UNKNOWN_FLOW, Reason.UNDECODABLE)):
        original = Delivery(JOURNAL, 0, offset, 0, b"f1", b"?", flow)
        await platform.sink.publish([dead_letter(COORDINATOR, original, reason, "why", 1, 0)])
    for wanted in (Wish(), Wish(as_new_flow=True)):
        judge = Judge(platform, await read_copies(platform.transport, [COORDINATOR]), wanted)
        verdicts = await judge_all(judge, lambda: read_letters(platform.transport, [COORDINATOR]), lambda _: True, wanted)
        assert [(verdict.action.value, verdict.why) for verdict in verdicts] == [("refused", "journal_record")] * 3
        said = {verdict.reason: verdict.detail for verdict in verdicts}
        stood = said["compensation_failed"]
        assert "waited for a person when this was written: `maypole saga show f1` tells where it stands now" in stood
        assert "start was lost" in said["unknown_flow"] and "read all of it anew" in said["undecodable"]


async def test_a_record_that_no_agent_wrote_is_told_and_left_alone(platform: Platform) -> None:
    await platform.sink.publish([Record("one.dlq", b"k", b"v", [("dlq-agent", b"one")])])
    assert whys(await sent(platform)) == [("refused", "no_letter")]


@pytest.mark.parametrize("written", [False, True])
async def test_a_crash_at_the_root_of_a_new_flow_neither_loses_nor_repeats_it(platform: Platform, written: bool) -> None:
    await bury(platform, foreign("f"))
    with pytest.raises(ConnectionAbortedError):
        await sent(replace(platform, sink=Crashing(platform, 1, written=written)), as_new_flow=True)
    (verdict,) = await sent(platform, as_new_flow=True)
    assert whys([verdict]) == [("skipped", "flow_before") if written else ("flow", "unfinished")]
    (root,) = await read_topic(platform, "judged.wanted")
    assert root.key == (verdict.new_flow or "").encode()
    assert whys(await sent(platform, as_new_flow=True)) == [("skipped", "flow_before")]


async def test_each_copy_counts_one_more_than_the_last(platform: Platform) -> None:
    await bury(platform, [("ce_id", b"e")])
    for _ in range(2):
        await sent(platform, again=True)
    copies = await read_topic(platform, "one.retry.0s")
    assert [headers_of(copy)["dlq-replays"] for copy in copies] == [b"1", b"2"]
