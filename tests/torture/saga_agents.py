"""Four agents that act on the outside, and take back what they did when they are told to. What they do, a witness writes down.

    ordered ─▶ booking ─▶ booked ─┬▶ charging ─▶ charged ─┬▶ shipping ─▶ shipped
                                  └▶ packing ──▶ packed ──┘

A flow's root says what becomes of it: who refuses it, who breaks after having acted, whose undo fails.
The address of the witness is in `SAGA_WITNESS`.
"""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path
from typing import Final

from maypole.bus import Agent, Context, Event, Reject, all_of
from tests.torture.effects import make, take_back

WITNESS: Final = "SAGA_WITNESS"
_WORK_SECONDS_MAX: Final = 0.1
_TIMEOUT_SECONDS: Final = 20.0
"""Short: an undo waits for the lease of whoever was cut off."""


class Ordered(Event, type="sagas.ordered"):
    number: int
    refused_by: str = ""
    """The agent that does not even begin."""
    broken_by: str = ""
    """The agent that fails once it has acted."""
    kept_by: str = ""
    """The agent that cannot take back what it did."""

    @property
    def fails(self) -> bool:
        """At a step, whoever cancels it besides."""
        return bool(self.refused_by or self.broken_by)


class Booked(Ordered, type="sagas.booked"): ...


class Charged(Ordered, type="sagas.charged"): ...


class Packed(Ordered, type="sagas.packed"): ...


class Shipped(Ordered, type="sagas.shipped"): ...


booking, charging, packing, shipping = Agent("booking"), Agent("charging"), Agent("packing"), Agent("shipping")
AGENTS: Final = (booking, charging, packing, shipping)


@booking.on(Ordered, timeout_seconds=_TIMEOUT_SECONDS)
async def book(ordered: Ordered, context: Context) -> Booked:
    await _act(ordered, context)
    return Booked(**ordered.model_dump())


@charging.on(Booked, timeout_seconds=_TIMEOUT_SECONDS)
async def charge(booked: Booked, context: Context) -> Charged:
    await _act(booked, context)
    return Charged(**booked.model_dump())


@packing.on(Booked, timeout_seconds=_TIMEOUT_SECONDS, retry="never")
async def pack(booked: Booked, context: Context) -> Packed:
    await _act(booked, context)
    return Packed(**booked.model_dump())


@shipping.on(all_of(Charged, Packed), timeout_seconds=_TIMEOUT_SECONDS)
async def ship(charged: Charged, packed: Packed, context: Context) -> Shipped:
    await _act(charged, context)
    return Shipped(**charged.model_dump())


@book.undo
async def cancel_booking(ordered: Ordered, context: Context) -> None:
    await _undo(ordered, context)


@charge.undo
async def refund(booked: Booked, context: Context) -> None:
    await _undo(booked, context)


@pack.undo
async def unpack(booked: Booked, context: Context) -> None:
    await _undo(booked, context)


@ship.undo
async def fetch_back(charged: Charged, packed: Packed, context: Context) -> None:
    await _undo(charged, context)


async def _act(order: Ordered, context: Context) -> None:
    if order.refused_by == context.agent:
        raise Reject(f"{context.agent} does not take {order.number}", acted=False)
    await _work()
    await make(_witness(), context.flow_id, context.agent, context.step_id)
    await _work()
    if order.broken_by == context.agent:
        raise Reject(f"{context.agent} breaks at {order.number}, after it has acted")


async def _undo(order: Ordered, context: Context) -> None:
    await _work()
    if order.kept_by == context.agent:
        raise Reject(f"{context.agent} cannot take back {order.number}")
    await take_back(_witness(), context.flow_id, context.agent, context.step_id)


async def _work() -> None:
    await asyncio.sleep(random.uniform(0, _WORK_SECONDS_MAX))


def _witness() -> Path:
    return Path(os.environ[WITNESS])
