"""Kafka in a container, where a Docker daemon answers.

testcontainers' own KafkaContainer expects the layout of Confluent's image; this one fits Apache's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, cast
from urllib.parse import urlsplit

from deploy.local.kafka.node import behaviour
from deploy.local.ports import LOOPBACK, choose_ports

IMAGE: Final = "apache/kafka:4.3.1"


def docker_answers() -> bool:
    """Whether a daemon is there, asked for two seconds at most, and only where one can be expected."""
    address = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if address.startswith("unix:") and not Path(urlsplit(address).path).exists():
        return False
    import docker  # only here: most machines that run the tests have no daemon, and the import takes a while

    try:
        client = docker.from_env(timeout=2)
        try:
            return bool(client.ping())
        finally:
            client.close()
    except (docker.errors.DockerException, OSError):
        return False


@contextmanager
def kafka_in_docker() -> Iterator[str]:
    """One node, reachable on loopback only; yields its bootstrap address once it takes requests."""
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.wait_strategies import LogMessageWaitStrategy

    [port] = choose_ports(1)
    container = DockerContainer(IMAGE)
    # Clients outside reach the node by another address than the node reaches itself.
    container.with_envs(
        **{
            f"KAFKA_{name.upper().replace('.', '_')}": str(value)
            for name, value in {
                **behaviour(1),
                "node.id": 1,
                "process.roles": "broker,controller",
                "controller.quorum.voters": "1@localhost:9093",
                "listeners": "CLIENTS://0.0.0.0:9092,INTERNAL://localhost:29092,CONTROLLER://localhost:9093",
                "advertised.listeners": f"CLIENTS://{LOOPBACK}:{port},INTERNAL://localhost:29092",
                "listener.security.protocol.map": "CLIENTS:PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
                "inter.broker.listener.name": "INTERNAL",
                "controller.listener.names": "CONTROLLER",
            }.items()
        }
    )
    # The Docker client takes a pair of address and port; `with_bind_ports` knows ports only, and opens them to the network.
    cast("dict[str, object]", container.ports)["9092/tcp"] = (LOOPBACK, port)
    container.waiting_for(LogMessageWaitStrategy("Kafka Server started").with_startup_timeout(120))
    with container:
        yield f"{LOOPBACK}:{port}"
