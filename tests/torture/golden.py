"""`python -m tests.torture.golden`: records journals of real runs for the tests of the saga engine, one of each kind.

Three runs: the reference agents, of which one fails; of which one is silent until a person has decided; and flows that fail while
everything is killed. `--only` keeps the journals of the other runs. `--expectations` leaves all as they are and writes down what the
engine makes of them now: only after the version of the reducer, or of the form of stored sagas, was raised.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Final

from deploy.local.kafka import KafkaCluster, KafkaPorts
from maypole.bus.composition import Platform, open_platform
from maypole.bus.hook import Untraced
from maypole.bus.kafka.embedded import EmbeddedKafka
from maypole.schemas.envelope import flow_of, read_envelope
from maypole.schemas.identifiers import FlowId
from maypole.schemas.journal import Decision, FlowEnded
from maypole.schemas.research import ResearchRequested
from maypole.schemas.topics import JOURNAL
from maypole.services.cli.coordinating import coordinating
from maypole.services.cli.dead_letters import read_topics
from maypole.services.cli.failing import failing
from maypole.services.cli.flow_histories import all_flows
from maypole.services.cli.running import running
from maypole.services.cli.targets import REFERENCE_AGENTS, load_agents
from maypole.services.operators import decide
from maypole.services.saga import Saga, State, unsettled
from maypole.settings import Settings
from tests.support.golden import PATH, Golden, Written, dump, load
from tests.support.world import eventually, read_topic
from tests.torture.failing_flows import torture
from tests.torture.flows import ALONE
from tests.torture.run import Ground, Orders, say
from tests.torture.witness import witness

_OF_A_RUN_MAX: Final = 16
_RUNS: Final = ("failing", "silent", "kills")


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
    for flow, saga in (await all_flows(platform)).sagas.items():
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


async def _saga(platform: Platform, flow: FlowId) -> Saga:
    return (await all_flows(platform)).sagas.get(flow) or Saga(flow)


async def _silent(folder: Path, decision: Decision) -> list[Golden]:
    """Analysis is not there: the flow's deadline passes, then the time of the fence; and a person decides about the step."""
    with EmbeddedKafka() as kafka:
        async with open_platform(Settings(home=folder, tracing="off").at(kafka.bootstrap, "the recording")) as platform:
            agents = {agent.name: agent for agent in load_agents(REFERENCE_AGENTS)}
            analysis = agents.pop("analysis")
            async with running(platform, [analysis], temporary=False):
                pass  # announced, and so expected
            async with coordinating(platform, patience_seconds=2.0), running(platform, list(agents.values()), temporary=False):
                asked = ResearchRequested(question="What does the assert statement do?")
                flow = (await platform.bus("golden", Untraced()).publish(asked, deadline_seconds=2.0)).flow_id
                stuck = await eventually(lambda: _saga(platform, flow), lambda saga: saga.state is State.STUCK, 60)
                [waits] = [each.step_id for each in unsettled(stuck) if each.waiting is not None]
                await decide(platform, stuck, waits, decision, "the recording", "to see what becomes of it")
                async with AsyncExitStack() as stack:
                    if decision is Decision.RETRY:
                        await stack.enter_async_context(running(platform, [analysis], temporary=False))
                    await eventually(lambda: read_topic(platform, FlowEnded.event_type), bool, 60)
            return await recorded(platform, f"reference agents, analysis is silent, {decision.lower()}")


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
    parser.add_argument("--only", choices=_RUNS, help="record this run anew, beside the journals of the others that are there")
    chosen = parser.parse_args(arguments)
    if chosen.expectations:
        dump([golden for golden, _ in load()])
        return 0
    journals: list[Golden] = []
    with tempfile.TemporaryDirectory(prefix="maypole-golden-") as name:
        for run in _RUNS if chosen.only is None else [chosen.only]:
            journals += _recorded(run, Path(name) / run, chosen.seed)
    anew = {golden.source for golden in journals}
    kept = [golden for golden, _ in load() if golden.source not in anew] if chosen.only else []
    dump([*kept, *journals])
    say(f"written: {PATH}, {len(kept)} journals kept and {len(journals)} recorded")
    return 0


def _recorded(run: str, folder: Path, seed: str) -> list[Golden]:
    if run == "failing":
        return [golden for fails in ("", "analysis", "delivery") for golden in asyncio.run(_reference(folder / (fails or "nobody"), fails))]
    if run == "silent":
        return [golden for decision in Decision for golden in asyncio.run(_silent(folder / decision, decision))]
    return _tortured(folder, seed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
