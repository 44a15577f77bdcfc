"""Expected against completed: when a flow has committed, and when it has not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maypole.bus.choreography import derive_choreography
from maypole.schemas.event import Event
from maypole.schemas.identifiers import EventId, FlowId, output_event_id, root_event_id, step_id_of
from maypole.schemas.journal import Effect, FlowStarted, Produced, StepCompleted, StepFailed
from maypole.services.saga import FlowState, State, fold

FLOW = FlowId("flow-1")


def declared(name: str, on: str, *emits: str) -> Mapping[str, Any]:
    return {"name": name, "subscriptions": [{"on": on, "emits": list(emits), "kind": "events"}]}


# a.b fans out to left and right; right emits c.d, which goes on to last; left may emit nothing.
CHOREOGRAPHY = derive_choreography(
    "a.b", [declared("left", "a.b", "l.m"), declared("right", "a.b", "c.d"), declared("last", "c.d"), declared("seldom", "l.m")]
)
KNOWN = {CHOREOGRAPHY.hash: CHOREOGRAPHY}


def produced(event_id: str, event_type: str) -> Produced:
    return Produced(event_id=event_id, type=event_type, digest=bytes(32))


ROOT = produced(root_event_id(FLOW, "a.b"), "a.b")
STARTED = FlowStarted(choreography=CHOREOGRAPHY.hash, deadline_ms=1000, roots=(ROOT,))


def completed(agent: str, trigger: Produced, *emits: str) -> StepCompleted:
    step = step_id_of(FLOW, agent, trigger.type, EventId(trigger.event_id))
    outputs = tuple(produced(output_event_id(step, event_type, index), event_type) for index, event_type in enumerate(emits))
    return StepCompleted(
        step_id=step, agent=agent, subscription=trigger.type, parents=(trigger.event_id,), effect=Effect.NONE, outputs=outputs
    )


def failed(agent: str, trigger: Produced) -> StepFailed:
    return StepFailed(
        step_id=step_id_of(FLOW, agent, trigger.type, EventId(trigger.event_id)), agent=agent, subscription=trigger.type,
        parents=(trigger.event_id,), reason="rejected", detail="no", attempts=1, effect=Effect.NONE,
    )  # fmt: skip


LEFT = completed("left", ROOT)
RIGHT = completed("right", ROOT, "c.d")
LAST = completed("last", RIGHT.outputs[0])
WHOLE: Sequence[Event] = (STARTED, LEFT, RIGHT, LAST)


def folded(records: Sequence[Event]) -> FlowState:
    state = FlowState(FLOW)
    for record in records:
        state = fold(state, record, KNOWN, 0)
    return state


def test_a_flow_commits_when_everything_expected_has_completed_and_not_before() -> None:
    for length in range(len(WHOLE)):
        assert folded(WHOLE[:length]).state is State.RUNNING, length
    assert folded(WHOLE).state is State.COMMITTED


def test_what_is_owed_is_named() -> None:
    assert [(step.agent, step.trigger.type) for step in folded((STARTED, LEFT, RIGHT)).owed] == [("last", "c.d")]


def test_a_branch_that_emits_nothing_ends_there() -> None:
    assert all(step.agent != "seldom" for step in folded(WHOLE).expected.values())


def test_a_child_whose_record_comes_before_its_parents_counts_once_its_parent_is_known() -> None:
    early = folded((STARTED, LAST, LEFT))
    assert early.state is State.RUNNING and len(early.expected) == 2
    assert folded((STARTED, LAST, LEFT, RIGHT)).state is State.COMMITTED


@given(st.permutations(WHOLE))
def test_any_order_of_successes_gives_the_same_state(order: Sequence[Event]) -> None:
    state = folded(order)
    assert state.state is State.COMMITTED and state.expected == folded(WHOLE).expected


@given(st.lists(st.sampled_from(WHOLE), max_size=12))
def test_repeats_change_nothing(records: Sequence[Event]) -> None:
    once = list(dict.fromkeys(map(id, records)))
    by_id = {id(record): record for record in records}
    assert folded(records) == folded([by_id[key] for key in once])


@given(st.permutations([*WHOLE, failed("right", ROOT)]))
def test_the_first_decision_wins_for_ever(order: Sequence[Event]) -> None:
    states = [folded(order[:length]).state for length in range(len(order) + 1)]
    for before, after in pairwise(states):
        assert before is not State.COMMITTED or after in (State.COMMITTED, State.REOPENED)
        assert before is State.RUNNING or after not in (State.RUNNING, State.COMMITTED) or before is after is State.COMMITTED


def test_a_failed_step_aborts_the_flow() -> None:
    assert folded((STARTED, failed("right", ROOT))).state is State.ABORTING


def test_a_failure_of_a_step_that_is_not_expected_decides_nothing_yet() -> None:
    orphan = failed("last", RIGHT.outputs[0])
    assert folded((STARTED, orphan)).state is State.RUNNING
    assert folded((STARTED, orphan, RIGHT)).state is State.ABORTING


def test_the_first_start_wins() -> None:
    other = derive_choreography("a.b", [declared("left", "a.b")])
    second = STARTED.model_copy(update={"choreography": other.hash})
    assert folded((STARTED, second, LEFT)).state is State.RUNNING
    state = fold(fold(FlowState(FLOW), second, {**KNOWN, other.hash: other}, 0), STARTED, KNOWN, 0)
    assert state.choreography == other


def test_a_root_that_nobody_subscribes_to_stays_running_and_says_so() -> None:
    nobody = derive_choreography("a.b", [])
    state = fold(FlowState(FLOW), STARTED.model_copy(update={"choreography": nobody.hash}), {nobody.hash: nobody}, 0)
    assert state.state is State.RUNNING and not state.has_subscriber
    assert folded((STARTED,)).has_subscriber


def test_a_choreography_that_nobody_holds_is_an_error_with_its_hash() -> None:
    with pytest.raises(LookupError, match=CHOREOGRAPHY.hash):
        fold(FlowState(FLOW), STARTED, {}, 0)
