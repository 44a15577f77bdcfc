"""Puts a report where it was asked for: a folder, or an HTTP address. Once it is there, nobody can take it back."""

from __future__ import annotations

import asyncio
import os
from functools import cache
from pathlib import Path

from maypole.bus import Agent, Context, Reject
from maypole.schemas.report import ReportDelivered, ReportPublished
from maypole.services.artefacts import Artefacts
from maypole.services.delivery import address, folder
from maypole.services.delivery.destinations import DestinationRefused, ToAddress, ToFolder, destination, file_name
from maypole.settings import read_settings

FOLDER = "reports"
"""Where reports go that nobody gave a place: this folder in `MAYPOLE_HOME`. They are for people, so they outlive the broker."""

delivery = Agent("delivery")


@delivery.on(ReportPublished, pivot=True)
async def deliver(report: ReportPublished, context: Context) -> ReportDelivered:
    artefacts = Artefacts(context.home)
    made = await asyncio.to_thread(artefacts.get, context.step_id)
    if made is None:
        delivered = await _put(report, context)
        made = await asyncio.to_thread(artefacts.keep, context.step_id, context.flow_id, delivered.model_dump_json())
    return ReportDelivered.model_validate_json(made)


@cache
def _reports() -> Path:
    return read_settings(os.environ, Path.cwd()).home / FOLDER


async def _put(report: ReportPublished, context: Context) -> ReportDelivered:
    try:
        match destination(report.deliver_to, _reports()):
            case ToFolder(path):
                where = str(await asyncio.to_thread(folder.put, path, file_name(report.question, context.flow_id), report.markdown))
            case ToAddress() as to:
                await address.post(to, report.markdown, context.idempotency_key, context.flow_id)
                where = to.shown
    except DestinationRefused as refused:
        raise Reject(str(refused)) from refused
    return ReportDelivered(title=report.title, where=where, bytes=len(report.markdown.encode()))
