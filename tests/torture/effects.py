"""What agents do to the outside and take back again, as the witness has it, and what is wrong with it.

The order is the witness's. An effect is there from the first time that it was made until it was taken back; a step that is
repeated makes the same one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from maypole.schemas.identifiers import FlowId, StepId
from maypole.schemas.journal import Effect
from maypole.services.saga import Outcome, Saga, State, unsettled
from tests.torture.witness import lines_of, tell

CAUSES: Final[Mapping[str, frozenset[str]]] = {
    "booking": frozenset(),
    "charging": frozenset({"booking"}),
    "packing": frozenset({"booking"}),
    "shipping": frozenset({"booking", "charging", "packing"}),
}
"""Whose steps each agent's step rests on, directly or not."""


@dataclass(frozen=True, slots=True)
class Deed:
    flow: FlowId
    agent: str
    step_id: StepId
    undone: bool
    """It took the effect back; otherwise it made it."""


async def make(witness: Path, flow: str, agent: str, step_id: str) -> None:
    await tell(witness, deed="make", flow=flow, agent=agent, step_id=step_id)


async def take_back(witness: Path, flow: str, agent: str, step_id: str) -> None:
    await tell(witness, deed="take_back", flow=flow, agent=agent, step_id=step_id)


def deeds_at(witness: Path) -> dict[FlowId, list[Deed]]:
    """By flow, in the order in which they were done."""
    found: dict[FlowId, list[Deed]] = {}
    for line in lines_of(witness):
        flow = FlowId(line["flow"])
        found.setdefault(flow, []).append(Deed(flow, line["agent"], StepId(line["step_id"]), line["deed"] == "take_back"))
    return found


def left(deeds: Iterable[Deed]) -> dict[StepId, str]:
    """The effects that are there in the end: the steps that made them, each with its agent."""
    held: dict[StepId, str] = {}
    for deed in deeds:
        if deed.undone:
            held.pop(deed.step_id, None)
        else:
            held[deed.step_id] = deed.agent
    return held


def broken_promises(saga: Saga, deeds: Sequence[Deed]) -> list[str]:
    """Of one flow that has come to rest; empty when it ended with all of its effects, with none, or with those that it lists."""
    held = left(deeds)
    agents = sorted(held.values())
    broken = list(_out_of_order(deeds))
    match saga.state:
        case State.COMMITTED if agents != sorted(CAUSES):
            broken.append(f"committed with the effects of {agents or 'nobody'}")
        case State.COMPENSATED if held:
            broken.append(f"compensated, and the effects of {agents} are there")
        case State.STUCK:
            listed = {step.step_id: step for step in unsettled(saga)}
            acted = {step_id for step_id, step in listed.items() if step.outcome is Outcome.COMPLETED and step.effect is Effect.APPLIED}
            broken += [f"stuck, and the effect of {agent} is on no list" for step_id, agent in held.items() if step_id not in listed]
            broken += [f"stuck over an effect of {listed[step_id].agent} that is not there" for step_id in acted - held.keys()]
        case State.COMMITTED | State.COMPENSATED:
            pass
        case other:
            broken.append(f"{other}: it came to no end; unsettled: {[f'{step.agent} {step.outcome.name}' for step in unsettled(saga)]}")
    return [f"flow {saga.flow_id}: {each}" for each in broken]


def _out_of_order(deeds: Sequence[Deed]) -> Iterator[str]:
    """Nothing is made after it was taken back, or after what it rests on was; nothing is taken back before what rests on it."""
    held: dict[StepId, str] = {}
    undone: dict[StepId, str] = {}
    for deed in deeds:
        if deed.undone:
            if deed.step_id in held and (resting := [agent for agent in held.values() if deed.agent in CAUSES[agent]]):
                yield f"{deed.agent} was taken back before {resting}"
            undone[deed.step_id] = deed.agent
            held.pop(deed.step_id, None)
        else:
            if deed.step_id in undone:
                yield f"{deed.agent} acted after it had been taken back"
            if gone := CAUSES[deed.agent] & set(undone.values()):
                yield f"{deed.agent} acted after {sorted(gone)} had been taken back"
            held[deed.step_id] = deed.agent
