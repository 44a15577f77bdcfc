"""What the command line and the coordinator say of one end is one reason."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from maypole.schemas.event import Event
from maypole.schemas.journal import AbortRequested, Decision, Effect
from maypole.services.coordinator.reasons import reason_of
from maypole.services.saga import Ask, State
from tests.support.stories import Story, agent
from tests.unit.cli.test_cli_sagas import told

BOTH = Story("r.s", agent("needed", "r.s"), agent("nice", "r.s", optional=True))
CHAIN = Story("r.s", agent("one", "r.s", "a.b"), agent("two", "a.b"))
JOIN = Story("r.s", agent("left", "r.s", "a.b"), agent("right", "r.s", "c.d"), agent("both", "a.b+c.d", within_ms=1))
PIVOT = Story("r.s", agent("point", "r.s", "a.b", kind="pivot"), agent("after", "a.b", kind="retriable"))
EXPIRED = (JOIN.started(), JOIN.completed("left"), JOIN.late(JOIN.ids["both"]), JOIN.late(JOIN.command("both", Ask.EXPIRE)))
FENCED = (BOTH.fenced("needed"), BOTH.fenced("nice"))


@pytest.mark.parametrize(
    ("story", "records", "because", "reason"),
    [
        pytest.param(
            JOIN, (*EXPIRED, JOIN.fenced("right"), JOIN.fenced("both"), JOIN.undone("left")),
            "both on a.b+c.d did not end in time", "the step of both on a.b+c.d did not end in time", id="an answer was late",
        ),
        pytest.param(
            BOTH, (BOTH.started(), BOTH.late(BOTH.ids["needed"]), *FENCED),
            "needed on r.s did not end in time", "the step of needed on r.s did not end in time", id="a step was late",
        ),
        pytest.param(BOTH, (BOTH.started(), BOTH.late(BOTH.flow), *FENCED), *["its deadline passed"] * 2, id="the flow was late"),
        pytest.param(
            BOTH, (BOTH.started(), BOTH.failed("needed"), BOTH.fenced("nice")),
            "needed failed for good on r.s: rejected", "the step of needed on r.s failed", id="a step failed",
        ),
        pytest.param(
            CHAIN, (CHAIN.started(), CHAIN.failed("two"), CHAIN.completed("one"), CHAIN.undone("one")),
            "two failed for good on a.b: rejected", "the step of two on a.b failed", id="a step failed, which was told before its cause",
        ),
        pytest.param(
            BOTH, (BOTH.started(), AbortRequested(by="ada", why="ordered twice"), *FENCED),
            *["cancelled by ada: ordered twice"] * 2, id="cancelled",
        ),
    ],
)  # fmt: skip
def test_one_end_has_one_reason_whoever_tells_it(story: Story, records: Sequence[Event], because: str, reason: str) -> None:
    flow = told(*records, story=story)
    assert flow.saga.state.is_end
    assert flow.because == because
    assert reason_of(flow.saga) == f"{reason}; nothing is left of it"


def test_a_flow_that_waits_because_a_chance_was_not_taken_in_time_names_its_step() -> None:
    failed = (PIVOT.started(), PIVOT.completed("point"), PIVOT.failed("after", Effect.UNKNOWN), PIVOT.decided("after", Decision.RETRY))
    flow = told(*failed, PIVOT.late(PIVOT.command("after", Ask.RETRY, 2)), story=PIVOT)
    assert (flow.saga.state, flow.because) == (State.STUCK, "after on a.b did not end in time")
