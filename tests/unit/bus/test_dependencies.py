"""A named dependency that is away stops only those who need it, and its first success lets everybody go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from maypole.bus import Reject
from maypole.bus.breaker import Breaker, State, Transition
from maypole.bus.dependencies import Dependencies
from maypole.bus.memory.virtual_time import virtual_time
from maypole.bus.outage import Unavailable


class World:
    def __init__(self, now: list[float]) -> None:
        self._now = now
        self.told: list[tuple[str, State]] = []
        self.dependencies = Dependencies(lambda: now[0], self._tell, {"model": Breaker(failures=2)})

    def _tell(self, name: str, transition: Transition) -> None:
        self.told.append((name, transition.state))

    def pass_time(self, seconds: float) -> None:
        self._now[0] += seconds

    async def fail(self, key: str, error: BaseException | None = None, name: str = "model") -> None:
        with pytest.raises(BaseException):  # noqa: B017 - whichever it was told to raise
            async with self.dependencies.use(name, key):
                raise error or ConnectionError("away")

    @property
    def state(self) -> State:
        return self.dependencies.states()["model"]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with virtual_time():
        yield World([0.0])


async def opened(world: World) -> None:
    await world.fail("a")
    await world.fail("b")
    assert world.state is State.OPEN


async def test_while_it_is_open_the_call_is_not_made_and_it_is_told_until_when(world: World) -> None:
    await opened(world)
    with pytest.raises(Unavailable, match=r"the breaker of model is open: 2 consecutive failures.*away") as refused:
        await world.dependencies.use("model", "c").call(_never)
    assert (refused.value.dependency, refused.value.again_at) == ("model", 60.0)
    assert world.told == [("model", State.OPEN)]


async def _never() -> None:
    pytest.fail("nobody may ask a service whose breaker is open")


async def test_one_service_that_is_away_leaves_the_others_alone(world: World) -> None:
    await opened(world)
    async with world.dependencies.use("mail", "c"):
        pass
    assert world.dependencies.states() == {"model": State.OPEN, "mail": State.CLOSED}


async def test_several_calls_and_attempts_of_one_step_count_once(world: World) -> None:
    for _ in range(10):
        await world.fail("a")
    assert world.state is State.CLOSED


async def test_everybody_waits_for_the_probe_and_goes_on_with_its_success(world: World) -> None:
    await opened(world)
    world.pass_time(60)
    under_way, answer = asyncio.Event(), asyncio.Event()
    done: list[str] = []

    async def probe() -> None:
        async with world.dependencies.use("model", "p"):
            under_way.set()
            await answer.wait()

    async def other(key: str) -> None:
        async with world.dependencies.use("model", key):
            done.append(key)

    async with asyncio.TaskGroup() as group:
        group.create_task(probe())
        await under_way.wait()
        for key in ("p", "q"):
            group.create_task(other(key))
        await asyncio.sleep(1)
        assert (world.state, done) == (State.HALF_OPEN, [])
        answer.set()
    assert (world.state, sorted(done)) == (State.CLOSED, ["p", "q"])
    assert [state for _, state in world.told] == [State.OPEN, State.HALF_OPEN, State.CLOSED]


async def test_whoever_waited_for_a_probe_that_failed_is_refused(world: World) -> None:
    await opened(world)
    world.pass_time(60)

    async def probe() -> None:
        await asyncio.sleep(5)
        raise ConnectionError("still away")

    probing = asyncio.create_task(world.dependencies.use("model", "p").call(probe))
    await asyncio.sleep(1)
    waiting = asyncio.create_task(world.dependencies.use("model", "q").call(_never))
    await asyncio.sleep(1)
    assert not waiting.done()
    outcomes = await asyncio.gather(probing, waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ConnectionError, Unavailable]
    assert world.told[-1] == ("model", State.OPEN)
    with pytest.raises(Unavailable) as refused:
        await world.dependencies.use("model", "r").call(_never)
    assert refused.value.again_at == 120


async def test_a_probe_that_is_cancelled_makes_room_for_the_next(world: World) -> None:
    await opened(world)
    world.pass_time(60)

    async def probe() -> None:
        async with world.dependencies.use("model", "p"):
            await asyncio.Event().wait()

    task = asyncio.create_task(probe())
    await asyncio.sleep(1)
    next_one = asyncio.create_task(world.dependencies.use("model", "q").call(asyncio.sleep, 1))
    await asyncio.sleep(1)
    assert not next_one.done()
    task.cancel()
    await asyncio.wait([task])
    assert world.told[-1] == ("model", State.HALF_OPEN), "being told to stop is no answer"
    await next_one
    assert world.told[-1] == ("model", State.CLOSED)


async def test_an_order_to_stop_never_counts_whatever_the_policy(world: World) -> None:
    dependencies = Dependencies(lambda: 0.0, lambda name, transition: None, {"model": Breaker(failures=1, counts=BaseException)})
    with pytest.raises(asyncio.CancelledError):
        async with dependencies.use("model", "a"):
            raise asyncio.CancelledError
    assert dependencies.states() == {"model": State.CLOSED}


async def test_a_use_inside_a_use_is_one_use_also_in_tasks_that_it_starts(world: World) -> None:
    await opened(world)
    world.pass_time(60)
    async with world.dependencies.use("model", "p"), asyncio.TaskGroup() as group:
        async with world.dependencies.use("model", "p"):
            pass
        group.create_task(world.dependencies.use("model", "p").call(asyncio.sleep, 1))
    assert world.state is State.CLOSED


async def test_taking_too_long_counts_and_a_refusal_of_the_event_does_not(world: World) -> None:
    await world.fail("a", Reject("no such order"))
    await world.fail("b", asyncio.CancelledError())
    for key in ("c", "d"):
        with pytest.raises(TimeoutError):
            await world.dependencies.use("model", key, timeout_seconds=5).call(asyncio.sleep, 6)
    assert world.state is State.OPEN
    await world.dependencies.use("mail", "c", timeout_seconds=5).call(asyncio.sleep, 4)


async def test_what_a_call_answers_is_what_comes_back(world: World) -> None:
    async def answer(number: int, *, plus: int) -> int:
        return number + plus

    assert await world.dependencies.use("model", "a").call(answer, 1, plus=2) == 3
