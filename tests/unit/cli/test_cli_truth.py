"""What people are told where the short answer would be false: who comes near a flow, what stands, what waits, what cannot be written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest

from maypole.bus import Agent, Event
from maypole.bus.catalog import View
from maypole.bus.requirements import Requirement, at_least, one_of, present
from maypole.bus.subscription import WrongDeclaration
from maypole.services.cli.agent_status import agent_rows, breaker_told, standing_of
from maypole.services.cli.bystanders import bystanders
from maypole.services.cli.commands.agents import _retired, _rule
from maypole.services.cli.commands.dev import _next
from maypole.services.cli.commands.new import _write
from maypole.services.cli.flow_ending import told_end, told_without_subscriber
from maypole.services.cli.flow_picture import FlowPicture
from maypole.services.cli.health import _agents, _coordinator, _home
from maypole.services.cli.output import cell, table
from maypole.services.cli.problems import Problem
from maypole.services.cli.repetition import differences
from maypole.services.cli.start_warnings import warnings
from maypole.services.cli.writable import require_writable
from maypole.services.coordinator.naming import COORDINATOR
from tests.support.stories import Story, agent
from tests.unit.cli.test_cli_sagas import CHAIN, journaled, told

NOW = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
OPEN = {"breaker": "subscription", "name": "a.b", "state": "open", "since": "2026-01-31T11:59:00Z", "because": "5 failures"}


def view(*declarations: dict[str, object]) -> View:
    found = View()
    for declaration in declarations:
        found.agents[str(declaration["name"])] = declaration
    return found


def declared(name: str, *on: str, **more: object) -> dict[str, object]:
    event = on[0] if len(on) == 1 else list(on)
    return {"name": name, "subscriptions": [{"on": event, "emits": [], "kind": "events", **more}], "schemas": {}}


def test_half_of_a_join_is_told_with_what_it_needs_too() -> None:
    found = bystanders(view(declared("decision", "score.ready", "income.verified", within_ms=30_000)), "score.ready")
    assert found == ["decision needs income.verified too, which nothing emits that comes of score.ready"]


def test_an_agent_that_is_stopped_or_retired_is_told_to_observe_only() -> None:
    temporary = {**declared("rt", "cmd.given"), "retired": True, "temporary": True}
    assert bystanders(view(temporary, declared("other", "x.y")), "cmd.given") == [
        "rt is stopped, so the flow does not wait for it: if it is run again, it only observes this flow"
    ]
    retired = {**declared("rt", "cmd.given"), "retired": True}
    assert bystanders(view(retired), "cmd.given")[0].startswith("rt is retired, ")


def test_a_flow_without_any_agent_says_who_comes_near_instead_of_never(capsys: pytest.CaptureFixture[str]) -> None:
    nobody = Story("x.y", agent("other", "a.b"))
    picture = FlowPicture()
    for seen in journaled([nobody.started()], nobody):
        picture.see(seen)
    assert told_end(picture, 1) == 1
    assert "no agent subscribes to x.y, so nothing will ever come of this flow" in click.unstyle(capsys.readouterr().err)
    picture.bystanders = ["rt is stopped"]
    assert told_end(picture, 1) == 1
    said = click.unstyle(capsys.readouterr().err)
    assert "no agent takes part in this flow: rt is stopped" in said and "ever" not in said
    assert told_without_subscriber("x.y", ["rt is stopped"]) in said


def test_an_open_breaker_is_told_wherever_an_agent_is_said_to_run() -> None:
    catalog = view(declared("rt", "a.b"))
    catalog.instances["rt", "1"] = {"seen_at": "2026-01-31T11:59:58Z", "breakers": [OPEN]}
    catalog.instances["rt", "dead"] = {"seen_at": "2026-01-31T11:00:00Z", "breakers": [{**OPEN, "name": "old"}]}
    (row,) = agent_rows(catalog, NOW)
    assert row["breakers"] == [{**OPEN, "instance": "1"}]
    told_ = breaker_told(OPEN)
    assert told_.startswith("its breaker of a.b is open since ") and "(5 failures), so events wait there" in told_
    assert standing_of(catalog, "rt", NOW).text == f"was heard 2 s ago; {told_}"
    catalog.instances["rt", "1"] = {"seen_at": datetime.now(UTC).isoformat(), "breakers": [OPEN]}
    check = _agents(catalog)
    assert check.status == "warning" and f"rt: {told_}" in check.found


def test_what_was_said_when_a_flow_began_stands_and_is_told() -> None:
    story = told(CHAIN.started(60_000))
    assert differences(story, None, None) == differences(story, None, 60) == []
    key, deadline = differences(story, "order-7", 5)
    assert "keeps no business key: --key order-7 changes nothing" in key
    assert "keeps its deadline of 60 s: --deadline changes nothing" in deadline
    story.business_key = "order-7"
    assert differences(story, "order-7", None) == []


def test_a_folder_is_judged_by_writing_into_the_nearest_one_that_exists(tmp_path: Path) -> None:
    assert _home(tmp_path / "new" / "home").status == "ok"
    assert list(tmp_path.iterdir()) == [], "a doctor leaves nothing behind"
    refused = Path("/proc/self/home")
    assert _home(refused).status == "failed" and "/proc/self cannot be written" in _home(refused).found
    with pytest.raises(Problem, match="expected a folder for local state that can be written, found /proc/self cannot be written"):
        require_writable(refused)
    with pytest.raises(Problem, match=r"expected a folder that can be written, found that .* cannot be made"):
        _write(refused / "agent.py", "")


def test_an_error_of_several_lines_keeps_its_row() -> None:
    lines = [click.unstyle(line) for line in table([["a", "one\n  two"], ["b", "three"]], ["ID", "ERROR"])]
    assert len(lines) == 3 and lines[1] == "a   one two"
    assert cell({"rejected": 3, "undecodable": 1}) == "rejected 3, undecodable 1"
    assert cell({}) == "-"


def test_what_is_required_is_told_by_part_of_a_join() -> None:
    def shown(requirement: Requirement, **part: str) -> str:
        # As the catalog keeps it: with its keys in order of the alphabet.
        return _rule(dict(sorted({**part, **requirement.declaration()}.items())))

    assert shown(at_least("score", 300), on="score.ready") == "score.ready: score at_least 300"
    assert shown(at_least("confidence", 0.7)) == "confidence at_least 0.7"
    assert shown(one_of("kind", "a", "b")) == "kind one_of a, b"
    assert shown(present("title")) == "title present"


@pytest.mark.parametrize(
    ("name", "found"),
    [("Bad Name!", r"found 'B', ' ', 'N', '!'"), ("1st", "starts with '1'"), ("", "found nothing"), ("maypole", "found 'maypole'")],
)
def test_a_name_that_is_none_is_told_what_is_wrong_with_it(name: str, found: str) -> None:
    with pytest.raises(WrongDeclaration, match=found):
        Agent(name)


def test_a_name_that_is_too_long_is_told_the_limit() -> None:
    with pytest.raises(WrongDeclaration, match=r"at most 63 lower-case letters.*found 300 characters"):
        Agent("a" * 300)


class Given(Event, type="cmd.given"):
    n: int


class Ponged(Event, type="pong.given"):
    n: int


def rt() -> Agent:
    found = Agent("rt")

    @found.on(Given)
    async def answer(given: Given) -> Ponged:
        return Ponged(n=given.n)

    return found


def test_a_type_is_not_taken_for_another_one_with_the_same_ending() -> None:
    (warning,) = warnings([rt()], View(), [])
    assert "did you mean" not in warning and "until somebody publishes it" in warning


def test_a_type_that_an_agent_declares_itself_is_no_slip_of_the_finger() -> None:
    class Placed(Event, type="order.placed"):
        n: int

    class Paid(Event, type="order.paid"):
        n: int

    pay = Agent("pay")

    @pay.on(Placed)
    async def charge(placed: Placed) -> Paid:
        return Paid(n=placed.n)

    (warning,) = warnings([pay], View(), [])
    assert "did you mean" not in warning


def test_dev_with_agents_of_ones_own_suggests_what_they_react_to() -> None:
    lines = _next([rt()], standard=False)
    assert "publish cmd.given" in lines[1] and not any("translate" in line for line in lines)


def beats(**instances: tuple[int, list[int]]) -> View:
    """Of each coordinator how many seconds ago it was heard, and of which partitions it told."""
    told = View()
    for name, (seconds, partitions) in instances.items():
        seen_at = (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()
        told.instances[COORDINATOR, name] = {"seen_at": seen_at, "partitions": partitions, "alarms": 0, "letters": 0, "parked_flows": 0}
    return told


@pytest.mark.parametrize(
    ("instances", "found"),
    [
        ({"killed": (20, [0, 1, 2, 3]), "new": (1, [0, 1, 2, 3])}, "1 running, 4 partitions"),
        ({"killed": (20, [0, 1]), "one": (2, [0, 2]), "other": (1, [1, 3])}, "2 running, 4 partitions"),
        ({"first": (9, [0, 1, 2, 3]), "second": (1, [2, 3])}, "2 running, 4 partitions"),
        ({"works": (1, [0, 1]), "stands by": (2, [])}, "2 running, 2 partitions"),
    ],
    ids=["replaced", "replaced by two", "shared since", "one too many"],
)
def test_a_coordinator_whose_partitions_others_told_of_since_does_not_run(instances: dict[str, tuple[int, list[int]]], found: str) -> None:
    assert _coordinator(beats(**instances)).found == f"{found} of the journal"


def test_whoever_retires_an_agent_is_told_that_it_runs() -> None:
    assert [line.split(":")[0] for line in _retired("stock", 0)] == ["stock is retired"]
    told = _retired("stock", 2)
    assert "2 of its instances still run; they go on, as observers of new flows" in told[1]
    assert "1 of its instances still runs" in _retired("stock", 1)[1]
