"""What only a server can do to a coordinator's store: become one that may only be read, as a standby is."""

from __future__ import annotations

import asyncio
import logging
import random
from uuid import uuid4

import pytest

from deploy.local.postgres import Postgres
from maypole.schemas.identifiers import FlowId
from maypole.services.coordinator.stores.patient import PatientStore
from maypole.services.coordinator.stores.port import Changes, Row, StoreCorrupt
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


async def test_a_key_that_no_index_takes_is_an_error_and_not_waited_for(postgres: Postgres) -> None:
    letters = "".join(map(chr, random.Random(5).choices(range(0x4E00, 0x9FFF), k=1000)))  # 3,000 bytes that cannot be compressed
    async with open_postgres_store(postgres.address, uuid4().hex) as behind:
        store = PatientStore(behind)
        epoch, _ = await store.take(0, "1")
        longest = ONE._replace(flow_id=FlowId(letters[:341]))
        await store.save(0, epoch, 7, Changes((longest,), (), ()))
        assert await store.load(0, [longest.flow_id]) == {longest.flow_id: longest}
        with pytest.raises(StoreCorrupt, match=r"will never take what it was asked to write: index row.* waiting does not help"):
            await asyncio.wait_for(store.save(0, epoch, 8, Changes((ONE._replace(flow_id=FlowId(letters)),), (), ())), 10)
