"""Commands as a coordinator writes them, by hand: which one, about which step, is the test's choice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from maypole.bus.ports import Record
from maypole.bus.testing import Choreography
from maypole.bus.testing.flow import Flow
from maypole.schemas.avro import schema_of
from maypole.schemas.codec import Writer
from maypole.schemas.commands import StepCommand
from maypole.schemas.envelope import Stamp, lineage
from maypole.schemas.event import Event
from maypole.schemas.identifiers import CommandId, FlowId, StepId, command_id_of, root_traceparent, step_id_of
from maypole.schemas.journal import FlowStarted
from maypole.schemas.topics import command_topic
from tests.support.world import eventually

R = TypeVar("R", bound=Event)


def command_record(agent: str, flow: FlowId, choreography: str, body: StepCommand, traceparent: str | None = None) -> Record:
    form = type(body)
    command = _id_of(flow, StepId(body.step_id), form, body.generation)
    common = lineage(flow_id=flow.encode(), time=b"2026-01-01T00:00:00.000000Z", state_version=1, choreography=choreography.encode())
    headers = Stamp(form.event_type, "/coordinator").headers(command, traceparent or root_traceparent(flow), None, common)
    return Record(command_topic(agent), flow.encode(), Writer(form, schema_of(form).derived_id).encode(body), headers)


def _id_of(flow: FlowId, step: StepId, form: type[StepCommand], generation: int) -> CommandId:
    return command_id_of(flow, step, form.event_type.rpartition(".")[2], generation)


class Commands:
    """To one agent, about the step that a flow's root triggers there."""

    def __init__(self, world: Choreography, agent: str, flow: Flow) -> None:
        self._world = world
        self.agent = agent
        self.flow = flow
        self.subscription = flow.published.topic
        self.step = step_id_of(flow.flow_id, agent, self.subscription, flow.published.event_id)

    def id_of(self, form: type[StepCommand], generation: int = 1) -> CommandId:
        return _id_of(self.flow.flow_id, self.step, form, generation)

    def record(self, form: type[StepCommand], generation: int = 1) -> Record:
        (started,) = (record for record in self.flow.journal if isinstance(record, FlowStarted))
        body = form(step_id=self.step, subscription=self.subscription, generation=generation)
        return command_record(self.agent, self.flow.flow_id, started.choreography, body)

    async def send(self, form: type[StepCommand], generation: int = 1) -> None:
        await self._world.broker.append([self.record(form, generation)], lambda: None)

    def told(self, form: type[R]) -> Sequence[R]:
        return [record for record in self.flow.journal if isinstance(record, form)]

    async def answer(self, form: type[R], count: int = 1, seconds: float = 900.0) -> R:
        """The last record of this kind, once there are so many."""

        async def told() -> Sequence[R]:
            return self.told(form)

        return (await eventually(told, lambda found: len(found) >= count, seconds))[-1]
