from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from maypole.bus import Reject, RetryLater
from maypole.bus.subscription import Kind
from maypole.schemas.report import ReportPublished
from maypole.services.artefacts import Artefacts
from maypole.services.delivery import delivery, folder
from maypole.services.delivery.address import DeliveryFailed
from maypole.services.delivery.agent import _reports, deliver
from tests.unit.services.delivery.test_delivery_address import receiver, status
from tests.unit.services.steps import context


def published(deliver_to: str | None) -> ReportPublished:
    return ReportPublished(
        question="Why does a bee dance?",
        title="Why does a bee dance?",
        markdown="# Bées\n",
        sources=("Bees (bees.md)",),
        confidence=0.9,
        deliver_to=deliver_to,
    )


def test_delivering_is_the_point_of_no_return() -> None:
    assert [subscription.kind for subscription in delivery.subscriptions] == [Kind.PIVOT]


async def test_a_report_lies_in_the_folder_it_was_asked_for(tmp_path: Path) -> None:
    delivered = await deliver(published(str(tmp_path / "out")), context(tmp_path / "home"))
    assert delivered.where == str(tmp_path / "out" / "why-does-a-bee-dance-1f3a9c2e.md")
    assert delivered.bytes == 8


async def test_a_copy_of_what_was_delivered_is_kept(tmp_path: Path) -> None:
    asked = published(str(tmp_path / "out"))
    delivered = await deliver(asked, context(tmp_path / "home"))
    kept = Artefacts(tmp_path / "home").get("step-1")
    assert kept == f"{delivered.model_dump_json()}\n{asked.markdown}"


async def test_a_report_that_nobody_gave_a_place_lies_in_the_home_of_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAYPOLE_HOME", str(tmp_path / "home"))
    _reports.cache_clear()
    delivered = await deliver(published(None), context(tmp_path / "home" / "clusters" / "one" / "agents" / "delivery"))
    _reports.cache_clear()
    assert Path(delivered.where).parent == tmp_path / "home" / "reports"


async def test_a_report_is_posted_under_the_steps_idempotency_key_and_once(tmp_path: Path) -> None:
    requests: list[bytes] = []
    async with receiver(status("200 OK"), requests) as address:
        delivered = await deliver(published(address.url), context(tmp_path))
        assert await deliver(published(address.url), context(tmp_path, attempt=2)) == delivered
    (request,) = requests
    assert b"idempotency-key: step-1\r\n" in request.lower()
    assert delivered.where == address.shown


@pytest.mark.parametrize("place", ["relative/folder", "/proc/self/reports"])
async def test_a_place_that_cannot_work_is_rejected(place: str, tmp_path: Path) -> None:
    with pytest.raises(Reject, match="expected a") as raised:
        await deliver(published(place), context(tmp_path))
    assert not raised.value.acted


async def test_a_refusal_of_the_receiver_is_rejected_with_its_status(tmp_path: Path) -> None:
    async with receiver(status("403 Forbidden"), []) as address:
        with pytest.raises(Reject, match="answered 403 Forbidden") as raised:
            await deliver(published(address.url), context(tmp_path))
    assert not raised.value.acted


async def test_a_receiver_in_trouble_is_tried_again_and_nothing_counts_as_delivered(tmp_path: Path) -> None:
    async with receiver(status("503 Service Unavailable"), []) as address:
        with pytest.raises(DeliveryFailed, match="answered 503"):
            await deliver(published(address.url), context(tmp_path))
    requests: list[bytes] = []
    async with receiver(status("200 OK"), requests) as address:
        await deliver(published(address.url), context(tmp_path, attempt=2))
    assert len(requests) == 1


async def test_whoever_was_not_reached_has_got_nothing(tmp_path: Path) -> None:
    async with receiver(status("200 OK"), []) as address:
        gone = address.url
    with pytest.raises(RetryLater, match="could not be reached") as raised:
        await deliver(published(gone), context(tmp_path))
    assert not raised.value.acted


async def test_a_report_that_a_full_disk_refused_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for code, error in ((errno.ENOSPC, RetryLater), (errno.EIO, OSError)):

        def refuse(*_: object, code: int = code) -> Path:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(folder, "put", refuse)
        with pytest.raises(error) as raised:
            await deliver(published(str(tmp_path / "out")), context(tmp_path))
        assert getattr(raised.value, "acted", True) is (code == errno.EIO), "of a broken disk nobody knows what is on it"
