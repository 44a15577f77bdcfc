"""What people tell a flow, journaled with who and why. It acts when it is read back, by whoever folds the journal.

`subject` is the flow's business key, if it has one: every record of a flow can be found by it.
"""

from __future__ import annotations

from maypole.bus.composition import Platform
from maypole.bus.journal import JournalRecords
from maypole.bus.ports import Receipt
from maypole.schemas.envelope import lineage, rfc3339
from maypole.schemas.event import Event
from maypole.schemas.identifiers import StepId, root_traceparent
from maypole.schemas.journal import AbortRequested, Decision, OperatorDecided
from maypole.services.saga import Saga

_SOURCE = "/publishers/maypole-cli"


async def request_abort(platform: Platform, saga: Saga, by: str, why: str, *, subject: str | None = None) -> Receipt:
    """Ask for the flow's abort. The first one in the journal counts; one that comes after its end, or past a pivot, changes nothing."""
    return await _journal(platform, saga, subject, AbortRequested(by=by, why=why), saga.flow_id)


async def decide(
    platform: Platform, saga: Saga, step_id: StepId, decision: Decision, by: str, note: str, *, subject: str | None = None
) -> tuple[OperatorDecided, Receipt]:
    """Decide about the step as `saga` shows it: a decision about what has changed meanwhile is refused by the fold, and alarmed.

    Said twice by one person, it is one record.
    """
    generation = saga.of(step_id).generation
    record = OperatorDecided(step_id=step_id, decision=decision, note=note, by=by, generation=generation)
    return record, await _journal(platform, saga, subject, record, f"{step_id}/{generation}/{decision}/{by}")


async def _journal(platform: Platform, saga: Saga, subject: str | None, body: Event, about: str) -> Receipt:
    flow = saga.flow_id.encode()
    common = lineage(
        flow_id=flow,
        time=rfc3339(platform.now() * 1000).encode(),
        state_version=1,
        choreography=b"" if saga.choreography is None else saga.choreography.hash.encode(),
        business_key=subject,
    )
    record = JournalRecords(_SOURCE).record(body, about, flow, root_traceparent(saga.flow_id), None, common)
    (receipt,) = await platform.sink.publish([record])
    return receipt
