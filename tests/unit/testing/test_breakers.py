"""An outage costs time and nothing else: what meets an open breaker waits, and goes on by itself when the outage is over."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from typing import Any

import pytest

from maypole.bus import Agent, Alert, Breaker, Cached, Context, Default, Event, Reject, Skip, WrongDeclaration, all_of
from maypole.bus.fallbacks import Fallback
from maypole.bus.memory.member import MemoryMember
from maypole.bus.ports import Delivery, TopicPartition
from maypole.bus.testing import Choreography, Faults, Flow
from maypole.schemas.topics import CATALOG, JOURNAL


class Asked(Event, type="outage.asked"):
    text: str


class Answered(Event, type="outage.answered"):
    text: str


class Counted(Event, type="outage.counted"):
    letters: int


class Joined(Event, type="outage.joined"):
    text: str


class Service:
    """Somebody else's, and what asked it when. It is away until `back`."""

    def __init__(self) -> None:
        self.away = True
        self.poison: set[str] = set()
        self.calls: list[tuple[float, str]] = []

    async def ask(self, text: str) -> str:
        self.calls.append((asyncio.get_running_loop().time(), text))
        await asyncio.sleep(0.01)
        if self.away or text in self.poison:
            raise ConnectionError("nobody answers")
        return text.upper()

    @property
    def tries(self) -> int:
        return len(self.calls)


def answering(service: Service, **options: Any) -> Agent:
    agent = Agent("answering")

    @agent.on(Asked, **options)
    async def answer(asked: Asked) -> Answered:
        return Answered(text=await service.ask(asked.text))

    return agent


def needing(service: Service, seen: list[int] | None = None, **options: Any) -> Agent:
    """Needs the service, and says so."""
    agent = Agent("needing", dependencies={"service": Breaker(failures=2)})

    @agent.on(Asked, **options)
    async def answer(asked: Asked, context: Context) -> Answered:
        if seen is not None:
            seen.append(context.attempt)
        async with context.dependency("service"):
            return Answered(text=await service.ask(asked.text))

    return agent


def expel(world: Choreography, agent: str) -> None:
    (member,) = world.broker.group(agent).members
    assert isinstance(member, MemoryMember)
    member.expel()


async def asked(world: Choreography, *texts: str) -> list[Flow]:
    return [await world.publish(Asked(text=text)) for text in texts]


def numbered(count: int, start: int = 0) -> list[str]:
    return [f"q{number}" for number in range(start, start + count)]


async def opened(world: Choreography, service: Service) -> list[Flow]:
    flows = await asked(world, *numbered(5))
    await asyncio.sleep(1)
    assert service.tries == 5
    return flows


def committed(world: Choreography, agent: str) -> int:
    return sum(world.broker.group(agent).committed.values())


async def test_a_long_outage_burns_no_attempt_and_loses_nothing() -> None:
    service = Service()
    agent = answering(service)
    async with Choreography([agent]) as world:
        flows = await asked(world, *numbered(100))
        await asyncio.sleep(3600)
        assert all(flow.state == "running" for flow in flows)
        assert world.dead_letters(agent) == ()
        assert service.tries < 100 + 3600 / 60 + 5, "each was tried once at most before it opened, then one a minute"
        service.away = False
        for flow in flows:
            assert await flow.finished(timeout_seconds=120) == "committed"
        assert world.dead_letters(agent) == ()


async def test_who_makes_one_probe_after_the_other_is_not_given_up_for_it() -> None:
    service = Service()
    agent = answering(service)
    async with Choreography([agent]) as world:
        flows = await opened(world, service)
        await asyncio.sleep(3600)
        assert service.tries > 60 and world.dead_letters(agent) == ()
        service.away = False
        for flow in flows:
            assert await flow.finished(timeout_seconds=120) == "committed"


async def test_an_open_breaker_pauses_its_subscription_and_offsets_stay() -> None:
    service, fetched = Service(), list[Delivery]()

    def fetching(delivery: Delivery) -> bool:
        fetched.append(delivery)
        return False

    faults = Faults(deliver_again=fetching)
    async with Choreography([answering(service)], faults=faults) as world:
        await opened(world, service)
        before = committed(world, "answering")
        later = await asked(world, *numbered(200, 100))
        await asyncio.sleep(30)
        assert 5 < fetched_of(fetched) < 15, "no more is fetched of it than the next probe needs"
        assert service.tries == 5 and committed(world, "answering") == before
        service.away = False
        for flow in later:
            assert await flow.finished(timeout_seconds=120) == "committed"


def fetched_of(deliveries: list[Delivery]) -> int:
    return len({delivery[:3] for delivery in deliveries if delivery.topic == Asked.event_type})


async def test_one_probe_is_let_through_when_the_time_is_over_and_a_failed_one_starts_it_again() -> None:
    service = Service()
    async with Choreography([answering(service, breaker=Breaker(open_seconds=60))]) as world:
        flows = await opened(world, service)
        await asyncio.sleep(57)
        assert service.tries == 5, "not before its time"
        for minute in range(1, 6):
            await asyncio.sleep(60)
            assert service.tries == 5 + minute, "one a minute"
        times = [at for at, _ in service.calls[5:]]
        assert all(60 <= later - earlier < 60.5 for earlier, later in pairwise(times))
        assert len({text for _, text in service.calls[5:]}) == 5, "each time somebody else"
        service.away = False
        for flow in flows:
            assert await flow.finished() == "committed"


async def test_the_other_subscriptions_of_the_agent_go_on() -> None:
    service = Service()
    agent = answering(service)

    @agent.on(Answered)
    async def count(answered: Answered) -> Counted:
        return Counted(letters=len(answered.text))

    async with Choreography([agent]) as world:
        await opened(world, service)
        flow = await world.publish(Answered(text="four"))
        assert await flow.finished(timeout_seconds=5) == "committed"


async def test_a_full_window_of_waiting_records_leaves_room_for_the_other_subscriptions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maypole.bus.delivery_loop.RECORDS_IN_HAND_MAX", 20)
    service = Service()
    agent = answering(service)

    @agent.on(Answered)
    async def count(answered: Answered) -> Counted:
        return Counted(letters=len(answered.text))

    async with Choreography([agent]) as world:
        await asked(world, *numbered(60))
        await asyncio.sleep(10)
        flow = await world.publish(Answered(text="four"))
        assert await flow.finished(timeout_seconds=5) == "committed"


async def test_records_that_can_never_succeed_do_not_keep_the_breaker_open() -> None:
    service = Service()
    service.away = False
    service.poison = set(numbered(5))
    async with Choreography([answering(service)]) as world:
        poisoned = await opened(world, service)
        for number in range(6):
            (good,) = await asked(world, f"good{number}")
            assert await good.finished(timeout_seconds=70) == "committed", "the next probe is somebody else's"
            await asyncio.sleep(5)
        for flow in poisoned:
            assert await flow.finished(timeout_seconds=600) == "compensated"
            assert flow.dead_letters[0].reason == "attempts_exhausted"


async def test_what_is_nobodys_outage_opens_nothing() -> None:
    agent = Agent("refusing")

    @agent.on(Asked)
    async def refuse(asked: Asked) -> None:
        raise Reject("no")

    async with Choreography([agent]) as world:
        for flow in await asked(world, *numbered(20)):
            assert await flow.finished() == "compensated"


async def test_without_a_breaker_every_attempt_counts() -> None:
    service = Service()
    async with Choreography([answering(service, breaker=None)]) as world:
        for flow in await asked(world, *numbered(20)):
            assert await flow.finished() == "compensated"
        assert service.tries == 60


async def test_a_stop_does_not_wait_for_what_waits_and_it_is_delivered_again() -> None:
    service = Service()
    agent = answering(service)
    async with Choreography([agent]) as world:
        flows = await opened(world, service)
        before = world.now()
        await world.stop(agent)
        assert world.now() - before < 5, "the drain has 30 s, and needs none of it"
        assert committed(world, "answering") == 0
        service.away = False
        await world.start(agent)
        for flow in flows:
            assert await flow.finished() == "committed"


async def test_a_rebalance_while_it_is_open_gives_back_what_waits() -> None:
    service = Service()
    async with Choreography([answering(service)]) as world:
        flows = await opened(world, service)
        await asyncio.sleep(58)
        expel(world, "answering")
        service.away = False
        for flow in flows:
            assert await flow.finished(timeout_seconds=120) == "committed"
        await asyncio.sleep(1)
        assert committed(world, "answering") == 5
        assert len({text for _, text in service.calls[5:]}) == 5 == service.tries - 5


async def test_a_probe_that_is_taken_away_leaves_the_next_one_to_somebody_else() -> None:
    service = Service()
    agent, stuck = Agent("answering"), asyncio.Event()

    @agent.on(Asked, timeout_seconds=210)
    async def answer(asked: Asked) -> Answered:
        if service.tries >= 5 and not stuck.is_set():
            stuck.set()
            await asyncio.sleep(200)
        return Answered(text=await service.ask(asked.text))

    async with Choreography([agent]) as world:
        flows = await opened(world, service)
        service.away = False
        await stuck.wait()
        expel(world, "answering")
        for flow in flows:  # the one that was cut off waits for its own lease
            assert await flow.finished(timeout_seconds=220) == "committed"


async def test_who_needs_a_dependency_that_is_away_waits_without_an_attempt_being_counted() -> None:
    service, attempts = Service(), list[int]()
    agent = needing(service, attempts, breaker=None)
    async with Choreography([agent]) as world:
        flows = await asked(world, *numbered(20))
        await asyncio.sleep(3600)
        assert world.dead_letters(agent) == ()
        assert service.tries < 20 + 60 + 5
        assert max(attempts) <= 3
        service.away = False
        for flow in flows:
            assert await flow.finished(timeout_seconds=120) == "committed"


async def test_a_dependency_that_is_away_leaves_alone_who_does_not_need_it() -> None:
    service = Service()
    agent = needing(service)

    @agent.on(Answered)
    async def count(answered: Answered) -> Counted:
        return Counted(letters=len(answered.text))

    async with Choreography([agent]) as world:
        await asked(world, *numbered(5))
        await asyncio.sleep(10)
        flow = await world.publish(Answered(text="four"))
        assert await flow.finished(timeout_seconds=5) == "committed"


async def test_a_plain_function_uses_a_dependency_too() -> None:
    agent, away = Agent("plain", dependencies={"service": Breaker(failures=2)}), [True]

    @agent.on(Asked)
    def answer(asked: Asked, context: Context) -> Answered:
        with context.dependency("service"):
            if away[0]:
                raise ConnectionError("nobody answers")
        return Answered(text=asked.text)

    async with Choreography([agent]) as world:
        flows = await asked(world, *numbered(4))
        await asyncio.sleep(600)
        assert world.dead_letters(agent) == ()
        away[0] = False
        for flow in flows:
            assert await flow.finished(timeout_seconds=120) == "committed"


async def test_a_step_that_acts_waits_for_its_dependency_too() -> None:
    service = Service()
    agent = needing(service, pivot=True)
    async with Choreography([agent]) as world:
        flows = await asked(world, *numbered(6))
        await asyncio.sleep(1800)
        assert world.dead_letters(agent) == ()
        service.away = False
        for flow in flows:
            assert await flow.finished(timeout_seconds=120) == "committed"


GUESS = Answered(text="perhaps")


@pytest.mark.parametrize(
    ("fallback", "mark", "texts"),
    [
        (Skip(GUESS), "skip", ["perhaps"]),
        (Default(GUESS, GUESS), "default", ["perhaps"] * 2),
        (Alert(GUESS), "alert", ["perhaps"]),
    ],
)
async def test_a_fallback_serves_instead_of_waiting_and_marks_what_it_served(fallback: Fallback, mark: str, texts: list[str]) -> None:
    service = Service()
    async with Choreography([answering(service, breaker=Breaker(fallback=fallback))]) as world:
        await asked(world, *numbered(5))
        await asyncio.sleep(5)
        tries = service.tries
        (flow,) = await asked(world, "later")
        assert await flow.finished() == "committed"
        assert service.tries == tries, "its handler was not called"
        assert [answered.text for answered in flow.of(Answered)] == texts
        assert marks(world, Answered.event_type, flow) == [mark] * len(texts)
        assert mark in marks(world, JOURNAL, flow), "the journal tells it too"
        service.away = False
        await asyncio.sleep(60)
        (probe,) = await asked(world, "real")
        assert await probe.finished() == "committed"
        assert [answered.text for answered in probe.of(Answered)] == ["REAL"]
        assert marks(world, Answered.event_type, probe) == [None]


def marks(world: Choreography, topic: str, flow: Flow) -> list[str | None]:
    found = [dict(record.headers).get("ce_degraded") for record in written(world, topic) if record.key == flow.flow_id.encode()]
    return [None if mark is None else mark.decode() for mark in found]


async def test_what_comes_of_a_fallback_is_marked_too() -> None:
    service, counting, joining = Service(), Agent("counting"), Agent("joining")

    @counting.on(Answered)
    async def count(answered: Answered) -> Counted:
        return Counted(letters=len(answered.text))

    @joining.on(all_of(Asked, Counted))
    async def join(asked: Asked, counted: Counted) -> Joined:
        return Joined(text=asked.text * counted.letters)

    agent = answering(service, breaker=Breaker(fallback=Default(GUESS)))
    async with Choreography([agent, counting, joining]) as world:
        await asked(world, *numbered(5))
        await asyncio.sleep(5)
        (flow,) = await asked(world, "later")
        assert await flow.finished() == "committed"
        await asyncio.sleep(1)
        assert {event.type: event.degraded for event in flow.events} == {
            "outage.asked": None, "outage.answered": "default", "outage.counted": "inherited", "outage.joined": "inherited",
        }  # fmt: skip
        assert set(marks(world, Answered.event_type, flow)) == {"default"}
        assert set(marks(world, JOURNAL, flow)) == {None, "default", "inherited"}


async def test_the_last_answer_for_the_same_key_serves_with_its_age() -> None:
    service = Service()
    service.away = False
    async with Choreography([answering(service, breaker=Breaker(fallback=Cached(300)))]) as world:
        first = await world.publish(Asked(text="known"), business_key="customer-7")
        assert await first.finished() == "committed"
        service.away = True
        waiting = await asked(world, *numbered(5))
        await asyncio.sleep(10)
        second = await world.publish(Asked(text="unknown"), business_key="customer-7")
        assert await second.finished(timeout_seconds=5) == "committed"
        assert [answered.text for answered in second.of(Answered)] == ["KNOWN"]
        assert marks(world, Answered.event_type, second) == ["cached"]
        (served,) = [each for each in written(world, Answered.event_type) if each.key == second.flow_id.encode()]
        assert 10 <= float(dict(served.headers)["ce_degradedage"] or b"") < 60, "seconds since the answer was given"
        assert all(flow.state == "running" for flow in waiting), "for whom nothing is known, waits"
        service.away = False
        for flow in waiting:
            assert await flow.finished(timeout_seconds=120) == "committed"


async def test_an_answer_that_is_too_old_serves_nobody() -> None:
    service = Service()
    service.away = False
    breaker = Breaker(open_seconds=3600, fallback=Cached(300, otherwise=Default(GUESS)))
    async with Choreography([answering(service, breaker=breaker)]) as world:
        assert await (await world.publish(Asked(text="known"), business_key="customer-7")).finished() == "committed"
        service.away = True
        for flow in await asked(world, *numbered(5)):
            assert await flow.finished() == "committed"
        told = []
        for seconds in (100, 300):
            await asyncio.sleep(seconds)
            flow = await world.publish(Asked(text="unknown"), business_key="customer-7")
            assert await flow.finished(timeout_seconds=5) == "committed"
            told.append(([answered.text for answered in flow.of(Answered)], marks(world, Answered.event_type, flow)))
    assert told == [(["KNOWN"], ["cached"]), (["perhaps"], ["default"])]


async def test_a_step_may_be_skipped_without_a_word_to_whoever_comes_after_it() -> None:
    service, agent = Service(), Agent("answering")

    @agent.on(Asked, breaker=Breaker(fallback=Skip()))
    async def answer(asked: Asked) -> Answered | None:
        return Answered(text=await service.ask(asked.text))

    async with Choreography([agent]) as world:
        await opened(world, service)
        (flow,) = await asked(world, "later")
        assert await flow.finished() == "committed"
        assert service.tries == 5, "its handler was not called"
        assert flow.types == (Asked.event_type,)
        assert marks(world, JOURNAL, flow) == [None, "skip"], "only the journal tells of it"


async def test_an_alert_calls_somebody_once_for_each_outage() -> None:
    service = Service()
    with listening() as (address, posted):
        async with Choreography([answering(service, breaker=Breaker(fallback=Alert(GUESS, address)))]) as world:
            for flow in await asked(world, *numbered(8)):
                await flow.finished(timeout_seconds=10)
            await asyncio.sleep(1)
            assert len(posted) == 1
            service.away = False
            await asyncio.sleep(60)
            (flow,) = await asked(world, "good")
            assert await flow.finished() == "committed" and flow.degraded == ()
            service.away = True
            for flow in await asked(world, *numbered(8)):
                await flow.finished(timeout_seconds=10)
            await asyncio.sleep(1)
    body, again = posted
    assert again["flow_id"] != body["flow_id"]
    assert body["agent"] == "answering" and body["subscription"] == "outage.asked"
    assert body["event"] == {"type": "outage.answered", "data": {"text": "perhaps"}}
    assert "ConnectionError: nobody answers" in body["because"]


async def test_an_alert_calls_somebody_at_every_outage_of_a_dependency_too() -> None:
    service = Service()
    with listening() as (address, posted):
        async with Choreography([agent := needing(service, breaker=Breaker(fallback=Alert(GUESS, address)))]) as world:
            for outages in (1, 2):
                service.away = True
                for flow in await asked(world, *(f"{number} of {outages}" for number in range(5))):
                    assert await flow.finished(timeout_seconds=10) == "committed"
                await asyncio.sleep(1)
                assert len(posted) == outages
                service.away = False
                await asyncio.sleep(60)
                (flow,) = await asked(world, "good")
                assert await flow.finished() == "committed" and flow.degraded == (), "its breaker is closed"
        assert world.dead_letters(agent) == ()
    assert all("service is away" in body["because"] for body in posted)


async def test_a_call_that_nobody_answers_costs_a_line_in_the_log_and_no_flow(caplog: pytest.LogCaptureFixture) -> None:
    service = Service()
    with listening() as (address, _):
        pass  # nobody listens there any more
    async with Choreography([answering(service, breaker=Breaker(fallback=Alert(GUESS, f"{address}secret")))]) as world:
        for flow in await asked(world, *numbered(8)):
            assert await flow.finished(timeout_seconds=10) == "committed"
        await asyncio.sleep(1)
    (unheard,) = (record for record in caplog.records if record.message == "alert.unheard")
    about = vars(unheard)
    assert (about["agent"], about["subscription"]) == ("answering", "outage.asked")
    assert "refused" in about["error"] and "secret" not in str(about), "the address may hold a secret"


@contextmanager
def listening() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    posted: list[dict[str, Any]] = []

    class Listener(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Listener) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/", posted
        finally:
            server.shutdown()
            thread.join()


async def test_every_transition_is_logged_and_the_catalog_tells_what_is_not_closed(caplog: pytest.LogCaptureFixture) -> None:
    service = Service()
    with caplog.at_level(logging.INFO, "maypole.bus.guarding"):
        async with Choreography([answering(service)]) as world:
            flows = await opened(world, service)
            await asyncio.sleep(1)
            (breaker,) = standing(world)
            assert breaker["breaker"] == "subscription" and breaker["name"] == "outage.asked" and breaker["state"] == "open"
            assert breaker["because"] == "5 consecutive failures, the last: ConnectionError: nobody answers"
            service.away = False
            for flow in flows:
                await flow.finished(timeout_seconds=120)
            await asyncio.sleep(1)
            assert standing(world) == []
    told = [
        (each.message, vars(each)["agent"], vars(each)["subscription"]) for each in caplog.records if each.message.startswith("breaker.")
    ]
    assert told == [(f"breaker.{state}", "answering", "outage.asked") for state in ("opened", "half_open", "closed")]


@pytest.mark.parametrize(("agent", "breaker"), [(answering, "subscription outage.asked"), (needing, "dependency service")])
async def test_every_transition_is_told_to_the_observer_of_the_attempt_that_moved_it(
    agent: Callable[[Service], Agent], breaker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, told = Service(), list[tuple[str, str]]()
    monkeypatch.setattr("maypole.bus.hook._Untraced.breaker_moved", lambda observer, state, name, because: told.append((state, name)))
    async with Choreography([agent(service)]) as world:
        flows = await opened(world, service)
        await asyncio.sleep(90)  # a probe that fails
        service.away = False
        for flow in flows:
            await flow.finished(timeout_seconds=120)
    assert told == [(state, breaker) for state in ("opened", "half_open", "opened", "half_open", "closed")]


def standing(world: Choreography) -> list[Any]:
    beats = [record for record in written(world, CATALOG) if (record.key or b"").startswith(b"instance/answering/")]
    return list(json.loads(beats[-1].value or b"{}")["breakers"])


def written(world: Choreography, topic: str) -> list[Delivery]:
    logs = [world.broker.log(TopicPartition(topic, partition)) for partition in range(world.broker.topics()[topic])]
    return [record for log in logs for record in log.read(log.oldest, 10_000, float("inf"))]


def test_a_fallback_that_the_step_cannot_stand_for_is_refused() -> None:
    agent, service = Agent("wrong"), Service()
    guess = Breaker(fallback=Default(GUESS))

    with pytest.raises(WrongDeclaration, match="out of what it emits, Counted; found Answered"):

        @agent.on(Asked, breaker=guess)
        async def count(asked: Asked) -> Counted:
            return Counted(letters=1)

    with pytest.raises(WrongDeclaration, match="a step that is pure"):
        answering(service, breaker=guess, pure=True)
    with pytest.raises(WrongDeclaration, match="a step that is pivot"):
        answering(service, breaker=guess, pivot=True)

    @agent.on(Asked, breaker=guess)
    async def act(asked: Asked) -> Answered:
        return GUESS

    with pytest.raises(WrongDeclaration, match="a step that is undo"):

        @act.undo
        async def undo(asked: Asked) -> None: ...

    with pytest.raises(WrongDeclaration, match="the fallback at a subscription"):
        Agent("other", dependencies={"service": guess})


async def test_an_agent_that_stops_says_how_many_records_wait_for_its_breaker(caplog: pytest.LogCaptureFixture) -> None:
    async with Choreography([agent := answering(Service())]) as world:
        for number in range(8):
            await world.publish(Asked(text=str(number)))
        await asyncio.sleep(30)
        await world.stop(agent)
    (left,) = (record for record in caplog.records if record.message == "agent.left_waiting")
    assert left.__dict__["records"] == 8
