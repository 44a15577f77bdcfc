"""What the process of an agent does in a simulated run."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from maypole.bus.agent import Agent
from maypole.bus.backoff import jittered
from maypole.bus.hook import Tracing
from maypole.bus.ledger.port import Ledger
from maypole.bus.memory.transport import MemoryTransport
from maypole.bus.runner import AgentRunner
from maypole.bus.testing.simulation.stage import Stage


class AgentLife:
    def __init__(self, stage: Stage, agent: Agent, tracing: Tracing, name: str, transport: MemoryTransport) -> None:
        self._stage = stage
        self._agent = agent
        self._tracing = tracing
        self._name = name
        self._transport = transport
        self._runner: AgentRunner | None = None
        self._ledger = ""

    @property
    def ready(self) -> bool:
        return self._runner is not None and self._runner.ready.is_set()

    async def run(self) -> None:
        backoff = jittered(random.Random(f"{self._stage.chance.seed}/{self._name}"))
        async with self._stage.platform(self._transport, self._open_ledger) as platform:
            self._runner = replace(platform, backoff=backoff, instance=self._name).runner(self._agent, self._tracing)
            await self._runner.run()

    def stop(self) -> None:
        if self._runner is not None:
            self._runner.stop()

    def presumed_dead(self, dead: bool) -> None:
        """Only where a ledger is shared: a file's lock ends with its process, and its successor knows."""
        if self._stage.shared and self._ledger:
            presumed = self._stage.stores.of(self._agent.name).presumed_dead
            if dead:
                presumed.add(self._ledger)
            else:
                presumed.discard(self._ledger)

    @asynccontextmanager
    async def _open_ledger(self, agent: str, instance: str) -> AsyncIterator[Ledger]:
        async with self._stage.stores.open(agent, instance) as ledger:
            self._ledger = ledger.instance
            yield ledger
