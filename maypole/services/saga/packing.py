"""A saga as bytes for a store, and back. Canonical: equal sagas have equal bytes.

The store is a cache: bytes of another version are not migrated but folded anew from the journal.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import Any, Final

from maypole.bus.choreography import Choreography
from maypole.schemas.identifiers import FlowId, StepId
from maypole.schemas.journal import Decision, Effect
from maypole.services.saga.engine import REDUCER_VERSION, UnknownPin
from maypole.services.saga.facts import NOTHING_KNOWN, Ask, Asked, EventRef, Facts, Outcome, Phase, Saga

_FORM: Final = 1
"""Of the bytes; raised when they are laid out in another way."""
VERSION: Final = f"{_FORM}.{REDUCER_VERSION}"

_FACTS: Final = tuple(field.name for field in fields(Facts))
_READ: Final[Mapping[str, Any]] = {
    "outcome": Outcome,
    "effect": Effect,
    "outputs": lambda outputs: tuple(EventRef(*output) for output in outputs),
    "stuck": Ask,
    "decision": Decision,
}


class OtherVersion(ValueError):
    """The bytes were written by another version of the engine: fold the flow's journal again."""


def pack(saga: Saga) -> bytes:
    """Fields that say nothing are left out: most steps of most flows are completed and nothing else."""
    steps = {
        step_id: {str(index): _plain(value) for index, name in enumerate(_FACTS) if (value := getattr(facts, name)) != _default(name)}
        for step_id, facts in sorted(saga.steps.items())
    }
    body = [
        VERSION,
        saga.flow_id,
        int(saga.phase),
        saga.stuck,
        None if saga.choreography is None else saga.choreography.hash,
        saga.roots,
        saga.started_ms,
        saga.deadline_ms,
        saga.overdue,
        steps,
        sorted(saga.asked.items()),
        sorted(saga.contradictions),
    ]
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


def unpack(data: bytes, choreographies: Mapping[str, Choreography]) -> Saga:
    """Raises `OtherVersion`, and `UnknownPin` for a choreography that `choreographies` does not hold."""
    version, *body = json.loads(data)
    if version != VERSION:
        raise OtherVersion(f"expected a saga of version {VERSION}, found {version}: fold its journal again")
    flow_id, phase, stuck, pinned, roots, started_ms, deadline_ms, overdue, steps, asked, contradictions = body
    if pinned is not None and pinned not in choreographies:
        raise UnknownPin(f"flow {flow_id} is pinned to the choreography {pinned}, which the catalog does not hold")
    return Saga(
        FlowId(flow_id),
        Phase(phase),
        stuck,
        None if pinned is None else choreographies[pinned],
        tuple(EventRef(*root) for root in roots),
        started_ms,
        deadline_ms,
        overdue,
        MappingProxyType({StepId(step_id): _facts(found) for step_id, found in steps.items()}),
        MappingProxyType({StepId(step_id): Asked(Ask(kind), generation, since) for step_id, (kind, generation, since) in asked}),
        frozenset(map(StepId, contradictions)),
    )


def _facts(found: Mapping[str, Any]) -> Facts:
    known = {_FACTS[int(index)]: value for index, value in found.items()}
    return Facts(**{name: _READ.get(name, _same)(value) for name, value in known.items()})


def _plain(value: object) -> object:
    return int(value) if isinstance(value, Outcome) else value


def _same(value: object) -> object:
    return value


def _default(name: str) -> object:
    return getattr(NOTHING_KNOWN, name)
