"""Puts a report where it was asked for: a folder, or an HTTP address. Once it is there, nobody can take it back.

So it says of every failure whether the report may be there all the same: where it cannot, the flow is undone; where nobody
knows, a person has to look.
"""

from __future__ import annotations

import asyncio
import errno
import os
from functools import cache
from pathlib import Path

from maypole.bus import Agent, Context, Reject, RetryLater
from maypole.schemas.report import ReportDelivered, ReportPublished
from maypole.services.artefacts import Artefacts
from maypole.services.delivery import address, folder
from maypole.services.delivery.destinations import DestinationRefused, ToAddress, ToFolder, destination, file_name
from maypole.settings import read_settings

FOLDER = "reports"
"""Where reports go that nobody gave a place: this folder in `MAYPOLE_HOME`. They are for people, so they outlive the broker."""

AGAIN_SECONDS = 2.0

delivery = Agent("delivery")


@delivery.on(ReportPublished, pivot=True)
async def deliver(report: ReportPublished, context: Context) -> ReportDelivered:
    artefacts = Artefacts(context.home)
    made = await asyncio.to_thread(artefacts.get, context.step_id)
    if made is None:
        delivered = await _put(report, context)
        copy = f"{delivered.model_dump_json()}\n{report.markdown}"
        made = await asyncio.to_thread(artefacts.keep, context.step_id, context.flow_id, copy)
    told, _, _ = made.partition("\n")
    return ReportDelivered.model_validate_json(told)


@cache
def _reports() -> Path:
    return read_settings(os.environ, Path.cwd()).home / FOLDER


async def _put(report: ReportPublished, context: Context) -> ReportDelivered:
    try:
        match destination(report.deliver_to, _reports()):
            case ToFolder(path):
                where = str(await _written(path, file_name(report.question, context.flow_id), report.markdown))
            case ToAddress() as to:
                await address.post(to, report.markdown, context.idempotency_key, context.flow_id)
                where = to.shown
    except DestinationRefused as refused:
        raise Reject(str(refused), acted=False) from refused
    except address.NotSent as error:
        raise RetryLater(AGAIN_SECONDS, str(error), acted=False) from error
    return ReportDelivered(title=report.title, where=where, bytes=len(report.markdown.encode()))


async def _written(path: Path, name: str, markdown: str) -> Path:
    try:
        return await asyncio.to_thread(folder.put, path, name, markdown)
    except OSError as error:
        # POSIX: a rename that failed has changed nothing, unless it says EIO.
        if error.errno == errno.EIO:
            raise
        raise RetryLater(AGAIN_SECONDS, f"{path} cannot be written now: {error.strerror}", acted=False) from error
