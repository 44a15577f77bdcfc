"""What only a real broker can show: topics with settings of their own, and records that anybody may write."""

from __future__ import annotations

from pathlib import Path

import pytest

from maypole.bus.kafka.confluent import ConfluentTransport
from maypole.bus.ports import Record, TopicSpec
from tests.support.commands import Desk
from tests.support.names import unique_agent, unique_topic
from tests.support.world import eventually

_AGENT = """
from maypole.bus import Agent, Event

agent = Agent("{name}")


class Read(Event, type="{read}"):
    number: int


class Written(Event, type="{written}"):
    number: int


@agent.on(Read)
async def copy(read: Read) -> Written:
    return Written(number=read.number)
"""


@pytest.fixture
def desk(kafka: str, tmp_path: Path) -> Desk:
    return Desk(tmp_path, {"MAYPOLE_KAFKA": kafka})


def write_agent(desk: Desk) -> tuple[str, str, str]:
    name, read, written = unique_agent("copier"), unique_topic("number.read"), unique_topic("number.written")
    (desk.folder / "copier.py").write_text(_AGENT.format(name=name, read=read, written=written))
    return name, read, written


async def test_topics_are_planned_then_created_once_and_never_changed(desk: Desk, kafka: str) -> None:
    name, read, written = write_agent(desk)
    async with ConfluentTransport(kafka) as transport:
        await transport.cluster.create([TopicSpec(read, 3, {"retention.ms": "60000"})])
    planned = {row["topic"]: row for row in (await desk.run("topics", "plan", "copier.py", "--partitions", "6", "-o", "json")).json}
    assert [planned[topic]["action"] for topic in (read, written, f"{name}.dlq")] == ["differs", "create", "create"]
    applied = await desk.run("topics", "apply", "copier.py", "--partitions", "6", "-o", "json")
    assert applied.code == 1, "what differs is told by the exit code too"
    rows = {row["topic"]: row for row in applied.json}
    assert rows[written]["action"] == "created"
    assert rows[written]["partitions"] == 6
    assert rows[read]["partitions"] == 3
    assert any(text.startswith("retention.ms: expected") and text.endswith("found 60000") for text in rows[read]["differences"])
    assert f"--topic {read} --add-config retention.ms=" in applied.err
    again = {row["topic"]: row["action"] for row in (await desk.run("topics", "apply", "copier.py", "-o", "json")).json}
    assert (again[written], again[read]) == ("ok", "differs")


async def test_a_corrupt_record_is_shown_with_where_reading_it_broke(desk: Desk, kafka: str) -> None:
    name, read, _ = write_agent(desk)
    async with desk.running("run", "copier.py", "--temporary"), ConfluentTransport(kafka) as transport, transport.sink() as sink:
        await sink.publish([Record(read, b"k", b"not avro", [("ce_id", b"\xff")])])
        published = await desk.run("publish", read, "--data", '{"number": 1}', "--key", "k", "--follow", "--timeout", "20s")
        assert published.code == 0, published.err
        listed = await desk.run("dlq", "list", name, "--each", "-o", "json")
        (letter,) = listed.json
        assert letter["reason"] == "undecodable"
        assert letter["flow_id"] is None
        shown = await desk.run("dlq", "show", letter["id"])
        assert shown.code == 0, shown.err
        assert "headers  cannot be read: expected the header ce_type, found none" in shown.out
        assert "value  cannot be read: expected a value of a zero byte" in shown.out
        assert "6e 6f 74 20 61 76 72 6f" in shown.out
        assert (await desk.run("dlq", "list", unique_agent("nobody"))).code == 3


async def test_an_agent_that_stays_registered_is_waited_for_until_it_is_retired(desk: Desk) -> None:
    name, read, _ = write_agent(desk)
    async with desk.running("run", "copier.py"):
        pass
    words = ("publish", read, "--data", '{"number": 1}', "--follow", "--timeout", "2s")
    waiting = await desk.run(*words)
    assert (waiting.code, f"still owed: {name} on {read}" in waiting.err) == (124, True)
    asked = await desk.run("agents", "retire", name)
    assert asked.code == 2, "nobody is there to confirm it"
    assert "--yes" in asked.err
    assert (await desk.run("agents", "retire", name, "--yes")).code == 0
    nobody = await desk.run(*words)
    assert (nobody.code, "no_subscriber" in nobody.err) == (1, True)
    shown = await desk.run("agents", "show", name, "-o", "json")
    assert (shown.json["state"], shown.json["subscriptions"][0]["lag"]) == ("retired", 2)
    async with desk.running("run", "copier.py"):
        assert (await desk.run(*words)).code == 0, "run again, it takes part again"
        shown = await desk.run("agents", "show", name, "-o", "json")
        assert (shown.json["state"], shown.json["subscriptions"][0]["lag"]) == ("running", 0)


_LATE = """
from collections.abc import Mapping
from typing import Any

from maypole.bus import Agent

agent = Agent("{name}")


@agent.on("{written}")
async def note(event: Mapping[str, Any]) -> None:
    with open("noted", "a") as file:
        file.write(f"{{event['number']}}\\n")
"""


@pytest.mark.parametrize(("start", "noted"), [("latest", ["2"]), ("earliest", ["1", "2"])])
async def test_an_agent_that_is_new_begins_where_it_is_told_to(desk: Desk, start: str, noted: list[str]) -> None:
    _, read, written = write_agent(desk)
    (desk.folder / "late.py").write_text(_LATE.format(name=unique_agent("late"), written=written))
    (desk.folder / "noted").touch()

    async def lines() -> list[str]:
        return sorted((desk.folder / "noted").read_text().split())

    async with desk.running("run", "copier.py", "--temporary"):
        publish = ("publish", read, "--follow", "--data")
        assert (await desk.run(*publish, '{"number": 1}')).code == 0
        async with desk.running("run", "late.py", "--temporary", "--from", start):
            assert (await desk.run(*publish, '{"number": 2}')).code == 0
            assert await eventually(lines, lambda found: "2" in found and len(found) >= len(noted)) == noted
