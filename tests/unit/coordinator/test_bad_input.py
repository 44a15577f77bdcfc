"""Records that cannot be read, belong to nothing, or contradict what was decided: nothing of it is dropped in silence."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from maypole.bus.choreography import derive_choreography
from maypole.bus.ports import Record, TopicSpec
from maypole.schemas.event import DEADLINE_SECONDS_MAX
from maypole.schemas.journal import Decision, OperatorDecided
from maypole.schemas.topics import JOURNAL
from maypole.services.coordinator.stores.port import Changes, StoreCorrupt
from maypole.services.coordinator.stores.sqlite import open_sqlite_store
from maypole.services.saga.packing import VERSION
from tests.unit.coordinator.world import AGENTS, ROOT, World, declaration


def letters(world: World) -> list[tuple[str, Mapping[str, bytes | None]]]:
    found = [(record, dict(record.headers)) for record in world.topic("maypole.coordinator.dlq")]
    return [((headers["dlq-reason"] or b"").decode(), headers) for _, headers in found]


def said(caplog: pytest.LogCaptureFixture, message: str) -> int:
    return [record.getMessage() for record in caplog.records].count(message)


async def test_a_record_that_cannot_be_decoded_is_buried_unchanged_and_the_rest_goes_on(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.start()
    flow = await world.flow().starts()
    whole = world.topic(JOURNAL)[0]
    broken = [
        Record(JOURNAL, whole.key, b"\x00\x00", whole.headers),
        Record(JOURNAL, whole.key, None, whole.headers),
        Record(JOURNAL, whole.key, whole.value, [(n, b"maypole.of.tomorrow" if n == "ce_type" else v) for n, v in whole.headers]),
        Record(JOURNAL, b"nobody", b"{}", [("x", b"\xff")]),
        Record(JOURNAL, None, None, []),
    ]
    await world.append(*broken)
    await flow.completes("flight", "hotel", "car")
    await world.settled()
    assert [end.state for end in world.ends(flow.id)] == ["committed"]
    assert [reason for reason, _ in letters(world)] == ["undecodable"] * len(broken)
    buried = world.topic("maypole.coordinator.dlq")
    kept = {(record.key, record.value, tuple(pair for pair in record.headers if not pair[0].startswith("dlq-"))) for record in buried}
    assert kept == {(record.key, record.value, tuple(record.headers)) for record in broken}
    assert said(caplog, "coordinator.record_buried") == len(broken)


async def test_a_record_too_large_for_the_dead_letters_is_buried_with_its_place_and_the_rest_goes_on(world: World) -> None:
    cluster = world.platform.transport.cluster
    await cluster.create([TopicSpec("maypole.coordinator.dlq", 1, {"max.message.bytes": "50000"})])
    await world.start()
    flow = await world.flow().starts()
    await world.append(Record(JOURNAL, flow.id.encode(), b"x" * 60_000, world.topic(JOURNAL)[0].headers))
    await flow.completes("flight", "hotel", "car")
    await world.settled()
    assert [end.state for end in world.ends(flow.id)] == ["committed"]
    ((reason, headers),) = letters(world)
    assert (reason, headers["dlq-left-out"], headers["dlq-topic"]) == ("undecodable", b"value of 60000 bytes", JOURNAL.encode())


async def test_a_business_key_that_no_command_could_carry_is_as_good_as_none(world: World) -> None:
    await world.start()
    flow = world.flow(business_key="k" * 1025)
    await flow.starts()
    await flow.completes("flight", "hotel", "car")
    await world.settled()
    assert [end.state for end in world.ends(flow.id)] == ["committed"]
    assert all(len(dict(record.headers).get("ce_subject") or b"") == 0 for record in world.topic("maypole.flow.ended"))


async def test_records_of_a_flow_that_starts_later_are_kept_for_it(world: World) -> None:
    first = await world.start()
    flow = await world.flow().completes("flight")
    await world.settled(30)
    await first.kill()
    await world.start()
    await flow.completes("hotel")
    await world.settled(30)
    assert letters(world) == []
    await flow.starts()
    await flow.completes("car")
    await world.settled()
    assert [end.state for end in world.ends(flow.id)] == ["committed"]


async def test_records_of_a_flow_that_nobody_starts_are_buried_in_the_end(world: World) -> None:
    process = await world.start()
    flow = await world.flow().completes("flight", "hotel")
    await world.settled(500)
    assert letters(world) == []
    await world.settled(120)
    assert [reason for reason, _ in letters(world)] == ["unknown_flow", "unknown_flow"]
    await process.kill()
    await world.start()
    await flow.completes("car")
    await world.settled(30)
    assert len(letters(world)) == 2


async def test_a_flow_whose_choreography_nobody_knows_waits_until_it_is_known_and_others_go_on(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    first = await world.start()
    declarations = [declaration(agent, on, emits, optional=agent == "car") for agent, (on, emits) in AGENTS.items()]
    unknown = derive_choreography(ROOT, declarations)
    flow = await world.flow(deadline_seconds=600).starts(unknown.hash)
    await flow.completes("flight", "hotel")
    other = await (await world.flow().starts()).completes("flight", "hotel", "car")
    await world.settled(30)
    assert [end.state for end in world.ends(other.id)] == ["committed"]
    assert said(caplog, "coordinator.choreography_unknown") == 1
    await first.kill()
    await world.start()
    await flow.completes("car")
    await world.settled(1000)
    assert letters(world) == []
    assert world.ends(flow.id) == []
    await world.announce(*declarations)
    await world.settled(2)
    assert [end.state for end in world.ends(flow.id)] == ["committed"]


async def test_what_contradicts_a_compensation_reopens_the_flow_and_is_undone(world: World, caplog: pytest.LogCaptureFixture) -> None:
    await world.start()
    flow = await world.flow().starts()
    await flow.abort()
    await flow.fenced("flight")
    await world.settled()
    await flow.completes("flight")
    await world.settled()
    assert said(caplog, "coordinator.flow_reopened") == 1
    assert said(caplog, "coordinator.contradiction") >= 1
    assert ("hotel", "fence") in world.asked(flow.id)
    await flow.fenced("hotel")
    await flow.undone("flight")
    await world.settled()
    assert [end.state for end in world.ends(flow.id)] == ["compensated", "compensated"]
    assert len({dict(record.headers)["ce_id"] for record in world.topic("maypole.flow.ended")}) == 1, "the same end is the same event"


async def test_what_contradicts_a_commit_is_an_alarm_and_undoes_nothing(world: World, caplog: pytest.LogCaptureFixture) -> None:
    process = await world.start()
    flow = await (await world.flow().starts()).completes("flight", "hotel", "car")
    await world.settled()
    await flow.fails("car")
    await world.settled(60)
    assert world.commands() == []
    assert said(caplog, "coordinator.contradiction") == 1
    assert process.coordinator.counts.alarms == 1


async def test_a_decision_about_a_step_that_waits_for_none_is_refused_loudly(world: World, caplog: pytest.LogCaptureFixture) -> None:
    await world.start()
    flow = await (await world.flow().starts()).completes("flight")
    await flow.write(OperatorDecided(step_id=flow.step("flight"), decision=Decision.SKIP, note="?", by="bob", generation=1))
    await world.settled()
    [refused] = [record for record in caplog.records if record.getMessage() == "coordinator.contradiction"]
    assert refused.violation == "decision_refused"  # type: ignore[attr-defined]
    await flow.completes("hotel", "car")
    await world.settled()
    assert [end.state for end in world.ends(flow.id)] == ["committed"]


async def test_a_journal_that_was_made_anew_is_folded_from_its_beginning(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """What is kept reaches beyond its end: nothing of it may be skipped."""
    for partition in range(4):
        taken = await world.store.take(partition, VERSION)
        await world.store.save(partition, taken.epoch, 1000, Changes((), (), ()))
    flow = await (await world.flow().starts()).completes("flight", "hotel", "car")
    await world.start()
    await world.settled()
    assert [end.state for end in world.ends(flow.id)] == ["committed"]
    assert said(caplog, "coordinator.journal_replaced") == 4


def _remove(path: Path) -> None:
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()


def _remove_the_folder(path: Path) -> None:
    shutil.rmtree(path.parent)


def _replace(path: Path) -> None:
    shutil.copy(path, path.with_name("copy"))
    path.with_name("copy").replace(path)


def _empty(path: Path) -> None:
    os.truncate(path, 0)


@pytest.mark.parametrize("harm", [_remove, _remove_the_folder, _replace, _empty], ids=lambda harm: harm.__name__.strip("_"))
async def test_a_store_that_is_removed_or_replaced_ends_its_coordinator_and_the_next_one_folds_anew(
    world: World, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    path = tmp_path / "coordinator" / "sagas.sqlite3"
    flow = await (await world.flow().starts()).completes("flight", "hotel")
    async with open_sqlite_store(path) as store:
        process = await world.start(store)
        await world.settled()
        harm(path)
        await flow.completes("car")
        with pytest.raises(StoreCorrupt, match=r"sagas\.sqlite3.* start again: it is folded anew from the journal"):
            await process.task
    shutil.rmtree(path.parent, ignore_errors=True)  # as its message says
    async with open_sqlite_store(path) as store:
        process = await world.start(store)
        await world.settled()
        assert [end.state for end in world.ends(flow.id)] == ["committed"]
        await process.stop()


async def test_a_store_that_may_only_be_read_is_waited_for(world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    flow = await (await world.flow().starts()).completes("flight")
    async with open_sqlite_store(tmp_path / "sagas.sqlite3") as store:
        process = await world.start(store)
        await world.settled()
        db = store._thread._db
        assert db is not None
        db.execute("PRAGMA query_only = 1")
        await flow.fails("hotel")
        await world.until(lambda: said(caplog, "coordinator.store_unavailable") == 1)
        assert world.commands() == [], "what is not kept is not told"
        db.execute("PRAGMA query_only = 0")
        await world.until(lambda: world.asked(flow.id) == [("flight", "compensate")])
        assert said(caplog, "coordinator.store_unavailable") == said(caplog, "coordinator.store_back") == 1
        await process.stop()


async def test_flows_that_ended_are_forgotten_when_the_journal_forgets_them(world: World) -> None:
    first = await world.start()
    month = 30 * 24 * 3600
    done = await (await world.flow().starts()).completes("flight", "hotel", "car")
    under_way = await world.flow(deadline_seconds=DEADLINE_SECONDS_MAX).starts()
    await world.settled(30)
    await first.stop()
    assert {row.flow_id for row in world.store.rows()} == {done.id, under_way.id}
    later = await world.start(now=lambda: world.clock.now() + month - 60)
    await world.settled(5)
    await later.stop()
    assert {row.flow_id for row in world.store.rows()} == {done.id, under_way.id}
    await world.start(now=lambda: world.clock.now() + month + 60)
    await world.settled(5)
    assert {row.flow_id for row in world.store.rows()} == {under_way.id}
