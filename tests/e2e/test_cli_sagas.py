"""People and flows: what they are shown, what they decide, and what the journal keeps of it. The agents here are the test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from maypole.bus.composition import Platform, open_platform
from maypole.bus.journal import JournalRecords
from maypole.bus.kafka.embedded import EmbeddedKafka
from maypole.schemas.envelope import lineage, rfc3339
from maypole.schemas.event import Event
from maypole.schemas.identifiers import root_traceparent
from maypole.schemas.journal import AbortRequested, FlowEnded, OperatorDecided
from maypole.services.cli.flow_histories import story_of
from maypole.settings import Settings
from tests.support.commands import Desk
from tests.support.stories import Story, agent
from tests.support.world import eventually

_ANSWERS = JournalRecords("/agents/test")


@dataclass(frozen=True, slots=True)
class Flows:
    """Flows of three agents, whose journals are written by the test."""

    desk: Desk
    platform: Platform

    async def tell(self, story: Story, *records: Event) -> None:
        flow = story.flow.encode()
        common = lineage(flow_id=flow, time=rfc3339(0).encode(), state_version=1, choreography=story.choreography.hash.encode())
        said = [_ANSWERS.record(body, uuid4().hex, flow, root_traceparent(story.flow), None, common) for body in records]
        await self.platform.sink.publish(said)

    async def begun(self, *records: str) -> Story:
        """A new flow, and what its steps came to: `completed one`, `failed last`, `undo_failed two`."""
        story = Story("r.s", *AGENTS, flow=str(uuid4()))
        await self.tell(story, story.started(60_000), *(_said(story, *record.split()) for record in records))
        return story

    async def decided(self, story: Story) -> list[OperatorDecided]:
        return [record for _, record in (await story_of(self.platform, story.flow)).decisions()]


def _said(story: Story, what: str, name: str) -> Event:
    if what == "undo_failed":
        return story.undo_failed(name, retryable=False)
    said: Event = getattr(story, what)(name)
    return said


AGENTS = (
    agent("one", "r.s", "a.b"),
    agent("two", "a.b", "c.d"),
    agent("last", "c.d", "e.f", kind="pivot"),
    agent("after", "e.f", kind="pure"),
)
UNDONE_BY_HALF = ("completed one", "completed two", "failed last", "undo_failed two")


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Flows]:
    with EmbeddedKafka() as kafka:
        async with open_platform(Settings(home=folder / "test", tracing="off").at(kafka.bootstrap, "the test")) as platform:
            for declaration in AGENTS:
                await platform.catalog.announce(declaration, {})
            await platform.catalog.pin("r.s")
            yield Flows(Desk(folder, {"MAYPOLE_KAFKA": kafka.bootstrap, "NO_COLOR": "1"}), platform)


@pytest.fixture
async def flows(tmp_path: Path) -> AsyncIterator[Flows]:
    async with opened(tmp_path) as found:
        yield found


async def test_a_stuck_flow_is_listed_shown_and_ended_by_a_decision_that_says_who_and_why(flows: Flows) -> None:
    await flows.begun("completed one")
    stuck = await flows.begun(*UNDONE_BY_HALF)
    listed = await flows.desk.run("flows", "stuck", "-o", "json")
    assert [(flow["flow_id"], [step["agent"] for step in flow["unsettled"]]) for flow in listed.json] == [(stuck.flow, ["one", "two"])]
    table = await flows.desk.run("flows", "stuck")
    assert stuck.flow in table.out and "saga decide" in table.err

    shown = await flows.desk.run("saga", "show", stuck.flow)
    assert "stuck" in shown.out and "its undo failed: no" in shown.out
    as_json = (await flows.desk.run("saga", "show", stuck.flow, "-o", "json")).json
    (waiting,) = (step for step in as_json["steps"] if step["next"])
    assert (waiting["agent"], waiting["step_id"]) == ("two", stuck.ids["two"])
    assert waiting["next"][0] in table.err, "both name the same command"

    words = ("saga", "decide", stuck.flow, "--step", waiting["step_id"][:8], "--decision")
    decided = await flows.desk.run(*words, "resolved", "--note", "refunded by hand", "--by", "ada@home", "--timeout", "1s", "-o", "json")
    assert decided.code == 0, decided.err
    told = decided.json
    said = {"flow_id": stuck.flow, "step_id": stuck.ids["two"], "decision": "resolved", "by": "ada@home", "note": "refunded by hand"}
    assert {name: told[name] for name in said} == said
    assert (told["state"], told["reason"]) == ("aborting", "last failed for good on c.d: rejected")
    assert [(step["agent"], step["state"]) for step in told["steps"]] == [("one", "completed"), ("two", "resolved"), ("last", "failed")]
    assert "resolved, said by ada@home: two on a.b" in decided.err and "to compensate r.s" in decided.err, "and what follows is told"
    (record,) = await flows.decided(stuck)
    assert (record.step_id, record.decision, record.by, record.note) == (stuck.ids["two"], "RESOLVED", "ada@home", "refunded by hand")
    again = await flows.desk.run(*words, "resolved", "--note", "refunded by hand", "--by", "ada@home", "--timeout", "1s")
    assert again.code == 1 and "waits for no decision: it is resolved" in again.err
    assert len(await flows.decided(stuck)) == 1

    await flows.tell(stuck, stuck.undone("one"))
    ended = (await flows.desk.run("saga", "show", stuck.flow, "-o", "json")).json
    assert ended["state"] == "compensated_manual" and ended["ended_at"] is not None
    assert (await flows.desk.run("flows", "stuck", "-o", "json")).json == []


async def test_flows_whose_choreography_nobody_knows_are_listed_with_it_until_it_is_recorded_again(flows: Flows) -> None:
    stuck = await flows.begun(*UNDONE_BY_HALF)
    others = [agent("late", "x.y", "y.z"), agent("last", "y.z", kind="pivot")]
    lost, over = (Story("x.y", *others, flow=str(uuid4())) for _ in range(2))
    for story in (lost, over):
        await flows.tell(story, story.started(60_000), story.completed("late"))
    await flows.tell(over, FlowEnded(state="committed", reason="every step that was expected has completed"))

    listed = {flow["flow_id"]: flow for flow in (await flows.desk.run("flows", "stuck", "-o", "json")).json}
    assert set(listed) == {stuck.flow, lost.flow}, "an end that was told is one, whoever knows what led to it"
    parked = listed[lost.flow]
    assert (parked["state"], parked["choreography"], parked["unsettled"]) == ("parked", lost.choreography.hash, [])
    assert " publish x.y " in parked["next"] and parked["started_at"] is not None
    table = await flows.desk.run("flows", "stuck")
    (line,) = (line for line in table.out.splitlines() if line.startswith(lost.flow))
    assert "parked" in line and f"its choreography {lost.choreography.hash}, which the catalog does not hold" in line

    for declaration in others:
        await flows.platform.catalog.announce(declaration, {})
    assert (await flows.platform.catalog.pin("x.y")).hash == lost.choreography.hash, "who publishes does this"
    assert [flow["flow_id"] for flow in (await flows.desk.run("flows", "stuck", "-o", "json")).json] == [stuck.flow]


async def test_a_flow_that_waits_for_its_choreography_is_told_wherever_one_looks_and_what_to_do_about_it(flows: Flows) -> None:
    others = [agent("late", "x.y", "y.z"), agent("last", "y.z", kind="pivot")]
    lost = Story("x.y", *others, flow=str(uuid4()))

    async def coordinator() -> str:
        rows = (await flows.desk.run("doctor", "-o", "json")).json
        return next(f"{row['found']}; {row['do']}" for row in rows if row["check"] == "coordinator")

    async with flows.desk.running("coordinator"):
        await flows.tell(lost, lost.started(60_000), lost.completed("late"))
        told = await eventually(coordinator, lambda found: "parked, because the catalog does not hold their choreography: 1 flow" in found)
        assert "maypole flows stuck" in told
        for words in (("saga", "show"), ("flows", "cancel", "--why", "x")):
            ran = await flows.desk.run(*words, lost.flow)
            assert ran.code == 1 and lost.choreography.hash in ran.err and " publish x.y " in ran.err, ran.err
        for declaration in others:
            await flows.platform.catalog.announce(declaration, {})
        await flows.platform.catalog.pin("x.y")
        await eventually(coordinator, lambda found: "parked" not in found)
    assert (await flows.desk.run("saga", "show", lost.flow, "-o", "json")).json["state"] == "running"


async def test_what_cannot_be_decided_is_refused_and_nothing_is_written(flows: Flows) -> None:
    stuck = await flows.begun(*UNDONE_BY_HALF)
    decide = ("saga", "decide", stuck.flow, "--decision", "skip", "--note", "x", "--step")
    for words, code, said in (
        ((*decide, stuck.ids["one"]), 1, "waits for no decision"),
        ((*decide, "nowhere"), 3, "found no step 'nowhere'"),
        (("saga", "decide", "nothing", *decide[3:], "x"), 3, "found nothing about 'nothing'"),
        (("saga", "decide", stuck.flow, "--step", "x", "--decision", "forget", "--note", "x"), 2, "'forget' is not one of"),
        (("saga", "decide", stuck.flow, "--step", stuck.ids["two"], "--decision", "skip", "--note", " "), 2, "--note: expected a reason"),
        (("saga", "show", "nothing"), 3, "maypole"),
    ):
        ran = await flows.desk.run(*words)
        assert (ran.code, said in ran.err) == (code, True), ran.err
        assert "Traceback" not in ran.err
    assert await flows.decided(stuck) == []


async def test_a_cancel_that_meets_a_pivot_under_way_says_so_until_somebody_knows_more(flows: Flows) -> None:
    under_way = ("completed one", "completed two", "begun last")
    for more, code, said in (
        ((), 124, "last on c.d: a point of no return, and it may have been passed"),
        (("abandoned last",), 6, "nobody can tell what it did"),
        (("completed last",), 1, "past a point of no return"),
    ):
        flow = await flows.begun(*under_way)
        words = ("flows", "cancel", flow.flow, "--why", "ordered twice", "--by", "ada@home", "--timeout", "1s")
        ran = await flows.desk.run(*words)
        assert ran.code == 124 and "the abort is journaled: cancelled by ada@home: ordered twice" in ran.err, ran.err
        await flows.tell(flow, *(_said(flow, *record.split()) for record in more))
        ran = await flows.desk.run(*words) if more else ran
        assert (ran.code, said in ran.err) == (code, True), ran.err


async def test_cancelling_is_journaled_with_who_and_why_and_only_where_it_can_still_help(flows: Flows) -> None:
    running = await flows.begun("completed one")
    words = ("flows", "cancel", running.flow, "--why", "ordered twice", "--timeout", "1s")
    ran = await flows.desk.run(*words, "--by", "ada@home", "-o", "json")
    assert ran.code == 0, ran.err
    told = ran.json
    cancelled = (running.flow, True, "aborting", "cancelled by ada@home: ordered twice")
    assert (told["flow_id"], told["journaled"], told["state"], told["reason"]) == cancelled
    assert [(step["agent"], step["state"]) for step in told["steps"]] == [("one", "completed")] and told["degraded"] == []
    story = await story_of(flows.platform, running.flow)
    assert story.cause == AbortRequested(by="ada@home", why="ordered twice")
    assert story.saga.state == "aborting" and "cancelled by ada@home: ordered twice" in ran.err
    again = await flows.desk.run(*words, "-o", "jsonl")
    assert again.code == 0 and "is aborting already (cancelled by ada@home: ordered twice): nothing was written" in again.err
    assert again.json == {**told, "journaled": False} and len(again.out.splitlines()) == 1

    over = await flows.begun("completed one", "completed two", "failed last", "undone two", "undone one")
    late = await flows.desk.run("flows", "cancel", over.flow, "--why", "x")
    assert (late.code, "has ended already: it is compensated" in late.err, late.out) == (1, True, "")
    passed = await flows.begun("completed one", "completed two", "completed last")
    gone = await flows.desk.run("flows", "cancel", passed.flow, "--why", "x")
    assert (gone.code, "past a point of no return" in gone.err) == (1, True)
    assert (await flows.desk.run("flows", "cancel", "nothing", "--why", "x")).code == 3
    assert (await flows.desk.run("flows", "cancel", over.flow)).code == 2
