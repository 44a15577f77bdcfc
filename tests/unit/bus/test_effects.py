"""What a failed step is taken to have changed outside: the worst, unless its handler knows better."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from maypole.bus import Agent, Context, Event, Reject, RetryLater
from maypole.bus.testing import Choreography
from maypole.schemas.journal import Effect, StepCompensated, StepFailed


class Ordered(Event, type="effects.ordered"):
    number: int


class Charged(Event, type="effects.charged"):
    receipt: str


class Stray(Event, type="effects.stray"):
    text: str


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


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda: Stray(text="never declared"), id="undeclared"),
        pytest.param(lambda: Charged.model_construct(receipt=5), id="broken"),  # type: ignore[arg-type]
        pytest.param(lambda: Charged(receipt="x" * 2_000_000), id="too large"),
        pytest.param(lambda: [Charged(receipt="x")] * 20_000, id="too many"),
        pytest.param(lambda: None, id="forgotten"),
    ],
)
async def test_a_step_that_acted_and_then_broke_its_contract_is_itself_undone(wrong: Callable[[], object]) -> None:
    agent, done = Agent("charging"), list[str]()

    @agent.on(Ordered)
    async def charge(ordered: Ordered, context: Context) -> Charged:
        done.append(f"charge {context.idempotency_key}")
        return wrong()  # type: ignore[return-value]

    @charge.undo
    async def refund(ordered: Ordered, context: Context) -> None:
        done.append(f"refund {context.idempotency_key}")

    async with Choreography([agent]) as world:
        flow = await world.publish(Ordered(number=1))
        assert await flow.finished() == "compensated"
    (failed,) = (record for record in flow.journal if isinstance(record, StepFailed))
    (undone,) = (record for record in flow.journal if isinstance(record, StepCompensated))
    assert (failed.reason, failed.effect, undone.step_id) == ("contract_refused", Effect.APPLIED, failed.step_id)
    assert done == [f"charge {failed.step_id}", f"refund {failed.step_id}"]
    assert flow.of(Charged) == () == flow.of(Stray)


@pytest.mark.parametrize("pure", [False, True], ids=["recorded", "pure"])
@pytest.mark.parametrize("asked", ["idempotency_key", "once"])
async def test_who_acts_without_saying_so_is_refused_before_it_acts_and_is_not_tried_again(asked: str, pure: bool) -> None:
    agent, calls = Agent("charging"), list[str]()

    @agent.on(Ordered, pure=pure)
    async def charge(ordered: Ordered, context: Context) -> None:
        calls.append("began")
        if asked == "once":
            await context.once("charge", lambda: calls.append("acted"))
        else:
            calls.append(f"acted under {context.idempotency_key}")

    async with Choreography([agent], coordinator=True) as world:
        flow = await world.publish(Ordered(number=1))
        assert await flow.finished() == "compensated"
    (letter,) = flow.dead_letters
    assert (letter.reason, letter.attempts, calls) == ("rejected", 1, ["began"])
    assert asked in letter.error and "@handler.undo" in letter.error, "it says which declaration is missing"
    (failed,) = (record for record in flow.journal if isinstance(record, StepFailed))
    assert failed.effect is Effect.NONE
