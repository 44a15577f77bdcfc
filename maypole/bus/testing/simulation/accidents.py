"""Accidents of the broker, the ledgers and the network, and the trouble that comes every few seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from maypole.bus.agent import Agent
from maypole.bus.memory.faults import Faults
from maypole.bus.ports import Delivery, Record, TopicPartition
from maypole.bus.stores.memory import LedgerFaults
from maypole.bus.testing.simulation.chance import Chance, log_uniform
from maypole.bus.testing.simulation.instance import Instance
from maypole.bus.testing.simulation.loop import Condition, SimulatedLoop
from maypole.bus.testing.simulation.stage import Stage
from maypole.bus.testing.simulation.story import Story
from maypole.schemas.topics import JOURNAL

_USUAL_SECONDS: Final = (0.0005, 0.004)
_SLOW_SECONDS: Final = (0.05, 20.0)
_LATE_SECONDS: Final = (0.02, 20.0)
_AWAY_SECONDS: Final = (0.1, 60.0)
_BETWEEN_TROUBLES_SECONDS: Final = 3.0


class Network:
    """How long everything takes, and what becomes of it on its way."""

    def __init__(self, loop: SimulatedLoop, chance: Chance, story: Story) -> None:
        self._loop = loop
        self._refused = ("", 0.0)
        self._chance = chance
        self._story = story
        self._usual = chance.stream("network").uniform

    def seconds(self, what: str) -> float:
        """Of one way, there or back."""
        slow = self._chance.strikes("slow")
        if slow is None:
            return self._usual(*_USUAL_SECONDS)
        seconds = log_uniform(slow, *_SLOW_SECONDS)
        self._story.tell(f"{what} takes {seconds:.3f} s")
        return seconds

    def broker_faults(self) -> Faults:
        return Faults(
            refuse=self._refuse,
            append_twice=self._twice,
            write_after=self._write_after,
            acknowledge_after=lambda record: self._usual(*_USUAL_SECONDS),
            arrive_after=self._arrive_after,
            commit_after=lambda group: self.seconds(f"a commit of {group}"),
            deliver_again=self._again,
        )

    def ledger_faults(self) -> LedgerFaults:
        return LedgerFaults(
            refuse=lambda call: self._unavailable(call, "before"),
            lose_answer=lambda call: self._unavailable(call, "after"),
            take=self._ledger_takes,
        )

    def store_fails(self, call: str) -> bool:
        """What a coordinator keeps cannot be used: nothing was done."""
        return self._unavailable(f"{call} of a coordinator's", "before")

    def _write_after(self, records: Sequence[Record]) -> float:
        return self.seconds(f"writing to {', '.join(sorted({record.topic for record in records}))}")

    def _arrive_after(self, record: Record) -> float:
        self._story.mark(f"{record.topic} {record.key!r} {_id(record)}")
        late = self._chance.strikes("late")
        if late is None:
            return self._usual(*_USUAL_SECONDS)
        seconds = log_uniform(late, *_LATE_SECONDS)
        self._story.tell(f"a record on {record.topic} can be read {seconds:.3f} s late")
        return seconds

    def _refuse(self, record: Record) -> str | None:
        """And whatever is written to the same topic at the same time, as where it is not allowed: later records never overtake it."""
        moment = (record.topic, self._loop.time())
        if moment == self._refused:
            return "refused by chance"
        if self._chance.strikes("refused") is None:
            return None
        self._refused = moment
        self._story.tell(f"a record for {record.topic} is refused")
        return "refused by chance"

    def _twice(self, record: Record) -> bool:
        if self._chance.strikes("twice") is None:
            return False
        self._story.tell(f"a record is written twice to {record.topic}")
        return True

    def _again(self, delivery: Delivery) -> bool:
        if self._chance.strikes("again") is None:
            return False
        self._story.tell(f"{delivery.topic}/{delivery.partition}@{delivery.offset} is delivered twice")
        return True

    def _unavailable(self, call: str, when: str) -> bool:
        self._story.mark(f"ledger {call} {when}")
        if self._chance.strikes("unavailable") is None:
            return False
        self._story.tell(f"a ledger fails {when} it has done {call}")
        return True

    def _ledger_takes(self, call: str) -> float:
        return self.seconds(f"a ledger's {call}")


async def trouble(stage: Stage, agents: Sequence[Agent], instances: Sequence[Instance]) -> None:
    """Until cancelled: what befalls a group or the broker as a whole."""
    chance, pauses = stage.chance, stage.chance.stream("troubles")
    while True:
        await asyncio.sleep(pauses.expovariate(1 / _BETWEEN_TROUBLES_SECONDS))
        if (hard := chance.strikes("leave")) is not None:
            _one_of(instances, hard).leave()
        if (hard := chance.strikes("expel")) is not None:
            expelled = _one_of(instances, hard)
            if expelled.process.condition is Condition.RUNNING:
                stage.story.tell(f"the group gives up on {expelled.process.name}")
                expelled.transport.expel()
        if (hard := chance.strikes("outage")) is not None and not stage.broker.is_away:
            seconds = log_uniform(hard, *_AWAY_SECONDS)
            stage.story.tell(f"the broker is away for {seconds:.3f} s")
            stage.broker.go_away()
            stage.later(seconds, stage.broker.come_back)
        if (hard := chance.strikes("expire")) is not None:
            _expire(stage, agents, hard)


def _expire(stage: Stage, agents: Sequence[Agent], hard: float) -> None:
    """Retention deletes what some agent has not read yet."""
    inputs = sorted({(topic, each.name) for each in agents for topic in _inputs(each)})
    topic, agent = inputs[int(hard * len(inputs)) % len(inputs)]
    counts = stage.broker.topics()
    for partition in range(counts.get(topic, 0)):
        at = TopicPartition(topic, partition)
        position, end = stage.broker.group(agent).committed.get(at, 0), stage.broker.log(at).end
        if position < end:
            stage.story.tell(f"{topic}/{partition} is cut before @{end}, and {agent} is at @{position}")
            stage.broker.trim(at, end)


def _inputs(agent: Agent) -> list[str]:
    return [topic for each in agent.subscriptions for topic in each.event_types if topic != JOURNAL]


def _one_of(instances: Sequence[Instance], hard: float) -> Instance:
    # The leading digits decide how hard it is; those behind them, who it is.
    return instances[int(hard * 1e6) % len(instances)]


def _id(record: Record) -> str:
    return next(((value or b"").decode(errors="replace") for name, value in record.headers if name == "ce_id"), "")
