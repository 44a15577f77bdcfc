"""What commands decide from facts: topics, agents, dead letters, the endpoints file, and the picture of a flow."""

from __future__ import annotations

import json
import os
import re
import socket
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pytest

from maypole.bus import Agent, Retry
from maypole.bus.catalog import View
from maypole.bus.choreography import derive_choreography
from maypole.bus.dead_letters import Reason, dead_letter
from maypole.bus.ports import Delivery
from maypole.bus.redrive import Copies, redriven
from maypole.bus.runner import topics_of
from maypole.schemas.envelope import Envelope, read_envelope
from maypole.schemas.event import Event
from maypole.schemas.identifiers import EventId, FlowId, StepId, output_event_id, root_event_id, step_id_of
from maypole.schemas.journal import AbortRequested, Effect, FlowStarted, Produced, StepCompleted, StepFailed
from maypole.services.cli.agent_status import agent_rows, breaker_rows, instance_rows, narrowed, standing_of
from maypole.services.cli.commands.agents import COLUMNS
from maypole.services.cli.dead_letters import Place, group, letter_row
from maypole.services.cli.endpoints_file import require_unused, written
from maypole.services.cli.flow_ending import told_end
from maypole.services.cli.flow_lines import Lines, line
from maypole.services.cli.flow_picture import FlowPicture, Status, facts
from maypole.services.cli.output import print_rows
from maypole.services.cli.problems import Problem
from maypole.services.cli.targets import REFERENCE_AGENTS, load_agents
from maypole.services.cli.topic_plan import Declared, add_catalog, id_space_fault, plan
from maypole.services.cli.watching import Drawing
from maypole.services.following import Arrived, Buried, Journaled
from maypole.services.saga import FlowState, Saga, fold, reach
from maypole.settings import Endpoints, Settings, read_endpoints

NOW = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)


def view(**agents: bool) -> View:
    """Agents that turn `a.b` into `<name>.made`, and whether each is retired."""
    found = View()
    for name, retired in agents.items():
        subscriptions = [{"on": "a.b", "emits": [f"{name}.made"], "kind": "events"}]
        found.agents[name] = {"name": name, "subscriptions": subscriptions, "retired": retired, "schemas": {}}
    return found


def test_an_agent_is_running_while_it_is_heard() -> None:
    catalog = view(heard=False, silent=False, stopped=False, gone=True)
    catalog.instances["heard", "1"] = {"seen_at": "2026-01-31T11:59:50Z"}
    catalog.instances["silent", "1"] = {"seen_at": "2026-01-31T11:00:00Z"}
    assert {row["agent"]: row["state"] for row in agent_rows(catalog, NOW)} == {
        "heard": "running", "silent": "silent", "stopped": "stopped", "gone": "retired",
    }  # fmt: skip


def test_the_reference_agents_fit_on_a_terminal_of_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    catalog = View()
    for agent in load_agents(REFERENCE_AGENTS):
        catalog.agents[agent.name] = agent.declaration()
        catalog.instances[agent.name, "1"] = {"seen_at": "2026-01-31T11:59:26.123456Z"}
    print_rows(narrowed(agent_rows(catalog, NOW), NOW), "table", COLUMNS)
    lines = click.unstyle(capsys.readouterr().out).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[-2].split() == ["research", "running", "1", "34", "s", "ago", "research.requested", "research.completed"]
    assert lines[-1].split() == ["research.inconclusive"]


def test_a_plan_creates_what_is_missing_and_tells_what_differs_and_lowers_nothing() -> None:
    declared = add_catalog(Declared(), view(one=False, retired=True))
    there = {"maypole.journal": 12, "maypole.catalog": 1, "a.b": 8}
    findings = {finding.topic.name: finding for finding in plan(declared, there, {"a.b": {"retention.ms": "1000"}}, {}, partitions=6)}
    assert {name: finding.action for name, finding in findings.items()} == {
        "maypole.journal": "ok", "maypole.catalog": "ok", "maypole.flow.ended": "create",
        "a.b": "differs", "one.made": "create",
        "one.commands": "create", "one.dlq": "create", "one.retry.0s": "create", "one.retry.30s": "create",
    }  # fmt: skip
    assert findings["a.b"].partitions == 8
    assert "retention.ms: expected" in findings["a.b"].differences[0]
    assert findings["one.made"].partitions == 6


def test_the_topics_of_an_agent_in_the_catalog_are_those_that_it_makes_itself() -> None:
    (research,) = load_agents(REFERENCE_AGENTS[:1])
    slow = Agent("slow")

    @slow.on("a.b", retry=Retry(delays=(1, 30, 600)))
    async def wait(event: object) -> None: ...

    for agent in (research, slow):
        declaration = {**agent.declaration(), "schemas": {}}
        declared = add_catalog(Declared(), View(agents={agent.name: declaration}))
        assert {name for name, users in declared.agents.items() if users == {agent.name}} == {topic.name for topic in topics_of(agent)}
    assert {"slow.commands", "slow.retry.0s", "slow.retry.30s", "slow.retry.10m"} <= declared.agents.keys()


def test_an_agents_own_topics_take_what_its_inputs_may_hold_and_more_than_that_is_no_difference() -> None:
    view = View(agents={"one": {"name": "one", "subscriptions": [{"on": "a.b", "emits": ["c.d"]}], "schemas": {}}})
    for limits, wanted in (({}, 2_097_152), ({"a.b": 5_000_000}, 5_065_536), ({"c.d": 5_000_000}, 2_097_152), ({"a.b": 2**30}, 2**25)):
        declared = add_catalog(Declared(), view, limits)
        for name in ("one.dlq", "one.retry.0s", "one.retry.30s"):
            for found, action in ((wanted - 1, "differs"), (wanted, "ok"), (wanted + 1, "ok")):
                there = plan(declared, {name: 4}, {name: {"max.message.bytes": str(found)}}, {}, partitions=4)
                assert {each.topic.name: each.action for each in there}[name] == action, (limits, name, found)


@pytest.mark.parametrize(
    ("ids", "registry", "fault"),
    [
        ([], True, None),
        ([2**30], False, None),
        ([5], True, None),
        ([5, 2**30], True, "one id space"),
        ([5], False, "no registry is set"),
        ([2**30], True, "a registry is set"),
    ],
)
def test_a_topic_has_one_id_space(ids: list[int], registry: bool, fault: str | None) -> None:
    found = id_space_fault("a.b", ids, registry)
    assert found is None if fault is None else fault in str(found)


def letter(offset: int, reason: Reason, at_ms: float) -> Delivery:
    original = Delivery("a.b", 1, 7, 0, b"flow", b"\x01", [("ce_id", b"event"), ("ce_correlationid", b"flow")])
    record = dead_letter("one", original, reason, "why", 2, at_ms)
    return Delivery(record.topic, 3, offset, 0, record.key, record.value, record.headers)


def test_dead_letters_are_grouped_by_agent_and_reason_with_the_newest_to_look_at() -> None:
    rows = [
        letter_row(letter(offset, reason, at), Copies())
        for offset, reason, at in [(0, Reason.REJECTED, 2), (1, Reason.REJECTED, 1), (2, Reason.UNDECODABLE, 0)]
    ]
    assert rows[0] | {"first_failed_at": None} == {
        "id": "one/3/0", "agent": "one", "reason": "rejected", "error": "why", "topic": "a.b", "partition": 1, "offset": 7, "attempts": 2,
        "first_failed_at": None, "replays": 0, "redriven": False, "flow_id": "flow", "event_id": "event",
    }  # fmt: skip
    assert [(found["reason"], found["count"], found["example"]) for found in group(rows)] == [
        ("rejected", 2, "one/3/0"),
        ("undecodable", 1, "one/3/2"),
    ]
    copies, again = Copies(), redriven(letter(0, Reason.REJECTED, 0), 1, 0)
    copies.saw("one", Delivery(again.topic, 0, 0, 0, again.key, again.value, again.headers))
    assert [each["redriven"] for each in group([letter_row(letter(0, Reason.REJECTED, 0), copies), *rows])] == [1, 0]
    assert Place.parse("one.dlq/3/0") == Place.parse("one/3/0")


def test_the_endpoints_file_is_there_while_the_services_run_and_is_whole(tmp_path: Path) -> None:
    home = tmp_path / "home"
    unknown = {"registry": None, "otlp": None, "jaeger": None}
    with written(Settings(home=home, kafka="127.0.0.1:1")) as path:
        assert json.loads(path.read_text()) == {"kafka": "127.0.0.1:1", **unknown, "store": "sqlite", "pids": {"dev": os.getpid()}}
        assert [entry.name for entry in home.iterdir()] == ["endpoints.json"]
        assert read_endpoints(home) == Endpoints("127.0.0.1:1")
    assert not path.exists()


def test_the_endpoints_file_says_what_else_is_known(tmp_path: Path) -> None:
    known = Endpoints("127.0.0.1:1", registry="http://127.0.0.1:2", otlp="http://127.0.0.1:3", jaeger="http://127.0.0.1:4")
    with written(Settings(tmp_path, known.kafka, registry_url=known.registry, otlp_endpoint=known.otlp, jaeger_url=known.jaeger)):
        assert read_endpoints(tmp_path) == known


def test_what_somebody_else_wrote_in_the_meantime_stays(tmp_path: Path) -> None:
    with written(Settings(home=tmp_path, kafka="127.0.0.1:1")) as path:
        path.write_text('{"kafka": "127.0.0.1:2"}')
    assert path.exists()


def test_services_in_containers_are_not_replaced_while_they_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "endpoints.json"
    with socket.create_server(("127.0.0.1", 0)) as listening:
        kafka = f"127.0.0.1:{listening.getsockname()[1]}"
        path.write_text(json.dumps({"kafka": kafka, "pids": {}}))
        with pytest.raises(Problem, match=rf"already run in {tmp_path}: Kafka at {kafka}, in containers"):
            require_unused(tmp_path)
    assert path.exists()
    require_unused(tmp_path)
    assert f"left behind by services that are gone (Kafka at {kafka})" in capsys.readouterr().err
    assert not path.exists()


def test_running_services_are_not_replaced_and_dead_ones_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "endpoints.json"
    with socket.create_server(("127.0.0.1", 0)) as listening:
        kafka = f"127.0.0.1:{listening.getsockname()[1]}"
        path.write_text(json.dumps({"kafka": kafka, "pids": {"dev": os.getpid()}}))
        with pytest.raises(Problem, match=f"already run in {tmp_path}: Kafka at {kafka}"):
            require_unused(tmp_path)
    require_unused(tmp_path)
    assert "left behind" in capsys.readouterr().err
    assert not path.exists()


def test_facts_are_what_is_short_and_new() -> None:
    before = {"question": "why?", "confidence": 0.5}
    after = {
        "question": "why?",
        "confidence": 0.25,
        "findings": [1, 2],
        "title": "two words",
        "body": "x" * 100,
        "none": None,
        "sure": True,
    }
    assert facts(after, before) == 'confidence=0.25 findings=2 title="two words" sure=yes'


FLOW = FlowId("flow")
_ONE = {"name": "one", "subscriptions": [{"on": "a.b", "emits": ["c.d"], "kind": "events"}]}
_TWO: dict[str, Any] = {"name": "two", "subscriptions": [{"on": "c.d", "emits": [], "kind": "events"}]}
CHOREOGRAPHY = derive_choreography("a.b", [_ONE, _TWO])
ROOT = Produced(event_id=root_event_id(FLOW, "a.b"), type="a.b", digest=bytes(32))
ONE = step_id_of(FLOW, "one", "a.b", ROOT.event_id)
MADE = Produced(event_id=output_event_id(ONE, "c.d", 0), type="c.d", digest=bytes(32))
TWO = step_id_of(FLOW, "two", "c.d", MADE.event_id)
STARTED = FlowStarted(choreography=CHOREOGRAPHY.hash, deadline_ms=1, roots=(ROOT,))


def completed(step: StepId, agent: str, trigger: Produced, *outputs: Produced) -> StepCompleted:
    return StepCompleted(
        step_id=step, agent=agent, subscription=trigger.type, parents=(trigger.event_id,), effect=Effect.NONE, outputs=outputs
    )


def envelope(event_type: str, event_id: str) -> Envelope:
    return read_envelope([("ce_id", event_id.encode()), ("ce_type", event_type.encode()), ("ce_correlationid", b"flow")])


def picture_of(*seen: Event | Arrived | Buried) -> FlowPicture:
    picture, state = FlowPicture(), FlowState(FLOW)
    for at_ms, each in enumerate(seen):
        if isinstance(each, Event):
            state = fold(state, each, {CHOREOGRAPHY.hash: CHOREOGRAPHY}, 0)
            picture.see(Journaled(each, envelope(each.event_type, f"j{at_ms}"), at_ms * 1000, state))
        else:
            picture.see(each)
    return picture


def arrived(event: Produced, **data: object) -> Arrived:
    return Arrived(envelope(event.type, EventId(event.event_id)), 0, data)


def test_a_picture_shows_what_works_and_what_may_come() -> None:
    rows = picture_of(STARTED).rows()
    assert [(row.agent, row.status) for row in rows] == [("one", Status.WORKING), ("two", Status.AHEAD)]


def test_a_picture_is_complete_when_the_events_of_a_committed_flow_have_arrived() -> None:
    ends = (STARTED, completed(ONE, "one", ROOT, MADE), completed(TWO, "two", MADE))
    half = picture_of(*ends, arrived(ROOT, q=1))
    assert half.decided
    assert not half.complete
    whole = picture_of(*ends, arrived(ROOT, q=1), arrived(MADE, q=1, confidence=0.5))
    assert whole.complete
    assert whole.seconds == 2
    assert [(row.status, row.seconds, row.emitted, row.facts) for row in whole.rows()] == [
        (Status.DONE, 1.0, ("c.d",), "confidence=0.5"),
        (Status.DONE, 2.0, (), ""),
    ]


def test_a_step_that_emitted_many_of_one_type_is_one_short_line() -> None:
    many = [Produced(event_id=f"e{number}", type="c.d", digest=bytes(32)) for number in range(300)]
    picture = picture_of(STARTED, completed(ONE, "one", ROOT, *many), arrived(ROOT, q=1), *(arrived(each, n=7) for each in many))
    row = picture.rows()[0]
    assert (row.emitted, row.facts) == (("c.d x300",), "n=7")
    assert "one        a.b -> c.d x300  n=7" in line(row)


@pytest.mark.parametrize("aborting", [False, True])
def test_a_flow_of_many_steps_is_worked_out_as_often_as_one_of_few(monkeypatch: pytest.MonkeyPatch, aborting: bool) -> None:
    """It is drawn anew with every record, so what grows with its steps must not be done for each of them."""
    closure, worked_out = reach._closure, Counter[int]()
    width = 2

    def counted(saga: Saga, *, guessing: bool) -> reach.Reach:
        worked_out[width] += 1
        return closure(saga, guessing=guessing)

    for width in (2, 40):
        outputs = [Produced(event_id=f"e{number}", type="c.d", digest=bytes(32)) for number in range(width)]
        late = [AbortRequested(by="me", why="late")] if aborting else []
        picture = picture_of(STARTED, completed(ONE, "one", ROOT, *outputs), *late)
        with monkeypatch.context() as watched:
            watched.setattr(reach, "_closure", counted)
            assert len(picture.rows()) == 1 + width
    assert worked_out[2] == worked_out[40] > 0


def test_drawing_a_flow_takes_a_fifth_of_the_time_and_misses_nothing_for_long() -> None:
    now, drawn = 0.0, []

    class Slow:
        def show(self, picture: FlowPicture, *, last: bool = False) -> bool:
            nonlocal now
            drawn.append(now)
            now += 1
            return False

    drawing = Drawing(Slow(), FlowPicture(), lambda: now)
    drawing.show()
    assert (drawn, drawing.is_behind) == ([0], False)
    for at in (1.5, 3.0, 4.9):
        now = at
        drawing.show()
    assert (drawn, drawing.is_behind) == ([0], True)
    now = 5.0
    drawing.show()
    assert (drawn, drawing.is_behind) == ([0, 5], False)
    drawing.show()
    drawing.show_now()
    assert (drawn, drawing.is_behind) == ([0, 5, 6], False), "the end is drawn at once"


def test_a_picture_of_a_failure_waits_for_its_dead_letter() -> None:
    failed = StepFailed(
        step_id=ONE,
        agent="one",
        subscription="a.b",
        parents=(ROOT.event_id,),
        reason="rejected",
        detail="why",
        attempts=1,
        effect=Effect.NONE,
    )
    picture = picture_of(STARTED, failed)
    assert (picture.decided, picture.complete) == (True, False)
    for other in (
        Buried("two", ROOT.event_id, 0, 1, "rejected", "another agent's"),
        Buried("one", MADE.event_id, 0, 2, "rejected", "another step's"),
    ):
        picture.see(other)
        assert (picture.buried, picture.complete) == (None, False)
    buried = Buried("one", ROOT.event_id, 2, 9, "rejected", "why")
    picture.see(buried)
    assert (picture.buried, picture.complete, buried.place) == (buried, True, "one/2/9")
    assert picture.rows()[0].error == "rejected"


def test_whoever_owes_a_step_and_is_silent_is_named_with_the_command_that_helps(capsys: pytest.CaptureFixture[str]) -> None:
    catalog, picture, lines = view(one=False), picture_of(STARTED), Lines()
    catalog.instances["one", "1"] = {"seen_at": "2026-01-31T11:59:14Z"}
    picture.presences = {"one": standing_of(catalog, "one", NOW)}
    for _ in range(2):
        lines.show(picture)
    told = click.unstyle(capsys.readouterr().err)
    assert re.fullmatch(r"silent    one        is silent, last heard 46 s ago at \d\d:\d\d:\d\d, and owes an answer to a\.b\n", told)
    assert told_end(picture, 60) == 124
    told = click.unstyle(capsys.readouterr().err)
    assert "not finished after 60 s; still owed: one on a.b\n  one is silent, last heard 46 s ago" in told
    assert "try: maypole agents retire one   (" in told


def test_whoever_owes_a_step_and_was_heard_just_now_is_not_called_silent(capsys: pytest.CaptureFixture[str]) -> None:
    catalog, picture = view(one=False), picture_of(STARTED)
    catalog.instances["one", "1"] = {"seen_at": "2026-01-31T11:59:58Z"}
    picture.presences = {"one": standing_of(catalog, "one", NOW)}
    Lines().show(picture)
    assert told_end(picture, 60) == 124
    told = click.unstyle(capsys.readouterr().err)
    assert "one was heard 2 s ago" in told and "silent" not in told and "retire" not in told
    assert standing_of(View(), "one", NOW).text == "is not running"


def test_a_root_without_subscriber_is_told_from_one_that_runs() -> None:
    nobody = derive_choreography("x.y", [])
    root = Produced(event_id="e", type="x.y", digest=bytes(32))
    started = FlowStarted(choreography=nobody.hash, deadline_ms=1, roots=(root,))
    state = fold(FlowState(FLOW), started, {nobody.hash: nobody}, 0)
    picture = FlowPicture()
    picture.see(Journaled(started, envelope(started.event_type, "j"), 0, state))
    assert picture.without_subscriber
    assert not picture_of(STARTED).without_subscriber


def test_an_agent_shows_the_breakers_that_are_not_closed_of_those_that_live() -> None:
    open_one = {
        "breaker": "dependency",
        "name": "model",
        "state": "open",
        "since": "2026-01-31T11:59:00Z",
        "because": "5 consecutive failures",
    }
    view = View()
    for instance, seen, breakers in (("one", "11:59:58", [open_one]), ("two", "11:59:59", []), ("dead", "11:00:00", [open_one])):
        view.instances["research", instance] = {"seen_at": f"2026-01-31T{seen}Z", "breakers": breakers}
    view.instances["research", "older"] = {"seen_at": "2026-01-31T11:59:59Z"}
    view.agents["research"] = {"subscriptions": []}
    shown = [{**open_one, "instance": "one"}]
    assert breaker_rows(instance_rows(view, "research", NOW)) == shown
    assert [row["breakers"] for row in agent_rows(view, NOW)] == [shown], "in the list of all agents too"
