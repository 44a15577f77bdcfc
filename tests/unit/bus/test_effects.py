"""What a failed step is taken to have changed outside: the worst, unless its handler knows better."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from maypole.bus import Agent, Context, Event, Reject, RetryLater
from maypole.bus.testing import Choreography
from maypole.schemas.journal import Effect, StepFailed


class Ordered(Event, type="effects.ordered"):
    number: int


def charging(errors: Sequence[BaseException]) -> Agent:
    agent = Agent("charging")

    @agent.on(Ordered)
    async def charge(ordered: Ordered, context: Context) -> None:
        raise errors[context.attempt - 1]

    @charge.undo
    async def refund(ordered: Ordered) -> None: ...

    return agent


LOST = ConnectionError("the answer never came")
NEVER_SENT = RetryLater(1, "nobody there", acted=False)
LONG_WAIT = RetryLater(60, "nobody there", acted=False)


@pytest.mark.parametrize(
    ("errors", "effect"),
    [
        ([Reject("no")], Effect.UNKNOWN),
        ([Reject("no", acted=False)], Effect.NONE),
        ([LOST, Reject("no", acted=False)], Effect.UNKNOWN),
        ([NEVER_SENT, Reject("no", acted=False)], Effect.NONE),
        ([LONG_WAIT, Reject("no", acted=False)], Effect.NONE),
        ([LONG_WAIT, LOST, NEVER_SENT], Effect.UNKNOWN),
        ([NEVER_SENT, NEVER_SENT, NEVER_SENT], Effect.NONE),
        ([RetryLater(1), NEVER_SENT, NEVER_SENT], Effect.UNKNOWN),
        ([RetryLater(60), NEVER_SENT, NEVER_SENT], Effect.UNKNOWN),
    ],
    ids=str,
)
async def test_a_step_that_failed_may_have_acted_unless_every_attempt_says_that_it_has_not(
    errors: Sequence[BaseException], effect: Effect
) -> None:
    async with Choreography([charging(errors)]) as world:
        flow = await world.publish(Ordered(number=1))
        await flow.finished(timeout_seconds=3600)
    (failed,) = (record for record in flow.journal if isinstance(record, StepFailed))
    assert (failed.attempts, failed.effect) == (len(errors), effect)
