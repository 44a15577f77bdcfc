"""Partitions that somebody adds to the journal of a real cluster while a coordinator runs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions

from deploy.local.kafka import KafkaCluster
from maypole.bus.composition import open_platform
from maypole.schemas.topics import JOURNAL
from maypole.services.coordinator.opening import open_coordinator
from maypole.services.coordinator.width import JournalRepartitioned
from maypole.settings import Settings
from tests.support import services


@pytest.mark.timeout(360)
async def test_partitions_added_to_the_journal_end_the_coordinator(tmp_path: Path, services_folder: Path) -> None:
    # A broker of its own: partitions that were added cannot be taken away.
    with services.cluster(services_folder / "widened", 1) as kafka:
        await _widened(kafka, tmp_path)


async def _widened(kafka: KafkaCluster, home: Path) -> None:
    settings = Settings(home=home, tracing="off").at(kafka.bootstrap, "the test")
    async with open_platform(settings) as platform, open_coordinator(platform) as coordinator:
        task = asyncio.create_task(coordinator.run())
        await asyncio.wait_for(coordinator.ready.wait(), 60)
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
        adding = admin.create_partitions([NewPartitions(JOURNAL, 6)])
        await asyncio.to_thread(adding[JOURNAL].result, 30)
        await asyncio.wait({task}, timeout=60)
        with pytest.raises(JournalRepartitioned, match=r"expected 4 partitions of maypole\.journal, .* found 6"):
            task.result()
