"""The parts of an agent that obey commands, put together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

from maypole.bus.agent import Agent
from maypole.bus.backlog import Backlog
from maypole.bus.backoff import Backoff
from maypole.bus.catalog import Catalog
from maypole.bus.command_loop import CommandLoop
from maypole.bus.command_reading import CommandReading
from maypole.bus.contracts import Contracts
from maypole.bus.delivery_loop import DeliveryLoop
from maypole.bus.dependencies import Tell
from maypole.bus.handler_threads import HandlerThreads
from maypole.bus.hook import Tracing
from maypole.bus.ledger.port import Ledger
from maypole.bus.obeying import Obeying
from maypole.bus.partition_counts import partition_counts
from maypole.bus.patience import Patience
from maypole.bus.ports import Sink, Transport
from maypole.bus.recording import Recording
from maypole.bus.undoing import Undoing


class CommandLane(NamedTuple):
    loop: CommandLoop
    threads: HandlerThreads
    """Of undos that are plain functions."""


class Around(Protocol):
    """What it needs of the agent's surroundings."""

    @property
    def transport(self) -> Transport: ...
    @property
    def sink(self) -> Sink: ...
    @property
    def catalog(self) -> Catalog: ...
    @property
    def contracts(self) -> Contracts: ...
    @property
    def tracing(self) -> Tracing: ...
    @property
    def now(self) -> Callable[[], float]: ...
    @property
    def backoff(self) -> Backoff: ...


async def open_command_lane(
    agent: Agent,
    around: Around,
    ledger: Ledger,
    recording: Recording,
    deliveries: DeliveryLoop,
    home: Path,
    backlog: Backlog,
    moved: Tell,
    letter_bytes_max: int,
) -> CommandLane:
    """The topics that the agent subscribes to must exist. `moved`: as in `Undoing`."""
    patiently = Patience(agent.name, around.backoff)
    counts = await partition_counts(around.transport.cluster, [topic for each in agent.subscriptions for topic in each.event_types])
    undoing = Undoing(
        agent.name, agent.subscriptions, ledger, patiently, around.contracts, around.tracing, around.backoff, home,
        agent.concurrency, moved,
    )  # fmt: skip
    obeying = Obeying(
        agent.name, agent.subscriptions, ledger, patiently, undoing, deliveries.halt, recording.fence, counts, agent.retry_delays,
        around.now,
    )  # fmt: skip
    reading = CommandReading(agent.name, around.contracts, around.catalog, patiently)
    loop = CommandLoop(agent.name, reading, obeying, around.sink, around.now, backlog, letter_bytes_max)
    return CommandLane(loop, undoing.threads)
