"""One KRaft node: its settings, its folder, the command that runs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.local.ports import LOOPBACK, choose_ports

HEAP_MB: Final = {1: 512, 3: 384}
"""Heap of a node by the number of nodes. Resident memory is about 420 MB for the one, 330 MB for each of three."""

_LOG_SETTINGS: Final = Path(__file__).parent / "log4j2.properties"


@dataclass(frozen=True, slots=True)
class KafkaPorts:
    """`broker` for clients, `controller` for the quorum."""

    broker: int
    controller: int

    @classmethod
    def fixed(cls, nodes: int) -> tuple[KafkaPorts, ...]:
        """9092 and up: where people and tools look for Kafka."""
        return tuple(cls(9092 + 2 * index, 9093 + 2 * index) for index in range(nodes))

    @classmethod
    def chosen(cls, nodes: int) -> tuple[KafkaPorts, ...]:
        ports = choose_ports(2 * nodes)
        return tuple(cls(ports[2 * index], ports[2 * index + 1]) for index in range(nodes))


def properties(node: int, ports: Sequence[KafkaPorts], data: Path) -> str:
    """`server.properties` of a node, counted from 1, that is broker and controller in one."""
    own = ports[node - 1]
    settings = {
        "process.roles": "broker,controller",
        "node.id": node,
        "controller.quorum.voters": ",".join(f"{number}@{LOOPBACK}:{each.controller}" for number, each in enumerate(ports, start=1)),
        "listeners": f"PLAINTEXT://{LOOPBACK}:{own.broker},CONTROLLER://{LOOPBACK}:{own.controller}",
        "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{own.broker}",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": data,
        **behaviour(len(ports)),
    }
    return "".join(f"{name}={value}\n" for name, value in settings.items())


def behaviour(nodes: int) -> dict[str, str | int]:
    """The settings that tell how a cluster of this size behaves, wherever its nodes run."""
    in_sync = 2 if nodes == 3 else 1
    settings: dict[str, str | int] = {
        # A topic is declared or it does not exist: a mistyped name must not become a topic with other settings.
        "auto.create.topics.enable": "false",
        "default.replication.factor": nodes,
        "min.insync.replicas": in_sync,
        "offsets.topic.num.partitions": 3,
        "offsets.topic.replication.factor": nodes,
        "transaction.state.log.num.partitions": 3,
        "transaction.state.log.replication.factor": nodes,
        "transaction.state.log.min.isr": in_sync,
        "share.coordinator.state.topic.num.partitions": 3,
        "share.coordinator.state.topic.replication.factor": nodes,
        "share.coordinator.state.topic.min.isr": in_sync,
        "group.initial.rebalance.delay.ms": 0,
        # A killed member holds its partitions for a session; in the new group protocol its length is the broker's choice.
        "group.min.session.timeout.ms": 1000,
        "group.consumer.min.session.timeout.ms": 1000,
        "group.consumer.session.timeout.ms": 6000,
        "group.consumer.min.heartbeat.interval.ms": 500,
        # A member hears of its share, and of what it must give back, with a heartbeat; and a group that changed within the
        # assignment interval (a second, unless told otherwise) waits for its end. Together they made an agent that came
        # right after another one had left wait two seconds for its partitions; now it has them 0.6 s after its start.
        "group.consumer.heartbeat.interval.ms": 500,
        "group.consumer.assignment.interval.ms": 0,
        # The cleaner's default buffer of 128 MB would be a third of the heap.
        "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
    }
    # A node that was killed and comes back is refused until its session has ended.
    settings["broker.session.timeout.ms"] = 6000 if nodes > 1 else 3000
    settings["broker.heartbeat.interval.ms"] = 500
    return settings


def java_command(java: str, jars: Path, nodes: int, main: str, *arguments: str, brief: bool) -> list[str]:
    """`brief`: it ends before the code that Java would optimise has paid for that; it starts with half the processor time."""
    return [
        java,
        *(["-XX:TieredStopAtLevel=1"] if brief else []),
        f"-Xmx{HEAP_MB[nodes]}m",
        "-XX:+UseG1GC",
        "-XX:MaxGCPauseMillis=20",
        "-Djava.awt.headless=true",
        f"-Dlog4j2.configurationFile={_LOG_SETTINGS}",
        "-cp",
        f"{jars}/*",  # Java expands it; no shell sees it
        main,
        *arguments,
    ]
