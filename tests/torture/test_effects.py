"""What is said of flows by what the witness holds of them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from maypole.schemas.identifiers import FlowId, StepId
from maypole.services.saga import Phase, Saga, State
from tests.support.stories import Story, agent
from tests.torture.effects import Deed, broken_promises


def _deeds(*words: str) -> list[Deed]:
    """`booking` acted, `-booking` took it back."""
    names = [(word.removeprefix("-"), word.startswith("-")) for word in words]
    return [Deed(FlowId("f"), name, StepId(name), undone) for name, undone in names]


_ALL = ("booking", "packing", "charging", "shipping")


@pytest.mark.parametrize(
    ("phase", "words", "found"),
    [
        (Phase.COMMITTED, _ALL, ""),
        (Phase.COMMITTED, _ALL[:3], "committed with the effects of"),
        (Phase.COMMITTED, (), "committed with the effects of nobody"),
        (Phase.COMPENSATED, (), ""),
        (Phase.COMPENSATED, ("booking", "booking", "packing", "-packing", "-packing", "-booking"), ""),
        (Phase.COMPENSATED, ("booking",), "compensated, and the effects of"),
        (Phase.COMPENSATED, ("booking", "packing", "-booking", "-packing"), "was taken back before"),
        (Phase.COMPENSATED, ("booking", "-booking", "packing", "-packing"), "acted after ['booking'] had been taken back"),
        (Phase.COMPENSATED, ("booking", "-booking", "booking", "-booking"), "acted after it had been taken back"),
        (Phase.RUNNING, (), "came to no end"),
    ],
)
def test_a_flow_whose_effects_are_not_those_of_its_end_is_told(phase: Phase, words: Sequence[str], found: str) -> None:
    broken = broken_promises(Saga(FlowId("f"), phase=phase), _deeds(*words))
    assert found in broken[0] if found else not broken, broken


def test_a_stuck_flow_lists_exactly_what_is_left_of_it() -> None:
    story = Story("r.s", agent("booking", "r.s", "a.b"), agent("packing", "a.b"), agent("charging", "a.b"))
    records = (
        story.completed("booking"),
        story.completed("packing"),
        story.failed("charging"),
        story.undo_failed("packing", retryable=False),
    )
    saga = story.told([story.started(), *records]).saga
    assert saga.state is State.STUCK
    held = [Deed(saga.flow_id, name, StepId(story.ids[name]), False) for name in ("booking", "packing")]
    assert broken_promises(saga, held) == []
    (missing,) = broken_promises(saga, held[:1])
    assert "stuck over an effect of packing that is not there" in missing
    (unlisted,) = broken_promises(saga, [*held, Deed(saga.flow_id, "charging", StepId("another"), False)])
    assert "the effect of charging is on no list" in unlisted
