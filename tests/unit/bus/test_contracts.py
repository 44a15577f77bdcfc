"""What waits for a registry, and what does not."""

from __future__ import annotations

import logging
from typing import Any, cast

import pytest

from maypole.bus.contracts import Contracts
from maypole.schemas.avro import Schema, schema_of
from maypole.schemas.confluent import NoRegistry, RegistryRefused, RegistryUnreachable
from maypole.schemas.errors import UnknownSchema
from maypole.schemas.research import ResearchRequested

SCHEMA = schema_of(ResearchRequested)


class Answering:
    """A registry that raises what it is given, one thing a question, before it answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)

    async def id_of(self, subject: str, schema: Schema) -> int:
        if self.errors:
            raise self.errors.pop(0)
        return 7

    async def schema_of(self, schema_id: int) -> Schema:
        if self.errors:
            raise self.errors.pop(0)
        return SCHEMA


def contracts(*errors: Exception) -> Contracts:
    async def at_once(seconds: float) -> None:
        return None

    return Contracts(cast("Any", None), Answering(*errors), at_once)


async def test_a_writer_waits_for_a_registry_that_is_away_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    away = RegistryUnreachable("away")
    with caplog.at_level(logging.WARNING):
        writer = await contracts(away, away, away).writer(ResearchRequested)
    assert writer.encode(ResearchRequested(question="why?"))[:5] == b"\0\0\0\0\7"
    assert [record.message for record in caplog.records] == ["contracts.answer_awaited"]


@pytest.mark.parametrize("refused", [RegistryRefused("no", ("because",), 409), NoRegistry("a web page")])
async def test_a_writer_does_not_wait_for_one_that_refuses(refused: RegistryRefused) -> None:
    with pytest.raises(type(refused)):
        await contracts(refused).writer(ResearchRequested)


@pytest.mark.parametrize("error", [RegistryUnreachable("away"), RegistryRefused("no", (), 401), NoRegistry("a web page")])
async def test_a_value_waits_until_a_registry_tells_its_schema(error: Exception) -> None:
    reader = await contracts(error, error).reader(ResearchRequested, 7)
    assert reader is not None


async def test_a_value_whose_schema_nobody_knows_does_not_wait() -> None:
    with pytest.raises(UnknownSchema):
        await contracts(UnknownSchema(7, "the registry")).reader(ResearchRequested, 7)
