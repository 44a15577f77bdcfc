"""`python -m tests.torture.golden`: records journals of real runs for the tests of the saga engine, one of each kind.

Two runs: the reference agents, of which one fails, and flows that fail while everything is killed. `--expectations` leaves the
journals as they are and writes down what the engine makes of them now: only after the reducer's version was raised.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from deploy.local.kafka import KafkaCluster, KafkaPorts
from maypole.bus.composition import Platform, open_platform
from maypole.bus.hook import Untraced
from maypole.bus.kafka.embedded import EmbeddedKafka
from maypole.schemas.envelope import flow_of, read_envelope
from maypole.schemas.identifiers import FlowId
from maypole.schemas.journal import FlowEnded
from maypole.schemas.research import ResearchRequested
from maypole.schemas.topics import JOURNAL
from maypole.services.cli.coordinating import coordinating
from maypole.services.cli.dead_letters import read_topics
from maypole.services.cli.failing import failing
from maypole.services.cli.flow_histories import all_sagas
from maypole.services.cli.running import running
from maypole.services.cli.targets import REFERENCE_AGENTS, load_agents
from maypole.settings import Settings
from tests.support.golden import PATH, Golden, Written, dump, load
from tests.support.world import eventually, read_topic
from tests.torture.failing_flows import torture
from tests.torture.flows import ALONE
from tests.torture.run import Ground, Orders, say
from tests.torture.witness import witness

_OF_A_RUN_MAX: Final = 16


async def recorded(platform: Platform, source: str) -> list[Golden]:
    """Of every kind of journal the longest: ends, kinds of records and what was written twice make a kind."""
    written: dict[FlowId, list[Written]] = {}
    types: dict[FlowId, Counter[tuple[str, str]]] = {}
    async for record in read_topics(platform.transport, [JOURNAL]):
        flow, envelope = flow_of(record.headers), read_envelope(record.headers)
        assert flow is not None and record.value is not None
        written.setdefault(flow, []).append(Written(record.timestamp_ms, record.value))
        types.setdefault(flow, Counter())[envelope.type, envelope.event_id] += 1
    kinds: dict[object, Golden] = {}
    for flow, saga in (await all_sagas(platform)).items():
        assert saga.choreography is not None
        found = Golden(source, flow, saga.choreography, tuple(written[flow]))
        kind = saga.state, frozenset(of_type for of_type, _ in types[flow]), any(count > 1 for count in types[flow].values())
        if kind not in kinds or len(found.written) > len(kinds[kind].written):
            kinds[kind] = found
    return sorted(kinds.values(), key=lambda golden: -len(golden.written))[:_OF_A_RUN_MAX]


async def _reference(folder: Path, fails: str) -> list[Golden]:
    with EmbeddedKafka() as kafka:
        async with open_platform(Settings(home=folder, tracing="off").at(kafka.bootstrap, "the recording")) as platform:
            agents = [failing(agent) if agent.name == fails else agent for agent in load_agents(REFERENCE_AGENTS)]
            async with coordinating(platform), running(platform, agents):
                await platform.bus("golden", Untraced()).publish(ResearchRequested(question="What does the assert statement do?"))
                await eventually(lambda: read_topic(platform, FlowEnded.event_type), bool, 60)
            return await recorded(platform, f"reference agents, {fails or 'nobody'} fails")


def _tortured(folder: Path, seed: str) -> list[Golden]:
    journals: list[Golden] = []

    async def keep(platform: Platform) -> None:
        journals.extend(await recorded(platform, "flows that fail under kills"))

    with ExitStack() as stack:
        kafka = KafkaCluster(folder / "kafka", KafkaPorts.chosen(3), folder / "logs", brief=True)
        stack.callback(kafka.kill)
        kafka.start()
        ground = Ground(kafka, stack.enter_context(witness(folder)), folder)
        orders = Orders(180, 30, seed, broker_pause=20)
        asyncio.run(torture(ground, orders, ALONE, flows=60, per_second=3, keep=keep))
    return journals


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture.golden", description=__doc__)
    parser.add_argument("--expectations", action="store_true", help="only what the engine makes of the journals that are there")
    parser.add_argument("--seed", default="golden")
    chosen = parser.parse_args(arguments)
    if chosen.expectations:
        dump([golden for golden, _ in load()])
        return 0
    with tempfile.TemporaryDirectory(prefix="maypole-golden-") as name:
        journals = []
        for fails in ("", "analysis", "delivery"):
            journals += asyncio.run(_reference(Path(name) / (fails or "nobody"), fails))
        journals += _tortured(Path(name) / "torture", chosen.seed)
    dump(journals)
    say(f"written: {PATH}, {len(journals)} journals")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
