"""A real registry judges the same pairs of schemas as our own compatibility check, and hands out what we registered."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from maypole.schemas.avro import DERIVED_ID_MIN, Schema
from maypole.schemas.confluent import ConfluentRegistry, RegistryRefused
from maypole.schemas.errors import UnknownSchema
from maypole.schemas.identifiers import new_flow_id
from tests.unit.schemas.verdicts import VERDICTS, Verdict, one

pytestmark = pytest.mark.registry


@pytest.fixture
async def registry(registry_url: str) -> AsyncIterator[ConfluentRegistry]:
    async with ConfluentRegistry(registry_url) as registry:
        yield registry


@pytest.fixture
def subject() -> str:
    return f"case-{new_flow_id()}-value"


@pytest.mark.parametrize("verdict", VERDICTS, ids=lambda verdict: verdict.name)
async def test_the_registry_judges_a_pair_as_we_do(registry: ConfluentRegistry, subject: str, verdict: Verdict) -> None:
    writer, reader = Schema.parse(verdict.writer), Schema.parse(verdict.reader)
    await registry.id_of(subject, writer)
    await registry.require(subject)

    reasons = await registry.check(subject, reader)

    assert (not reasons) == (verdict.readable is not bool(verdict.differs)), reasons or "the registry has no objection"


async def test_an_incompatible_schema_is_refused_with_the_registrys_reasons(registry: ConfluentRegistry, subject: str) -> None:
    await registry.id_of(subject, Schema.parse(one("string")))
    await registry.require(subject)

    with pytest.raises(RegistryRefused, match="compatib") as caught:
        await registry.id_of(subject, Schema.parse(one("long")))

    assert caught.value.reasons


async def test_a_registered_schema_comes_back_under_its_id(registry: ConfluentRegistry, subject: str) -> None:
    schema = Schema.parse(one(["null", "string"], default=None))

    assert await registry.lookup(subject, schema) is None
    schema_id = await registry.id_of(subject, schema)

    assert 0 < schema_id < DERIVED_ID_MIN
    assert await registry.lookup(subject, schema) == schema_id
    async with ConfluentRegistry(registry._url) as other:
        assert await other.schema_of(schema_id) == schema


async def test_an_id_that_nobody_registered_is_unknown(registry: ConfluentRegistry) -> None:
    with pytest.raises(UnknownSchema, match="999999"):
        await registry.schema_of(999_999)
