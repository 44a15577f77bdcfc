"""The coordinator as somebody at a terminal meets it: missing, started later, stopped."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from maypole.bus.kafka.embedded import EmbeddedKafka
from tests.support.commands import Desk

_REFUSED = json.dumps({"question": "How do try and finally interact?", "deliver_to": "relative/folder"})
_AGENTS = [f"maypole.services.{name}" for name in ("research", "analysis", "report", "delivery")]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A broker of its own: a coordinator sees to every flow of its cluster."""
    with EmbeddedKafka() as kafka:
        yield Desk(tmp_path, {"MAYPOLE_KAFKA": kafka.bootstrap})


async def coordinator_check(desk: Desk) -> dict[str, str]:
    rows = (await desk.run("doctor", "-o", "json")).json
    return next(row for row in rows if row["check"] == "coordinator")


async def test_without_a_coordinator_that_is_said_and_one_that_comes_later_undoes_the_flow(desk: Desk) -> None:
    async with desk.running("run", *_AGENTS):
        ran = await desk.run("publish", "research.requested", "--data", _REFUSED, "--follow")
        assert ran.code == 1
        assert "no coordinator is running" in ran.err
        assert "coordinator   (in another terminal; what waits is undone" in ran.err
        assert (await coordinator_check(desk))["status"] == "warning"
        flow = ran.out.split()[1]
        async with desk.running("coordinator") as process:
            async with asyncio.timeout(40):
                while (await desk.run("saga", "show", flow, "-o", "json")).json["state"] != "compensated":
                    pass  # each look is a process of its own, and takes its time
            assert (await coordinator_check(desk))["status"] == "ok"
            again = await desk.run("publish", "research.requested", "--data", _REFUSED, "--follow")
            assert again.code == 4, again.err
        assert process.returncode == 0
        assert (await coordinator_check(desk))["status"] == "warning"


async def test_a_coordinator_says_what_is_wrong_before_it_begins(desk: Desk) -> None:
    ran = await desk.run("coordinator", "--patience", "soon")
    assert ran.code == 2
    assert "expected a time like" in ran.err
    nowhere = Desk(desk.folder, {"MAYPOLE_KAFKA": "127.0.0.1:1"})
    assert (await nowhere.run("coordinator")).code == 5
    (desk.folder / "file").write_text("in the way")
    ran = await Desk(desk.folder, {**desk.settings, "MAYPOLE_HOME": "file/home"}).run("coordinator")
    assert ran.code == 2
    assert "MAYPOLE_HOME: expected a folder" in ran.err and "Traceback" not in ran.err
    elsewhere = Desk(desk.folder, {**desk.settings, "MAYPOLE_STORE": "postgresql://127.0.0.1:1/none?connect_timeout=1"})
    ran = await elsewhere.run("coordinator")
    assert ran.code == 1
    assert "coordinator's store" in ran.err and "Traceback" not in ran.err
