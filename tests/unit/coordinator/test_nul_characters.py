"""A NUL is a character like others to Kafka and SQLite, and PostgreSQL takes no text with one: no record brings it to a store."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from maypole.schemas.identifiers import FlowId, root_event_id
from maypole.schemas.journal import FlowStarted, Produced
from maypole.services.coordinator.stores.memory import MemoryStore
from maypole.services.coordinator.stores.port import Changes
from tests.unit.coordinator.world import DIGEST, ROOT, TestFlow, World

FLOW_ID = "expected text without NUL characters in the header ce_correlationid, found b'a\\x00b'"
SUBJECT = "expected text without NUL characters in the header ce_subject, found b'a\\x00b'"


class LikePostgres(MemoryStore):
    """Refuses what PostgreSQL refuses, as an error that nobody expects."""

    async def save(self, partition: int, epoch: int, next_offset: int, changes: Changes) -> None:
        rows = list(changes.rows)
        texts: Iterable[str | None] = [text for row in rows for text in (row.flow_id, row.subject, row.told)]
        texts = [*texts, *(text for flow, pin, _ in changes.parked for text in (flow, pin)), *changes.released]
        assert not any("\0" in text for text in texts if text is not None), texts
        await super().save(partition, epoch, next_offset, changes._replace(rows=rows))


@pytest.mark.parametrize("is_started", [True, False], ids=["started", "unknown"])
@pytest.mark.parametrize(("flow_id", "business_key", "error"), [("a\0b", None, FLOW_ID), ("foreign", "a\0b", SUBJECT)], ids=["flow", "key"])
async def test_a_record_with_a_nul_in_a_header_that_is_kept_is_buried_and_the_rest_goes_on(
    world: World, is_started: bool, flow_id: str, business_key: str | None, error: str
) -> None:
    await world.start(LikePostgres())
    flow = TestFlow(world, FlowId(flow_id), 3_600_000, business_key)
    if is_started:
        await flow.starts()
    else:
        await flow.completes("flight")
    await _goes_on(world)
    assert _letters(world) == [("undecodable", error)]


async def test_a_start_that_pins_its_flow_to_a_name_with_a_nul_is_buried_and_the_rest_goes_on(world: World) -> None:
    await world.start(LikePostgres())
    flow = world.flow()
    root = Produced(event_id=root_event_id(flow.id, ROOT), type=ROOT, digest=DIGEST)
    await flow.write(FlowStarted.model_construct(choreography="a\0b", deadline_ms=1000, roots=(root,)))
    await _goes_on(world)
    [(reason, error)] = _letters(world)
    assert reason == "undecodable" and "choreography: expected" in error and "found 'a\\x00b'" in error


async def _goes_on(world: World) -> None:
    other = await (await world.flow().starts()).completes("flight", "hotel", "car")
    await world.settled(5)
    assert [end.state for end in world.ends(other.id)] == ["committed"]


def _letters(world: World) -> list[tuple[str, str]]:
    found = [dict(letter.headers) for letter in world.topic("maypole.coordinator.dlq")]
    return [((headers["dlq-reason"] or b"").decode(), (headers["dlq-error"] or b"").decode()) for headers in found]
