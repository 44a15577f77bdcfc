"""A saga as bytes, and the decision table as data."""

from __future__ import annotations

import json
import tracemalloc

import pytest

from maypole.schemas.journal import AbortRequested, Decision, Effect
from maypole.services.saga import Ask, FlowState, Phase, UnknownPin, fold
from maypole.services.saga.packing import VERSION, OtherVersion, pack, unpack
from maypole.services.saga.table import TABLE, News
from tests.support.stories import Story, agent

CHAIN = Story("r.s", agent("one", "r.s", "a.b"), agent("two", "a.b", "c.d"), agent("three", "c.d", "e.f"), agent("four", "e.f"))
CANCELLED = AbortRequested(by="somebody", why="no longer needed")


def test_a_saga_is_read_back_as_it_was_whatever_is_known_of_it() -> None:
    telling = CHAIN.told([])
    for record in (
        CHAIN.started(), CHAIN.completed("one"), CHAIN.begun("two"), CANCELLED, CHAIN.late(CHAIN.command("two", Ask.FENCE)),
        CHAIN.decided("two", Decision.RESOLVED), CHAIN.failed("three", Effect.UNKNOWN), CHAIN.undo_failed("three", retryable=False),
        CHAIN.undone("three"),
    ):  # fmt: skip
        telling.tell(record)
        assert unpack(pack(telling.saga), CHAIN.known) == telling.saga


def test_what_another_version_stored_is_not_guessed_at() -> None:
    stored = json.loads(pack(CHAIN.told([CHAIN.started()]).saga))
    assert stored[0] == VERSION
    with pytest.raises(OtherVersion, match=r"found 0\.9: fold its journal again"):
        unpack(json.dumps(["0.9", *stored[1:]]).encode(), CHAIN.known)


def test_a_stored_saga_of_an_unknown_choreography_is_an_error_with_its_hash() -> None:
    with pytest.raises(UnknownPin, match=CHAIN.choreography.hash):
        unpack(pack(CHAIN.told([CHAIN.started()]).saga), {})


def test_an_open_flow_of_four_steps_takes_two_kilobytes_and_less_than_one_when_stored() -> None:
    stories = [Story("r.s", *_AGENTS, flow=f"{number:036d}") for number in range(50)]
    stored = [pack(story.told([story.started(), *map(story.completed, ("one", "two", "three"))]).saga) for story in stories]
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    sagas = [unpack(data, CHAIN.known) for data in stored]
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (after - before) / len(sagas) < 2048
    assert max(map(len, stored)) < 1024


_AGENTS = [agent("one", "r.s", "a.b"), agent("two", "a.b", "c.d"), agent("three", "c.d", "e.f"), agent("four", "e.f")]


def test_the_table_says_something_about_every_record_in_every_phase() -> None:
    assert {(news, phase) for news, row in TABLE.items() for phase in row} == {(news, phase) for news in News for phase in Phase}


def test_a_reader_keeps_the_records_that_tell_how_steps_ended() -> None:
    state = FlowState(CHAIN.flow)
    for record in (CHAIN.started(), CHAIN.completed("one"), CHAIN.failed("two"), CHAIN.undone("one")):
        state = fold(state, record, CHAIN.known, 0)
    assert state.saga.state == "compensated" and not state.owed
    assert [record.agent for record in state.completed.values()] == ["one"]
    assert [record.reason for record in state.failed.values()] == ["rejected"]
