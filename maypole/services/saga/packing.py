"""A saga as bytes for a store, and back. Canonical: equal sagas have equal bytes.

The store is a cache: bytes of another version are not migrated but folded anew from the journal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from json.encoder import encode_basestring as quoted
from sys import intern
from types import MappingProxyType
from typing import Final

from pydantic_core import from_json

from maypole.bus.choreography import Choreography
from maypole.schemas.identifiers import FlowId, StepId
from maypole.schemas.journal import Decision, Effect
from maypole.services.saga.engine import REDUCER_VERSION, UnknownPin
from maypole.services.saga.facts import EMPTY, UNDECIDED, Ask, Asked, Cause, Decided, EventRef, Facts, Outcome, Phase, Saga, Why

_FORM: Final = 4
"""Of the bytes; raised when they are laid out in another way."""
VERSION: Final = f"{_FORM}.{REDUCER_VERSION}"


class OtherVersion(ValueError):
    """The bytes were written by another version of the engine: fold the flow's journal again."""


def pack(saga: Saga) -> bytes:
    """JSON, written by hand at a third of what an encoder takes: a coordinator writes nearly as many flows as it reads records.

    What is seldom known of a flow or a step is left out where it is not: most steps of most flows are completed and nothing else.
    """
    pinned = "null" if saga.choreography is None else quoted(saga.choreography.hash)
    steps = ",".join([_packed(step_id, facts) for step_id, facts in sorted(saga.steps.items())])
    seldom = _seldom(saga) if saga.asked or saga.contradictions or saga.cause is not None else ""
    often = (
        f'["{VERSION}",{quoted(saga.flow_id)},{saga.phase:d},{saga.stuck:d},{pinned},[{_refs(saga.roots)}],'
        f"{saga.started_ms},{saga.deadline_ms},{saga.overdue:d},[{steps}]"
    )
    return f"{often}{seldom}]".encode()


def unpack(data: bytes, choreographies: Mapping[str, Choreography]) -> Saga:
    """Raises `OtherVersion`, and `UnknownPin` for a choreography that `choreographies` does not hold."""
    version, *body = from_json(data)
    if version != VERSION:
        raise OtherVersion(f"expected a saga of version {VERSION}, found {version}: fold its journal again")
    flow_id, phase, stuck, pinned, roots, started_ms, deadline_ms, overdue, steps, *seldom = body
    asked, contradictions, cause = seldom or ((), (), None)
    if pinned is not None and pinned not in choreographies:
        raise UnknownPin(FlowId(flow_id), pinned)
    return Saga(
        FlowId(flow_id),
        Phase(phase),
        bool(stuck),
        None if pinned is None else choreographies[pinned],
        _events(roots),
        started_ms,
        deadline_ms,
        bool(overdue),
        {StepId(step_id): _facts(*found) for step_id, *found in steps},
        MappingProxyType({StepId(step_id): Asked(Ask(kind), *rest) for step_id, (kind, *rest) in asked}) if asked else EMPTY,
        tuple(map(StepId, contradictions)),
        None if cause is None else Cause(Why(cause[0]), cause[1]),
    )


def _seldom(saga: Saga) -> str:
    asked = [
        f"[{quoted(step_id)},[{quoted(kind)},{generation},{quoted(agent)},{quoted(subscription)},{since_ms}]]"
        for step_id, (kind, generation, agent, subscription, since_ms) in saga.asked.items()
    ]
    cause = "null" if saga.cause is None else f"[{quoted(saga.cause.why)},{quoted(saga.cause.about)}]"
    return f",[{','.join(asked)}],[{','.join(map(quoted, saga.contradictions))}],{cause}"


def _packed(step_id: StepId, facts: Facts) -> str:
    flags = facts.started | facts.expired << 1 | facts.undone << 2
    seldom = (
        ""
        if facts.stuck is None and facts.decided == UNDECIDED
        else f",{_or_null(facts.stuck)},{_or_null(facts.decision)},{facts.decided.while_open:d},{facts.generation},{facts.chance}"
    )
    often = (
        f"[{quoted(step_id)},{quoted(facts.agent)},{quoted(facts.subscription)},{facts.outcome:d},{quoted(facts.effect)},"
        f"[{_refs(facts.outputs)}],{facts.ended_ms},{flags}"
    )
    return f"{often}{seldom}]"


def _facts(
    agent: str,
    subscription: str,
    outcome: int,
    effect: str,
    outputs: list[str],
    ended_ms: int,
    flags: int,
    stuck: str | None = None,
    decision: str | None = None,
    *decided: int,
) -> Facts:
    return Facts(
        intern(agent), intern(subscription), _OUTCOMES[outcome], _EFFECTS[effect], _events(outputs),
        bool(flags & 1), bool(flags & 2), bool(flags & 4), None if stuck is None else Ask(stuck),
        _decided(decision, *decided) if decided else UNDECIDED, ended_ms,
    )  # fmt: skip


def _decided(decision: str | None, while_open: int, generation: int, chance: int) -> Decided:
    return Decided(None if decision is None else Decision(decision), bool(while_open), generation, chance)


def _refs(events: Iterable[EventRef]) -> str:
    return ",".join([f"{quoted(event_id)},{quoted(of_type)}" for event_id, of_type in events])


def _events(refs: list[str]) -> tuple[EventRef, ...]:
    return tuple(EventRef(event_id, intern(of_type)) for event_id, of_type in zip(refs[::2], refs[1::2], strict=True))


def _or_null(text: str | None) -> str:
    return "null" if text is None else quoted(text)


_OUTCOMES: Final = tuple(Outcome)
_EFFECTS: Final = {effect.value: effect for effect in Effect}
