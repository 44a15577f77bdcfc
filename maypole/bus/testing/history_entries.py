"""The entries of a history: what can be seen of a run from outside. Times are milliseconds of one clock."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from maypole.bus.ports import TopicPartition


class Outcome(StrEnum):
    """How a step ended. The first four exclude one another."""

    COMPLETED = "completed"
    FAILED = "failed"
    ABANDONED = "abandoned"
    FENCED = "fenced"
    COMPENSATED = "compensated"


class Published(NamedTuple):
    """A publisher was told that its record lies here."""

    at: TopicPartition
    offset: int
    event_id: str


class Stored(NamedTuple):
    """A record on a topic of events. Ids are empty where its headers cannot be read.

    `parent` is None on a root; `maker` is the agent's name, empty for publishers; `digest` covers what a repetition must
    repeat: key, value and `ce_` headers.
    """

    at: TopicPartition
    offset: int
    time_ms: float
    flow: str
    event_id: str
    parent: str | None
    maker: str
    choreography: str
    observed: bool
    digest: bytes


class Began(NamedTuple):
    """Where an agent's group began to read a partition."""

    agent: str
    at: TopicPartition
    offset: int


class Taken(NamedTuple):
    """An agent was handed this record. A history that has any of an agent is expected to have all of it."""

    agent: str
    at: TopicPartition
    offset: int


class Committed(NamedTuple):
    """The next offset to read, as the broker has it in the end."""

    agent: str
    at: TopicPartition
    position: int


class Started(NamedTuple):
    """The journal's word on what a flow is pinned to; the first counts."""

    order: int
    flow: str
    choreography: str


class Ended(NamedTuple):
    """The journal's word on a step. `order` is its offset; `agent` and `parents` are empty where the record does not say.

    `outputs` are pairs of event id and digest of the value.
    """

    order: int
    time_ms: float
    record_id: str
    flow: str
    step: str
    agent: str
    parents: tuple[str, ...]
    outcome: Outcome
    outputs: tuple[tuple[str, bytes], ...] = ()


class Buried(NamedTuple):
    """A dead letter of an agent, and where the original lies."""

    agent: str
    at: TopicPartition
    offset: int
    reason: str


class Called(NamedTuple):
    """The witness was asked to act, by an agent because of an event, under an idempotency key."""

    time_ms: float
    agent: str
    trigger: str
    key: str


class TakenBack(NamedTuple):
    """The witness was asked to take back what it had been asked for, or might have been."""

    time_ms: float
    agent: str
    trigger: str
    key: str


class Closed(NamedTuple):
    """The journal's word on how a flow ended; the last counts. `state` as in `FlowEnded`."""

    order: int
    flow: str
    state: str


class Tried(NamedTuple):
    """An agent called its handler because of an event."""

    time_ms: float
    agent: str
    trigger: str
    step: str


class Due(NamedTuple):
    """Since `time_ms` it is written that an agent tries an event no more before `due_ms`."""

    agent: str
    event_id: str
    time_ms: float
    due_ms: float


class Missed(NamedTuple):
    """An agent said that retention deleted the records from `wanted` up to, not including, `oldest` before it had read them."""

    agent: str
    at: TopicPartition
    wanted: int
    oldest: int


class Witnessed(NamedTuple):
    """Every completed step of this agent calls the witness, and so does every undo of one."""

    agent: str


class Pinned(NamedTuple):
    """The agents that take part in flows of a choreography; others observe, and nothing is journaled of them.

    The others are pairs of agent and topic: whose steps may well end twice, whose events are parts of a join, and of one that
    may go without them.
    """

    choreography: str
    agents: frozenset[str]
    pure: frozenset[tuple[str, str]] = frozenset()
    joins: frozenset[tuple[str, str]] = frozenset()
    expiring: frozenset[tuple[str, str]] = frozenset()


Entry = (
    Published | Stored | Began | Taken | Committed | Started | Ended | Buried | Called | TakenBack | Closed | Tried | Due | Missed
    | Witnessed | Pinned
)  # fmt: skip
