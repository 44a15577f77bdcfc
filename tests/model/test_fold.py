"""Properties of the fold, on journals as agents, timers and people really write them, faults included."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from maypole.schemas.event import Event
from maypole.services.saga import Command, Phase, Saga, outstanding, step
from maypole.services.saga.facts import Alarm
from maypole.services.saga.packing import pack, unpack
from tests.model.scenario import FLOW, Scenario
from tests.model.scenarios import BOUNDED
from tests.model.walks import Journal, journal

EXAMPLES = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@st.composite
def journals(draw: st.DrawFn, scenarios: Sequence[Scenario] = BOUNDED) -> Journal:
    random = draw(st.randoms(use_true_random=False))
    return journal(draw(st.sampled_from(scenarios)), lambda count: random.randrange(count))


def folded(told: Journal, records: Iterable[Event], saga: Saga | None = None) -> tuple[Saga, list[Command], list[Alarm]]:
    saga, commands, alarms = saga or Saga(FLOW), [], []
    choreographies = {told.scenario.choreography.hash: told.scenario.choreography}
    for record in records:
        saga, more = step(saga, record, 0, choreographies)
        commands += [each for each in more if isinstance(each, Command)]
        alarms += [each for each in more if isinstance(each, Alarm)]
    return saga, commands, alarms


@EXAMPLES
@given(journals(), st.data())
def test_repeating_records_at_any_later_time_changes_nothing(told: Journal, data: st.DataObject) -> None:
    repeated = list(told.records)
    for _ in range(data.draw(st.integers(1, 6))):
        first = data.draw(st.integers(0, len(repeated) - 1))
        repeated.insert(data.draw(st.integers(first + 1, len(repeated))), repeated[first])
    once, again = folded(told, told.records), folded(told, repeated)
    assert again[:2] == once[:2]
    assert [each for each in again[2] if each not in once[2]] == []


@EXAMPLES
@given(journals(), st.data())
def test_folding_on_from_any_stored_state_gives_what_folding_from_the_beginning_gives(told: Journal, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(told.records)))
    before, first, _ = folded(told, told.records[:at])
    restored = unpack(pack(before), {told.scenario.choreography.hash: told.scenario.choreography})
    assert restored == before and list(outstanding(restored)) == list(outstanding(before))
    after, later, _ = folded(told, told.records[at:], restored)
    assert (after, [*first, *later]) == folded(told, told.records)[:2]
    assert pack(after) == pack(folded(told, told.records)[0])


@EXAMPLES
@given(journals(), st.data())
def test_the_commands_of_a_prefix_are_commands_of_the_whole_and_one_id_is_one_command(told: Journal, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(told.records)))
    prefix, whole = folded(told, told.records[:at])[1], folded(told, told.records)[1]
    assert {each.id for each in prefix} <= {each.id for each in whole}
    assert len({each.id for each in whole}) == len({(each.step_id, each.kind, each.generation) for each in whole})


@EXAMPLES
@given(journals([scenario for scenario in BOUNDED if not scenario.decisions]), st.randoms(use_true_random=False))
def test_after_the_first_decision_the_order_of_different_steps_does_not_matter(told: Journal, random: Random) -> None:
    saga, at = Saga(FLOW), 0
    while saga.phase is Phase.RUNNING and at < len(told.records):
        saga, _, _ = folded(told, told.records[at : at + 1], saga)
        at += 1
    later = list(told.records[at:])
    shuffled = _interleaved(later, random)
    one, other = folded(told, later, saga)[0], folded(told, shuffled, saga)[0]
    assert (one.phase, one.steps, one.stuck, one.asked) == (other.phase, other.steps, other.stuck, other.asked)


@EXAMPLES
@given(journals())
def test_the_quick_way_through_a_running_flow_is_the_long_way(told: Journal) -> None:
    quick, long = Saga(FLOW), Saga(FLOW)
    for record in told.records:
        quick, _, _ = folded(told, [record], quick)
        long, _, _ = folded(told, [record], replace(long, owed=None))
        assert quick == long
        if quick.phase is Phase.RUNNING and quick.owed is not None and long.owed is not None:
            assert set(quick.owed) == set(long.owed)


def _interleaved(records: list[Event], random: Random) -> list[Event]:
    """The same records in another order that keeps the order of each step's own."""
    order = [getattr(record, "step_id", "") for record in records]
    random.shuffle(order)
    queues = {name: [record for record in records if getattr(record, "step_id", "") == name] for name in order}
    return [queues[name].pop(0) for name in order]
