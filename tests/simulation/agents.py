"""The choreographies that are simulated: pure, recorded and acting steps, attempts in place and on retry topics, fan-out, joins,
an outage with a breaker, flows that are undone, joins that expire.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from maypole.bus import Agent, Breaker, Context, Event, Reject, Retry, RetryLater, all_of
from maypole.bus.testing import Odds, World, take_back, witness
from maypole.bus.testing.simulation.run import Scenario

_WORKERS: Final = 4
_OUTAGE_SECONDS: Final = 60.0
_BOOKING_ATTEMPTS: Final = 6
"""A start burns one attempt of the event that shows it the outage; probes burn none, and there are some tens."""
_DRYING_SECONDS: Final = 12.0
_STUMBLES: Final = 0.4
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


class Flickered(Event, type="simulated.flickered"):
    number: int


class Stumbled(Event, type="simulated.stumbled"):
    number: int
    answer: int


class Gathered(Event, type="simulated.gathered"):
    number: int


class Weighed(Event, type="simulated.weighed"):
    grams: int


class Measured(Event, type="simulated.measured"):
    metres: int


class Packed(Event, type="simulated.packed"):
    grams: int
    metres: int


class Booked(Event, type="simulated.booked"):
    number: int


class Settled(Event, type="simulated.settled"):
    number: int


class Dried(Event, type="simulated.dried"):
    metres: int


class Bundled(Event, type="simulated.bundled"):
    complete: bool


spreading: Final = Agent("spreading", concurrency=_WORKERS)
tocking: Final = Agent("tocking", concurrency=_WORKERS)
acting: Final = Agent("acting", concurrency=_WORKERS)
persevering: Final = Agent("persevering", concurrency=_WORKERS)
flickering: Final = Agent("flickering", concurrency=_WORKERS)
stumbling: Final = Agent("stumbling", concurrency=_WORKERS)
gathering: Final = Agent("gathering", concurrency=_WORKERS)
charging: Final = Agent("charging", concurrency=_WORKERS)
weighing: Final = Agent("weighing", concurrency=_WORKERS)
measuring: Final = Agent("measuring", concurrency=_WORKERS)
packing: Final = Agent("packing", concurrency=_WORKERS)
booking: Final = Agent("booking", concurrency=_WORKERS)
settling: Final = Agent("settling", concurrency=_WORKERS)
judging: Final = Agent("judging", concurrency=_WORKERS)
drying: Final = Agent("drying", concurrency=_WORKERS)
bundling: Final = Agent("bundling", concurrency=_WORKERS)


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
async def leave_be(ticked: Ticked, context: Context) -> None:
    await take_back(context)


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


@flickering.on(Ticked, pure=True, retry=Retry(attempts=3, delays=(0.05,)))
async def flicker(ticked: Ticked, context: Context) -> Flickered:
    """Pure; where an attempt failed there is a row, and where none did there is none."""
    if ticked.number % 2 and context.attempt == 1:
        raise ConnectionError("the first attempt fails")
    return Flickered(number=ticked.number)


@stumbling.on(Ticked, retry=Retry(attempts=20, delays=(0.3,)))
async def stumble(ticked: Ticked, context: Context) -> Stumbled:
    """Recorded; whoever takes it over while an attempt of another instance fails finds a row that it has not seen."""
    await _work()
    if random.random() < _STUMBLES:
        raise ConnectionError(f"attempt {context.attempt} fails")
    return Stumbled(number=ticked.number, answer=random.getrandbits(31))


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
async def refund(tocked: Tocked, context: Context) -> None:
    await take_back(context)


@gathering.on(Tocked, pure=True)
async def gather(tocked: Tocked) -> Gathered:
    """Pure, behind what is recorded."""
    await _work()
    return Gathered(number=tocked.number)


@weighing.on(Started)
async def weigh(started: Started, context: Context) -> Weighed:
    """One of two that are joined; it is the later one where it needs another attempt."""
    await _work()
    if started.up_to % 2 and context.attempt == 1:
        raise ConnectionError("the first attempt fails")
    return Weighed(grams=random.getrandbits(31))


@measuring.on(Started, pure=True)
async def measure(started: Started) -> Measured:
    await _work()
    return Measured(metres=started.up_to)


@packing.on(all_of(Weighed, Measured), timeout_seconds=20)
async def pack(weighed: Weighed, measured: Measured, context: Context) -> Packed:
    """A join that acts, once for each flow."""
    await _work()
    await witness(context)
    return Packed(grams=weighed.grams, metres=measured.metres)


@pack.undo
async def unpack(weighed: Weighed, measured: Measured, context: Context) -> None:
    await take_back(context)


@booking.on(Ticked, retry=Retry(attempts=_BOOKING_ATTEMPTS, delays=(0.1,)), breaker=Breaker(failures=1, open_seconds=1))
async def book(ticked: Ticked) -> Booked:
    """Its dependency is away for so long that everything would be given up many times over, if attempts were burnt."""
    await asyncio.sleep(0.01)
    if asyncio.get_running_loop().time() < _OUTAGE_SECONDS:
        raise ConnectionError("away")
    return Booked(number=ticked.number)


@settling.on(Acted, timeout_seconds=20)
async def settle(acted: Acted, context: Context) -> Settled:
    """Rests on what `acting` did."""
    await _work()
    await witness(context)
    await _work()
    return Settled(number=acted.number)


@settle.undo
async def unsettle(acted: Acted, context: Context) -> None:
    """Sometimes it takes more than one attempt."""
    if acted.number % 4 == 3 and context.attempt == 1:
        raise ConnectionError("not yet")
    await take_back(context)


@judging.on(Ticked, timeout_seconds=20)
async def judge(ticked: Ticked, context: Context) -> None:
    """Some flows fail here, when this step has acted, and others beside it have, or are about to."""
    await _work()
    await witness(context)
    await _work()
    if ticked.poisoned:
        raise Reject("poisoned")


@judge.undo
async def acquit(ticked: Ticked, context: Context) -> None:
    await take_back(context)


@drying.on(Started)
async def dry(started: Started) -> Dried:
    """For some flows it takes longer than whoever joins it waits."""
    await asyncio.sleep(_DRYING_SECONDS if started.up_to % 2 else 0.1)
    return Dried(metres=started.up_to)


@bundling.on(all_of(Weighed, Dried), within="5s")
async def bundle(weighed: Weighed, dried: Dried) -> Bundled:
    await _work()
    return Bundled(complete=True)


@bundle.expired
async def bundle_what_there_is(weighed: Weighed | None, dried: Dried | None) -> Bundled:
    await _work()
    return Bundled(complete=False)


def each_is_bundled_once(world: World) -> None:
    found = {flow.flow_id: (flow.state, len(flow.of(Bundled))) for flow in world.flows}
    assert set(found.values()) == {("committed", 1)}, f"expected every flow committed, with one bundle, found {found}"


def nothing_is_given_up(world: World) -> None:
    given_up = [letter.reason for flow in world.flows for letter in flow.dead_letters]
    assert not given_up, f"expected no dead letter because of an outage, found {given_up}"


async def _work() -> None:
    await asyncio.sleep(random.uniform(0, _WORK_SECONDS_MAX))


async def some_flows(world: World) -> None:
    """Several at a time, close enough for one batch and far enough for accidents to come between."""
    for number in range(4):
        await world.publish(Started(up_to=random.randint(2, 5), poisoned=1 if number == 2 else None))
        await asyncio.sleep(random.uniform(0, 3))


async def long_flows(world: World) -> None:
    """Whose steps are under way while those before them come to an end."""
    for _ in range(4):
        await world.publish(Started(up_to=10))
        await asyncio.sleep(random.uniform(0, 2))


@dataclass(frozen=True, slots=True)
class Cast:
    """Agents, those of them that act on the outside, and what befalls them."""

    agents: tuple[Agent, ...]
    witnessed: tuple[Agent, ...] = ()
    odds: Odds = field(default_factory=Odds)
    scenario: Scenario = some_flows
    expect: Callable[[World], object] | None = None
    coordinator: bool | None = None
    """None: where one of them can undo something."""


CASTS: Final = {
    "thinking": Cast((spreading, tocking, gathering)),
    "acting": Cast((spreading, acting), (acting,), coordinator=False),
    "retrying": Cast((spreading, persevering)),
    "stumbling": Cast((spreading, flickering, stumbling), odds=Odds(crash=0.2, expel=1, slow=0.6), scenario=long_flows),
    "charging": Cast((spreading, tocking, charging), (charging,), coordinator=False),
    "joining": Cast((weighing, measuring, packing), (packing,), coordinator=False),
    "breaking": Cast((spreading, booking), odds=Odds(crash=0.25, pause=0.1), expect=nothing_is_given_up),
    "undoing": Cast((spreading, acting, settling, judging), (acting, settling, judging)),
    "overdue": Cast((weighing, drying, bundling), expect=each_is_bundled_once, coordinator=True),
    "expiring": Cast((spreading, tocking), odds=Odds(expire=0.15)),
}
