"""From dead letters to what becomes of each: judged first, then sent, each in one pass over the topic."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from maypole.bus import Bus
from maypole.bus.bus import PLATFORM_PREFIX
from maypole.bus.choreography import Choreography, derive_choreography, types_in
from maypole.bus.composition import Platform
from maypole.bus.dead_letters import LEFT_OUT, Reason
from maypole.bus.membership import IdempotencyConflict
from maypole.bus.ports import Delivery
from maypole.bus.record_sizes import VALUE_BYTES_MAX
from maypole.bus.redrive import (
    REPLAYS_MAX_DEFAULT,
    Copies,
    Letter,
    NoLetter,
    Standing,
    causes,
    letter_of,
    new_flow_key,
    newest_first_of_each,
    original_headers,
    pinned_by_start,
    redriven,
    standing,
)
from maypole.schemas.codec import schema_id_of
from maypole.schemas.compatibility import explain
from maypole.schemas.envelope import Envelope, read_envelope, read_identity
from maypole.schemas.errors import ContractRefused, TooLarge, Undecodable
from maypole.schemas.identifiers import FlowId, digest_of, flow_id_of, root_event_id
from maypole.schemas.topics import command_topic, redrive_topic
from maypole.services.cli.dead_letters import Place, place_of
from maypole.services.cli.event_types import known_types
from maypole.services.cli.flow_histories import stories_of
from maypole.services.cli.flow_story import FlowStory
from maypole.services.cli.problems import ExitCode, Problem
from maypole.services.cli.publishing import PUBLISH_SECONDS
from maypole.services.cli.redriven_chances import Chance, NoChance, chance_of, give
from maypole.services.cli.redriven_roots import Root, missing_roots
from maypole.services.coordinator.naming import COORDINATOR

_BATCH_RECORDS: Final = 200
_FLOWS_AT_ONCE: Final = 16

Letters = Callable[[], AsyncIterator[Delivery]]
"""The letters that somebody named, read anew with every call."""


class Action(StrEnum):
    STEP = "step"
    """Its agent gets it again, and nobody else."""
    CHANCE = "chance"
    """Its flow goes on without the step: the journal is told that it gets another chance."""
    FLOW = "flow"
    """Its body starts a flow of its own."""
    SKIPPED = "skipped"
    """It was dealt with before."""
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Wish:
    """`again`: also what was redriven before. `letters_max` counts what is sent, not what is skipped or refused."""

    as_new_flow: bool = False
    again: bool = False
    replays_max: int = REPLAYS_MAX_DEFAULT
    letters_max: int | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of one letter. `why` is a word for scripts, `detail` a sentence; `replays` is the count it is sent with."""

    place: Place
    reason: str
    action: Action
    why: str
    detail: str
    at_ms: int
    letter: Letter | None = None
    event_id: str | None = None
    replays: int | None = None
    new_flow: FlowId | None = None
    chance: Chance | None = None
    sent_to: str | None = None
    """`topic/partition/offset`, once it is acknowledged."""

    @property
    def sends(self) -> bool:
        return self.action in (Action.STEP, Action.CHANCE, Action.FLOW)

    def row(self) -> dict[str, Any]:
        return {
            "id": str(self.place),
            "agent": self.place.agent,
            "reason": self.reason,
            "action": self.action.value,
            "why": self.why,
            "detail": self.detail,
            "event_id": self.event_id,
            "origin": None if self.letter is None else str(self.letter.origin),
            "replays": self.replays,
            "new_flow_id": self.new_flow,
            "sent_to": self.sent_to,
        }


async def judge_all(judge: Judge, letters: Letters, wanted: Callable[[Delivery], bool], wish: Wish) -> list[Verdict]:
    """Oldest first. Of several letters about one failure the first stands for all of them."""
    verdicts: list[Verdict] = []
    known: list[tuple[str, Letter]] = []
    async for record in letters():
        try:
            known.append((str(place_of(record)), letter_of(record)))
        except NoLetter:
            pass
        if wanted(record):
            verdicts.append(await judge.verdict(record))
    chosen = newest_first_of_each(known)
    verdicts = [_once(verdict, chosen) for verdict in await judge.completed(verdicts)]
    return _bounded(sorted(verdicts, key=lambda verdict: (verdict.at_ms, verdict.place.partition, verdict.place.offset)), wish.letters_max)


def _once(verdict: Verdict, chosen: Mapping[tuple[str, Any], str]) -> Verdict:
    if not verdict.sends or verdict.letter is None:
        return verdict
    other = chosen.get((verdict.letter.agent, verdict.letter.origin))
    if other in (None, str(verdict.place)):
        return verdict
    return replace(verdict, action=Action.SKIPPED, why="repetition", detail=f"{other} is about the same event, and stands for it")


def _bounded(verdicts: Sequence[Verdict], letters_max: int | None) -> list[Verdict]:
    if letters_max is None:
        return list(verdicts)
    bounded, sent = [], 0
    for verdict in verdicts:
        sent += verdict.sends
        over = verdict.sends and sent > letters_max
        bounded.append(replace(verdict, action=Action.SKIPPED, why="beyond_max", detail=f"--max {letters_max}") if over else verdict)
    return bounded


class Judge:
    """Says what becomes of a letter, from its headers, the catalog and the journal. Writes nothing."""

    def __init__(self, platform: Platform, copies: Copies, wish: Wish) -> None:
        self._platform = platform
        self._copies = copies
        self._wish = wish
        self._choreographies: dict[str, Choreography | None] = {}
        self._roots: dict[Place, Root] = {}
        """Of letters that seem to have started a flow before: whether the root got there has to be looked up."""
        self._optional: dict[Place, Envelope] = {}
        """Of letters about optional steps: where their flows stand has to be looked up."""

    async def verdict(self, record: Delivery) -> Verdict:
        place = place_of(record)
        try:
            letter = letter_of(record)
        except NoLetter as error:
            return Verdict(place, "", Action.REFUSED, "no_letter", str(error), record.timestamp_ms)
        envelope = _identity(record)
        event_id = None if envelope is None else envelope.event_id
        verdict = Verdict(place, letter.reason, Action.REFUSED, "", "", record.timestamp_ms, letter, event_id)
        if letter.agent == COORDINATOR:
            flow = "FLOW" if envelope is None else envelope.flow_id
            return replace(verdict, why="journal_record", detail=_OF_THE_COORDINATOR.get(letter.reason, _READ_ANEW).format(flow=flow))
        left_out = dict(record.headers).get(LEFT_OUT)
        if left_out is not None:
            why = f"too large for its dead letter, which is without: {left_out.decode(errors='replace')}. All of it lay on {letter.origin}"
            return replace(verdict, why="left_out", detail=why)
        replays = self._copies.replays_of(letter)
        if not self._wish.again and self._copies.settles(letter):
            return replace(
                verdict, action=Action.SKIPPED, why="redriven_before", detail=f"it was sent to {letter.agent} again (replay {replays})"
            )
        if replays >= self._wish.replays_max:
            return replace(verdict, why="replays_max", detail=f"it was sent again {replays} times, and failed each time")
        verdict = replace(verdict, replays=replays + 1)
        if self._wish.as_new_flow:
            return await self._as_flow(verdict, record, letter)
        return await self._as_step(verdict, record, letter, envelope)

    async def whole_verdict(self, record: Delivery) -> Verdict:
        """Of one letter, with everything looked up."""
        (verdict,) = await self.completed([await self.verdict(record)])
        return verdict

    async def completed(self, verdicts: Sequence[Verdict]) -> list[Verdict]:
        """What only the journal and the events' topics can tell, looked up once for all letters."""
        missing = await missing_roots(self._platform.transport, self._roots)
        stories = await stories_of(self._platform, {envelope.flow_id for envelope in self._optional.values()})
        return [self._completed(verdict, missing, stories) for verdict in verdicts]

    def _completed(self, verdict: Verdict, missing: Collection[Place], stories: Mapping[FlowId, FlowStory]) -> Verdict:
        if verdict.place in missing:
            # What was skipped because its flow was started: a crash kept the root from following.
            return replace(verdict, action=Action.FLOW, why="unfinished", detail="its flow was begun and its event never followed")
        optional = self._optional.get(verdict.place)
        if optional is None:
            return verdict
        return _another_chance(verdict, chance_of(verdict.place.agent, optional.event_id, stories.get(optional.flow_id)))

    async def _as_step(self, verdict: Verdict, record: Delivery, letter: Letter, envelope: Envelope | None) -> Verdict:
        found = standing(letter, envelope, None if envelope is None else await self._pinned(envelope))
        if found is Standing.OPTIONAL and envelope is not None:
            self._optional[verdict.place] = envelope
        if not found.runs_again:
            return replace(verdict, why=found.value, detail=_REFUSALS[found.value].format(agent=letter.agent))
        agent = self._platform.catalog.view.agents.get(letter.agent)
        if agent is None or not any(letter.origin.topic in types_in(each["on"]) for each in agent["subscriptions"]):
            detail = (
                f"{letter.agent} {'is not in the catalog' if agent is None else f'does not subscribe to {letter.origin.topic} any more'}"
            )
            return replace(verdict, why="not_subscribed", detail=detail)
        flow = _new_flow(letter)
        if not self._wish.again and await self._platform.starts.first(flow) is not None:
            detail = f"it started flow {flow} before"
            return replace(verdict, action=Action.SKIPPED, why="flow_before", detail=detail, new_flow=flow)
        return replace(verdict, action=Action.STEP, why=found.value, detail=f"to {letter.agent} only")

    async def _as_flow(self, verdict: Verdict, record: Delivery, letter: Letter) -> Verdict:
        event_type, value = letter.origin.topic, record.value
        if event_type.startswith(PLATFORM_PREFIX) or event_type == command_topic(letter.agent):
            return replace(verdict, why="no_root", detail=f"a record of {event_type} is the platform's own and starts no flow")
        try:
            await self._check_root(event_type, value)
        except (Undecodable, ContractRefused) as error:
            return replace(verdict, why="no_root", detail=f"no event that could start a flow: {error}")
        assert value is not None
        flow = _new_flow(letter)
        verdict = replace(verdict, new_flow=flow)
        root, digest = root_event_id(flow, event_type), digest_of(value)
        first = await self._platform.starts.first(flow)
        if first is not None and first.digests.get(root) != digest:
            return replace(verdict, why="idempotency_conflict", detail=f"flow {flow} was started by another event")
        if first is not None and not self._wish.again:
            self._roots[verdict.place] = Root(event_type, flow, root, record.timestamp_ms)
            return replace(verdict, action=Action.SKIPPED, why="flow_before", detail=f"it started flow {flow} before")
        reactions = derive_choreography(event_type, self._platform.catalog.view.active()).triggered_by(event_type)
        agents = ", ".join(sorted({reaction.agent for reaction in reactions}))
        return replace(verdict, action=Action.FLOW, why="new_flow", detail=f"to {agents or 'nobody: no agent subscribes'}")

    async def _check_root(self, event_type: str, value: bytes | None) -> None:
        """The bytes must be an event of this type, by the schema they name and by the one that the type is declared with."""
        schema_id = schema_id_of(value)
        assert value is not None
        if len(value) > VALUE_BYTES_MAX:
            raise TooLarge(event_type, len(value), VALUE_BYTES_MAX)
        declared = known_types(self._platform.catalog.view).get(event_type)
        contracts = self._platform.contracts
        try:
            async with asyncio.timeout(PUBLISH_SECONDS):
                reader = await contracts.reader(None if declared is None else declared.event_class, schema_id)
        except TimeoutError:
            message = f"expected the schema registry to tell schema {schema_id} within {PUBLISH_SECONDS:g} s, found no answer"
            raise Problem(message, ExitCode.TIMED_OUT, "maypole doctor") from None
        faults = [] if declared is None else explain(declared.schema, reader.writer_schema)
        if faults:
            raise Undecodable(f"schema {schema_id} is none of {event_type}: {faults[0]}")
        reader.decode(value)

    async def _pinned(self, envelope: Envelope) -> Choreography | None:
        pinned = envelope.choreography
        if pinned_by_start(envelope):
            first = await self._platform.starts.first(envelope.flow_id)
            pinned = "" if first is None else first.choreography
        if pinned not in self._choreographies:
            self._choreographies[pinned] = await self._platform.catalog.choreography(pinned) if pinned else None
        return self._choreographies[pinned]


def _another_chance(verdict: Verdict, found: Chance | NoChance) -> Verdict:
    if isinstance(found, Chance):
        detail = "its flow goes on without it, and will wait for it again"
        return replace(verdict, action=Action.CHANCE, replays=None, detail=detail, chance=found)
    return replace(verdict, action=Action.SKIPPED if found.settled else Action.REFUSED, why=found.why, detail=found.detail)


async def send_all(platform: Platform, bus: Bus, letters: Letters, verdicts: Iterable[Verdict], by: str) -> AsyncIterator[Verdict]:
    """Send what the verdicts say; each comes back once its record is acknowledged. Those skipped or refused come back as they are.

    `by` is who wishes it, for the journal.
    """
    waiting: dict[Place, Verdict] = {}
    for verdict in verdicts:
        if verdict.sends:
            waiting[verdict.place] = verdict
        else:
            yield verdict
    if not waiting:
        return
    await platform.ensure([redrive_topic(agent) for agent in {place.agent for place in waiting} if _any_step(waiting.values())])
    batch: list[tuple[Verdict, Delivery]] = []
    async for record in letters():
        verdict = waiting.pop(place_of(record), None)  # type: ignore[arg-type]
        if verdict is not None:
            batch.append((verdict, record))
        if len(batch) >= _BATCH_RECORDS or (batch and not waiting):
            for sent in await _sent(platform, bus, batch, by):
                yield sent
            batch = []
    for verdict in waiting.values():
        yield replace(verdict, action=Action.REFUSED, why="gone", detail="retention has deleted it a moment ago")


async def _sent(platform: Platform, bus: Bus, batch: Sequence[tuple[Verdict, Delivery]], by: str) -> Sequence[Verdict]:
    try:
        async with asyncio.timeout(PUBLISH_SECONDS):
            steps = [(verdict, record) for verdict, record in batch if verdict.action is Action.STEP]
            copies = [redriven(record, verdict.replays or 1, platform.now() * 1000) for verdict, record in steps]
            receipts = await platform.sink.publish(copies) if copies else []
            done = [
                replace(verdict, sent_to=f"{copy.topic}/{receipt.partition}/{receipt.offset}")
                for (verdict, _), copy, receipt in zip(steps, copies, receipts, strict=True)
            ]
            for verdict, _ in batch:
                if verdict.chance is not None:
                    note = f"redriven from its dead letter, {verdict.place}"
                    done.append(replace(verdict, sent_to=await give(platform, verdict.chance, by, note)))
            flows = [(verdict, record) for verdict, record in batch if verdict.action is Action.FLOW]
            limit = asyncio.Semaphore(_FLOWS_AT_ONCE)
            return [*done, *await asyncio.gather(*(_started(bus, limit, verdict, record) for verdict, record in flows))]
    except TimeoutError:
        raise Problem(
            f"expected the broker to take {len(batch)} records within {PUBLISH_SECONDS:g} s, found no answer; some may have been written",
            ExitCode.TIMED_OUT,
            "maypole doctor, then the same command again: what was written is skipped",
        ) from None


async def _started(bus: Bus, limit: asyncio.Semaphore, verdict: Verdict, record: Delivery) -> Verdict:
    letter, envelope = verdict.letter, _identity(record)
    assert letter is not None
    assert record.value is not None
    key = None if envelope is None else envelope.business_key
    async with limit:
        try:
            published = await bus.publish_value(
                letter.origin.topic,
                record.value,
                business_key=key if key and key.isprintable() else None,
                idempotency_key=new_flow_key(letter),
                notes=causes(letter, str(verdict.place), envelope),
                linked=None if envelope is None else envelope.traceparent,
            )
        except IdempotencyConflict as error:
            return replace(verdict, action=Action.REFUSED, why="idempotency_conflict", detail=str(error))
    return replace(verdict, new_flow=published.flow_id, sent_to=f"{published.topic}/{published.partition}/{published.offset}")


_REFUSALS: Final = {
    "decided_flow": "its failure has decided its flow, which {agent} takes part in: a step that runs now would act outside of it",
    "optional_step": "it is optional, and where its flow stands is not known yet",
    "flow_untold": "whether {agent} takes part in its flow cannot be told, so its failure may have decided it",
}


_READ_ANEW: Final = (
    "the coordinator reads the journal, and nothing else: with a version that can read the record, stop the coordinators and remove "
    "their store, and they read all of it anew"
)
_OF_THE_COORDINATOR: Final = {
    Reason.COMPENSATION_FAILED.value: (
        "its flow waited for a person when this was written: `maypole saga show {flow}` tells where it stands now, and what to decide, if "
        "anything is left to"
    ),
    Reason.UNKNOWN_FLOW.value: (
        "nobody has started its flow {flow}: if its start was lost, publish its root again under the same idempotency key, stop the "
        "coordinators and remove their store, and they read all of it anew"
    ),
}


def _identity(record: Delivery) -> Envelope | None:
    headers = original_headers(record)
    try:
        return read_envelope(headers)
    except Undecodable:
        return read_identity(headers)


def _new_flow(letter: Letter) -> FlowId:
    return flow_id_of(letter.origin.topic, new_flow_key(letter))


def _any_step(verdicts: Iterable[Verdict]) -> bool:
    return any(verdict.action is Action.STEP for verdict in verdicts)
