"""What only a server can do to a coordinator's store: become one that may only be read, as a standby is."""

from __future__ import annotations

import asyncio
import logging
from uuid import uuid4

import pytest

from deploy.local.postgres import Postgres
from maypole.schemas.identifiers import FlowId
from maypole.services.coordinator.stores.patient import PatientStore
from maypole.services.coordinator.stores.port import Changes, Row
from maypole.services.coordinator.stores.postgres import open_postgres_store
from tests.support.read_only import read_only

ONE, TWO = (Row(FlowId(name), b"{}", b"", None, "", None, None, False, 0) for name in ("one", "two"))


async def test_a_server_that_may_only_be_read_is_waited_for_said_once_and_nothing_is_lost(
    postgres: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "maypole.services.coordinator")
    async with open_postgres_store(postgres.address, uuid4().hex) as behind:
        store = PatientStore(behind)
        epoch, _ = await store.take(0, "1")
        await store.save(0, epoch, 7, Changes((ONE,), (), ()))
        async with read_only(postgres.address):
            saving = asyncio.create_task(store.save(0, epoch, 8, Changes((TWO,), (), ())))
            done, _ = await asyncio.wait({saving}, timeout=1)  # the tries in it, the first after 0.1 s, meet a server that answers
            assert not done
        await asyncio.wait_for(saving, 30)
        assert await store.load(0, [ONE.flow_id, TWO.flow_id]) == {ONE.flow_id: ONE, TWO.flow_id: TWO}
        assert await store.take(0, "1") == (epoch + 1, 8)
    assert [record.getMessage() for record in caplog.records] == ["coordinator.store_unavailable", "coordinator.store_back"]
