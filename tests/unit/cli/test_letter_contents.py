"""What can be said of a dead letter when not everything that it takes can be had."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from maypole.bus.ports import Delivery
from maypole.bus.redrive import Copies
from maypole.services.cli import letter_contents


class SilentContracts:
    """As of a registry that nobody answers for."""

    async def schema(self, schema_id: int) -> Any:
        await asyncio.Event().wait()


async def test_a_letter_whose_schema_nobody_tells_is_shown_without_its_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(letter_contents, "PUBLISH_SECONDS", 0.05)
    record = Delivery("reading.dlq", 0, 7, 0, b"flow", b"\x00\x00\x00\x00\x05rest", ())
    platform: Any = SimpleNamespace(contracts=SilentContracts())
    async with asyncio.timeout(30):
        told = await letter_contents.opened(platform, record, Copies())
    assert told["schema_id"] == 5 and told["data"] is None
    assert told["data_error"] == "expected somebody to tell schema 5 within 0.05 s, found no answer: maypole doctor"
