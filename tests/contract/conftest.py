"""`broker` runs each test on every broker and client; a test that needs a feature parametrises it with `those`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import pytest

from maypole.bus.kafka.embedded import EmbeddedKafka
from maypole.bus.memory.broker import MemoryBroker
from maypole.bus.memory.virtual_time import virtual_time
from maypole.bus.ports import Transport
from tests.contract.brokers import KINDS, Broker, Kind


@pytest.fixture(scope="session")
def embedded() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka() as kafka:
        yield kafka


@pytest.fixture(params=KINDS, ids=str)
async def broker(request: pytest.FixtureRequest) -> AsyncIterator[Broker]:
    kind: Kind = request.param
    async with AsyncExitStack() as stack:
        if kind is Kind.MEMORY:
            clock = await stack.enter_async_context(virtual_time())
            yield Broker(kind, memory=MemoryBroker(clock.now))
        elif kind.embedded:
            kafka: EmbeddedKafka = request.getfixturevalue("embedded")
            yield Broker(kind, kafka.bootstrap, embedded=kafka)
        else:
            yield Broker(kind, request.getfixturevalue("kafka"))


@pytest.fixture
async def transport(broker: Broker) -> AsyncIterator[Transport]:
    async with broker.connect() as transport:
        yield transport
