"""What a handler observes by itself, and what is left of one that takes long."""

from __future__ import annotations

import asyncio

import pytest
from opentelemetry import trace

from maypole.bus.hook import Tracing
from maypole.tracing.user_spans import USER_SPANS
from maypole.tracing.watch import Watch
from tests.unit.tracing.recorder import Kept, attributes_of, delivery, envelope, hexadecimal, parent_of, recording

tracer = trace.get_tracer(__name__)


@tracer.start_as_current_span("decorated")
def decorated() -> None:
    pass


@tracer.start_as_current_span("decorated, too")
async def decorated_too() -> None:
    await asyncio.sleep(0)


def test_spans_of_a_handler_are_children_of_its_processing_and_its_attributes_are_kept() -> None:
    kept = Kept()
    with recording(kept) as tracing:
        processing = tracing.processing("analysis", delivery(), envelope(), "step-1", 0)
        with processing.handling():
            trace.get_current_span().set_attribute("answer", 42)
            with tracer.start_as_current_span("look up"):
                pass
        assert not trace.get_current_span().get_span_context().is_valid
        processing.ended("ok", 1)
    process = kept.named("process research.completed")
    assert parent_of(kept.named("look up")) == hexadecimal(process)[1]
    assert attributes_of(process)["answer"] == 42


async def test_handlers_that_run_side_by_side_see_their_own_processing() -> None:
    kept = Kept()

    async def handle(tracing: Tracing, step: str) -> None:
        processing = tracing.processing("analysis", delivery(), envelope(), step, 0)
        with processing.handling():
            await decorated_too()
            await asyncio.to_thread(decorated)
            trace.get_current_span().set_attribute("seen by", step)
        processing.ended("ok", 1)

    with recording(kept) as tracing:
        await asyncio.gather(*(handle(tracing, f"step-{number}") for number in range(5)))
    processes = kept.all_named("process research.completed")
    assert [attributes_of(span)["seen by"] for span in processes] == [attributes_of(span)["maypole.step.id"] for span in processes]
    for name in ("decorated", "decorated, too"):
        assert sorted(str(parent_of(span)) for span in kept.all_named(name)) == sorted(hexadecimal(span)[1] for span in processes)


def test_spans_of_handlers_belong_to_the_agent_that_handles_though_many_share_the_process() -> None:
    kept = Kept()
    with recording(kept, "research") as research, recording(kept, "analysis") as analysis:
        for tracing, agent in ((research, "research"), (analysis, "analysis")):
            processing = tracing.processing(agent, delivery(), envelope(), "step-1", 0)
            with processing.handling(), tracer.start_as_current_span(f"inside {agent}"):
                pass
            processing.ended("ok", 1)
        tracer.start_span("outside").end()
    services = {span.name: span.resource.attributes["service.name"] for span in kept.spans}
    assert services["inside research"] == "research"
    assert services["inside analysis"] == "analysis"
    assert services["outside"] == "research", "outside of any handler it is the service that was opened first"


def test_after_the_last_service_is_closed_spans_are_recorded_nowhere() -> None:
    kept = Kept()
    with recording(kept):
        pass
    assert trace.get_tracer_provider() is USER_SPANS
    span = tracer.start_span("late")
    assert not span.is_recording()
    span.end()
    assert kept.spans == []


def test_each_service_says_who_it_is_and_what_the_environment_adds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,host.name=pod-3,service.name=wrong")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "wrong, too")
    kept = Kept()
    with recording(kept, "research", "7") as tracing:
        tracing.processing("research", delivery(), envelope(), "step-1", 0).ended("ok", 1)
    resource = kept.spans[0].resource.attributes
    assert resource["service.name"] == "research"
    assert resource["service.version"] == "7"
    assert resource["service.instance.id"]
    assert resource["deployment.environment.name"] == "test"
    assert resource["host.name"] == "pod-3"


def test_a_handler_that_takes_long_leaves_a_sign_that_is_exported_before_it_ends() -> None:
    kept = Kept()
    with recording(kept) as tracing:
        processing = tracing.processing("analysis", delivery(), envelope(), "step-1", 0)
        with processing.handling():
            processing.noticed()  # type: ignore[attr-defined]
        # Never ended, as in a crash.
    sign = kept.named("in_progress")
    assert sign.start_time == sign.end_time
    assert f"{parent_of(sign)}" == processing.traceparent.split("-")[2]
    assert attributes_of(sign)["maypole.instance.id"] == sign.resource.attributes["service.instance.id"]
    assert kept.all_named("process research.completed") == []


class Handling:
    def __init__(self) -> None:
        self.times = 0

    def noticed(self) -> None:
        self.times += 1


def test_the_watch_notices_each_handler_once_and_only_those_that_take_long() -> None:
    now = 0.0
    watch = Watch(lambda: now)
    long, short, late = Handling(), Handling(), Handling()
    watch.began(long)
    watch.began(short)
    watch.ended(short)
    now = 0.9
    watch.began(late)
    watch.look()
    assert (long.times, short.times, late.times) == (0, 0, 0)
    now = 1.1
    watch.look()
    watch.look()
    assert (long.times, short.times, late.times) == (1, 0, 0)
    watch.ended(long)
    now = 2.0
    watch.look()
    watch.close()
    assert (long.times, short.times, late.times) == (1, 0, 1)
