"""A broker in memory that ends takes along all that it held: whoever works beside it has nothing to wait for."""

from __future__ import annotations

import asyncio
from typing import Final, NoReturn

from maypole.services.cli.output import warn
from maypole.services.cli.problems import ExitCode, Problem
from maypole.settings import ENDPOINTS_FILE, Settings, WrongSetting, read_endpoints

_LOOK_SECONDS: Final = 1.0
"""Between looks: a file tells nobody that it has changed."""


async def broker_gone(settings: Settings, *, in_memory: bool, look_seconds: float = _LOOK_SECONDS) -> NoReturn:
    """Raises `Problem` when `endpoints.json`, which named the broker in memory, names it no longer, after a word about it at once.

    Of any other broker it never returns: one whose data outlives it comes back, and one that somebody named is somebody's to end.
    """
    if not in_memory or settings.kafka_source != str(settings.home / ENDPOINTS_FILE):
        await asyncio.Event().wait()
    while True:
        there = await asyncio.to_thread(_named, settings)
        if there != settings.kafka:
            break
        await asyncio.sleep(look_seconds)
    warn([f"Kafka at {settings.kafka} was in memory, and has ended with all that it held; stopping"])
    found = "none" if there is None else f"another one at {there}"
    message = f"expected the broker that this was started beside, {settings.kafka}, found {found} in {settings.kafka_source}"
    raise Problem(
        message, ExitCode.UNREACHABLE, "the same command again" if there else "the same command again, beside a new `maypole dev`"
    )


def _named(settings: Settings) -> str | None:
    try:
        return read_endpoints(settings.home).kafka
    except WrongSetting:
        return settings.kafka  # somebody's mistake in the file ends nothing
