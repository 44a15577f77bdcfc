"""Watching one flow until it has ended or waits for a person."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from maypole.bus.composition import Platform
from maypole.schemas.identifiers import FlowId
from maypole.services.cli.agent_status import standing_of
from maypole.services.cli.bystanders import bystanders
from maypole.services.cli.flow_picture import FlowPicture
from maypole.services.cli.flow_views import View
from maypole.services.coordinator.naming import coordinator_is_running
from maypole.services.following import Vantage, follow

_REST_SECONDS: Final = 3.0
"""How long what belongs to the end may come after it."""
_UNDOING_SECONDS: Final = 5.0
"""How long a coordinator that was not heard of may take until anything of an aborting flow is undone."""
_LOOK_SECONDS: Final = 1.0
"""Between looks at those who owe something: an agent that died says nothing."""
_CATCH_UP_SECONDS: Final = 0.25
"""Between drawings of what was seen and held back, while nothing else is seen."""


_RESTING: Final = 4
"""To one part of the time that goes into drawing: what a drawing costs grows with the flow's steps, and so does their number."""


class Drawing:
    """A view that is drawn as often as it can be without holding up the reading."""

    def __init__(self, view: View, picture: FlowPicture, clock: Callable[[], float]) -> None:
        """`clock` gives seconds."""
        self._view = view
        self._picture = picture
        self._clock = clock
        self._rests_until = -math.inf
        self.is_behind = False
        """Whether something was seen that is not drawn, or not all of it."""

    def show(self) -> None:
        """Unless it was drawn just now."""
        self.is_behind = True
        if self._clock() >= self._rests_until:
            self.show_now()

    def show_now(self, *, last: bool = False) -> None:
        began = self._clock()
        self.is_behind = self._view.show(self._picture, last=last)
        ended = self._clock()
        self._rests_until = ended + _RESTING * (ended - began)


async def watch(platform: Platform, flow: FlowId, vantage: Vantage, view: View, timeout_seconds: float, *, known: int = 0) -> FlowPicture:
    """Until the flow has ended or waits for a person, or the time is up: then the picture is undecided.

    `known`: so many records of its journal were there before; nothing is shown or concluded until they have been read.
    """
    picture = FlowPicture()
    loop = asyncio.get_running_loop()
    drawing = Drawing(view, picture, time.perf_counter)
    beside = [
        asyncio.create_task(_look_for_the_absent(platform, picture, drawing), name="looking for the absent"),
        asyncio.create_task(_catch_up(drawing), name="drawing what was held back"),
    ]
    try:
        async with asyncio.timeout(timeout_seconds) as limit:
            until = loop.time() + timeout_seconds
            async for seen in follow(platform, flow, vantage):
                before = picture.decided, picture.left_alone
                picture.see(seen)
                picture.coordinated = coordinator_is_running(platform.catalog.view, platform.now())
                if picture.story.records < known:
                    continue
                drawing.show()
                if picture.complete or picture.without_subscriber:
                    break
                if before != (picture.decided, picture.left_alone):
                    longest = _REST_SECONDS if picture.decided else _UNDOING_SECONDS if picture.left_alone else timeout_seconds
                    limit.reschedule(min(until, loop.time() + longest))
    except TimeoutError:
        pass  # the picture says whether the flow or only the rest of it is missing
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
    _ask_after(platform, picture)
    drawing.show_now(last=True)
    return picture


async def _look_for_the_absent(platform: Platform, picture: FlowPicture, drawing: Drawing) -> None:
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        _ask_after(platform, picture)
        if not all(presence.running for presence in picture.presences.values()):
            drawing.show_now()


async def _catch_up(drawing: Drawing) -> None:
    while True:
        await asyncio.sleep(_CATCH_UP_SECONDS)
        if drawing.is_behind:
            drawing.show()


def _ask_after(platform: Platform, picture: FlowPicture) -> None:
    now = datetime.fromtimestamp(platform.now(), UTC)
    picture.coordinated = coordinator_is_running(platform.catalog.view, platform.now())
    if picture.without_subscriber and picture.state is not None:
        picture.bystanders = bystanders(platform.catalog.view, picture.state.roots[0].type)
    picture.presences = {agent: standing_of(platform.catalog.view, agent, now) for agent in picture.owing}
