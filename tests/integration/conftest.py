"""A platform on each kind of broker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from maypole.bus.composition import Platform, open_platform
from maypole.settings import Settings


@pytest.fixture(params=["kafka"])
async def platform(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Platform]:
    """A connection with an empty cast: whoever an earlier test left announced is retired."""
    bootstrap = request.getfixturevalue("kafka")
    async with open_platform(Settings(home=tmp_path, kafka=bootstrap)) as platform:
        for declaration in platform.catalog.view.active():
            await platform.catalog.retire(declaration["name"])
        yield platform
