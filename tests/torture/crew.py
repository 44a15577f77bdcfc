"""Processes that are killed and come back: each with the next point at which it dies, as the seed says."""

from __future__ import annotations

import asyncio
import math
import os
import random
import signal
import time
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final

from tests.torture.agent import TURNED_AWAY
from tests.torture.failpoints import EFFECTED, POINTS

CHECKOUT: Final = Path(__file__).parents[2]
_PASSES_MAX: Final = 6
_LIFE_SECONDS_MAX: Final = 120.0
"""Who has not come to its point by then is killed wherever it is. Long, because kills of processes that only start prove nothing."""
_STOP_SECONDS: Final = 60.0
_GHOST_SECONDS: Final = 30.0
"""So long after a broker's death or return a join that it left behind may take a member's id: others need ten seconds to take over, and a
member that was fenced joins once more."""
ANYTIME: Final = "anytime"


@dataclass(frozen=True, slots=True)
class Role:
    """One consumer group. `command` makes the command line of an instance from its number and its options."""

    name: str
    command: Callable[[int, Sequence[str]], list[str]]
    points: tuple[str, ...] = POINTS
    instances: int = 2
    environment: Mapping[str, str] = field(default_factory=dict)
    """Beside that of whoever runs it."""
    life_seconds_max: float = 20.0
    """Of one that is killed at any time."""
    turned_away_saying: str = ""
    """What it says last where it found no database and has no exit code of its own for that."""
    fenced_saying: str = ""
    """What it says last where Kafka has given its instance id away, which is meant only where a broker was away a moment ago."""


def with_effects(points: tuple[str, ...] = POINTS) -> tuple[str, ...]:
    return (*points, EFFECTED)


@dataclass(slots=True)
class Toll:
    """What was done to the processes and to what they stand on, and what they did by themselves."""

    kills: Counter[str] = field(default_factory=Counter)
    """By point."""
    kills_of: Counter[str] = field(default_factory=Counter)
    """By role."""
    broker_kills: int = 0
    broker_moved_at: float = -math.inf
    """When one was last killed, or was back; on the clock that only goes forward."""
    store_restarts: int = 0
    """Of the database that keeps the ledgers."""
    stops: int = 0
    """SIGSTOPs longer than the session."""
    turned_away: int = 0
    """Starts that found no broker, or no database, and were repeated."""
    fenced: int = 0
    """Static members that were fenced twice in a row, soon after a broker had been away."""
    failures: list[str] = field(default_factory=list)
    """Ends that nobody had asked for."""

    @property
    def killed(self) -> int:
        return self.kills.total()

    def broker_killed(self) -> None:
        self.broker_kills += 1
        self.broker_moved_at = time.monotonic()

    def broker_back(self) -> None:
        self.broker_moved_at = time.monotonic()

    @property
    def ghosts_may_walk(self) -> bool:
        return time.monotonic() - self.broker_moved_at < _GHOST_SECONDS


class Crew:
    """`async with Crew(...) as crew:` keeps every role manned and, if `killing`, killed until `calm`; leaving ends what is left."""

    def __init__(self, roles: Sequence[Role], logs: Path, seed: str, *, killing: bool = True) -> None:
        self._roles = roles
        self._logs = logs
        self._seed = seed
        self._killing = killing
        self._places: list[_Place] = []
        self._stack = AsyncExitStack()
        self.toll = Toll()
        self.changed = asyncio.Event()
        """Set at each death."""

    async def __aenter__(self) -> Crew:
        self._logs.mkdir(parents=True, exist_ok=True)
        group = await self._stack.enter_async_context(asyncio.TaskGroup())
        for role in self._roles:
            for number in range(role.instances):
                place = _Place(role, number, self._logs / f"{role.name}-{number}.log", random.Random(f"{self._seed}/{role.name}/{number}"))
                self._places.append(place)
                place.keeper = group.create_task(self._keep(place), name=f"{role.name} {number}")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for place in self._places:
            if place.keeper is not None:
                place.keeper.cancel()
        await self._stack.__aexit__(kind, error, trace)

    async def stop_for(self, seconds: float, chance: random.Random) -> None:
        """One process gets SIGSTOP, and goes on after so many seconds as if nothing had been. It is not killed meanwhile."""
        standing = [place for place in self._places if place.process is not None and place.process.returncode is None and not place.frozen]
        if not standing:
            return
        place = chance.choice(standing)
        process = place.process
        assert process is not None
        place.frozen = True
        try:
            process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(seconds)
            self.toll.stops += 1
        finally:
            place.frozen = False
            if process.returncode is None:
                process.send_signal(signal.SIGCONT)

    async def calm(self) -> None:
        """From now on nobody is killed: who stands under a sentence is ended and replaced by one without."""
        self._killing = False
        standing = [place for place in self._places if place.process is not None and place.process.returncode is None]
        await asyncio.gather(*(self._end(place) for place in standing if place.sentenced))

    async def _keep(self, place: _Place) -> None:
        try:
            while True:
                point = place.chance.choice((*place.role.points, ANYTIME)) if self._killing else ""
                sentence = self._sentence(place, point)
                place.sentenced = bool(point)
                with place.log.open("ab") as log:
                    command = place.role.command(place.number, [str(word) for word in sentence])
                    process = await asyncio.create_subprocess_exec(
                        *command, cwd=CHECKOUT, env={**os.environ, **place.role.environment}, stdin=PIPE, stdout=log, stderr=log
                    )
                place.process, place.ending = process, False
                await self._live(place, process, point)
        finally:
            if place.process is not None and place.process.returncode is None:
                await self._end(place)

    def _sentence(self, place: _Place, point: str) -> tuple[object, ...]:
        """What a process is told of its end; of one at any time it knows nothing."""
        return ("--die-at", point, "--after", place.chance.randint(1, _PASSES_MAX)) if point and point != ANYTIME else ()

    async def _live(self, place: _Place, process: Process, point: str) -> None:
        """Until it ends, by its own hand or after its time."""
        seconds = place.chance.uniform(0.0, place.role.life_seconds_max) if point == ANYTIME else _LIFE_SECONDS_MAX
        while True:
            try:
                code = await asyncio.wait_for(process.wait(), seconds)
                break
            except TimeoutError:
                if self._killing and not place.frozen:
                    point = ANYTIME
                    process.kill()
        if code == -signal.SIGKILL and place.sentenced:
            self.toll.kills[point] += 1
            self.toll.kills_of[place.role.name] += 1
        elif code == TURNED_AWAY or (place.role.turned_away_saying and place.role.turned_away_saying in _tail(place.log)):
            self.toll.turned_away += 1
        elif place.role.fenced_saying and place.role.fenced_saying in _tail(place.log) and self.toll.ghosts_may_walk:
            self.toll.fenced += 1
        elif not (place.ending and code in (0, -signal.SIGTERM, 128 + signal.SIGTERM)):  # the latter two: it was still starting
            self.toll.failures.append(f"{place.role.name} {place.number} ended with {code}; the end of {place.log}: {_tail(place.log)}")
            await asyncio.sleep(1)  # whatever keeps it from starting must not be asked a hundred times a second
        self.changed.set()

    async def _end(self, place: _Place) -> None:
        """As a deployment does; what does not end is killed."""
        process = place.process
        assert process is not None
        place.ending = True
        try:
            process.send_signal(signal.SIGCONT)
            process.terminate()
            await asyncio.wait_for(process.wait(), _STOP_SECONDS)
        except ProcessLookupError:
            pass  # it died between the two lines
        except TimeoutError:
            self.toll.failures.append(
                f"{place.role.name} {place.number} did not stop within {_STOP_SECONDS:g} s of SIGTERM: {_tail(place.log)}"
            )
            process.kill()
            await process.wait()


@dataclass(slots=True)
class _Place:
    """Where one process follows the other."""

    role: Role
    number: int
    log: Path
    chance: random.Random
    process: Process | None = None
    keeper: asyncio.Task[None] | None = None
    sentenced: bool = False
    frozen: bool = False
    ending: bool = False
    """It was told to stop."""


def _tail(log: Path) -> str:
    return " | ".join(log.read_text(errors="replace").splitlines()[-12:])
