"""The decode border under a flood of bent records: nothing crashes or hangs, and every record is handled or a dead letter."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import resource
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Final
from uuid import UUID

from pydantic import Field

from maypole.bus import Agent, Event, at_least
from maypole.bus.ports import Delivery, Record, TopicPartition
from maypole.bus.testing import Choreography
from maypole.bus.testing.history_entries import Stored
from maypole.bus.testing.history_reading import stored
from maypole.schemas.envelope import CAUSATION_ID, CORRELATION_ID, ID, IDEMPOTENCY_KEY
from maypole.schemas.event import Value
from tests.torture.mutations import bent

ROUND: Final = 10_000
"""Records of one broker in memory; the next round begins with an empty one, so that only what leaks grows."""
_WORLD_SECONDS_MAX: Final = 3600.0
"""Virtual."""


class Colour(StrEnum):
    RED = "red"
    GREEN = "green"


class Part(Value):
    name: Annotated[str, Field(max_length=50)]
    weight: float | None
    marks: tuple[int, ...]


class Bent(Event, type="fuzz.sent"):
    """One field of every shape that an event may have."""

    text: Annotated[str, Field(max_length=100)]
    number: int
    share: float
    yes: bool
    colour: Colour
    raw: bytes
    price: Annotated[Decimal, Field(max_digits=9, decimal_places=2)]
    at: datetime
    name: UUID
    parts: tuple[Part, ...]
    words: Mapping[str, str]
    maybe: str | None = None


class Answered(Event, type="fuzz.answered"):
    number: int


def _agent() -> Agent:
    agent = Agent("fuzzed")

    @agent.on(Bent, pure=True, require=at_least("share", 0.0))
    async def answer(bent: Bent) -> Answered:
        return Answered(number=bent.number)

    return agent


@dataclass(slots=True)
class Fuzzed:
    """What became of how many. `unaccounted` are records that are neither handled nor a dead letter, as text to repeat them by."""

    records: int = 0
    handled: int = 0
    buried: Counter[str] = field(default_factory=Counter)
    """By reason."""
    unaccounted: list[str] = field(default_factory=list)
    seconds: float = 0.0
    grown_mb: float = 0.0
    """How much the peak of the process's memory rose after the first round."""

    def __str__(self) -> str:
        buried = ", ".join(f"{reason} {count:,}" for reason, count in sorted(self.buried.items()))
        return (
            f"fuzzed {self.records:,} records in {self.seconds:.0f} s: {self.handled:,} handled, dead letters: {buried}; "
            f"{len(self.unaccounted)} unaccounted for; the peak of memory rose by {self.grown_mb:.0f} MB after the first round"
        )


def fuzz(records: int, seed: str, *, per_round: int = ROUND, seconds_max: float = math.inf) -> Fuzzed:
    """So many records, or as many rounds as begin within `seconds_max`. Raises what the agent crashed with."""
    total, began, first_peak = Fuzzed(), time.monotonic(), 0.0
    with _silent():
        for number in range(math.ceil(records / per_round)):
            if time.monotonic() - began > seconds_max:
                break
            asyncio.run(_round(min(per_round, records - number * per_round), f"{seed}/{number}", total))
            first_peak = first_peak or _peak_mb()
    total.seconds, total.grown_mb = time.monotonic() - began, _peak_mb() - first_peak
    return total


async def _round(count: int, seed: str, total: Fuzzed) -> None:
    chance = random.Random(seed)
    async with Choreography([_agent()]) as world:
        good = [await _good(world, chance) for _ in range(20)]
        wanted = [bent(_renewed(chance.choice(good), chance), chance) for _ in range(count)]
        receipts = await world.broker.append(wanted, lambda: None)
        places = {(receipt.partition, receipt.offset): number for number, receipt in enumerate(receipts)}
        group = world.broker.group("fuzzed")
        ends = {TopicPartition(Bent.event_type, partition): 0 for partition in range(world.broker.topics()[Bent.event_type])}
        ends = {at: world.broker.log(at).end for at in ends}
        until = world.now() + _WORLD_SECONDS_MAX
        # A crash is raised on leaving; here it only ends the waiting.
        while any(group.committed.get(at, 0) < end for at, end in ends.items()) and world.now() < until:  # noqa: ASYNC110 - a group tells nobody
            await asyncio.sleep(1.0)
        answered = {record.parent for record in _stored(world, Answered.event_type)}
        letters = world.dead_letters("fuzzed")
        buried = {(letter.partition, letter.offset): letter.reason for letter in letters if letter.topic == Bent.event_type}
        total.records += count
        total.buried.update(reason for place, reason in buried.items() if place in places)
        for record in _stored(world, Bent.event_type):
            place = (record.at.partition, record.offset)
            if place not in places or place in buried:
                continue
            if record.event_id in answered:
                total.handled += 1
            else:
                total.unaccounted.append(f"seed {seed}: number {places[place]}: {wanted[places[place]]!r}")


async def _good(world: Choreography, chance: random.Random) -> Record:
    flow = await world.publish(_event(chance))
    await flow.finished()
    told = flow.published
    log = world.broker.log(TopicPartition(told.topic, told.partition))
    (found,) = log.read(told.offset, 1, float("inf"))
    return Record(found.topic, found.key, found.value, found.headers)


def _renewed(record: Record, chance: random.Random) -> Record:
    """The same event as another one: its own id, so that one outcome accounts for one record; some in the middle of a flow."""
    event_id, flow = (str(UUID(int=chance.getrandbits(128), version=4)).encode() for _ in range(2))
    own = {ID: event_id, CORRELATION_ID: flow, IDEMPOTENCY_KEY: event_id}
    headers = [(name, own.get(name, value)) for name, value in record.headers]
    if chance.random() < 0.5:
        headers.append((CAUSATION_ID, b"its parent"))
    return record._replace(key=flow, headers=headers)


def _event(chance: random.Random) -> Bent:
    parts = tuple(Part(name=f"part {n}", weight=chance.choice((None, 1.5)), marks=tuple(range(n))) for n in range(chance.randint(0, 4)))
    return Bent(
        text="x" * chance.randint(0, 80),
        number=chance.getrandbits(40),
        share=chance.random(),
        yes=chance.random() < 0.5,
        colour=chance.choice(list(Colour)),
        raw=chance.randbytes(chance.randint(0, 30)),
        price=Decimal(chance.randint(0, 10**6)).scaleb(-2),
        at=datetime(2026, 1, 1, tzinfo=UTC),
        name=UUID(int=chance.getrandbits(128), version=4),
        parts=parts,
        words={f"word {n}": "y" * n for n in range(chance.randint(0, 4))},
    )


def _stored(world: Choreography, topic: str) -> Iterator[Stored]:
    for partition in range(world.broker.topics()[topic]):
        log = world.broker.log(TopicPartition(topic, partition))
        records: Sequence[Delivery] = log.read(log.oldest, log.end - log.oldest, float("inf"))
        yield from map(stored, records)


@contextmanager
def _silent() -> Iterator[None]:
    """Every dead letter is an error in the log, and there are a million of them."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
