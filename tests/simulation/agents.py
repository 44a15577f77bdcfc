"""The choreographies that are simulated: pure, recorded and acting steps, attempts in place and on retry topics, fan-out."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import Final

from maypole.bus import Agent, Context, Event, Reject, Retry, RetryLater
from maypole.bus.testing import Odds, World, witness

_WORKERS: Final = 4
_WORK_SECONDS_MAX: Final = 0.2
"""Handlers take their time, each another one: only so can what comes later overtake."""


class Started(Event, type="simulated.started"):
    up_to: int
    poisoned: int | None = None
    """The number of the tick that is refused."""


class Ticked(Event, type="simulated.ticked"):
    number: int
    poisoned: bool


class Tocked(Event, type="simulated.tocked"):
    number: int
    answer: int
    """Another one each time it is asked, as of a language model."""


class Acted(Event, type="simulated.acted"):
    number: int


class Persevered(Event, type="simulated.persevered"):
    number: int


class Gathered(Event, type="simulated.gathered"):
    number: int


spreading: Final = Agent("spreading", concurrency=_WORKERS)
tocking: Final = Agent("tocking", concurrency=_WORKERS)
acting: Final = Agent("acting", concurrency=_WORKERS)
persevering: Final = Agent("persevering", concurrency=_WORKERS)
gathering: Final = Agent("gathering", concurrency=_WORKERS)
charging: Final = Agent("charging", concurrency=_WORKERS)


@spreading.on(Started, pure=True)
async def spread(started: Started) -> list[Ticked]:
    """One event becomes several of one flow."""
    return [Ticked(number=number, poisoned=number == started.poisoned) for number in range(started.up_to)]


@tocking.on(Ticked)
async def tock(ticked: Ticked, context: Context) -> Tocked:
    """Recorded; some attempts fail in place, and some events are refused."""
    await _work()
    if ticked.poisoned:
        raise Reject("poisoned")
    if ticked.number % 3 == 1 and context.attempt == 1:
        raise ConnectionError("the first attempt fails")
    return Tocked(number=ticked.number, answer=random.getrandbits(31))


@acting.on(Ticked, timeout_seconds=20)
async def act(ticked: Ticked, context: Context) -> Acted | None:
    """Acts on the outside, and sometimes fails after it has acted."""
    await _work()
    await witness(context)
    if ticked.number % 4 == 2 and context.attempt == 1:
        raise ConnectionError("acted, and nobody heard the answer")
    await _work()
    return Acted(number=ticked.number) if ticked.number % 2 else None


@act.undo
async def take_back(ticked: Ticked) -> None: ...


@persevering.on(Ticked, retry=Retry(attempts=4, delays=(0.5, 6, 12)))
async def persevere(ticked: Ticked, context: Context) -> Persevered:
    """Waits in place and on retry topics, and gives up what is poisoned in the end."""
    await _work()
    if ticked.poisoned:
        raise ConnectionError("poisoned")
    if ticked.number % 4 == 3 and context.attempt == 1:
        raise RetryLater(9)
    if context.attempt <= ticked.number % 4:
        raise ConnectionError(f"attempt {context.attempt} fails")
    return Persevered(number=ticked.number)


@charging.on(Tocked, timeout_seconds=20, retry=Retry(attempts=3, delays=(7,)))
async def charge(tocked: Tocked, context: Context) -> None:
    """Acts once inside a step that waits on a retry topic."""

    async def ask() -> int:
        await witness(context)
        return random.getrandbits(31)

    await context.once("charge", ask)
    await _work()
    if tocked.number % 3 == 2 and context.attempt < 3:
        raise ConnectionError("not yet")


@charge.undo
async def refund(tocked: Tocked) -> None: ...


@gathering.on(Tocked, pure=True)
async def gather(tocked: Tocked) -> Gathered:
    """Pure, behind what is recorded."""
    await _work()
    return Gathered(number=tocked.number)


async def _work() -> None:
    await asyncio.sleep(random.uniform(0, _WORK_SECONDS_MAX))


async def some_flows(world: World) -> None:
    """Several at a time, close enough for one batch and far enough for accidents to come between."""
    for number in range(4):
        await world.publish(Started(up_to=random.randint(2, 5), poisoned=1 if number == 2 else None))
        await asyncio.sleep(random.uniform(0, 3))


@dataclass(frozen=True, slots=True)
class Cast:
    """Agents, those of them that act on the outside, and what befalls them."""

    agents: tuple[Agent, ...]
    witnessed: tuple[Agent, ...] = ()
    odds: Odds = field(default_factory=Odds)


CASTS: Final = {
    "thinking": Cast((spreading, tocking, gathering)),
    "acting": Cast((spreading, acting), (acting,)),
    "retrying": Cast((spreading, persevering)),
    "charging": Cast((spreading, tocking, charging), (charging,)),
    "expiring": Cast((spreading, tocking), odds=Odds(expire=0.15)),
}
