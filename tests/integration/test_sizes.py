"""What is too large or too many for the broker is a failed step with the sizes in its dead letter, and holds nobody up."""

from __future__ import annotations

import pytest

from maypole.bus import Agent, Event
from maypole.bus.composition import Platform
from maypole.bus.hook import Untraced
from maypole.bus.ports import TopicSpec
from maypole.services.saga import State
from tests.support.names import unique_agent, unique_topic
from tests.support.world import ended, letters, read_topic, running

TOPIC_BYTES = 100_000


class Wanted(Event, type="sizes.wanted"):
    bytes: int
    events: int


def writing(name: str, topic: str, *, pure: bool) -> Agent:
    agent = Agent(name)

    class Written(Event, type=topic):
        text: str

    @agent.on(Wanted, pure=pure)
    async def write(wanted: Wanted) -> list[Written]:
        return [Written(text="x" * wanted.bytes)] * wanted.events

    return agent


@pytest.mark.parametrize("pure", [True, False], ids=["pure", "recorded"])
@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (Wanted(bytes=TOPIC_BYTES, events=1), "at most 91808 bytes on this topic"),
        (Wanted(bytes=1, events=12_000), "12000 events"),
    ],
    ids=["one event is too large", "so many that the journal cannot take it"],
)
async def test_what_the_broker_would_not_take_is_a_failed_step(platform: Platform, wanted: Wanted, said: str, pure: bool) -> None:
    topic = unique_topic("sizes.written")
    await platform.transport.cluster.create([TopicSpec(topic, 1, {"max.message.bytes": str(TOPIC_BYTES)})])
    agent = writing(unique_agent("writing"), topic, pure=pure)
    bus = platform.bus("tests", Untraced())
    async with running(platform, agent):
        too_much = await bus.publish(wanted)
        assert (await ended(platform, too_much.flow_id)).state is State.COMPENSATED
        ((_, why),) = await letters(platform, agent.name, 1)
        # As much as fits goes through, and what follows is not held up.
        enough = await bus.publish(Wanted(bytes=91_000, events=1))
        assert (await ended(platform, enough.flow_id)).state is State.COMMITTED
    assert why["dlq-reason"] == "contract_refused" and said in why["dlq-error"], why["dlq-error"]
    assert {record.key for record in await read_topic(platform, topic)} == {enough.flow_id.encode()}
