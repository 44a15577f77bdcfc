"""Journals that real runs have written, folded again: what the engine once said of them it says for ever."""

from __future__ import annotations

from typing import Final

import pytest

from maypole.services.saga import REDUCER_VERSION, Saga
from maypole.services.saga.packing import pack, unpack
from tests.support.golden import Golden, Told, load

JOURNALS: Final = load()
every_journal = pytest.mark.parametrize(("golden", "told"), JOURNALS, ids=[f"{golden.source}: {golden.flow}" for golden, _ in JOURNALS])


@every_journal
def test_a_recorded_journal_leads_to_the_states_and_commands_that_it_led_to(golden: Golden, told: Told) -> None:
    assert told.reducer == REDUCER_VERSION, "the reducer has another version: see python -m tests.torture.golden --expectations"
    assert golden.told() == told, "the reducer decides in another way than it did: raise REDUCER_VERSION, or mend it"


@every_journal
def test_a_recorded_journal_told_twice_over_leads_to_the_same(golden: Golden, told: Told) -> None:
    saga, _ = golden.folded(Saga(golden.flow))
    again, told_again = golden.folded(saga)
    assert pack(again) == pack(saga)
    assert all(": " not in said for said in told_again), "and asks for nothing more"


@every_journal
def test_a_recorded_journal_can_be_folded_on_from_whatever_was_stored_of_it(golden: Golden, told: Told) -> None:
    known = {golden.choreography.hash: golden.choreography}
    for at in range(len(golden.written)):
        before, first = golden.folded(Saga(golden.flow), end=at)
        after, later = golden.folded(unpack(pack(before), known), at)
        assert (pack(after).decode(), (*first, *later)) == (told.saga, told.steps)


def test_the_recorded_journals_tell_of_flows_that_committed_were_undone_or_got_stuck() -> None:
    ends = {told.steps[-1].partition(":")[0] for _, told in JOURNALS}
    assert ends == {"committed", "compensated", "compensated_manual", "stuck"}
    said = {type(record).__name__ for golden, _ in JOURNALS for record in golden.records}
    assert said >= {
        "FlowStarted", "StepStarted", "StepCompleted", "StepFailed", "StepFenced", "StepAbandoned", "StepCompensated", "CompensationFailed",
        "AbortRequested", "DeadlineFired", "OperatorDecided", "FlowEnded",
    }  # fmt: skip
