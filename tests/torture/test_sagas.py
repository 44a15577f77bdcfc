"""Flows that fail on the way while agents, coordinators and brokers are killed: each ends with all of its effects, or with none."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Mapping
from pathlib import Path

import pytest

from deploy.local.kafka import KafkaCluster
from deploy.local.postgres import Postgres
from maypole.bus.composition import Platform, open_platform
from maypole.bus.hook import Untraced
from maypole.bus.ports import BrokerUnreachable
from maypole.schemas.identifiers import FlowId
from maypole.services.coordinator.naming import coordinator_is_running
from maypole.services.saga import FlowState, State, unsettled
from maypole.settings import Settings
from tests.support.world import eventually, states_of
from tests.torture.saga_agents import AGENTS, EFFECTS, Ordered, left_by

FLOWS = 24
KILLS_OF_PROCESSES = 8
_ENDS = (State.COMMITTED, State.COMPENSATED, State.STUCK)
_SETTLED_SECONDS = 150.0


class Processes:
    """Each by its command line; what is killed is started again at once."""

    def __init__(self, environment: Mapping[str, str], logs: Path) -> None:
        self._environment = {**os.environ, **environment}
        self._logs = logs
        self._running: dict[tuple[str, ...], tuple[Process, Mapping[str, str]]] = {}

    async def start(self, *words: str, more: Mapping[str, str] | None = None) -> None:
        await self._start(words, more or {})

    async def kill_one(self, chance: random.Random) -> str:
        words = chance.choice(sorted(self._running))
        process, more = self._running[words]
        process.kill()
        await process.wait()
        await self._start(words, more)
        return words[0]

    async def end(self) -> None:
        for process, _ in self._running.values():
            process.terminate()
        for process, _ in self._running.values():
            try:
                await asyncio.wait_for(process.wait(), 40)
            except TimeoutError:
                process.kill()
                await process.wait()

    async def _start(self, words: tuple[str, ...], more: Mapping[str, str]) -> None:
        said = [word for word in words if not word.startswith("#")]
        with (self._logs / f"{'-'.join(words).replace('/', '_')}.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "maypole.services.cli", "-v", *said, env={**self._environment, **more}, stdout=DEVNULL, stderr=log
            )
        self._running[words] = process, more


async def published(platform: Platform, processes: Processes, kafka: KafkaCluster, chance: random.Random) -> tuple[list[FlowId], list[str]]:
    """The flows, and who was killed while they were under way."""
    bus, flows, killed = platform.bus("sagas", Untraced()), [], []
    for number in range(FLOWS):
        flows.append((await bus.publish(Ordered(number=number))).flow_id)
        if number % (FLOWS // KILLS_OF_PROCESSES) == 2:
            killed.append(await processes.kill_one(chance))
        if number == FLOWS // 2:
            kafka.kill_node(1)
        await asyncio.sleep(0.2)
    await asyncio.to_thread(kafka.restart_node, 1)
    return flows, killed


@pytest.mark.kafka3
@pytest.mark.slow
@pytest.mark.timeout(420)
async def test_flows_whose_processes_are_killed_end_with_all_of_their_effects_or_with_none(
    kafka3: KafkaCluster, postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(EFFECTS, str(tmp_path / "effects"))
    settings = Settings(home=tmp_path / "home", tracing="off").at(kafka3.bootstrap, "the test")
    processes = Processes({"MAYPOLE_KAFKA": kafka3.bootstrap, "MAYPOLE_HOME": str(settings.home), "MAYPOLE_TRACING": "off"}, tmp_path)
    async with open_platform(settings) as platform:
        try:
            for agent in AGENTS:
                await processes.start("run", f"tests/torture/saga_agents.py:{agent.name}", "--durable")
            for name in ("#1", "#2"):
                await processes.start("coordinator", name, more={"MAYPOLE_STORE": postgres.address})

            async def ready() -> bool:
                await platform.catalog.refresh()
                view, now = platform.catalog.view, platform.now()
                return coordinator_is_running(view, now) and all(view.alive(agent.name, now) for agent in AGENTS)

            await eventually(ready, bool, 90)
            flows, killed = await published(platform, processes, kafka3, random.Random(7))

            async def found() -> Mapping[FlowId, FlowState]:
                try:
                    return await states_of(platform, flows)
                except BrokerUnreachable:
                    return {}  # one of them is just coming back

            states = await eventually(
                found, lambda told: len(told) == FLOWS and all(state.state in _ENDS for state in told.values()), _SETTLED_SECONDS
            )
        finally:
            await processes.end()
    assert len(killed) == KILLS_OF_PROCESSES and {"run", "coordinator"} <= set(killed), "it must have been torture"
    for number, flow in enumerate(flows):
        state = states[flow]
        left = {agent.name for agent in AGENTS if left_by(agent.name).count(flow)}
        match state.state:
            case State.COMMITTED:
                assert left == {agent.name for agent in AGENTS}, f"flow {flow}, number {number}"
            case State.COMPENSATED:
                assert left == set(), f"flow {flow}, number {number}"
            case _:
                assert left <= {step.agent for step in unsettled(state.saga)}, f"flow {flow}, number {number}"
        if number % 4 in (1, 2):
            assert state.state is not State.COMMITTED, "it was refused on its way"
    assert {state.state for state in states.values()} >= {State.COMMITTED, State.COMPENSATED}
