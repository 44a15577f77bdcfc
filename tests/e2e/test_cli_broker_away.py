"""`maypole run` while its only broker is away: agents wait and go on by themselves, and nothing that they did is done again."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.local.kafka import KafkaCluster
from maypole.bus import Event
from maypole.bus.composition import open_platform
from maypole.bus.hook import Untraced
from maypole.services.cli.targets import load_agents
from maypole.services.saga import State
from maypole.settings import Settings
from tests.support.commands import Desk
from tests.support.names import unique_agent, unique_topic
from tests.support.processes import AgentProcess
from tests.support.world import eventually, states_of

AWAY_SECONDS = 9.0
"""Longer than a session of either protocol here, which is 6 s. `make torture` leaves Kafka away for longer than a minute."""
FLOWS = 12
PROPERTIES = {"consumer": "group.protocol=consumer\n", "classic": "group.protocol=classic\nsession.timeout.ms=6000\n"}
_AGENTS = """
import asyncio

from maypole.bus import Agent, Event

pure, recorded, acting = Agent("{name}-pure"), Agent("{name}-recorded"), Agent("{name}-acting")


class Asked(Event, type="{topic}.asked"):
    number: int


class Prepared(Event, type="{topic}.prepared"):
    number: int


class Answered(Event, type="{topic}.answered"):
    number: int


class Done(Event, type="{topic}.done"):
    number: int


@pure.on(Asked, pure=True)
async def prepare(asked: Asked) -> Prepared:
    return Prepared(number=asked.number)


@recorded.on(Prepared)
async def answer(prepared: Prepared) -> Answered:
    print("answering", prepared.number, flush=True)
    await asyncio.sleep(1)  # so that some are in hand when the broker goes
    print("answered", prepared.number, flush=True)
    return Answered(number=prepared.number)


@acting.on(Answered)
async def act(answered: Answered) -> Done:
    print("acted", answered.number, flush=True)
    return Done(number=answered.number)


@act.undo
async def take_back(answered: Answered) -> None:
    print("undoing", answered.number, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("protocol", PROPERTIES)
async def test_agents_wait_for_their_broker_and_go_on_by_themselves(mortal: KafkaCluster, tmp_path: Path, protocol: str) -> None:
    file, asked = tmp_path / f"{unique_agent('patient').replace('-', '_')}.py", unique_topic("patient") + ".asked"
    file.write_text(_AGENTS.format(name=file.stem.replace("_", "-"), topic=asked.removesuffix(".asked")))
    (tmp_path / "kafka.properties").write_text(PROPERTIES[protocol])
    targets = [f"{file}:{name}" for name in ("pure", "recorded", "acting")]
    event: Callable[..., Event] = load_agents(targets[:1])[0].event_classes()[asked]
    desk = Desk(tmp_path, {"MAYPOLE_KAFKA": mortal.bootstrap, "MAYPOLE_KAFKA_CONFIG": str(tmp_path / "kafka.properties")})
    process = await desk.start("-v", "run", *targets)
    agents = AgentProcess("maypole run", process)
    try:
        await agents.until(lambda: sum(line.startswith("ready") for line in agents.logged) == len(targets))
        async with open_platform(Settings(home=tmp_path / "home", kafka=mortal.bootstrap)) as platform:
            bus = platform.bus("tests", Untraced())
            flows = [(await bus.publish(event(number=number))).flow_id for number in range(FLOWS)]
            await agents.until(lambda: any(line.startswith("answering") for line in agents.said))
            mortal.kill_node(1)
            await agents.until_logged("bus.broker_away")
            await asyncio.sleep(AWAY_SECONDS)
            await asyncio.to_thread(mortal.restart_node, 1)
            flows += [(await bus.publish(event(number=number))).flow_id for number in range(FLOWS, 2 * FLOWS)]
            await eventually(
                lambda: states_of(platform, flows), lambda found: all(each.state is State.COMMITTED for each in found.values()), 60
            )
            await agents.until_logged("bus.broker_back")
            assert process.returncode is None
            process.terminate()
            assert await agents.end() == 0
    finally:
        if process.returncode is None:
            process.kill()
        await agents.end()
    finished = Counter(line for line in agents.said if not line.startswith("answering"))
    assert finished == {f"{what} {number}": 1 for what in ("answered", "acted") for number in range(2 * FLOWS)}, "what is done is done once"
