"""Apicurio Registry from Maven, in memory, spoken to through Confluent's API."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import httpx

from deploy.local.cache import cached
from deploy.local.faults import LocalFault
from deploy.local.java import find_java
from deploy.local.ports import LOOPBACK, choose_ports, require_free
from deploy.local.process import Process, start, wait_ready
from deploy.local.tools import copy_from_maven

FIXED_PORT: Final = 8081

_POM: Final = Path(__file__).parent / "pom.xml"


class Registry:
    """Ready in about five seconds, in 290 MB. Refuses what is not BACKWARD_TRANSITIVE compatible with 409."""

    def __init__(self, logs: Path, port: int, started: Callable[[Process], None] = lambda process: None) -> None:
        self.port = port
        self._logs = logs
        self._started = started
        self._process: Process | None = None

    @property
    def url(self) -> str:
        """What `SCHEMA_REGISTRY_URL` is set to."""
        return f"http://{LOOPBACK}:{self.port}/apis/ccompat/v7"

    def start(self) -> None:
        require_free([("the schema registry", self.port)])
        java, jar = find_java(21, "the schema registry"), _jar()
        # Its management interface would open port 9000 to the network; nobody here asks it anything.
        [unasked] = choose_ports(1)
        addresses = {"http.host": LOOPBACK, "http.port": self.port, "management.host": LOOPBACK, "management.port": unasked}
        options = [f"-Dquarkus.{name}={value}" for name, value in addresses.items()]
        # Asked a few hundred things in its life: optimising its code would take longer than running it.
        self._process = start(
            "schema registry", [java, "-Xmx512m", "-XX:TieredStopAtLevel=1", *options, "-jar", str(jar)], self._logs / "registry.log"
        )
        self._started(self._process)
        try:
            wait_ready(self._answers, [self._process], 90, f"the schema registry to answer at {self.url}")
            rule = {"compatibility": "BACKWARD_TRANSITIVE"}
            httpx.put(f"{self.url}/config", json=rule, timeout=10).raise_for_status()
        except BaseException:
            self._process.kill()
            raise

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop(patience_seconds=10)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/subjects", timeout=2).status_code == 200
        except httpx.TransportError:
            return False


def _jar() -> Path:
    def unpack(folder: Path) -> None:
        # Maven keeps a note of what it has unpacked, beside the POM unless told otherwise, and would not do it again.
        copy_from_maven(_POM, "unpack-dependencies", f"-DoutputDirectory={folder}", f"-DmarkersDirectory={folder / '.markers'}")

    folder = cached("registry", _POM.read_text(), unpack, "fetching Apicurio Registry with Maven (once, 158 MB)")
    found = sorted(folder.rglob("quarkus-run.jar"))
    if not found:
        raise LocalFault(f"the schema registry: expected quarkus-run.jar in {folder}, found none; remove that folder to fetch it again")
    return found[0]
