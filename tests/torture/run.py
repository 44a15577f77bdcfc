"""One run: load, a crew under kills, brokers and database under kills, then peace until everything has come to rest, then the history."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from deploy.local.faults import LocalFault
from deploy.local.kafka import KafkaCluster
from deploy.local.postgres import Postgres
from maypole.bus.ports import BrokerUnreachable, Cluster, TopicPartition
from tests.torture.agent import SESSION_SECONDS
from tests.torture.crew import Crew, Toll

_BROKER_DOWN_SECONDS: Final = 3.0
_STARTS_MAX: Final = 20
_STOP_SECONDS: Final = SESSION_SECONDS + 2.0
_NEWS_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class Orders:
    """How long and how hard. A run ends when either bound is reached; pauses are seconds between two faults of a kind, 0: none."""

    seconds_max: float
    kills_max: int
    seed: str
    broker_pause: float = 0.0
    store_pause: float = 0.0
    stop_pause: float = 0.0
    settle_seconds: float = 60.0


@dataclass(slots=True)
class Faults:
    """What is done beside the kills of processes."""

    orders: Orders
    kafka: KafkaCluster
    store: Postgres | None = None
    _restarting: set[asyncio.Task[None]] = field(default_factory=set)
    _chance: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._chance = random.Random(f"{self.orders.seed}/faults")

    async def torment(self, crew: Crew) -> None:
        """Until the orders are carried out."""
        began = time.monotonic()
        works = (self._brokers(crew.toll), self._stores(crew.toll), self._stops(crew), self._tell(crew, began))
        sides = [asyncio.create_task(work) for work in works]
        try:
            async with asyncio.timeout(self.orders.seconds_max):
                while crew.toll.killed < self.orders.kills_max:
                    crew.changed.clear()
                    await crew.changed.wait()
        except TimeoutError:
            pass
        finally:
            for side in sides:
                side.cancel()
            for ended in await asyncio.gather(*sides, return_exceptions=True):
                if isinstance(ended, Exception):
                    raise ended
            # A server that is being started is not left half known.
            await asyncio.gather(*self._restarting)
            await asyncio.to_thread(self.kafka.heal)

    async def _brokers(self, toll: Toll) -> None:
        """One at a time: with two of three gone nothing is acknowledged, which is an outage and no fault to survive working."""
        while self.orders.broker_pause:
            await asyncio.sleep(self._chance.uniform(0.5, 1.5) * self.orders.broker_pause)
            node = self._chance.randint(1, len(self.kafka.ports))
            say(f"  kill -9 of Kafka node {node}")
            self.kafka.kill_node(node)
            toll.broker_killed()
            await asyncio.sleep(_BROKER_DOWN_SECONDS)
            await self._whole(f"Kafka node {node}", partial(self.kafka.restart_node, node), partial(self.kafka.kill_node, node))
            toll.broker_back()

    async def _stores(self, toll: Toll) -> None:
        """Every session ends in the middle of what it does, and for a moment nobody answers."""
        while self.orders.store_pause and self.store is not None:
            await asyncio.sleep(self._chance.uniform(0.5, 1.5) * self.orders.store_pause)
            say("  PostgreSQL is killed and started again")
            await self._whole("PostgreSQL", self.store.restart, self.store.kill)
            toll.store_restarts += 1

    async def _whole(self, name: str, start: Callable[[], None], kill: Callable[[], None]) -> None:
        """Carried to its end also when the torment ends meanwhile."""
        restarting = asyncio.create_task(asyncio.to_thread(_bring_back, name, start, kill))
        self._restarting.add(restarting)
        await asyncio.shield(restarting)
        self._restarting.discard(restarting)

    async def _stops(self, crew: Crew) -> None:
        while self.orders.stop_pause:
            await asyncio.sleep(self._chance.uniform(0.5, 1.5) * self.orders.stop_pause)
            await crew.stop_for(_STOP_SECONDS, self._chance)

    async def _tell(self, crew: Crew, began: float) -> None:
        while True:
            await asyncio.sleep(_NEWS_SECONDS)
            toll = crew.toll
            say(
                f"  {time.monotonic() - began:4.0f} s: {toll.killed} kills, {toll.stops} stops, {toll.broker_kills} broker kills, "
                f"{toll.store_restarts} database restarts, {toll.turned_away} turned away, {toll.fenced} fenced, "
                f"{len(toll.failures)} ended by themselves"
            )


async def without(kafka: KafkaCluster, seconds: float, toll: Toll) -> None:
    """`kill -9` of every node, and at least so long nobody answers."""
    say(f"  no Kafka for {seconds:.0f} s")
    for node in range(1, len(kafka.ports) + 1):
        kafka.kill_node(node)
        toll.broker_killed()
    await asyncio.sleep(seconds)
    await asyncio.to_thread(_bring_back, "Kafka", kafka.heal, kafka.kill)
    toll.broker_back()


def _bring_back(name: str, start: Callable[[], None], kill: Callable[[], None]) -> None:
    """A machine that has much to do may need more than one start."""
    for _ in range(_STARTS_MAX - 1):
        try:
            start()
        except LocalFault as fault:
            say(f"  {name} is started again: {fault}")
            kill()
        else:
            return
    start()


@asynccontextmanager
async def loading(publish: Callable[[], Awaitable[None]], per_second: float) -> AsyncIterator[None]:
    """Calls `publish` at this rate until the block is left, then waits for the last one."""
    ended = asyncio.Event()

    async def load() -> None:
        while not ended.is_set():
            await publish()
            try:
                await asyncio.wait_for(ended.wait(), 1 / per_second)
            except TimeoutError:
                pass

    async with asyncio.TaskGroup() as group:
        group.create_task(load())
        try:
            yield
        finally:
            ended.set()


async def settle(cluster: Cluster, groups: Mapping[str, Sequence[str]], seconds: float) -> bool:
    """Wait until each group has committed everything on its topics. False when nothing moved for so long."""
    counts = await cluster.topics()
    partitions = {group: [TopicPartition(t, p) for t in topics for p in range(counts[t])] for group, topics in groups.items()}
    everything = list({at for ours in partitions.values() for at in ours})
    last: object = None
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            committed = {group: await cluster.committed(group, ours) for group, ours in partitions.items()}
            # Asked after the offsets, and all groups at once: whoever writes for another is part of it.
            ends = await cluster.watermarks(everything)
        except BrokerUnreachable:
            continue  # it has answered within its own bound
        if all(committed[group].get(at, 0) >= ends[at][1] for group, ours in partitions.items() for at in ours):
            return True
        if (committed, ends) != last:
            last, deadline = (committed, ends), time.monotonic() + seconds
        await asyncio.sleep(_LOOK_SECONDS)
    return False


@dataclass(frozen=True, slots=True)
class Ground:
    """Where subjects are tortured."""

    kafka: KafkaCluster
    witness: Path
    folder: Path
    store: Postgres | None = None
    """The PostgreSQL that the instances of an agent share; an agent of one instance, and peers, have none."""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
