"""What a run comes to: what the checker of histories finds, and what did not come to its end."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from maypole.bus.agent import Agent
from maypole.bus.memory.broker import MemoryBroker
from maypole.bus.ports import TopicPartition
from maypole.bus.testing.flow import Flow
from maypole.bus.testing.history import check, open_inputs
from maypole.bus.testing.history_entries import Entry, Missed, Published, Witnessed
from maypole.bus.testing.history_findings import Finding
from maypole.bus.testing.history_reading import history_of
from maypole.bus.testing.simulation.chance import Accident
from maypole.bus.testing.simulation.instance import Instance
from maypole.bus.testing.simulation.probes import Outside, Probe
from maypole.schemas.envelope import flow_of
from maypole.schemas.topics import retry_delay


class Verdict(NamedTuple):
    """`findings` are lines for people, each with its kind in front; none: every promise was kept."""

    seed: int
    findings: Sequence[str]
    accidents: Sequence[Accident]
    story: Sequence[str]
    digest: str
    """Of everything that happened, in its order: equal for equal runs."""
    seconds: float
    """Virtual."""
    steps: int
    """Of all processes."""


def history(
    broker: MemoryBroker, flows: Sequence[Flow], instances: Sequence[Instance], outside: Outside, probe: Probe, witnessed: Collection[str]
) -> list[Entry]:
    found = history_of(broker)
    for flow in flows:
        told = flow.published
        found.append(Published(TopicPartition(told.topic, told.partition), told.offset, told.event_id))
    for instance in instances:
        found += [Missed(instance.program, each.partition, each.wanted, each.oldest) for each in instance.expired]
    return [*found, *outside.calls, *outside.taken_back, *probe.tried, *(Witnessed(agent) for agent in witnessed)]


def findings(entries: Sequence[Entry], flows: Sequence[Flow], instances: Sequence[Instance]) -> list[str]:
    """`flows`: those that must have come to rest."""
    lines = [_line(finding) for finding in check(entries)]
    lines += [
        f"not finished: {agent} has event {record.event_id} of flow {record.flow} before it" for agent, record in open_inputs(entries)
    ]
    lines += [f"not finished: {line.strip()}" for flow in flows if not flow.at_rest for line in flow.explained()]
    for instance in instances:
        lines += [f"ended by itself: {instance.name}: {failure!r}" for failure in instance.failures]
    return lines


def bereft(broker: MemoryBroker, instances: Sequence[Instance]) -> frozenset[str]:
    """The flows of which something was deleted before an agent had read it, as the agents were told: more cannot be asked of them."""
    return frozenset(
        flow
        for instance in instances
        for told in instance.expired
        for record in broker.log(told.partition).deleted
        if told.wanted <= record.offset < told.oldest and (flow := flow_of(record.headers)) is not None
    )


def is_quiet(broker: MemoryBroker, agents: Sequence[Agent]) -> bool:
    """Whether every agent has committed all that lies before it."""
    counts = broker.topics()
    for agent in agents:
        topics = {topic for each in agent.subscriptions for topic in each.event_types} | {
            topic for topic in counts if retry_delay(agent.name, topic) is not None
        }
        committed = broker.group(agent.name).committed
        for topic in topics & counts.keys():
            for partition in range(counts[topic]):
                at = TopicPartition(topic, partition)
                # Of what was deleted nothing is left to commit.
                if broker.log(at).end > max(committed.get(at, 0), broker.log(at).oldest):
                    return False
    return True


def _line(finding: Finding) -> str:
    return f"{finding.kind.value}: {finding.agent or 'the publisher'}: {finding.detail}"
