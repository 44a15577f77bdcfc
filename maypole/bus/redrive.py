"""Sending a dead letter again: to the agent that failed only, where its failure decided nothing, and never twice in silence.

A redriven copy goes to the agent's own retry topic without a delay, so no other subscriber sees it. The copy is also the
mark that the letter is settled: one write does both, so a crash leaves a letter either settled or as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from maypole.bus.choreography import Choreography
from maypole.bus.flow_starts import may_have_started_before
from maypole.bus.moves import (
    ADDED,
    REPLAYS,
    RETRY_ATTEMPT,
    RETRY_DUE,
    RETRY_OFFSET,
    RETRY_PARTITION,
    RETRY_TOPIC,
    HeaderUnreadable,
    Origin,
    number_in,
    origin_in,
    text_in,
)
from maypole.bus.ports import Delivery, Headers, Record
from maypole.schemas.envelope import Envelope, rfc3339
from maypole.schemas.topics import FLOW_ENDED, command_topic, dead_letter_topic, is_retry_topic, redrive_topic

FIRST_FAILED_AT: Final = "dlq-first-failed-at"

REPLAYS_MAX_DEFAULT: Final = 3
"""What failed four times over, days apart, will not be helped by a fifth run of the same."""


class Letter(NamedTuple):
    """What a dead letter says of itself. `replays` counts how often it had been sent again when it failed."""

    agent: str
    origin: Origin
    replays: int
    reason: str
    first_failed_at: bytes | None


class NoLetter(ValueError):
    """A record on a dead-letter topic that no agent wrote. Names the header that is missing or cannot be read."""


def letter_of(record: Delivery) -> Letter:
    """Raises `NoLetter`."""
    try:
        return _letter(record, dict(record.headers))
    except HeaderUnreadable as error:
        raise NoLetter(str(error)) from None


def _letter(record: Delivery, headers: Mapping[str, bytes | None]) -> Letter:
    agent, reason = text_in(headers, "dlq-agent"), text_in(headers, "dlq-reason")
    if dead_letter_topic(agent) != record.topic:
        raise NoLetter(f"expected a dead letter of {record.topic.rpartition('.')[0]}, found dlq-agent {agent!r}")
    origin = Origin(text_in(headers, "dlq-topic"), number_in(headers, "dlq-partition"), number_in(headers, "dlq-offset"))
    if is_retry_topic(agent, origin.topic):
        origin = origin_in(headers)
    replays = number_in(headers, REPLAYS) if headers.get(REPLAYS) is not None else 0
    return Letter(agent, origin, replays, reason, headers.get(FIRST_FAILED_AT))


def original_headers(record: Delivery) -> list[tuple[str, bytes | None]]:
    """The headers as they were before any agent added to them."""
    return [(name, value) for name, value in record.headers if not name.startswith("dlq-") and name not in ADDED]


def redriven(record: Delivery, replays: int, now_ms: float) -> Record:
    """The copy for the agent that failed: key, value and headers of the original, and which run of it this is.

    `replays` counts this one, from 1; `now_ms`, milliseconds since the epoch, is when it is due. Its attempts begin anew.
    Raises `NoLetter`.
    """
    letter = letter_of(record)
    headers = [
        *original_headers(record),
        (RETRY_DUE, rfc3339(now_ms).encode()),
        (RETRY_ATTEMPT, b"1"),
        (RETRY_TOPIC, letter.origin.topic.encode()),
        (RETRY_PARTITION, b"%d" % letter.origin.partition),
        (RETRY_OFFSET, b"%d" % letter.origin.offset),
        (REPLAYS, b"%d" % replays),
    ]
    if letter.first_failed_at is not None:
        headers.append((FIRST_FAILED_AT, letter.first_failed_at))
    return Record(redrive_topic(letter.agent).name, record.key, record.value, headers)


class Copies:
    """What was redriven already, folded from the copies on the topic `<agent>.retry.0s`."""

    def __init__(self) -> None:
        self._replays: dict[tuple[str, Origin], int] = {}

    def saw(self, agent: str, copy: Delivery) -> None:
        """A record without a replay count is no redriven copy, and one that cannot be read is nobody's."""
        headers = dict(copy.headers)
        try:
            at = agent, origin_in(headers)
            replays = number_in(headers, REPLAYS)
        except HeaderUnreadable:
            return
        self._replays[at] = max(replays, self._replays.get(at, 0))

    def replays_of(self, letter: Letter) -> int:
        """How often the record that the letter is about was sent again up to now."""
        return max(letter.replays, self._replays.get((letter.agent, letter.origin), 0))

    def settles(self, letter: Letter) -> bool:
        """Whether the letter was sent again since it was written: another failure is another letter, with a higher count."""
        return self.replays_of(letter) > letter.replays


class Standing(StrEnum):
    """What the failure meant to the record's flow."""

    NO_FLOW = "no_flow"
    """The record's flow cannot be read, so nothing was journaled and nobody waits."""
    OBSERVED = "observed"
    """The agent only watched the flow: nothing of it was journaled, awaited or undone."""
    OPTIONAL = "optional_step"
    """Its flow goes on without it, unless something else has ended the flow."""
    DECIDED = "decided_flow"
    """The flow was told that the step failed for good, and has been ended by it or is being undone."""
    UNTOLD = "flow_untold"
    """It cannot be told whether the agent took part, so it must be taken for granted."""

    @property
    def runs_again(self) -> bool:
        return self in (Standing.NO_FLOW, Standing.OBSERVED)


def pinned_by_start(envelope: Envelope) -> bool:
    """Whether the flow's choreography is told by its first start in the journal, and not by the event's own header."""
    return envelope.is_root and not envelope.observer and (not envelope.choreography or may_have_started_before(envelope.flow_id))


def standing(letter: Letter, envelope: Envelope | None, choreography: Choreography | None) -> Standing:
    """`envelope` is what can be read of it, None where its flow cannot; `choreography` the one that its flow is pinned to."""
    agent, origin, *_ = letter
    if origin.topic == command_topic(agent):
        return Standing.DECIDED
    if envelope is None:
        return Standing.NO_FLOW
    if envelope.observer or origin.topic == FLOW_ENDED:
        return Standing.OBSERVED
    if choreography is None:
        return Standing.UNTOLD
    mine = [reaction for reaction in choreography.triggered_by(origin.topic) if reaction.agent == agent]
    if not mine:
        return Standing.OBSERVED
    return Standing.OPTIONAL if all(reaction.optional for reaction in mine) else Standing.DECIDED


def new_flow_key(letter: Letter) -> str:
    """The idempotency key under which the letter's body starts a flow of its own: repeating it gives the same flow.

    Derived from where the record lay and how often it was sent again, so that a letter that a crash made an agent write
    twice is one flow too.
    """
    return f"dlq/{letter.agent}/{letter.origin}/{letter.replays}"


def causes(letter: Letter, place: str, envelope: Envelope | None) -> Headers:
    """What the root of such a flow says of where it comes from; it has no causation id, or it would be no root."""
    headers = [("redriven-letter", place.encode()), (REPLAYS, b"%d" % (letter.replays + 1))]
    if envelope is not None:
        headers += [("redriven-flow", envelope.flow_id.encode()), ("redriven-event", envelope.event_id.encode())]
    return headers


def newest_first_of_each(letters: Iterable[tuple[str, Letter]]) -> Mapping[tuple[str, Origin], str]:
    """Of letters with their places, in order: the one to act on for each record; others are older, or a crash's repetitions."""
    chosen: dict[tuple[str, Origin], tuple[int, str]] = {}
    for place, letter in letters:
        known = chosen.get((letter.agent, letter.origin))
        if known is None or letter.replays > known[0]:
            chosen[letter.agent, letter.origin] = letter.replays, place
    return {record: place for record, (_, place) in chosen.items()}
