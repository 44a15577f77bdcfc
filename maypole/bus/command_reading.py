"""From bytes on `<agent>.commands` to a command that this agent may obey, or the reason why it may not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from maypole.bus.catalog import Catalog
from maypole.bus.contracts import Contracts
from maypole.bus.dead_letters import Reason
from maypole.bus.memos import Patiently
from maypole.bus.ports import Delivery
from maypole.schemas.codec import schema_id_of
from maypole.schemas.commands import COMMANDS, StepCommand
from maypole.schemas.envelope import CHOREOGRAPHY, TYPE, Envelope, read_envelope
from maypole.schemas.errors import ContractRefused, Undecodable
from maypole.schemas.identifiers import CommandId, StepId

_FORMS: Final[Mapping[str, type[StepCommand]]] = {command.event_type: command for command in COMMANDS}


class Order(NamedTuple):
    """A command, and how it came."""

    body: StepCommand
    envelope: Envelope
    delivery: Delivery

    @property
    def step(self) -> StepId:
        return StepId(self.body.step_id)

    @property
    def command(self) -> CommandId:
        return CommandId(self.envelope.event_id)


class Refused(ValueError):
    """This agent will never obey this record. `reason` is that of the dead letter."""

    def __init__(self, reason: Reason, error: object) -> None:
        super().__init__(str(error))
        self.reason = reason


class CommandReading:
    """For one agent."""

    def __init__(self, agent: str, contracts: Contracts, catalog: Catalog, patiently: Patiently) -> None:
        self._agent = agent
        self._contracts = contracts
        self._catalog = catalog
        self._patiently = patiently

    async def read(self, delivery: Delivery) -> Order:
        """Raises `Refused`."""
        try:
            envelope = read_envelope(delivery.headers)
            form = _FORMS.get(envelope.type)
            if form is None:
                raise ContractRefused(field=TYPE, value=envelope.type, rule=f"one of {', '.join(_FORMS)}")
            schema_id = schema_id_of(delivery.value)
            assert delivery.value is not None, "it has a schema id"
            body = (await self._contracts.reader(form, schema_id)).decode(delivery.value)
        except Undecodable as error:
            raise Refused(Reason.UNDECODABLE, error) from error
        except ContractRefused as error:
            raise Refused(Reason.CONTRACT_REFUSED, error) from error
        choreography = await self._patiently(lambda: self._catalog.choreography(envelope.choreography))
        if choreography is None:
            raise Refused(
                Reason.UNKNOWN_FLOW,
                f"{CHOREOGRAPHY} {envelope.choreography!r} is not in the catalog: was the command written for another cluster?",
            )
        if not choreography.has(self._agent, body.subscription):
            rule = f"a subscription of {self._agent} in the choreography {envelope.choreography}"
            raise Refused(Reason.CONTRACT_REFUSED, ContractRefused(field="subscription", value=body.subscription, rule=rule))
        return Order(body, envelope, delivery)
