"""Bugs put in by hand: the tests of outages must notice each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from maypole.bus.gate import Gate
from maypole.bus.pausing import Pausing
from maypole.bus.testing.errors import NotFinished
from maypole.bus.work import Work
from tests.simulation import test_outages_and_retries as outages
from tests.unit.testing import test_breakers as breakers


async def noticed(test: Callable[..., Awaitable[None]], *arguments: Any) -> None:
    with pytest.raises(AssertionError):
        await test(*arguments)


async def test_a_breaker_that_burns_attempts_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    fails = Gate.failed

    def burning(self: Gate, work: Work, error: BaseException) -> bool:
        fails(self, work, error)
        return False

    monkeypatch.setattr(Gate, "failed", burning)
    await noticed(breakers.test_who_makes_one_probe_after_the_other_is_not_given_up_for_it)


async def test_a_breaker_that_lets_everybody_in_while_it_is_open_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Gate, "_passes", lambda self, step: True)
    await noticed(breakers.test_one_probe_is_let_through_when_the_time_is_over_and_a_failed_one_starts_it_again)


async def test_a_breaker_that_counts_attempts_instead_of_records_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    fails, tries = Gate.failed, iter(range(1000))

    def counting(self: Gate, work: Work, error: BaseException) -> bool:
        step, work.step = work.step, type(work.step)(f"{work.step}/{next(tries)}")
        try:
            return fails(self, work, error)
        finally:
            work.step = step

    monkeypatch.setattr(Gate, "failed", counting)
    await noticed(outages.test_one_record_that_fails_five_times_is_no_outage)


async def test_probes_that_count_after_a_restart_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maypole.bus.recording.excused_in", lambda row: 0)
    await noticed(outages.test_restarts_during_an_outage_burn_no_more_than_it_takes_to_see_it, {"undo": True}, "kill")


async def test_what_waits_and_fills_the_window_of_the_others_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pausing, "waiting", 0)
    with pytest.raises(NotFinished):
        await breakers.test_a_full_window_of_waiting_records_leaves_room_for_the_other_subscriptions(monkeypatch)


async def test_what_waits_at_a_gate_and_gives_up_its_place_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lane goes on without it."""
    holds = Pausing.hold

    def overtaken(self: Pausing, subscription: str, work: Work) -> None:
        holds(self, subscription, work)
        behind = self._lanes[work.lane]
        while behind:
            self._go_on([behind.popleft()])

    monkeypatch.setattr(Pausing, "hold", overtaken)
    await noticed(outages.test_a_flow_keeps_its_order_while_its_records_wait_in_both_rooms, monkeypatch)
