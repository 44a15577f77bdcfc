"""What `--follow` writes, line by line, while a flow goes on: when, and in which order."""

from __future__ import annotations

from collections.abc import Iterable

import click
import pytest

from maypole.schemas.envelope import read_envelope
from maypole.schemas.event import Event
from maypole.schemas.journal import AbortRequested, Produced, StepCompleted
from maypole.services.cli.flow_lines import Lines
from maypole.services.cli.flow_picture import FlowPicture
from maypole.services.cli.saga_views import outcome
from maypole.services.cli.watching import Drawing
from maypole.services.following import Arrived
from tests.support.stories import Story, agent
from tests.unit.cli.test_cli_sagas import CHAIN, FAILED, journaled, pictured

BOOKING = Story(
    "journey.asked",
    agent("chair", "journey.asked", "chair.booked"),
    agent("bed", "chair.booked", "bed.booked"),
    agent("slow", "bed.booked"),
)
TRAVELLER = {"traveller": "Ada"}


class Watching:
    """Lines at a clock that stands until it is moved; `said` is what was written since the last time, without its times."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.seconds = 0.0
        self.picture = FlowPicture()
        self._lines = Lines(lambda: self.seconds)
        self._capsys = capsys

    def see(self, *seen: object) -> Watching:
        for each in seen:
            self.picture.see(each)  # type: ignore[arg-type]
        return self

    def said(self, *, last: bool = False) -> list[str]:
        self.holds_back = self._lines.show(self.picture, last=last)
        return [" ".join(_words(line)) for line in click.unstyle(self._capsys.readouterr().err).splitlines()]


def _words(line: str) -> Iterable[str]:
    words = line.split()
    return words[:1] + words[3:4] + words[7:]


@pytest.fixture
def watching(capsys: pytest.CaptureFixture[str]) -> Watching:
    return Watching(capsys)


def event(made: Produced, **data: object) -> Arrived:
    headers = [("ce_id", made.event_id.encode()), ("ce_type", made.type.encode()), ("ce_correlationid", BOOKING.flow.encode())]
    return Arrived(read_envelope(headers), 0, data)


def outputs(record: Event) -> tuple[Produced, ...]:
    assert isinstance(record, StepCompleted)
    return record.outputs


CHAIR, BED = BOOKING.completed("chair"), BOOKING.completed("bed")
ASKED, BOOKED, SLEPT = BOOKING.root, outputs(CHAIR)[0], outputs(BED)[0]
BEGUN, CHAIR_DONE, BED_DONE = journaled((BOOKING.started(), CHAIR, BED), BOOKING)


def test_a_step_whose_event_says_nothing_new_is_written_as_soon_as_its_event_is_there(watching: Watching) -> None:
    watching.see(BEGUN, event(ASKED, **TRAVELLER), CHAIR_DONE, event(BOOKED, **TRAVELLER))
    assert watching.said() == ["ok chair"]
    assert watching.see(BED_DONE, event(SLEPT, **TRAVELLER, bed=7)).said() == ["ok bed bed=7"]
    assert not watching.holds_back


def test_a_step_waits_a_moment_for_its_event_and_is_written_without_it_then(watching: Watching) -> None:
    assert watching.see(BEGUN, event(ASKED, **TRAVELLER), CHAIR_DONE).said() == []
    assert watching.holds_back, "whoever draws comes again though nothing else happens"
    watching.seconds = 1.0
    assert watching.said() == ["ok chair"]
    assert watching.see(event(BOOKED, **TRAVELLER, seat=3)).said() == [], "nothing is written twice"


def test_a_step_that_waits_for_its_event_is_written_before_those_that_follow_it(watching: Watching) -> None:
    assert watching.see(BEGUN, event(ASKED), CHAIR_DONE, BED_DONE, event(SLEPT, bed=7)).said() == []
    watching.seconds = 0.5
    assert watching.see(event(BOOKED, seat=3)).said() == ["ok chair seat=3", "ok bed bed=7"]


def test_what_becomes_of_a_flow_comes_after_what_led_to_it(watching: Watching) -> None:
    late = journaled(
        (BOOKING.started(), CHAIR, BED, AbortRequested(by="me", why="x"), BOOKING.fenced("slow"), BOOKING.undone("bed")), BOOKING
    )
    assert watching.see(*late).said() == []
    watching.seconds = 1.0
    assert [line.split()[:2] for line in watching.said()] == [["ok", "chair"], ["ok", "bed"], ["fenced", "slow"], ["undone", "bed"]]


def test_the_last_picture_holds_nothing_back(watching: Watching) -> None:
    watching.see(BEGUN, event(ASKED, **TRAVELLER), CHAIR_DONE)
    assert (watching.said(), watching.said(last=True), watching.holds_back) == ([], ["ok chair"], False)


def test_a_step_that_failed_waits_for_no_event(watching: Watching) -> None:
    *before, failed = journaled(FAILED)
    watching.see(*before).said(last=True)
    assert [line.split()[:2] for line in watching.see(failed).said()] == [["FAILED", "last"]]


def test_a_drawing_that_holds_something_back_is_behind_until_the_last() -> None:
    shown: list[bool] = []

    class Held:
        def show(self, picture: FlowPicture, *, last: bool = False) -> bool:
            shown.append(last)
            return not last

    drawing = Drawing(Held(), FlowPicture(), lambda: 0.0)
    drawing.show()
    assert drawing.is_behind
    drawing.show_now(last=True)
    assert (drawing.is_behind, shown) == (False, [False, True])


def test_the_outcome_tells_scripts_where_the_flow_stands_why_and_which_steps_ended() -> None:
    came = outcome(pictured(*FAILED, CHAIN.undone("two")))
    assert (came["state"], came["reason"], came["degraded"]) == ("aborting", "last failed for good on c.d: rejected", [])
    assert [(step["agent"], step["on"], step["state"], step["error"]) for step in came["steps"]] == [
        ("one", "r.s", "completed", None), ("two", "a.b", "undone", None), ("last", "c.d", "failed", "rejected: no"),
    ]  # fmt: skip
    assert came["steps"][0] | {"ended_at": "1970-01-01T00:00:02.000000Z", "step_id": CHAIN.ids["one"]} == came["steps"][0]
    going = outcome(pictured(CHAIN.started(), CHAIN.completed("one")))
    assert (going["state"], going["reason"], [step["agent"] for step in going["steps"]]) == ("running", None, ["one"])
    nobody = Story("r.s")
    alone = outcome(pictured(nobody.started(), story=nobody))
    assert (alone["state"], alone["steps"]) == ("running", []) and "no agent subscribes to r.s" in alone["reason"]
    assert outcome(FlowPicture()) == {"state": "running", "reason": None, "degraded": [], "steps": []}
