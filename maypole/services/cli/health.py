"""What `maypole doctor` finds out. Every check ends in bounded time with a row, whatever is broken."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from maypole.bus.catalog import View, open_catalog
from maypole.bus.composition import open_transport
from maypole.bus.ports import BrokerUnreachable, Transport
from maypole.schemas.confluent import ConfluentRegistry, RegistryRefused, RegistryUnreachable
from maypole.schemas.topics import CATALOG, PLATFORM
from maypole.services.cli.agent_status import agent_rows, breaker_told
from maypole.services.cli.connection import NO_BROKER_HINT
from maypole.services.cli.writable import write_refused
from maypole.services.coordinator.naming import COORDINATOR
from maypole.settings import Settings
from maypole.tracing.opening import destination_of

Status = Literal["ok", "warning", "failed"]
_SECONDS: Final = 5.0
_COLLECTOR_NAMED_BY: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


@dataclass(frozen=True, slots=True)
class Check:
    """`do` is empty where nothing has to be done."""

    check: str
    status: Status
    found: str
    do: str = ""

    def row(self) -> dict[str, Any]:
        return asdict(self)


async def examine(settings: Settings) -> list[Check]:
    """The broker's check is the one called `broker`; without it the ones that need it are left out."""
    checks = [_versions(), await asyncio.to_thread(_home, settings.home)]
    checks += await _kafka(settings)
    checks.append(await _bounded("registry", lambda: _registry(settings)))
    checks.append(await _bounded("spans", lambda: _spans(settings)))
    checks.append(await _bounded("jaeger", lambda: _jaeger(settings)))
    return checks


async def _bounded(name: str, ask: Callable[[], Awaitable[Check]]) -> Check:
    try:
        return await asyncio.wait_for(ask(), _SECONDS)
    except TimeoutError:
        return Check(name, "failed", f"no answer within {_SECONDS:g} s", "is it still starting?")


def _versions() -> Check:
    packages = ("maypole", "confluent-kafka", "aiokafka", "fastavro", "pydantic")
    return Check("versions", "ok", f"Python {sys.version.split()[0]}, " + ", ".join(f"{name} {version(name)}" for name in packages))


def _home(home: Path) -> Check:
    refused = write_refused(home)
    if refused is not None:
        return Check("home", "failed", refused, "set MAYPOLE_HOME to a folder that can be written")
    return Check("home", "ok", f"{home}{'' if home.exists() else ' (made when it is needed)'}")


async def _kafka(settings: Settings) -> list[Check]:
    if settings.kafka is None:
        return [Check("broker", "failed", "no address: MAYPOLE_KAFKA is not set and there is no endpoints.json", NO_BROKER_HINT)]
    try:
        async with asyncio.timeout(4 * _SECONDS), open_transport(settings) as transport:
            return await _cluster(settings, transport)
    except (BrokerUnreachable, TimeoutError, ValueError) as error:
        found = f"{settings.kafka} (from {settings.kafka_source}): {str(error) or 'no answer'}"
        return [Check("broker", "failed", found, NO_BROKER_HINT)]


async def _cluster(settings: Settings, transport: Transport) -> list[Check]:
    cluster = await transport.cluster.cluster_id()
    there = await transport.cluster.topics()
    kind = "embedded, in memory" if not transport.features.survives_restart else settings.transport
    checks = [Check("broker", "ok", f"{settings.kafka} (from {settings.kafka_source}), {kind}"), Check("cluster", "ok", cluster)]
    missing = [topic.name for topic in PLATFORM if topic.name not in there]
    if missing:
        checks.append(Check("topics", "warning", f"{len(there)}, without {', '.join(missing)}", "maypole topics apply"))
    else:
        checks.append(Check("topics", "ok", f"{len(there)}"))
    checks += await _announced(transport) if CATALOG in there else [_no_agents()]
    return checks


async def _announced(transport: Transport) -> list[Check]:
    async with transport.sink() as sink, open_catalog(transport, sink) as catalog:
        return [_agents(catalog.view), _coordinator(catalog.view)]


def _coordinator(view: View) -> Check:
    alive = view.alive(COORDINATOR, datetime.now(UTC).timestamp())
    if not alive:
        return Check(
            "coordinator",
            "warning",
            "none is running: flows that fail are not undone, and none ends by its deadline",
            "maypole coordinator",
        )
    facts, partitions = _at_work([view.instances[COORDINATOR, instance] for instance in alive])
    alarms, letters, parked = (sum(int(each.get(name, 0)) for each in facts) for name in ("alarms", "letters", "parked_flows"))
    found = [f"{len(facts)} running, {partitions} partitions of the journal"]
    if parked:
        found.append(f"parked, because the catalog does not hold their choreography: {parked} flows")
    if alarms or letters:
        found.append(f"{alarms} alarms and {letters} dead letters since it started")
    if found[1:]:
        do = f"maypole flows stuck, maypole dlq list {COORDINATOR}" if letters else "maypole flows stuck"
        return Check("coordinator", "warning", "; ".join(found), do)
    return Check("coordinator", "ok", found[0])


def _at_work(heartbeats: Iterable[Mapping[str, Any]]) -> tuple[list[Mapping[str, Any]], int]:
    """Those that run, and how many partitions they have between them.

    One that was killed is heard of for a while. A partition belongs to whoever told of it last, and an instance of whose
    partitions each was told of by another since is gone: one that lives tells what it has left with its next heartbeat.
    """
    running: list[Mapping[str, Any]] = []
    taken: set[int] = set()
    for each in sorted(heartbeats, key=lambda facts: datetime.fromisoformat(facts["seen_at"]), reverse=True):
        told = set(each.get("partitions", ()))
        if not told or told - taken:
            running.append(each)
            taken |= told
    return running, len(taken)


def _agents(view: View) -> Check:
    rows = agent_rows(view, datetime.now(UTC))
    if not rows:
        return _no_agents()
    waited = [row["agent"] for row in rows if row["state"] in ("silent", "stopped")]
    running = [row["agent"] for row in rows if row["state"] == "running"]
    found = f"running: {', '.join(running) or 'none'}" + (f"; not running, and flows wait for them: {', '.join(waited)}" if waited else "")
    shut = [f"{row['agent']}: {told}" for row in rows for told in dict.fromkeys(map(breaker_told, row["breakers"]))]
    found = "; ".join((found, *shut))
    do = f"run them, or maypole agents retire {waited[0]}" if waited else "see to what they need; maypole agents show NAME" if shut else ""
    return Check("agents", "warning" if waited or shut else "ok", found, do)


def _no_agents() -> Check:
    return Check("agents", "warning", "none has announced itself", "maypole run maypole.services.research")


async def _registry(settings: Settings) -> Check:
    if settings.registry_url is None:
        return Check("registry", "ok", "none set: schema ids are derived, and schemas travel in the catalog")
    try:
        async with ConfluentRegistry(settings.registry_url) as registry:
            await registry.require_answer()
    except RegistryUnreachable as error:
        return Check("registry", "failed", str(error), "start it, or unset SCHEMA_REGISTRY_URL")
    except RegistryRefused as error:
        return Check("registry", "failed", str(error), "correct SCHEMA_REGISTRY_URL, or unset it")
    return Check("registry", "ok", _shown(settings.registry_url))


async def _spans(settings: Settings) -> Check:
    if settings.tracing == "off":
        return Check("spans", "ok", "off (MAYPOLE_TRACING)")
    destination = destination_of(settings)
    if destination is None:
        if settings.otlp_endpoint is None and not any(os.environ.get(name) for name in _COLLECTOR_NAMED_BY):
            return Check(
                "spans", "ok", "not exported: no OTLP address is set", "make local starts Jaeger, or set OTEL_EXPORTER_OTLP_ENDPOINT"
            )
        return Check("spans", "ok", "not exported: OTEL_SDK_DISABLED or OTEL_TRACES_EXPORTER says so")
    endpoint = destination.collector
    if endpoint is None:
        return Check("spans", "ok", f"exported by {destination.address}")
    try:
        # A gRPC collector may be named without a scheme.
        parts = urlsplit(endpoint if "//" in endpoint else f"//{endpoint}")
        _, writer = await asyncio.open_connection(parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
        writer.close()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        return Check("spans", "warning", f"{_shown(endpoint)}: {reason}", "delivery goes on without them; start the collector")
    return Check("spans", "ok", f"exported to {_shown(endpoint)}")


async def _jaeger(settings: Settings) -> Check:
    if settings.jaeger_url is None:
        return Check("jaeger", "ok", "no address is set, so no links are printed", "make local, or set MAYPOLE_JAEGER_URL")
    status = await _get(f"{settings.jaeger_url}/api/v3/services")
    if isinstance(status, int) and status < 400:
        return Check("jaeger", "ok", _shown(settings.jaeger_url))
    return Check("jaeger", "warning", f"{_shown(settings.jaeger_url)}: {status}", "start it, or correct MAYPOLE_JAEGER_URL")


async def _get(url: str) -> int | str:
    """The status, or why there is none."""
    import httpx

    try:
        async with httpx.AsyncClient(timeout=_SECONDS) as client:
            return (await client.get(url)).status_code
    except httpx.HTTPError as error:
        return f"{type(error).__name__} {error}".strip()


def _shown(url: str) -> str:
    """Without a user and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
