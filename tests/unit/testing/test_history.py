"""The checker of histories, on forged ones: a good history has no finding, and each bad one has exactly its own."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import count

import pytest

from maypole.bus.ports import TopicPartition
from maypole.bus.testing.history import check, open_inputs
from maypole.bus.testing.history_entries import (
    Began,
    Buried,
    Called,
    Closed,
    Committed,
    Due,
    Ended,
    Entry,
    Missed,
    Outcome,
    Pinned,
    Published,
    Started,
    Stored,
    Taken,
    TakenBack,
    Tried,
    Witnessed,
)  # fmt: skip
from maypole.bus.testing.history_findings import Finding, Kind
from maypole.schemas.identifiers import EventId, FlowId, derive, output_event_id, step_id_of

ASKED, WOVEN, CALLED = (TopicPartition(topic, 0) for topic in ("forged.asked", "forged.woven", "forged.called"))
FLOWS = ("flow-a", "flow-b")
EVENTS = 6  # of the roots, the flows taking turns; the last one is refused by `weaving`
PINNED = "choreography"


def root(number: int) -> EventId:
    return EventId(derive("forged root", str(number)))


def flow_of(number: int) -> FlowId:
    return FlowId(FLOWS[number % 2])


def step(agent: str, at: TopicPartition, number: int, trigger: str) -> str:
    return step_id_of(flow_of(number), agent, at.topic, EventId(trigger))


def output(agent: str, at: TopicPartition, to: TopicPartition, number: int, trigger: str) -> str:
    return output_event_id(step_id_of(flow_of(number), agent, at.topic, EventId(trigger)), to.topic, 0)


def woven(number: int) -> str:
    return output("weaving", ASKED, WOVEN, number, root(number))


def called(number: int) -> str:
    return output("calling", WOVEN, CALLED, number, woven(number))


def stored(at: TopicPartition, offset: int, number: int, event_id: str, parent: str | None = None, maker: str = "") -> Stored:
    return Stored(at, offset, 1000.0 + offset, flow_of(number), event_id, parent, maker, PINNED, observed=False, digest=event_id.encode())


def completed(order: int, agent: str, at: TopicPartition, number: int, trigger: str, *outputs: str) -> Ended:
    done = step(agent, at, number, trigger)
    digests = tuple((each, each.encode()) for each in outputs)
    return Ended(order, 2000.0 + order, f"journal {done}", flow_of(number), done, agent, (trigger,), Outcome.COMPLETED, digests)


def good() -> list[Entry]:
    """Six roots of two flows; `weaving` turns five into `woven` and refuses one, `calling` acts for each `woven`."""
    order, entries = count(), list[Entry]()
    entries += [Pinned(PINNED, frozenset({"weaving", "calling"})), Witnessed("calling")]
    entries += [Started(next(order), flow, PINNED) for flow in FLOWS]
    for number in range(EVENTS):
        entries += [Published(ASKED, number, root(number)), stored(ASKED, number, number, root(number))]
    for number in range(EVENTS - 1):
        entries.append(completed(next(order), "weaving", ASKED, number, root(number), woven(number)))
        entries.append(stored(WOVEN, number, number, woven(number), root(number), "weaving"))
        entries.append(Called(1900.0 + number, "calling", woven(number), f"key {number}"))
        entries.append(completed(next(order), "calling", WOVEN, number, woven(number), called(number)))
        entries.append(stored(CALLED, number, number, called(number), woven(number), "calling"))
    last = EVENTS - 1
    refused = step("weaving", ASKED, last, root(last))
    entries.append(Ended(next(order), 3000.0, f"journal {refused}", flow_of(last), refused, "weaving", (root(last),), Outcome.FAILED))
    entries.append(Buried("weaving", ASKED, last, "rejected"))
    for agent, at, end in (("weaving", ASKED, EVENTS), ("calling", WOVEN, EVENTS - 1)):
        entries += [Began(agent, at, 0), Committed(agent, at, end), *(Taken(agent, at, offset) for offset in range(end))]
    return entries


def of_woven(number: int) -> Callable[[Entry], bool]:
    """Everything but what came of this `woven`."""
    gone = step("calling", WOVEN, number, woven(number)), called(number), woven(number)

    def kept(entry: Entry) -> bool:
        match entry:
            case Ended():
                return entry.step not in gone
            case Stored():
                return entry.event_id != called(number)
            case Called():
                return entry.trigger not in gone
        return True

    return kept


def test_a_good_history_has_no_findings_in_any_order_of_its_entries() -> None:
    history = good()
    assert check(history) == [] == open_inputs(history)
    random.Random(3).shuffle(history)
    assert check(history) == []


def test_what_repeats_under_the_same_ids_is_good() -> None:
    history = good()
    repeated = [entry._replace(offset=10 + entry.offset) for entry in history if isinstance(entry, Stored) and entry.maker]
    again = [entry._replace(order=100 + entry.order, time_ms=9000.0) for entry in history if isinstance(entry, Ended)]
    early = [entry._replace(time_ms=1950.0) for entry in history if isinstance(entry, Called)]
    # The repetitions of `woven` lie behind what `calling` has committed: it has them still before it.
    assert check([*history, *repeated, *again, *early]) == []


def lost_input() -> list[Entry]:
    return [entry for entry in good() if of_woven(2)(entry)]


def lost_acknowledged() -> list[Entry]:
    return [*good(), Published(ASKED, EVENTS, root(EVENTS))]


def lost_output() -> list[Entry]:
    return [entry for entry in good() if not (isinstance(entry, Stored) and entry.event_id == called(4))]


def doubled_by_a_second_key() -> list[Entry]:
    return [*good(), Called(1901.0, "calling", woven(1), "another key")]


def doubled_by_a_call_after_done() -> list[Entry]:
    return [*good(), Called(5000.0, "calling", woven(1), "key 1")]


def skipped() -> list[Entry]:
    return [entry for entry in lost_input() if entry != Taken("calling", WOVEN, 2) or not isinstance(entry, Taken)]


def skipped_expired() -> list[Entry]:
    """Retention was faster than `calling`: the first record is gone, and it went on at the second."""
    gone = [entry for entry in good() if of_woven(0)(entry)]
    step_gone = step("weaving", ASKED, 0, root(0))
    gone = [entry for entry in gone if not (isinstance(entry, Stored) and entry.event_id in (root(0), woven(0)))]
    gone = [entry for entry in gone if not (isinstance(entry, Ended) and entry.step == step_gone)]
    return [entry._replace(offset=1) if isinstance(entry, Began) and entry.at == ASKED else entry for entry in gone if not _told(entry)]


def _told(entry: Entry) -> bool:
    return isinstance(entry, Published) and entry.offset == 0


def reordered_journal() -> list[Entry]:
    """`weaving` journals root 2 before root 0, both of flow a."""
    swap = {step("weaving", ASKED, 0, root(0)): 500, step("weaving", ASKED, 2, root(2)): 400, step("weaving", ASKED, 4, root(4)): 600}
    return [entry._replace(order=swap.get(entry.step, entry.order)) if isinstance(entry, Ended) else entry for entry in good()]


def reordered_outputs() -> list[Entry]:
    places = {called(1): 3, called(3): 1}
    return [entry._replace(offset=places.get(entry.event_id, entry.offset)) if isinstance(entry, Stored) else entry for entry in good()]


def reordered_calls() -> list[Entry]:
    return [entry._replace(time_ms=1800.0) if isinstance(entry, Called) and entry.key == "key 3" else entry for entry in good()]


def without_effect() -> list[Entry]:
    return [entry for entry in good() if not (isinstance(entry, Called) and entry.trigger == woven(3))]


def output_without_input() -> list[Entry]:
    return [*good(), stored(CALLED, EVENTS, 0, "an output", "of nothing", "calling")]


def output_without_a_step() -> list[Entry]:
    """The dead-lettered root has an output all the same, of an agent that journaled nothing of it."""
    return [entry for entry in good() if not (isinstance(entry, Ended) and entry.outcome is Outcome.FAILED)] + [
        stored(CALLED, EVENTS, 5, "an output", root(5), "weaving")
    ]


def dead_letter_of_nothing() -> list[Entry]:
    return [*good(), Buried("weaving", ASKED, 77, "undecodable")]


def contradicted_by_the_journal() -> list[Entry]:
    done = step("weaving", ASKED, 1, root(1))
    return [*good(), Ended(900, 9000.0, "failed", flow_of(1), done, "weaving", (root(1),), Outcome.FAILED)]


def contradicted_by_a_fence() -> list[Entry]:
    done = step("weaving", ASKED, 1, root(1))
    return [*good(), Ended(900, 9000.0, "fenced", flow_of(1), done, "", (), Outcome.FENCED)]


def contradicted_by_a_dead_letter() -> list[Entry]:
    return [*good(), Buried("weaving", ASKED, 1, "attempts_exhausted")]


def contradicted_by_other_contents() -> list[Entry]:
    return [*good(), stored(CALLED, EVENTS, 1, called(1), woven(1), "calling")._replace(digest=b"regenerated")]


def contradicted_by_other_digests() -> list[Entry]:
    (first,) = [entry for entry in good() if isinstance(entry, Ended) and entry.step == step("weaving", ASKED, 1, root(1))]
    return [*good(), first._replace(order=900, outputs=((woven(1), b"regenerated"),))]


def multiplied_outputs() -> list[Entry]:
    return [*good(), stored(CALLED, EVENTS, 1, "another id", woven(1), "calling")]


def multiplied_steps() -> list[Entry]:
    again = completed(900, "weaving", ASKED, 1, root(1), woven(1))
    return [*good(), again._replace(step="another step", record_id="another record")]


def multiplied_journal_ids() -> list[Entry]:
    again = completed(900, "weaving", ASKED, 1, root(1), woven(1))
    return [*good(), again._replace(record_id="another record")]


def tried_early() -> list[Entry]:
    due = Due("calling", woven(1), 3000.0, 9000.0)
    return [*good(), due, *(Tried(time_ms, "calling", woven(1), "its step") for time_ms in (2900.0, 8000.0, 9000.0))]


def taken_back(number: int, time_ms: float = 9000.0) -> TakenBack:
    return TakenBack(time_ms, "calling", woven(number), f"key {number}")


def left_behind() -> list[Entry]:
    return [*good(), Closed(900, flow_of(1), "compensated"), taken_back(1)]


def taken_back_and_committed() -> list[Entry]:
    return [*good(), Closed(900, flow_of(1), "committed"), taken_back(1)]


def acted_after_it_was_taken_back() -> list[Entry]:
    return [*good(), taken_back(1, 1900.5)]


def taken_back_before_what_rests_on_it() -> list[Entry]:
    return [*good(), taken_back(1, 9001.0), TakenBack(9000.0, "weaving", root(1), "its key")]


FORGED: dict[Callable[[], list[Entry]], Kind] = {
    lost_input: Kind.LOST,
    lost_acknowledged: Kind.LOST,
    lost_output: Kind.LOST,
    doubled_by_a_second_key: Kind.DOUBLED,
    doubled_by_a_call_after_done: Kind.DOUBLED,
    skipped: Kind.SKIPPED,
    skipped_expired: Kind.SKIPPED,
    reordered_journal: Kind.REORDERED,
    reordered_outputs: Kind.REORDERED,
    reordered_calls: Kind.REORDERED,
    without_effect: Kind.NO_EFFECT,
    output_without_input: Kind.NO_INPUT,
    output_without_a_step: Kind.NO_INPUT,
    dead_letter_of_nothing: Kind.NO_INPUT,
    contradicted_by_the_journal: Kind.CONTRADICTED,
    contradicted_by_a_fence: Kind.CONTRADICTED,
    contradicted_by_a_dead_letter: Kind.CONTRADICTED,
    contradicted_by_other_contents: Kind.CONTRADICTED,
    contradicted_by_other_digests: Kind.CONTRADICTED,
    multiplied_outputs: Kind.MULTIPLIED,
    multiplied_steps: Kind.MULTIPLIED,
    multiplied_journal_ids: Kind.MULTIPLIED,
    tried_early: Kind.EARLY,
    left_behind: Kind.HALF_DONE,
    taken_back_and_committed: Kind.HALF_DONE,
    acted_after_it_was_taken_back: Kind.DOUBLED,
    taken_back_before_what_rests_on_it: Kind.HALF_DONE,
}


@pytest.mark.parametrize("forged", FORGED, ids=lambda forged: forged.__name__)
def test_a_forged_history_has_exactly_its_own_finding(forged: Callable[[], list[Entry]]) -> None:
    findings: list[Finding] = check(forged())
    assert [finding.kind for finding in findings] == [FORGED[forged]], findings
    assert check(random.Random(5).sample(forged(), len(forged()))) == findings, "whatever the order of the entries"


def test_every_kind_of_finding_has_a_forged_history() -> None:
    assert set(FORGED.values()) == set(Kind)


def test_what_retention_took_is_no_finding_where_the_agent_said_so() -> None:
    (found,) = check(skipped_expired())
    assert check([*skipped_expired(), Missed(found.agent, WOVEN, 0, 1)]) == []
    (found,) = check(lost_output())
    assert check([*lost_output(), Missed(found.agent, WOVEN, 0, EVENTS)]) == [], "it died before its outputs had left"


def test_what_an_agent_only_observes_needs_no_outcome() -> None:
    history = [Pinned(PINNED, frozenset({"weaving"})) if isinstance(entry, Pinned) else entry for entry in lost_input()]
    assert check(history) == []


def test_a_flow_that_a_foreign_client_started_is_pinned_by_its_first_start() -> None:
    history = [entry._replace(choreography="") if isinstance(entry, Stored) else entry for entry in lost_input()]
    assert [finding.kind for finding in check(history)] == [Kind.LOST]
    assert check([*history, *(Started(-1, flow, "other") for flow in FLOWS), Pinned("other", frozenset({"weaving"}))]) == []


def test_a_step_that_was_fenced_accounts_for_its_input() -> None:
    fenced = step("calling", WOVEN, 2, woven(2))
    assert check([*lost_input(), Ended(900, 9000.0, "fenced", flow_of(2), fenced, "", (), Outcome.FENCED)]) == []


def test_a_flow_that_was_undone_in_its_order_is_good_and_what_had_not_left_by_then_is_not_missed() -> None:
    undone = [
        Ended(900 + n, 9000.0, f"undone {n}", flow_of(n), step("calling", WOVEN, n, woven(n)), "", (), Outcome.COMPENSATED) for n in (1, 3)
    ]
    history = [*left_behind(), taken_back(3), *undone]
    assert check(history) == []
    assert check([entry for entry in history if not (isinstance(entry, Stored) and entry.event_id == called(3))]) == []
    assert [found.kind for found in check(lost_output())] == [Kind.LOST], "of a step that stands it is"


def test_commands_are_answered_in_any_order_and_under_their_own_ids() -> None:
    fenced = Ended(900, 9000.0, "because of its event", flow_of(0), "a step that never began", "", (), Outcome.FENCED)
    assert check([*reordered_journal(), fenced, fenced._replace(order=901, record_id="because of a command")]) == []


def test_a_fence_or_a_failure_proves_nothing_about_a_pure_step() -> None:
    pinned = Pinned(PINNED, frozenset({"weaving", "calling"}), pure=frozenset({("weaving", ASKED.topic)}))
    for forged in (contradicted_by_a_fence, contradicted_by_the_journal):
        assert check([pinned if isinstance(entry, Pinned) else entry for entry in forged()]) == []


def test_what_waited_for_a_part_that_a_failed_flow_never_made_is_not_lost() -> None:
    pinned = Pinned(PINNED, frozenset({"weaving", "calling"}), joins=frozenset({("calling", WOVEN.topic)}))
    history = [pinned if isinstance(entry, Pinned) else entry for entry in lost_input()]
    assert [found.kind for found in check(history)] == [Kind.LOST]
    failed = Ended(900, 9000.0, "failed", flow_of(2), "the other branch", "weaving", (), Outcome.FAILED)
    assert check([*history, failed]) == []


def test_a_part_that_came_too_late_is_not_lost_where_its_join_went_without_it() -> None:
    pinned = Pinned(PINNED, frozenset({"weaving", "calling"}), expiring=frozenset({("calling", WOVEN.topic)}))
    history = [pinned if isinstance(entry, Pinned) else entry for entry in lost_input()]
    assert check(history) == []
    silent = [entry for entry in history if not (isinstance(entry, Ended) and entry.agent == "calling" and entry.flow == flow_of(2))]
    assert Kind.LOST in {found.kind for found in check(silent)}, "unless it did nothing at all"


def test_a_second_root_under_a_used_key_is_refused_and_contradicts_nothing() -> None:
    second = stored(ASKED, EVENTS, 1, root(1))._replace(digest=b"another question")
    letter = Buried("weaving", ASKED, EVENTS, "idempotency_conflict")
    history = [entry._replace(position=EVENTS + 1) if isinstance(entry, Committed) and entry.at == ASKED else entry for entry in good()]
    assert check([*history, second, letter, Taken("weaving", ASKED, EVENTS)]) == []


def test_a_join_that_acts_does_so_because_of_one_of_its_parts() -> None:
    parts = (root(0), root(2))
    join = Ended(count(100).__next__(), 3000.0, "journal join", FLOWS[0], "a join", "joining", parts, Outcome.COMPLETED)
    history = [*good(), Witnessed("joining"), join]
    assert [(each.kind, each.agent) for each in check(history)] == [(Kind.NO_EFFECT, "joining")]
    for part in parts:
        assert check([*history, Called(2000.0, "joining", part, "its key")]) == []


def test_what_lies_behind_the_committed_offset_is_open_and_no_finding() -> None:
    history = [entry._replace(position=2) if isinstance(entry, Committed) and entry.at == WOVEN else entry for entry in lost_input()]
    assert check(history) == []
    assert [(agent, record.event_id) for agent, record in open_inputs(history)] == [("calling", woven(2))]


def test_what_an_agent_met_before_its_beginning_says_nothing_about_order() -> None:
    first, second = ("forged first", "forged second")
    records = [stored(WOVEN, offset, 0, event_id) for offset, event_id in enumerate((second, first, second))]
    steps = [completed(order, "calling", WOVEN, 0, event_id) for order, event_id in enumerate((first, second))]
    assert check([*records, *steps, Began("calling", WOVEN, 1), Committed("calling", WOVEN, 3)]) == []
    assert [finding.kind for finding in check([*records, *steps, Began("calling", WOVEN, 0)])] == [Kind.REORDERED]
