"""A saga as bytes for a store, and back. Canonical: equal sagas have equal bytes.

The store is a cache: bytes of another version are not migrated but folded anew from the journal.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from sys import intern
from types import MappingProxyType
from typing import Final

from pydantic_core import from_json

from maypole.bus.choreography import Choreography
from maypole.schemas.identifiers import FlowId, StepId
from maypole.schemas.journal import Decision, Effect
from maypole.services.saga.engine import REDUCER_VERSION, UnknownPin
from maypole.services.saga.facts import EMPTY, Ask, Asked, Cause, EventRef, Facts, Outcome, Phase, Saga, Why

_FORM: Final = 2
"""Of the bytes; raised when they are laid out in another way."""
VERSION: Final = f"{_FORM}.{REDUCER_VERSION}"


_written = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


class OtherVersion(ValueError):
    """The bytes were written by another version of the engine: fold the flow's journal again."""


def pack(saga: Saga) -> bytes:
    """What is seldom known of a step is left out where it is not: most steps of most flows are completed and nothing else."""
    steps = [_packed(step_id, facts) for step_id, facts in sorted(saga.steps.items())]
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
        list(saga.asked.items()),
        saga.contradictions,
        saga.cause,
    ]
    return _written(body).encode()


def unpack(data: bytes, choreographies: Mapping[str, Choreography]) -> Saga:
    """Raises `OtherVersion`, and `UnknownPin` for a choreography that `choreographies` does not hold."""
    version, *body = from_json(data)
    if version != VERSION:
        raise OtherVersion(f"expected a saga of version {VERSION}, found {version}: fold its journal again")
    flow_id, phase, stuck, pinned, roots, started_ms, deadline_ms, overdue, steps, asked, contradictions, cause = body
    if pinned is not None and pinned not in choreographies:
        raise UnknownPin(FlowId(flow_id), pinned)
    return Saga(
        FlowId(flow_id),
        Phase(phase),
        stuck,
        None if pinned is None else choreographies[pinned],
        tuple(EventRef(event_id, intern(of_type)) for event_id, of_type in roots),
        started_ms,
        deadline_ms,
        overdue,
        MappingProxyType({StepId(step_id): _facts(*found) for step_id, *found in steps}),
        MappingProxyType({StepId(step_id): Asked(Ask(kind), *rest) for step_id, (kind, *rest) in asked}) if asked else EMPTY,
        tuple(map(StepId, contradictions)),
        None if cause is None else Cause(Why(cause[0]), cause[1]),
    )


def _packed(step_id: StepId, facts: Facts) -> list[object]:
    outputs = [part for output in facts.outputs for part in output]
    often = [step_id, facts.agent, facts.subscription, facts.outcome, facts.effect, outputs, facts.ended_ms]
    seldom = (
        facts.started, facts.expired, facts.undone, facts.stuck, facts.decision, facts.decided_open, facts.generation, facts.chance,
    )  # fmt: skip
    return often if seldom == _SELDOM else [*often, *seldom]


_SELDOM: Final = (False, False, False, None, None, False, 1, 1)


def _facts(
    agent: str,
    subscription: str,
    outcome: int,
    effect: str,
    outputs: list[str],
    ended_ms: int,
    started: bool = False,
    expired: bool = False,
    undone: bool = False,
    stuck: str | None = None,
    decision: str | None = None,
    decided_open: bool = False,
    generation: int = 1,
    chance: int = 1,
) -> Facts:
    return Facts(
        intern(agent), intern(subscription), _OUTCOMES[outcome], _EFFECTS[effect],
        tuple(EventRef(event_id, intern(of_type)) for event_id, of_type in zip(outputs[::2], outputs[1::2], strict=True)),
        started, expired, undone, None if stuck is None else Ask(stuck), None if decision is None else Decision(decision),
        decided_open, generation, chance, ended_ms,
    )  # fmt: skip


_OUTCOMES: Final = tuple(Outcome)
_EFFECTS: Final = {effect.value: effect for effect in Effect}
