"""The parts of the torture chamber by themselves, without a broker."""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from maypole.bus.ports import Delivery, Record, TopicPartition
from maypole.bus.testing.history import check
from maypole.bus.testing.history_entries import Called, Committed
from maypole.bus.testing.history_findings import Finding, Kind
from maypole.bus.testing.history_reading import stored
from maypole.schemas.topics import CATALOG, JOURNAL
from tests.torture import compared, failpoints, flows, maypole
from tests.torture.crew import ANYTIME, Crew, Role, Toll
from tests.torture.failing_flows import fated
from tests.torture.failpoints import POINTS, FailingTransport, Failpoint
from tests.torture.fuzz import Fuzzed
from tests.torture.mutations import bent
from tests.torture.peers.order import child_headers, root_headers
from tests.torture.results import KILLS_MIN, Report, with_section, with_sections_of
from tests.torture.verdict import Verdict, judge, table
from tests.torture.witness import call, call_now, calls_of, witness


class Died(Exception):
    """Instead of the process."""


@pytest.fixture
def deaths(monkeypatch: pytest.MonkeyPatch) -> None:
    def die() -> None:
        raise Died

    monkeypatch.setattr(failpoints, "die", die)


@pytest.mark.usefixtures("deaths")
def test_a_failpoint_kills_at_its_own_point_and_at_the_pass_it_was_told() -> None:
    failpoint = Failpoint("handled", 3)
    for point in (*POINTS, *POINTS, "fetched", "handling"):
        failpoint.passing(point)
    with pytest.raises(Died):
        failpoint.passing("handled")
    Failpoint(None, 1).passing("handled")


class _Everything:
    """A sink and a source that note what they are asked, in order."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def sink(self, *, bulk: bool) -> _Everything:
        return self

    def source(self, group: str, topics: object, assignment: object) -> _Everything:
        return self

    async def __aenter__(self) -> _Everything:
        return self

    async def __aexit__(self, *error: object) -> None:
        pass

    async def publish(self, records: Sequence[Record]) -> Sequence[object]:
        self.asked.append(records[0].topic)
        return ()

    async def fetch(self) -> Sequence[Delivery]:
        self.asked.append("fetch")
        return ()

    async def commit(self, positions: object) -> None:
        self.asked.append("commit")


@pytest.mark.usefixtures("deaths")
@pytest.mark.parametrize(
    ("point", "done"),
    [
        ("fetched", ["fetch"]),
        ("handled", ["fetch"]),
        ("journaling", ["fetch", JOURNAL]),
        ("journaled", ["fetch", JOURNAL]),
        ("publishing", ["fetch", JOURNAL, "a.b"]),
        ("published", ["fetch", JOURNAL, "a.b"]),
        ("committed", ["fetch", JOURNAL, "a.b", "commit"]),
    ],
)
async def test_each_point_lies_between_the_steps_of_a_delivery_that_it_is_named_for(point: str, done: list[str]) -> None:
    inner = _Everything()
    transport = FailingTransport(inner, Failpoint(point, 1))

    async def deliver() -> None:
        async with transport.source("group", [], None) as source, transport.sink() as sink:  # type: ignore[arg-type]  # nobody is told
            await source.fetch()
            await sink.publish([Record(JOURNAL, b"", b"", ())])
            await sink.publish([Record("a.b", b"", b"", ())])
            await source.commit({})

    with pytest.raises(Died):
        await deliver()
    assert inner.asked == done


@pytest.mark.usefixtures("deaths")
async def test_what_an_agent_announces_is_no_part_of_a_delivery() -> None:
    inner = _Everything()
    async with FailingTransport(inner, Failpoint("handled", 1)).sink() as sink:
        await sink.publish([Record(CATALOG, b"", b"", ())])
    assert inner.asked == [CATALOG]


async def test_the_witness_has_written_a_call_down_before_it_answers_and_tells_their_order(tmp_path: Path) -> None:
    with witness(tmp_path) as address:
        await call(address, "acting", "event 1", "key 1")
        assert [(each.agent, each.trigger, each.key) for each in calls_of(address)] == [("acting", "event 1", "key 1")]
        for number in range(20):
            await asyncio.to_thread(call_now, address, "acting", f"event {number}", "key")
        times = [each.time_ms for each in calls_of(address)]
    assert len(times) == 21 and times == sorted(set(times))


def _role(program: str) -> Role:
    return Role("role", lambda number, options: [sys.executable, "-c", program, *options])


async def test_a_crew_kills_counts_by_point_and_comes_back(tmp_path: Path) -> None:
    crew = Crew([_role("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")], tmp_path, "seed")
    async with crew:
        while crew.toll.killed < 6:
            crew.changed.clear()
            await crew.changed.wait()
    assert set(crew.toll.kills) <= {*POINTS, ANYTIME} and crew.toll.failures == []


async def test_a_process_that_ends_by_itself_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    crew = Crew([_role("raise SystemExit('out of ribbon')")], tmp_path, "seed")
    async with crew:
        await crew.changed.wait()
    assert "out of ribbon" in crew.toll.failures[0] and crew.toll.killed == 0


def _of_a_peer(offset: int, headers: dict[str, str], topic: str) -> Delivery:
    return Delivery(topic, 0, offset, 1000 + offset, b"k", b"{}", [(name, value.encode()) for name, value in headers.items()])


async def test_a_member_that_says_it_was_fenced_is_believed_only_soon_after_a_broker_was_away(tmp_path: Path) -> None:
    crew = Crew([replace(_role("raise SystemExit('out of the group')"), fenced_saying="out of the group")], tmp_path, "seed")
    crew.toll.broker_killed()
    async with crew:
        while not crew.toll.fenced:
            crew.changed.clear()
            await crew.changed.wait()
        assert crew.toll.failures == []
        crew.toll.broker_moved_at -= 3600
        while not crew.toll.failures:
            crew.changed.clear()
            await crew.changed.wait()


def test_a_peer_is_done_with_its_first_output_and_a_second_one_is_another_event() -> None:
    root = root_headers("flow")
    first, second = (child_headers("peer", "flow", root["ce_id"]) for _ in range(2))
    records = [stored(_of_a_peer(0, root, "in")), stored(_of_a_peer(0, first, "out")), stored(_of_a_peer(1, second, "out"))]
    calls = [Called(900.0, "peer", root["ce_id"], "key"), Called(5000.0, "peer", root["ce_id"], "key")]
    at_the_end = Committed("peer", TopicPartition("in", 0), 1)
    steps = list(compared._steps("peer", records))
    assert Counter(finding.kind for finding in check([*records, *calls, *steps, at_the_end])) == {Kind.DOUBLED: 1, Kind.MULTIPLIED: 1}
    lost = judge("peer", 1.0, Toll(), [records[0], at_the_end])
    assert lost.count(Kind.LOST) == 1 and "| peer |" in table([lost])


def test_every_finding_and_every_open_input_is_a_broken_promise() -> None:
    findings = [Finding(Kind.DOUBLED, "acting-1", ""), Finding(Kind.CONTRADICTED, "tocking-1", ""), Finding(Kind.LOST, "acting-1", "")]
    broken = maypole.broken_promises(Verdict("maypole", 1.0, Toll(), 0, 0, 0, 0, findings, 1))
    assert len(broken) == 4
    assert (
        any("tocking" in line for line in broken)
        and any("lost" in line for line in broken)
        and any("never finished" in line for line in broken)
    )


def test_a_report_grows_with_its_run_and_says_what_was_not_reached(tmp_path: Path) -> None:
    path, report = tmp_path / "home" / "torture.md", Report(nodes=3, seed="7", poison=160)
    of_each = Counter({"alone-1f": 9, "acting-2e": KILLS_MIN - 10})
    toll = Toll(kills=Counter(handled=KILLS_MIN - 1), kills_of=of_each, store_restarts=4, fenced=2)
    report.verdicts.append(Verdict("maypole", 1.0, toll, 0, 0, 0, 0, [], 0))
    report.write(path)
    assert "handled 999 (acting 990, alone 9); 0 calls" in path.read_text() and "or return: 2." in path.read_text()
    assert "found: 999" in path.read_text() and "not reached" in path.read_text() and not report.is_long
    report.verdicts.append(Verdict("bare", 1.0, Toll(kills=Counter(handled=KILLS_MIN)), 0, 0, 0, 0, [], 0))
    report.fuzzed = Fuzzed(records=5)
    report.write(path)
    text = path.read_text()
    assert "| maypole | 1 | 999 | 0 | 4 |" in text and "| bare |" in text and "Seed `7`" in text and "fuzzed 5 records" in text
    assert not report.is_long, "the kills of others prove nothing about us"
    toll.kills["fetched"] += 1
    assert report.is_long


def test_a_record_is_bent_in_the_same_way_by_the_same_seed() -> None:
    record = Record("a.b", b"key", b"\x00\x00\x00\x00\x01value", (("ce_id", b"1"), ("ce_type", b"a.b")))
    bends = [[bent(record, random.Random(seed)) for seed in range(300)] for _ in range(2)]
    assert bends[0] == bends[1]
    assert len({repr(each) for each in bends[0]}) > 100


def test_a_new_report_keeps_the_sections_that_were_measured_by_themselves() -> None:
    kept = with_sections_of("# What torture found\n\nnothing\n", "# Old\n\n## Sagas\n\n| a |\n\n## Flows\n\n| c |\n")
    assert kept == "# What torture found\n\nnothing\n\n## Sagas\n\n| a |\n\n## Flows\n\n| c |\n"
    assert with_section(kept, "## Sagas\n\n| b |\n") == kept.replace("| a |", "| b |"), "and a new measurement takes its place"
    assert with_section("# What torture found\n", "## Sagas\n") == "# What torture found\n\n## Sagas\n"
    assert with_sections_of("# What torture found\n", "# Old\n") == "# What torture found\n"


def test_the_long_run_begins_enough_flows_that_fail_at_a_step() -> None:
    chosen = flows.options().parse_args([])
    chance = random.Random(f"{chosen.seed}/flows")
    fails = [fated(number, chance).fails for number in range(chosen.flows // 2)]
    assert 2 * sum(fails) >= flows.FAILING_MIN and not all(fails), "of both arrangements, and some go well"
