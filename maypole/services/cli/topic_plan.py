"""What topics are declared, what is there, and what lies between: decided from facts, without touching anything."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from maypole.bus.catalog import View
from maypole.bus.choreography import types_in
from maypole.bus.record_sizes import input_bytes_max
from maypole.bus.retry import declared_hops
from maypole.schemas.avro import is_derived
from maypole.schemas.topics import PLATFORM, Topic, event_topic, own_topics

Action = Literal["create", "differs", "ok"]
_PLATFORM_NAMES: Final = frozenset(topic.name for topic in PLATFORM)


@dataclass(frozen=True, slots=True)
class Finding:
    """One topic. `differences` are for people; `agents` are those that read or write it."""

    topic: Topic
    partitions: int
    action: Action
    differences: tuple[str, ...] = ()
    agents: tuple[str, ...] = ()

    def row(self) -> dict[str, Any]:
        return {
            "topic": self.topic.name,
            "action": self.action,
            "partitions": self.partitions,
            "config": self.topic.config,
            "differences": list(self.differences),
            "agents": list(self.agents),
        }


@dataclass(slots=True)
class Declared:
    """Topics by name, with the agents that use each."""

    topics: dict[str, Topic] = field(default_factory=lambda: {topic.name: topic for topic in PLATFORM})
    agents: dict[str, set[str]] = field(default_factory=dict)

    def add(self, agent: str, topics: Iterable[Topic]) -> None:
        for topic in topics:
            self.topics.setdefault(topic.name, topic)
            self.agents.setdefault(topic.name, set()).add(agent)


_NOTHING_TOLD: Final[Mapping[str, int]] = {}


def read_by(declaration: Mapping[str, Any]) -> set[str]:
    """The topics that an agent in the catalog reads events from."""
    return {str(event) for subscription in declaration["subscriptions"] for event in types_in(subscription["on"])}


def add_catalog(declared: Declared, view: View, limits: Mapping[str, int] = _NOTHING_TOLD) -> Declared:
    """`limits`: the largest record of each topic, as far as the broker tells."""
    for declaration in view.active():
        types = {
            str(event) for subscription in declaration["subscriptions"] for event in (*types_in(subscription["on"]), *subscription["emits"])
        }
        types |= set(declaration.get("schemas", {}))
        name = declaration["name"]
        own = own_topics(name, declared_hops(declaration), input_bytes_max(limits, read_by(declaration)))
        declared.add(name, [*(event_topic(event) for event in sorted(types - _PLATFORM_NAMES)), *own])
    return declared


def plan(
    declared: Declared, there: Mapping[str, int], configs: Mapping[str, Mapping[str, str]], id_spaces: Mapping[str, str], partitions: int
) -> list[Finding]:
    """`configs` and `id_spaces` hold what could be found out; a topic that is not in them is not held to them."""
    findings = []
    for name, topic in sorted(declared.topics.items()):
        agents = tuple(sorted(declared.agents.get(name, ())))
        count = there.get(name)
        if count is None:
            findings.append(Finding(topic, topic.partitions or partitions, "create", (), agents))
            continue
        differences = [
            f"{setting}: expected {wanted}, found {found}"
            for setting, wanted in topic.config.items()
            if (found := configs.get(name, {}).get(setting)) is not None and not _suffices(setting, wanted, found)
        ]
        if name in id_spaces:
            differences.append(id_spaces[name])
        findings.append(Finding(topic, count, "differs" if differences else "ok", tuple(differences), agents))
    return findings


def _suffices(setting: str, wanted: str, found: str) -> bool:
    return int(found) >= int(wanted) if setting == "max.message.bytes" else found == wanted


def id_space_fault(topic: str, schema_ids: Collection[int], registry: bool) -> str | None:
    """One topic has one id space: ids derived from schemas, or ids of a registry. None: nothing speaks against it."""
    derived = sum(map(is_derived, schema_ids))
    if 0 < derived < len(schema_ids):
        others = len(schema_ids) - derived
        return f"schema ids: expected one id space, found {derived} derived ids and {others} of a registry among the newest records"
    if schema_ids and registry != (derived == 0) and not topic.startswith("maypole."):
        found, used = (
            ("derived ids", "a registry is set here")
            if registry
            else ("ids of a registry", "no registry is set here (SCHEMA_REGISTRY_URL)")
        )
        return f"schema ids: the newest records have {found}, and {used}"
    return None


def kind_of(topic: str) -> str:
    if topic in _PLATFORM_NAMES:
        return "platform"
    if topic.endswith(".dlq"):
        return "dead letters"
    return "commands" if topic.endswith(".commands") else "retry" if ".retry." in topic else "events"
