"""Dead letters as somebody at a terminal works with them: the real commands, on the embedded broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from maypole.bus import Agent, Context, Event, Reject
from maypole.bus.composition import Platform, open_platform
from maypole.bus.contracts import announced_schemas
from maypole.bus.dead_letters import Reason, dead_letter
from maypole.bus.hook import Untraced
from maypole.bus.kafka.embedded import EmbeddedKafka
from maypole.bus.ports import Delivery, Receipt, Record
from maypole.bus.redrive import letter_of, new_flow_key, redriven
from maypole.schemas.avro import schema_of
from maypole.schemas.codec import Writer
from maypole.schemas.journal import OperatorDecided, StepCompleted, StepFailed
from maypole.schemas.topics import JOURNAL, dead_letters, event_topic, redrive_topic
from maypole.services.cli.coordinating import coordinating
from maypole.services.saga import State
from maypole.settings import Settings
from tests.support.commands import Desk, Finished
from tests.support.world import ended, eventually, headers_of, journal_of, letters, read_topic, running, state_of

E = TypeVar("E", bound=Event)


class Asked(Event, type="redrive.asked"):
    text: str
    number: int = 0


class Greeted(Event, type="redrive.greeted"):
    text: str


def refusing(name: str = "refusing") -> Agent:
    agent = Agent(name)

    @agent.on(Asked)
    async def refuse(asked: Asked) -> None:
        raise Reject("no such order")

    return agent


def encoded(text: str = "why?") -> bytes:
    return Writer(Asked, schema_of(Asked).derived_id).encode(Asked(text=text))


@dataclass(frozen=True, slots=True)
class Office:
    """A broker with one agent in the catalog, dead letters of it, and a desk beside."""

    platform: Platform
    desk: Desk

    async def bury(self, *originals: Record, reason: Reason = Reason.UNDECODABLE, agent: str = "refusing", first: int = 0) -> list[str]:
        """Puts a dead letter for each original, which lay one after the other, where its agent would; their places."""
        places = []
        for number, record in enumerate(originals, first):
            original = Delivery(record.topic, 0, number, 0, record.key, record.value, record.headers)
            places.append(await self.put(dead_letter(agent, original, reason, "why", 1, 0)))
        return places

    async def put(self, letter: Record) -> str:
        (receipt,) = await self.platform.sink.publish([letter])
        return f"{letter.topic.removesuffix('.dlq')}/{receipt.partition}/{receipt.offset}"

    async def redrive(self, *words: str) -> tuple[Finished, list[dict[str, Any]]]:
        ran = await self.desk.run("dlq", "redrive", *words, "-o", "json")
        return ran, ran.json if ran.out else []

    async def advice(self, place: str) -> str:
        """The last word of `dlq show`: what can be done about a letter."""
        shown = await self.desk.run("dlq", "show", place)
        return shown.err.splitlines()[-1]

    async def copies(self, agent: str = "refusing") -> list[Delivery]:
        return await read_topic(self.platform, f"{agent}.retry.0s")


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    agent = refusing()
    with EmbeddedKafka() as kafka:
        async with open_platform(Settings(home=tmp_path / "home", kafka=kafka.bootstrap)) as platform:
            await platform.ensure([event_topic("redrive.asked"), dead_letters("refusing")])
            ids, schemas = announced_schemas([Asked])
            await platform.catalog.announce({**agent.declaration(), "schemas": ids}, schemas)
            yield Office(platform, Desk(tmp_path, {"MAYPOLE_KAFKA": kafka.bootstrap}))


async def test_an_optional_step_is_run_again_by_its_agent_as_often_as_its_letters_are_redriven_while_its_flow_runs(office: Office) -> None:
    platform, go = office.platform, asyncio.Event()
    needed, nice, tried = Agent("needed"), Agent("nice"), []

    @needed.on(Asked)
    async def wait(asked: Asked) -> None:
        await go.wait()

    @nice.on(Asked, optional=True)
    async def greet(asked: Asked, context: Context) -> Greeted:
        tried.append(context.step_id)
        if len(tried) < 3:
            raise Reject("nobody is in")
        return Greeted(text=asked.text)

    async def told(form: type[E], enough: Callable[[list[E]], bool]) -> list[E]:
        async def found() -> list[E]:
            return [record for _, record in await journal_of(platform, published.flow_id) if isinstance(record, form)]

        return await eventually(found, enough)

    async def has_failed(last: int) -> None:
        # A command that is told twice is answered twice, so how many records there are says nothing.
        await told(StepFailed, lambda failed: {each.generation for each in failed} == set(range(1, last + 1)))

    await platform.catalog.retire("refusing")
    async with coordinating(platform) as (coordinator, _), running(platform, needed, nice, temporary=False):
        await coordinator.ready.wait()
        published = await platform.bus("tests", Untraced()).publish(Asked(text="hello"))
        for generation in (1, 2):
            await has_failed(generation)
            letter, _ = (await letters(platform, "nice", generation))[-1]
            sent, rows = await office.redrive(f"nice/{letter.partition}/{letter.offset}")
            assert (sent.code, [row["action"] for row in rows]) == (0, ["chance"]), sent.err
        completed = (await told(StepCompleted, bool))[0]
        assert (completed.agent, tried) == ("nice", [completed.step_id] * 3), "one step, and one attempt for each chance"
        assert [decision.generation for decision in await told(OperatorDecided, bool)] == [1, 2]
        assert (await state_of(platform, published.flow_id)).state is State.RUNNING, "for it waits for the other one"
        go.set()
        assert (await ended(platform, published.flow_id)).state is State.COMMITTED
    assert {record.key for record in await read_topic(platform, "redrive.greeted")} == {published.flow_id.encode()}


def without_flow(event_id: str, value: bytes | None = None) -> Record:
    """What a foreign client may have written: no flow can be told."""
    headers = [("ce_id", event_id.encode()), ("own", b"\xff"), ("own", None)]
    return Record("redrive.asked", event_id.encode(), encoded() if value is None else value, headers)


def watched(event_id: str) -> Record:
    headers = [("ce_id", event_id.encode()), ("ce_type", b"redrive.asked"), ("ce_correlationid", b"f"), ("ce_observer", b"true")]
    return Record("redrive.asked", b"f", encoded(), [*headers, ("ce_causationid", b"e0"), ("ce_choreography", b"0" * 64)])


def pinned_to_nobody_knows_what() -> Record:
    record = watched("e9")
    return record._replace(headers=[(name, value) for name, value in record.headers if name != "ce_observer"])


async def test_a_step_that_decided_its_flow_is_refused_and_its_event_may_start_a_new_one(office: Office) -> None:
    platform = office.platform
    async with running(platform, refusing(), temporary=False):
        published = await platform.bus("tests", Untraced()).publish(Asked(text="hello"), business_key="order-7")
        ((letter, _),) = await letters(platform, "refusing", 1)
    place = f"refusing/{letter.partition}/{letter.offset}"

    refused, rows = await office.redrive(published.event_id)
    assert (refused.code, rows[0]["action"], rows[0]["why"], rows[0]["id"]) == (1, "refused", "decided_flow", place)
    assert f"dlq redrive {place} --as-new-flow" in refused.err
    assert await office.copies() == []

    started, (row,) = await office.redrive(place, "--as-new-flow")
    assert (started.code, row["action"]) == (0, "flow"), started.err
    first, second = sorted(await read_topic(platform, "redrive.asked"), key=lambda record: record.timestamp_ms)
    assert (first.value, second.value) == (letter.value, letter.value)
    noted = headers_of(second)
    assert second.key == noted["ce_correlationid"] == row["new_flow_id"].encode() != published.flow_id.encode()
    assert (noted["redriven-letter"], noted["redriven-flow"], noted["redriven-event"]) == (
        place.encode(), published.flow_id.encode(), published.event_id.encode(),
    )  # fmt: skip
    assert noted["ce_subject"] == b"order-7" and "ce_causationid" not in noted and noted["dlq-replays"] == b"1"
    assert row["sent_to"] == f"redrive.asked/{second.partition}/{second.offset}"

    repeated, (row,) = await office.redrive(place, "--as-new-flow")
    assert (repeated.code, row["action"], row["why"], row["new_flow_id"]) == (
        0,
        "skipped",
        "flow_before",
        second.key.decode() if second.key else "",
    )
    assert "--again" in repeated.err
    assert len(await read_topic(platform, "redrive.asked")) == 2
    asked, (row,) = await office.redrive(place, "--as-new-flow", "--again")
    assert (asked.code, row["action"]) == (0, "flow"), asked.err
    third = [record for record in await read_topic(platform, "redrive.asked") if record.key == second.key]
    assert [headers_of(record)["ce_id"] for record in third] == [noted["ce_id"]] * 2, "the same event of the same flow"


async def test_a_letter_that_is_shown_ends_with_what_can_be_done_about_it(office: Office) -> None:
    (place,) = await office.bury(without_flow("e1"))
    (untold,) = await office.bury(pinned_to_nobody_knows_what())
    assert (await office.advice(place)).endswith(f"dlq redrive {place}   (to refusing only)")
    told = await office.advice(untold)
    assert f"dlq redrive {untold} --as-new-flow   (whether refusing takes part" in told and told.endswith("a new flow goes to refusing)")
    (letter,) = [record for record in await read_topic(office.platform, "refusing.dlq") if headers_of(record)["ce_id"] == b"e1"]
    await office.platform.ensure([redrive_topic("refusing")])
    await office.platform.sink.publish([redriven(letter, 1, 0)])
    assert await office.advice(place) == "nothing to redrive: it was sent to refusing again (replay 1)"


async def test_a_dry_run_ends_with_the_exit_code_of_the_real_one(office: Office) -> None:
    (untold,) = await office.bury(pinned_to_nobody_knows_what())
    looked, (row,) = await office.redrive(untold, "--dry-run")
    assert (looked.code, row["action"], row["why"]) == (1, "refused", "flow_untold")
    assert f"dlq redrive {untold} --as-new-flow" in looked.err
    anew, (row,) = await office.redrive(untold, "--as-new-flow", "--dry-run")
    assert (anew.code, row["action"]) == (0, "flow"), anew.err
    assert await read_topic(office.platform, "redrive.asked") == []
    sent = await office.desk.run("dlq", "redrive", untold, "--as-new-flow")
    assert [line.rpartition("  ")[2] for line in sent.out.splitlines()] == ["GOES", "to refusing"], "who takes part in the new flow is told"


async def test_a_letter_that_decided_nothing_goes_to_the_agent_that_failed_once(office: Office) -> None:
    (place,) = await office.bury(without_flow("e1"))
    looked, (row,) = await office.redrive(place, "--dry-run")
    assert (looked.code, row["action"], row["why"], row["sent_to"]) == (0, "step", "no_flow", None)
    assert await office.copies() == [], "a dry run sends nothing"

    sent, (row,) = await office.redrive(place)
    assert sent.code == 0, sent.err
    assert "refusing is not running" in sent.err
    (copy,) = await office.copies()
    assert row["sent_to"] == f"refusing.retry.0s/{copy.partition}/{copy.offset}"
    assert (copy.key, copy.value, copy.headers[:3]) == (b"e1", encoded(), without_flow("e1").headers)
    assert [headers_of(copy)[f"retry-{name}"] for name in ("topic", "partition", "offset")] == [b"redrive.asked", b"0", b"0"]
    assert await read_topic(office.platform, "redrive.asked") == [], "no other subscriber sees it"

    again, (row,) = await office.redrive("e1")
    assert (again.code, row["action"], row["why"]) == (0, "skipped", "redriven_before")
    assert "--again" in again.err
    assert len(await office.copies()) == 1
    (group,) = (await office.desk.run("dlq", "list", "refusing", "-o", "json")).json
    assert (group["reason"], group["count"], group["redriven"], group["example"]) == ("undecodable", 1, 1, place)
    insisted, (row,) = await office.redrive(place, "--again")
    assert (insisted.code, row["replays"]) == (0, 2)

    failed_again = dead_letter("refusing", (await office.copies())[-1], Reason.REJECTED, "still", 1, 0)
    other = await office.put(failed_again)
    third, (row,) = await office.redrive(other)
    assert (third.code, row["replays"], row["origin"]) == (0, 3, "redrive.asked/0/0")
    fourth = await office.put(dead_letter("refusing", _last(await office.copies()), Reason.REJECTED, "still", 1, 0))
    limit, (row,) = await office.redrive(fourth)
    assert (limit.code, row["why"]) == (1, "replays_max")
    assert (await office.redrive(fourth, "--replays-max", "4"))[0].code == 0


def _last(copies: Sequence[Delivery]) -> Delivery:
    return max(copies, key=lambda copy: int(headers_of(copy)["dlq-replays"] or b""))


async def test_many_are_sent_only_after_somebody_has_seen_what_would_happen(office: Office) -> None:
    await office.bury(*(without_flow(f"e{number}") for number in range(3)))
    await office.bury(watched("e7"), reason=Reason.REJECTED, first=7)
    unasked = await office.desk.run("dlq", "redrive", "refusing")
    assert (unasked.code, unasked.out) == (2, ""), "nobody is there to confirm it"
    assert "--yes" in unasked.err and "undecodable" in unasked.err and "rejected" in unasked.err, "what would happen is told all the same"
    dry = await office.desk.run("dlq", "redrive", "refusing", "--dry-run")
    assert dry.code == 0
    assert [line.split()[:4] for line in dry.out.splitlines()[1:]] == [
        ["step", "no_flow", "undecodable", "3"], ["step", "observed", "rejected", "1"],
    ]  # fmt: skip
    assert await office.copies() == []

    some, rows = await office.redrive("refusing", "--reason", "undecodable", "--max", "2", "--yes")
    assert (some.code, sorted(row["why"] for row in rows)) == (0, ["beyond_max", "no_flow", "no_flow"]), some.err
    rest, rows = await office.redrive("refusing", "--yes")
    assert rest.code == 0, rest.err
    assert sorted(row["why"] for row in rows) == ["no_flow", "observed", "redriven_before", "redriven_before"]
    assert sorted(copy.key or b"" for copy in await office.copies()) == [b"e0", b"e1", b"e2", b"f"]


async def test_a_letter_that_a_crash_made_an_agent_write_twice_is_sent_once(office: Office) -> None:
    await office.bury(without_flow("e1"))
    await office.bury(without_flow("e1"))
    ran, rows = await office.redrive("refusing", "--yes")
    assert (ran.code, sorted(row["why"] for row in rows)) == (0, ["no_flow", "repetition"]), ran.err
    assert len(await office.copies()) == 1


async def test_a_body_that_is_no_event_of_its_type_starts_no_flow(office: Office) -> None:
    (broken,) = await office.bury(without_flow("e1", b"\x00" + encoded()[1:5] + b"\x02"))
    (own,) = await office.bury(without_flow("e2")._replace(topic=JOURNAL))
    for place in (broken, own):
        ran, (row,) = await office.redrive(place, "--as-new-flow")
        assert (ran.code, row["why"]) == (1, "no_root")
    assert await read_topic(office.platform, "redrive.asked") == []


async def test_a_step_of_a_subscription_that_is_gone_is_refused(office: Office) -> None:
    (place,) = await office.bury(without_flow("e1")._replace(topic="redrive.answered"))
    ran, (row,) = await office.redrive(place)
    assert (ran.code, row["why"]) == (1, "not_subscribed")


async def test_what_is_not_there_and_what_is_meant_by_nobody_exit_with_3_and_2(office: Office) -> None:
    await office.platform.ensure([dead_letters("other")])
    (first,) = await office.bury(without_flow("e1"))
    (other,) = await office.bury(without_flow("e1"), agent="other")
    assert (await office.redrive("refusing/0/12345"))[0].code == 3
    assert (await office.redrive("nobody"))[0].code == 3
    ambiguous, _ = await office.redrive("e1")
    assert ambiguous.code == 2 and first in ambiguous.err and other in ambiguous.err
    assert (await office.desk.run("dlq", "redrive", first, "--reason", "tired")).code == 2


class _DyingSink:
    """Takes what goes to the journal, and dies of the rest."""

    def __init__(self, platform: Platform) -> None:
        self._sink = platform.sink

    async def publish(self, records: Sequence[Record]) -> Sequence[Receipt]:
        if any(record.topic != JOURNAL for record in records):
            raise ConnectionAbortedError("crashed")
        return await self._sink.publish(records)


async def test_a_crash_between_the_start_of_a_new_flow_and_its_event_loses_nothing(office: Office) -> None:
    (place,) = await office.bury(without_flow("e1"))
    (letter,) = await read_topic(office.platform, "refusing.dlq")
    dying = replace(office.platform, sink=_DyingSink(office.platform)).bus("maypole-cli", Untraced())
    with pytest.raises(ConnectionAbortedError):
        await dying.publish_value("redrive.asked", encoded(), idempotency_key=new_flow_key(letter_of(letter)))
    assert await read_topic(office.platform, "redrive.asked") == []
    ran, (row,) = await office.redrive(place, "--as-new-flow")
    assert (ran.code, row["action"], row["why"]) == (0, "flow", "unfinished"), ran.err
    (root,) = await read_topic(office.platform, "redrive.asked")
    assert root.key == row["new_flow_id"].encode()
    assert (await office.redrive(place, "--as-new-flow"))[1][0]["why"] == "flow_before"
    assert (await office.redrive(place))[1][0]["why"] == "flow_before", "nor as a step beside the flow"


async def test_a_letter_is_opened_as_far_as_it_can_be_read(office: Office) -> None:
    value = encoded("hello")
    header_broken = without_flow("e1", value)._replace(headers=[("ce_id", b"e1"), ("ce_type", b"ab\xff"), ("ce_correlationid", b"f")])
    cut, whole = await office.bury(without_flow("e0", value[:-1]), header_broken)
    shown = (await office.desk.run("dlq", "show", cut, "-o", "json")).json
    assert shown["data"] == {"text": "hello"}
    assert (shown["data_break"]["offset"], shown["data_break"]["field"]) == (len(value) - 1, "number")
    assert shown["headers_break"] == {"header": "ce_type", "byte": None}
    for_people = await office.desk.run("dlq", "show", cut)
    assert f"byte {len(value) - 1}, number: expected long" in for_people.out and '"text": "hello"' in for_people.out
    shown = (await office.desk.run("dlq", "show", whole, "-o", "json")).json
    assert (shown["data"], shown["data_break"], shown["data_error"]) == ({"text": "hello", "number": 0}, None, None)
    assert shown["headers_break"] == {"header": "ce_type", "byte": 2}
