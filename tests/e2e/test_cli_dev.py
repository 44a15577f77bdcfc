"""Two terminals: `maypole dev` in one, everything else in the other."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from maypole.schemas.identifiers import FlowId, flow_id_of, trace_id_of
from tests.support.commands import Desk

QUESTION = '{"question": "How do try and finally interact?"}'


@dataclass(frozen=True, slots=True)
class Dev:
    desk: Desk
    process: Process

    async def rows(self, *words: str) -> list[dict[str, object]]:
        ran = await self.desk.run(*words, "-o", "json")
        assert ran.code == 0, ran.err
        rows: list[dict[str, object]] = ran.json
        return rows


@pytest.fixture
async def dev(tmp_path: Path) -> AsyncIterator[Dev]:
    desk = Desk(tmp_path, {})
    async with desk.running("dev") as process:
        yield Dev(desk, process)
    assert process.returncode == 0
    assert not (tmp_path / ".maypole" / "endpoints.json").exists()


async def test_a_second_terminal_publishes_follows_and_looks_around(dev: Dev) -> None:
    ran = await dev.desk.run("publish", "research.requested", "--data", QUESTION, "--key", "order-1", "--follow", "-o", "json")
    assert ran.code == 0, ran.err
    ids = {"flow_id", "event_id", "trace_id", "topic", "partition", "offset", "trace_url"}
    assert set(ran.json) == ids | {"state", "reason", "degraded", "steps"}
    assert (ran.json["state"], ran.json["reason"], ran.json["degraded"]) == ("committed", None, [])
    assert {step["state"] for step in ran.json["steps"]} == {"completed"}
    assert ran.json["trace_id"] == trace_id_of(FlowId(ran.json["flow_id"]))
    assert ran.json["trace_url"] is None
    assert "report.published -> report.delivered" in ran.err
    assert {row["agent"]: row["state"] for row in await dev.rows("agents", "list")} == dict.fromkeys(
        ("research", "analysis", "report", "delivery"), "running"
    )
    topics = {row["topic"]: row for row in await dev.rows("topics", "list")}
    assert topics["report.delivered"]["records"] == 1
    assert {row["action"] for row in await dev.rows("topics", "plan")} == {"ok"}
    assert {row["verdict"] for row in await dev.rows("schemas", "check")} == {"ok"}
    assert await dev.rows("dlq", "list") == []
    assert {row["status"] for row in await dev.rows("doctor")} == {"ok"}


async def test_a_new_agent_joins_flows_that_start_after_it_and_its_events_can_be_read(dev: Dev) -> None:
    await dev.desk.run("publish", "research.requested", "--data", QUESTION, "--follow")
    made = await dev.desk.run("new", "agent", "translate", "--on", "report.published", "--emits", "report.translated")
    assert made.code == 0, made.err
    async with dev.desk.running("run", "translate.py") as process:
        ran = await dev.desk.run("publish", "research.requested", "--data", QUESTION, "--follow")
        assert ran.code == 0, ran.err
        assert "report.published -> report.translated" in ran.err
        topics = {row["topic"]: row["records"] for row in await dev.rows("topics", "list")}
        assert (topics["report.published"], topics["report.translated"]) == (2, 1), "it took part in the second flow only"
        shown = await dev.desk.run("schemas", "show", "report.translated", "-o", "json")
        assert shown.json["name"] == "ReportTranslated"
        foreign = await dev.desk.run("publish", "report.translated", "--data", '{"question": 3}')
        assert (foreign.code, "question: expected string, found 3" in foreign.err) == (2, True)
        assert (await dev.desk.run("publish", "report.translated", "--data", '{"question": "why?"}')).code == 0
    assert process.returncode == 0
    states = {row["agent"]: row["state"] for row in await dev.rows("agents", "list")}
    assert states["translate"] == "retired", "on the embedded broker an agent is temporary"
    assert (await dev.desk.run("publish", "research.requested", "--data", QUESTION, "--follow")).code == 0


async def test_what_an_agent_cannot_handle_is_told_with_the_command_that_shows_it(dev: Dev) -> None:
    data = json.dumps({**json.loads(QUESTION), "deliver_to": "relative/folder"})
    ran = await dev.desk.run("publish", "research.requested", "--data", data, "--follow")
    assert ran.code == 4
    assert "compensated  delivery failed for good on report.published: rejected" in ran.err
    assert "undone: report, then analysis, then research" in ran.err
    place = ran.err.rpartition("dlq show ")[2].split()[0]
    shown = await dev.desk.run("dlq", "show", place, "-o", "json")
    assert shown.code == 0, shown.err
    assert shown.json["reason"] == "rejected"
    assert shown.json["data"]["deliver_to"] == "relative/folder"
    (letter,) = await dev.rows("dlq", "list", "--each")
    assert letter["id"] == place
    assert (await dev.desk.run("dlq", "show", "delivery/0/12345")).code == 3
    nowhere = await dev.desk.run("dlq", "list", "--flow", "nowhere")
    assert (nowhere.code, "found nothing about 'nowhere'" in nowhere.err) == (3, True)


async def test_the_same_idempotency_key_is_the_same_flow_and_another_event_under_it_is_refused(dev: Dev) -> None:
    words = ("publish", "research.requested", "--idempotency-key", "k", "--follow", "-o", "json", "--data")
    first, second = await dev.desk.run(*words, QUESTION), await dev.desk.run(*words, QUESTION)
    assert (first.code, second.code) == (0, 0), second.err
    assert first.json["flow_id"] == second.json["flow_id"] == flow_id_of("research.requested", "k")
    other = await dev.desk.run(*words, '{"question": "Something else?"}')
    assert other.code == 1
    assert "already started flow" in other.err


async def test_a_flow_without_subscribers_and_one_that_waits_are_told_apart(dev: Dev) -> None:
    nobody = await dev.desk.run("publish", "research.inconclusive", "--follow", "--data", _inconclusive())
    assert (nobody.code, "no_subscriber" in nobody.err) == (1, True)
    (dev.desk.folder / "slow.py").write_text(_SLOW)
    async with dev.desk.running("run", "slow.py") as slow:
        waiting = await dev.desk.run("publish", "research.requested", "--data", QUESTION, "--follow", "--timeout", "2s")
        assert waiting.code == 124
        assert "still owed: slow on research.requested" in waiting.err
        assert re.search(r"^  slow was heard \d+ s ago$", waiting.err, re.MULTILINE)
        slow.kill()  # it would finish what it has in hand, which is the point of it


async def test_a_registry_that_is_away_is_told_once_and_nothing_is_published(dev: Dev) -> None:
    desk = Desk(dev.desk.folder, {"SCHEMA_REGISTRY_URL": "http://127.0.0.1:9"})
    ran = await desk.run("publish", "research.requested", "--data", QUESTION)
    assert ran.code == 1
    assert [line.split(" ")[0] for line in ran.err.splitlines()] == ["error:", "try:"]
    assert "the schema registry at http://127.0.0.1:9 cannot be reached" in ran.err
    assert "nothing was published" in ran.err
    assert {row["topic"]: row["records"] for row in await dev.rows("topics", "list")}["research.requested"] == 0


async def test_an_agent_that_hears_what_nobody_says_is_warned_when_it_starts(dev: Dev) -> None:
    (dev.desk.folder / "deaf.py").write_text(_DEAF)
    async with dev.desk.running("run", "deaf.py", until="warning: deaf subscribes to report.publshed"):
        pass


async def test_agents_that_disagree_about_a_type_are_kept_apart(dev: Dev) -> None:
    (dev.desk.folder / "other.py").write_text(_CONFLICT)
    ran = await dev.desk.run("run", "other.py")
    assert ran.code == 1
    assert "report.published differently" in ran.err
    assert "color: expected a default" in ran.err
    assert "Traceback" not in ran.err


async def test_a_second_dev_in_the_same_folder_is_refused(dev: Dev) -> None:
    ran = await dev.desk.run("dev")
    assert ran.code == 1
    assert f"process {dev.process.pid}" in ran.err


async def test_of_two_that_start_at_the_same_moment_one_wins_and_the_other_says_who(tmp_path: Path) -> None:
    desk = Desk(tmp_path, {})
    both = [await desk.start("dev") for _ in range(2)]
    try:
        ends = {asyncio.create_task(process.wait()): process for process in both}
        (lost, *others), _ = await asyncio.wait(ends, timeout=20, return_when=asyncio.FIRST_COMPLETED)
        assert others == []
        loser = ends[lost]
        (winner,) = (process for process in both if process is not loser)
        assert loser.stderr is not None and winner.stderr is not None
        said = (await loser.stderr.read()).decode()
        assert (loser.returncode, f"process {winner.pid} " in said) == (1, True), said
        async with asyncio.timeout(20):
            while "ready" not in (await winner.stderr.readline()).decode():
                pass
        assert (await desk.run("agents", "list")).code == 0
        winner.terminate()
        await winner.communicate()
    finally:
        for process in both:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def test_what_the_agents_of_dev_kept_goes_with_the_broker_and_reports_and_other_state_stay(tmp_path: Path) -> None:
    desk, clusters = Desk(tmp_path, {}), tmp_path / ".maypole" / "clusters"
    (clusters / "mockClusterOfAnother").mkdir(parents=True)
    async with desk.running("dev"):
        ran = await desk.run("publish", "research.requested", "--data", QUESTION, "--follow")
        assert ran.code == 0, ran.err
        assert len(list(clusters.iterdir())) == 2
    assert [folder.name for folder in clusters.iterdir()] == ["mockClusterOfAnother"]
    assert len(list((tmp_path / ".maypole" / "reports").glob("*.md"))) == 1


async def test_what_a_killed_dev_left_behind_is_replaced(tmp_path: Path) -> None:
    desk = Desk(tmp_path, {})
    async with desk.running("dev") as killed:
        killed.kill()
    assert (tmp_path / ".maypole" / "endpoints.json").exists()
    unreachable = await desk.run("agents", "list")
    assert unreachable.code == 5
    assert "Traceback" not in unreachable.err
    began = time.monotonic()
    async with desk.running("dev") as process:
        assert time.monotonic() - began < 20, "nobody waits for a broker that is gone"
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 0


async def test_an_agent_beside_a_dev_that_has_ended_ends_too_and_says_why(tmp_path: Path) -> None:
    desk = Desk(tmp_path, {})
    async with desk.running("dev"):
        assert (await desk.run("new", "agent", "translate", "--on", "report.published", "--emits", "report.translated")).code == 0
        beside = await desk.start("run", "translate.py")
        try:
            assert beside.stderr is not None
            while b"ready" not in (line := await beside.stderr.readline()):
                assert line, "it ended before it was ready"
        except BaseException:
            beside.kill()
            raise
    try:
        _, err = await asyncio.wait_for(beside.communicate(), 90)
    finally:
        if beside.returncode is None:
            beside.kill()
    said = err.decode()
    assert beside.returncode == 5, said
    assert "was in memory, and has ended with all that it held" in said and "found none in" in said and "beside a new" in said


def _inconclusive() -> str:
    return json.dumps({"question": "why?", "reason": "nobody knows", "best_confidence": 0.1, "researched_at": "2026-01-31T12:00:00Z"})


_SLOW = """
import asyncio

from maypole.bus import Agent
from maypole.schemas.research import ResearchRequested

slow = Agent("slow")


@slow.on(ResearchRequested)
async def ponder(request: ResearchRequested) -> None:
    await asyncio.sleep(3600)
"""

_DEAF = """
from collections.abc import Mapping
from typing import Any

from maypole.bus import Agent

deaf = Agent("deaf")


@deaf.on("report.publshed")
async def listen(report: Mapping[str, Any]) -> None: ...
"""

_CONFLICT = """
from maypole.bus import Agent, Event

other = Agent("other")


class ReportPublished(Event, type="report.published"):
    color: str


@other.on(ReportPublished)
async def paint(report: ReportPublished) -> None: ...
"""


async def test_a_ledger_is_for_one_process_and_a_damaged_one_is_named(dev: Dev) -> None:
    (dev.desk.folder / "deaf.py").write_text(
        "from maypole.bus import Agent, Event\n\ndeaf = Agent('deaf')\n\n\nclass Heard(Event, type='noise.heard'):\n    loud: bool\n\n\n"
        "@deaf.on(Heard)\nasync def ignore(heard: Heard) -> None:\n    return None\n"
    )
    async with dev.desk.running("run", "deaf.py") as first:
        second = await dev.desk.run("run", "deaf.py")
        assert (second.code, "Traceback" in second.err) == (1, False)
        assert f"is held by process {first.pid}" in second.err and "MAYPOLE_STORE" in second.err
    (ledger,) = (dev.desk.folder / ".maypole").glob("clusters/*/agents/deaf/ledger.sqlite3")
    ledger.write_bytes(b"nothing that anybody could read, and longer than a header of a hundred bytes" * 3)
    third = await dev.desk.run("run", "deaf.py")
    assert (third.code, "Traceback" in third.err) == (1, False)
    assert str(ledger) in third.err and "damaged or foreign file" in third.err


async def test_dev_ends_with_the_reason_when_its_coordinator_does(tmp_path: Path) -> None:
    desk = Desk(tmp_path, {})
    process = await desk.start("dev")
    assert process.stderr is not None
    said = b""
    try:
        async with asyncio.timeout(60):
            while b"agents list" not in said:
                said += await process.stderr.readline()
            for path in tmp_path.glob(".maypole/clusters/*/coordinator/sagas.sqlite3*"):
                path.unlink()
            await desk.run("publish", "research.requested", "--data", QUESTION)
            said += await process.stderr.read()
            assert await process.wait() == 1
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    last = said.decode().strip().splitlines()[-1]
    assert last.startswith("error: ") and "sagas.sqlite3" in last and "it is folded anew from the journal" in last, last
