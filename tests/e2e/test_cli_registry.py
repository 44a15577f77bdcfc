"""Contracts and a real schema registry."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

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


@asynccontextmanager
async def web_page(status: str) -> AsyncIterator[str]:
    """The address of a server that answers everything with a page."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        page = b"<html>welcome</html>"
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(page)}\r\nConnection: close\r\n\r\n".encode() + page)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_an_address_that_is_no_registrys_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "reader.py").write_text(_AGENT.format(name="reader", read="number.read"))
    (tmp_path / "writer.py").write_text(_AGENT.format(name="writer", read="number.read").replace("None: ...", "Read:\n    return read"))
    commands = (("publish", "number.read", "--data", '{"number": 1}'), ("run", "writer.py"), ("schemas", "register", "number.read"))
    async with Desk(tmp_path, {}).running("dev", "reader.py"), web_page("501 Not Implemented") as address:
        desk = Desk(tmp_path, {"SCHEMA_REGISTRY_URL": address})
        for words in commands:
            ran = await desk.run(*words)
            assert (ran.code, ran.out) == (1, ""), ran.err
            assert all(found in ran.err for found in (address, "501", "<html>welcome</html>", "SCHEMA_REGISTRY_URL")), ran.err
            assert "Traceback" not in ran.err
        doctor = {row["check"]: row for row in (await desk.run("doctor", "-o", "json")).json}
        assert (doctor["registry"]["status"], "welcome" in doctor["registry"]["found"]) == ("failed", True)
