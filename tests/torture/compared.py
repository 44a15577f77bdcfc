"""The peers under the same faults: a bare at-least-once loop, and FastStream. One poison record lies in their way, as in Maypole's."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from maypole.bus.kafka.confluent import ConfluentTransport
from maypole.bus.ports import Record, TopicPartition, TopicSpec
from maypole.bus.testing.history_entries import Began, Committed, Ended, Entry, Outcome, Stored
from maypole.bus.testing.history_reading import entries_of, read_partitions
from tests.support.names import unique_topic
from tests.torture.crew import Crew, Role
from tests.torture.peers.order import POINTS, POISON, encode, root_headers
from tests.torture.run import Faults, Ground, Orders, loading, say, settle
from tests.torture.verdict import Verdict, judge
from tests.torture.witness import calls_of

PARTITIONS: Final = 4
_EVENTS_PER_FLOW: Final = 8


@dataclass(frozen=True, slots=True)
class Peer:
    """`module` under `tests.torture.peers`, and the points of its delivery that can be reached from outside."""

    name: str
    module: str
    variant: str = ""
    points: tuple[str, ...] = POINTS


_INSIDE_A_HANDLER: Final = ("handling", "effected", "published")
PEERS: Final = (
    Peer("bare confluent loop", "bare"),
    Peer("FastStream, default", "faststream", "ACK_FIRST", _INSIDE_A_HANDLER),
    Peer("FastStream, NACK_ON_ERROR", "faststream", "NACK_ON_ERROR", _INSIDE_A_HANDLER),
)


async def torture(peer: Peer, ground: Ground, orders: Orders, *, flows_per_second: float, poisoned: bool = True) -> Verdict:
    began = time.monotonic()
    source, target = unique_topic("peer.source"), unique_topic("peer.target")
    group = source.removesuffix(".source")
    async with ConfluentTransport(ground.kafka.bootstrap) as transport, transport.sink() as sink:
        await transport.cluster.create(
            [TopicSpec(topic, PARTITIONS, {"message.timestamp.type": "LogAppendTime"}) for topic in (source, target)]
        )
        faults = Faults(orders, ground.kafka)
        crew = Crew([_role(peer, ground, group, source, target)], ground.folder / "logs", orders.seed)
        chance, published = random.Random(f"{orders.seed}/load"), 0

        async def publish() -> None:
            nonlocal published
            flow = str(uuid4())
            values = [encode(number) for number in range(_EVENTS_PER_FLOW)]
            published += 1
            if poisoned and published == 20:
                values[chance.randrange(_EVENTS_PER_FLOW)] = POISON
            headers = [[(name, value.encode()) for name, value in root_headers(flow).items()] for _ in values]
            await sink.publish([Record(source, flow.encode(), value, each) for value, each in zip(values, headers, strict=True)])

        async with crew:
            async with loading(publish, flows_per_second):
                await faults.torment(crew)
            say("  no more faults; waiting until everything has come to rest")
            await crew.calm()
            if not await settle(transport.cluster, {group: [source]}, orders.settle_seconds / 3):
                say("  it did not come to rest")
        sources = [TopicPartition(source, partition) for partition in range(PARTITIONS)]
        records = await read_partitions(transport, [*sources, *(TopicPartition(target, partition) for partition in range(PARTITIONS))])
        committed = await transport.cluster.committed(group, sources)
    history: list[Entry] = [*entries_of(records), *calls_of(ground.witness)]
    history += [Began(group, at, 0) for at in sources] + [Committed(group, at, position) for at, position in committed.items()]
    history += _steps(group, history)
    return judge(peer.name, time.monotonic() - began, crew.toll, history)


def _steps(group: str, history: Sequence[Entry]) -> Iterator[Ended]:
    """Who keeps no journal says that a step is done by its first output."""
    done: set[str] = set()
    for entry in history:
        if isinstance(entry, Stored) and entry.maker == group and entry.parent is not None and entry.parent not in done:
            done.add(entry.parent)
            promised = ((entry.event_id, b""),)
            yield Ended(
                entry.offset, entry.time_ms, entry.parent, entry.flow, entry.parent, group, (entry.parent,), Outcome.COMPLETED, promised
            )


def _role(peer: Peer, ground: Ground, group: str, source: str, target: str) -> Role:
    def command(number: int, options: Sequence[str]) -> list[str]:
        words = [ground.kafka.bootstrap, group, source, target, str(ground.witness), "--variant", peer.variant, *options]
        return [sys.executable, "-m", f"tests.torture.peers.{peer.module}", *words]

    return Role(group, command, peer.points, instances=3)
