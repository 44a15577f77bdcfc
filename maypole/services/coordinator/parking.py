"""Records that cannot be folded yet: nobody has started their flow, or nobody knows its choreography.

The records themselves lie in the store; here is what they wait for, and those that came since the last `save`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from maypole.bus.ports import Delivery
from maypole.schemas.identifiers import FlowId
from maypole.services.coordinator.stores.port import Parked

UNSTARTED_RECORDS_MAX: Final = 10_000
"""In one partition. Beyond that, the flows that have waited longest are given up."""


class _Waiting:
    __slots__ = ("pin", "records", "since_ms")

    def __init__(self, pin: str, since_ms: int, records: int = 0) -> None:
        self.pin = pin
        self.since_ms = since_ms
        self.records = records


class Parking:
    def __init__(self) -> None:
        self._flows: dict[FlowId, _Waiting] = {}
        self._new: list[tuple[FlowId, str, Delivery]] = []
        self._gone: set[FlowId] = set()

    def __contains__(self, flow: FlowId) -> bool:
        return flow in self._flows

    def __len__(self) -> int:
        return sum(waiting.records for waiting in self._flows.values())

    @property
    def pinned(self) -> int:
        """Flows that wait for a choreography."""
        return sum(bool(waiting.pin) for waiting in self._flows.values())

    @property
    def has_changes(self) -> bool:
        return bool(self._new or self._gone)

    def restore(self, kept: Iterable[Parked]) -> None:
        self._flows = {each.flow_id: _Waiting(each.pin, each.since_ms, each.records) for each in kept}

    def put(self, flow: FlowId, pin: str, record: Delivery) -> None:
        waiting = self._flows.setdefault(flow, _Waiting(pin, record.timestamp_ms))
        waiting.records += 1
        self._new.append((flow, pin, record))

    def wait_for(self, flow: FlowId, pin: str) -> None:
        """From now on every record of the flow waits until this choreography is known."""
        self._flows.setdefault(flow, _Waiting(pin, 0)).pin = pin

    def pin_of(self, flow: FlowId) -> str:
        waiting = self._flows.get(flow)
        return "" if waiting is None else waiting.pin

    def pins(self) -> set[str]:
        return {waiting.pin for waiting in self._flows.values() if waiting.pin}

    def waiting_for(self, pin: str) -> list[FlowId]:
        return [flow for flow, waiting in self._flows.items() if waiting.pin == pin]

    def given_up(self, too_old_ms: int) -> list[FlowId]:
        """Flows that nobody started: those whose first record is older than this, and the oldest of too many."""
        unstarted = sorted((waiting.since_ms, flow) for flow, waiting in self._flows.items() if not waiting.pin)
        surplus = sum(self._flows[flow].records for _, flow in unstarted) - UNSTARTED_RECORDS_MAX
        found = []
        for since_ms, flow in unstarted:
            if since_ms >= too_old_ms and surplus <= 0:
                break
            surplus -= self._flows[flow].records
            found.append(flow)
        return found

    def take_out(self, flow: FlowId) -> list[Delivery]:
        """Those of its records that are not kept yet."""
        del self._flows[flow]
        self._gone.add(flow)
        mine = [record for each, _, record in self._new if each == flow]
        self._new = [entry for entry in self._new if entry[0] != flow]
        return mine

    def changes(self) -> tuple[list[tuple[FlowId, str, Delivery]], list[FlowId]]:
        """What to keep, and which flows to let go before that."""
        return list(self._new), list(self._gone)

    def kept(self) -> None:
        self._new.clear()
        self._gone.clear()
