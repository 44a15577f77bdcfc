"""Contracts and a real schema registry."""

from __future__ import annotations

from pathlib import Path

import pytest

from maypole.schemas.avro import Schema
from maypole.schemas.confluent import ConfluentRegistry
from tests.support.commands import Desk
from tests.support.names import unique_agent, unique_topic

_AGENT = """
from maypole.bus import Agent, Event

agent = Agent("{name}")


class Read(Event, type="{read}"):
    number: int


@agent.on(Read)
async def look(read: Read) -> None: ...
"""


@pytest.mark.timeout(120)
async def test_the_registrys_refusal_is_shown_with_its_reasons(registry_url: str, tmp_path: Path) -> None:
    good, bad = unique_topic("number.read"), unique_topic("number.read")
    desk = Desk(tmp_path, {"SCHEMA_REGISTRY_URL": registry_url})
    files = []
    for event_type in (good, bad):
        file = f"{unique_agent('reader').replace('-', '_')}.py"
        (tmp_path / file).write_text(_AGENT.format(name=unique_agent("reader"), read=event_type))
        files.append(file)
    before = Schema.parse({"type": "record", "name": "Before", "fields": [{"name": "number", "type": "string"}]})
    async with ConfluentRegistry(registry_url) as registry:
        await registry.id_of(f"{bad}-value", before)

    async with desk.running("dev", *files):
        registered = await desk.run("schemas", "register", good, bad, "-o", "json")
        assert registered.code == 1, registered.err
        rows = {row["type"]: row for row in registered.json}
        assert (rows[good]["verdict"], rows[good]["subject"]) == ("registered", f"{good}-value")
        assert rows[bad]["verdict"] == "refused"
        assert rows[bad]["reasons"] != []
        checked = await desk.run("schemas", "check", good, bad, "-o", "json")
        assert checked.code == 1
        assert {(row["type"], row["verdict"]) for row in checked.json if row["against"] == "registry"} == {(good, "ok"), (bad, "refused")}

        published = await desk.run("publish", good, "--data", '{"number": 1}', "--follow")
        assert published.code == 0, "agents of `dev` read what is written with the registry's ids"
        refused = await desk.run("publish", bad, "--data", '{"number": 1}')
        assert refused.code == 1
        assert "refused" in refused.err
        assert "Traceback" not in refused.err


async def test_a_registry_that_is_not_there_is_told(tmp_path: Path) -> None:
    desk = Desk(tmp_path, {"SCHEMA_REGISTRY_URL": "http://127.0.0.1:9"})
    ran = await desk.run("schemas", "register", "report.published")
    assert ran.code == 1
    assert "cannot be reached" in ran.err
    doctor = {row["check"]: row["status"] for row in (await desk.run("doctor", "-o", "json")).json}
    assert doctor["registry"] == "failed"
