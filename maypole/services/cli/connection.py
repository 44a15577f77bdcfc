"""Opening the platform for one command, with the next step for everything that can be in the way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import click

from maypole.bus.composition import Platform, open_platform, open_transport
from maypole.bus.ports import BrokerUnreachable, Transport
from maypole.services.cli.problems import ExitCode, Problem
from maypole.services.cli.session import Session
from maypole.tracing.opening import destination_of

if TYPE_CHECKING:
    from maypole.settings import Settings

NO_BROKER_HINT = "maypole dev   (an embedded broker with agents, in another terminal), make local, or --kafka HOST:PORT"


@asynccontextmanager
async def connected(session: Session) -> AsyncIterator[Platform]:
    """The platform's own topics are made when they are missing. Raises `Problem` with exit code 5 where there is no broker."""
    with _explained(session.settings):
        async with open_platform(session.settings) as platform:
            yield platform


@asynccontextmanager
async def connected_transport(session: Session) -> AsyncIterator[Transport]:
    """The broker alone: nothing is made, not even the platform's topics."""
    with _explained(session.settings):
        async with open_transport(session.settings) as transport:
            yield transport


@contextmanager
def _explained(settings: Settings) -> Iterator[None]:
    if settings.kafka is None:
        raise Problem(
            f"expected a Kafka broker, found none: MAYPOLE_KAFKA is not set and there is no endpoints.json in {settings.home}",
            ExitCode.UNREACHABLE,
            NO_BROKER_HINT,
        )
    try:
        yield
    except BrokerUnreachable as error:
        raise Problem(f"{error} (the address comes from {settings.kafka_source})", ExitCode.UNREACHABLE, NO_BROKER_HINT) from error


@asynccontextmanager
async def connected_if_any(session: Session) -> AsyncIterator[Platform | None]:
    """None, with a word on standard error, where no broker is known: what ships with Maypole can be told without one."""
    if session.settings.kafka is None:
        click.echo(click.style("no broker is known here: only what ships with Maypole is shown, not the agents' own", dim=True), err=True)
        yield None
        return
    async with connected(session) as platform:
        yield platform


def trace_url(settings: Settings, trace_id: str) -> str | None:
    """None where no spans are exported, or nobody said where Jaeger is."""
    if settings.jaeger_url is None or destination_of(settings) is None:
        return None
    return f"{settings.jaeger_url}/trace/{trace_id}"
