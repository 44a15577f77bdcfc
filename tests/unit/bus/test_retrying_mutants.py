"""Bugs put in by hand: the tests of retries must notice each."""

from __future__ import annotations

import pytest

from maypole.bus.holding import Holding
from maypole.bus.waiting import Waiting
from maypole.bus.work import Work
from tests.simulation.mutants import at_once, whenever
from tests.unit.bus import test_retrying


async def test_a_retry_topic_consumed_early_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Holding, "_release_ms", at_once)
    monkeypatch.setattr(Waiting, "until_turn", whenever)
    with pytest.raises(AssertionError):
        await test_retrying.test_what_fails_waits_on_retry_topics_never_early_and_hours_cost_nothing({})


async def test_a_flows_order_broken_by_a_retry_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(self: Waiting, work: Work, named: object) -> tuple[()]:
        return ()

    monkeypatch.setattr(Waiting, "_unfinished", nothing)
    with pytest.raises(AssertionError):
        await test_retrying.test_later_events_of_a_flow_wait_behind_and_other_flows_go_on({})


async def test_an_attempt_begun_by_a_record_that_was_moved_before_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maypole.bus.recording.moved_of", lambda row: None)
    with pytest.raises(AssertionError):
        await test_retrying.test_a_record_that_comes_twice_does_not_begin_its_next_attempt_early()
