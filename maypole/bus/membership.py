"""Whether an agent takes part in a flow or only observes it, and which choreography the flow is pinned to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from maypole.bus.catalog import Catalog
from maypole.bus.choreography import Choreography
from maypole.bus.dead_letters import Reason
from maypole.bus.flow_starts import FlowStarts, may_have_started_before
from maypole.bus.no_return import NoWayBack
from maypole.schemas.envelope import CHOREOGRAPHY, Envelope
from maypole.schemas.errors import ContractRefused
from maypole.schemas.identifiers import digest_of
from maypole.schemas.journal import FlowStarted, Produced
from maypole.schemas.topics import FLOW_ENDED

PLACELESS: Final = frozenset({Reason.IDEMPOTENCY_CONFLICT, Reason.UNKNOWN_FLOW})
"""Why a record has no place in any flow's journal."""
DEADLINE_MS_DEFAULT: Final = 60 * 60 * 1000


class IdempotencyConflict(ValueError):
    """A second root event came under an idempotency key that already means another one."""


class UnknownChoreography(ValueError):
    """An event is pinned to a choreography that nobody recorded in the catalog."""


@dataclass(frozen=True, slots=True)
class Membership:
    choreography: bytes
    takes_part: bool
    """Its steps are journaled and awaited; otherwise it observes and its outputs are marked so."""


JournalStart = Callable[[Envelope, FlowStarted], Awaitable[None]]


class Memberships:
    """Answers for one agent. The common case, a known choreography and a flow with a random id, asks nobody."""

    def __init__(self, agent: str, catalog: Catalog, starts: FlowStarts, journal_start: JournalStart) -> None:
        self._agent = agent
        self._catalog = catalog
        self._starts = starts
        self._journal_start = journal_start
        self._known: dict[tuple[str, str], Membership] = {}

    def known(self, envelope: Envelope, subscription: str) -> Membership | None:
        """The answer where nobody needs to be asked: a flow that only one can have started, under a choreography met before."""
        if envelope.observer or (envelope.causation_id is None and may_have_started_before(envelope.flow_id)):
            return None
        return self._known.get((envelope.choreography, subscription))

    async def of(self, envelope: Envelope, subscription: str, value: bytes | None) -> Membership:
        """Raises `IdempotencyConflict`, `UnknownChoreography`, or `ContractRefused` for a child event without its flow's choreography."""
        pinned = envelope.choreography
        if envelope.type == FLOW_ENDED:
            return Membership(pinned.encode(), takes_part=False)  # whoever reacts to ends watches flows from outside
        if envelope.causation_id is None and not envelope.observer and (not pinned or may_have_started_before(envelope.flow_id)):
            pinned = await self._first_start(envelope, value or b"")
        elif not pinned:
            rule = "only the root of a flow may come without it, and an observer's event is none"
            raise ContractRefused(field=CHOREOGRAPHY, value=None, rule=rule)
        membership = self._known.get((pinned, subscription))
        if membership is None:
            membership = self._known[pinned, subscription] = await self._found(pinned, subscription)
        return Membership(membership.choreography, takes_part=False) if envelope.observer else membership

    async def _found(self, pinned: str, subscription: str) -> Membership:
        return Membership(pinned.encode(), (await self._choreography(pinned)).has(self._agent, subscription))

    async def _choreography(self, pinned: str) -> Choreography:
        choreography = await self._catalog.choreography(pinned)
        if choreography is None:
            raise UnknownChoreography(f"{CHOREOGRAPHY} {pinned} is not in the catalog: was the event written for another cluster?")
        return choreography

    async def _first_start(self, envelope: Envelope, value: bytes) -> str:
        """The choreography of the flow's first start; the flow is adopted when nobody has started it yet."""
        digest = digest_of(value)
        first = await self._starts.first(envelope.flow_id)
        if first is None:
            try:
                pinned = envelope.choreography or (await self._catalog.pin(envelope.type)).hash
            except NoWayBack as error:
                raise UnknownChoreography(f"a flow of {envelope.type} cannot be adopted: {error}") from error
            await self._choreography(pinned)  # the first start wins for ever: it must not pin the flow to nothing
            root = Produced(event_id=envelope.event_id, type=envelope.type, digest=digest)
            await self._journal_start(envelope, FlowStarted(choreography=pinned, deadline_ms=DEADLINE_MS_DEFAULT, roots=(root,)))
            # Somebody else may have adopted it at the same time: what stands first in the journal counts.
            first = await self._starts.first(envelope.flow_id)
            assert first is not None, "an acknowledged record is read back"
        expected = first.digests.get(envelope.event_id)
        if expected != digest:
            known = ", ".join(first.digests) if expected is None else f"a value with digest {expected.hex()[:16]}"
            raise IdempotencyConflict(
                f"flow {envelope.flow_id} was started by {known}; "
                f"found event {envelope.event_id} with digest {digest.hex()[:16]} under the same key"
            )
        return first.choreography
