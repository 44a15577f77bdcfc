"""What is explored. The bounded ones are part of every test run; the full ones add faults until a run takes minutes."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from tests.model.scenario import Scenario

CHAIN: Final = Scenario("chain of two", {"A": "r.s>a.b", "B": "a.b"}, fails="AB", retries="B", crashes=2, crashing="AB", deadline=True)
CHAIN3: Final = Scenario(
    "chain of three", {"A": "r.s>a.b", "B": "a.b>c.d", "C": "c.d"}, fails="C", crashes=1, crashing="ABC", deadline=True
)  # fmt: skip
RETRIES: Final = Scenario(
    "retries across attempts", {"A": "r.s>a.b", "B": "a.b"}, fails="AB", retries="AB", attempts_max=3, crashes=1, crashing="A"
)  # fmt: skip
TAKEOVER: Final = Scenario(
    "takeover before the lease has passed", {"A": "r.s>a.b", "B": "a.b"}, fails="B", retries="A", takeover=True,
    crashes=2, crashing="A", deadline=True,
)  # fmt: skip
NEVER: Final = Scenario(
    "attempts that are not repeated", {"A": "r.s>a.b", "B": "a.b"}, never="AB", takeover=True, crashes=2, crashing="AB"
)  # fmt: skip
FAN_OUT: Final = Scenario("fan-out", {"A": "r.s>a.b", "B": "r.s", "C": "a.b"}, fails="BC", crashes=1, crashing="A")
FAN_OUT_LATE: Final = Scenario("fan-out, one step late", {"A": "r.s>a.b", "B": "r.s", "C": "a.b"}, late="B", crashes=1, crashing="C")
DIAMOND: Final = Scenario("diamond", {"A": "r.s>a.b", "B": "r.s>c.d", "D": "a.b+c.d"}, fails="BD", crashes=1, crashing="A")
EXPIRING: Final = Scenario(
    "diamond that expires", {"A": "r.s>a.b", "B": "r.s>c.d", "D": "a.b+c.d"}, within="D", fails="D", empty="B", crashes=1, crashing="AD"
)  # fmt: skip
EXPIRING_QUIET: Final = replace(
    EXPIRING, name="diamond of a join without effect that expires", kinds={"D": "events"}, crashing="D", fails="BD"
)
EXPIRING_EARLY: Final = Scenario(
    "join that expires, of a branch and a longer one", {"A": "r.s>a.b", "B": "r.s>c.d", "N": "c.d>e.f", "D": "a.b+e.f"},
    kinds={"A": "events", "N": "events"}, within="D", fails="D", crashes=0,
)  # fmt: skip
PIVOT: Final = Scenario(
    "pivot", {"A": "r.s>a.b", "P": "a.b>p.q", "R": "p.q"}, kinds={"P": "pivot", "R": "retriable"},
    fails="AP", retries="R", crashes=2, crashing="APR", deadline=True,
)  # fmt: skip
BEFORE_PIVOT: Final = Scenario(
    "two steps before a pivot", {"Z": "r.s>z.a", "A": "z.a>a.b", "P": "a.b>p.q", "R": "p.q"}, kinds={"P": "pivot", "R": "retriable"},
    crashes=1, crashing="AP", deadline=True,
)  # fmt: skip
BESIDE_PIVOT: Final = Scenario(
    "pivot beside a pure branch", {"Z": "r.s>z.a", "A": "z.a>a.b", "P": "a.b>p.q", "R": "p.q", "Q": "z.a"},
    kinds={"A": "pure", "P": "pivot", "R": "retriable", "Q": "pure"}, crashes=1, crashing="PQ", deadline=True,
)  # fmt: skip
PURE: Final = Scenario(
    "pure step in the middle", {"A": "r.s>a.b", "P": "a.b>c.d", "C": "c.d"}, kinds={"P": "pure"}, fails="PC",
    crashes=2, crashing="P", deadline=True,
)  # fmt: skip
PURE_FIRST: Final = Scenario(
    "pure step beside one that fails", {"P": "r.s>c.d", "C": "c.d", "E": "r.s"}, kinds={"P": "pure"}, fails="E", crashes=1, crashing="P"
)  # fmt: skip
QUIET: Final = Scenario(
    "step without effect in the middle", {"A": "r.s>a.b", "N": "a.b>c.d", "C": "c.d"}, kinds={"N": "events"}, fails="NC", retries="N",
    crashes=1, crashing="N", deadline=True,
)  # fmt: skip
OPTIONAL: Final = Scenario("optional step", {"A": "r.s>a.b", "O": "a.b", "B": "a.b"}, optional="O", fails="OB", crashes=1, crashing="O")
OPTIONAL_AGAIN: Final = replace(
    OPTIONAL, name="optional step with another chance", fails="O", crashes=0, deadline=True, decisions="R", decisions_max=1
)  # fmt: skip
OPTIONAL_LATE: Final = Scenario(
    "optional step past a pivot", {"P": "r.s>p.q", "O": "p.q", "R": "p.q"}, kinds={"P": "pivot", "O": "retriable", "R": "retriable"},
    optional="O", fails="OR", crashes=1, crashing="O", decisions="R",
)  # fmt: skip
LOOP: Final = Scenario(
    "loop of two", {"A": "r.s>a.b", "B": "a.b>r.s"}, rounds=2, fails="B", empty="B", crashes=1, crashing="B"
)  # fmt: skip
LOOP_JOIN: Final = Scenario(
    "join that expires in a loop", {"A": "r.s>a.b", "D": "r.s+a.b>r.s"}, kinds={"A": "events"}, rounds=2,
    within="D", fails="D", empty="AD", crashes=1, crashing="D",
)  # fmt: skip
SHARED: Final = Scenario(
    "agent that is there twice", {"X": "r.s>a.b", "Y": "a.b"}, together="XY", fails="Y", retries="Y",
    crashes=2, crashing="XY", deadline=True,
)  # fmt: skip
SHARED_FAN_OUT: Final = Scenario(
    "fan-out to an agent that is there twice", {"A": "r.s>a.b", "X": "r.s", "Y": "a.b"}, together="XY", fails="Y", crashes=1, crashing="XY"
)  # fmt: skip
SHARED_PIVOT: Final = Scenario(
    "pivot and what follows in one agent", {"A": "r.s>a.b", "P": "a.b>p.q", "R": "p.q"}, kinds={"P": "pivot", "R": "retriable"},
    together="PR", fails="AP", crashes=1, crashing="PR", deadline=True,
)  # fmt: skip
CHOICE: Final = Scenario("step that may emit nothing", {"A": "r.s>a.b", "B": "a.b"}, empty="A", crashes=2, crashing="A", deadline=True)
SILENT: Final = Scenario(
    "agent that never answers", {"A": "r.s>a.b", "B": "a.b>c.d", "C": "c.d"}, crashes=1, crashing="B", silent="B", deadline=True,
    decisions="RVS", decisions_max=2,
)  # fmt: skip
SLOW: Final = Scenario(
    "agent that answers too late", {"A": "r.s>a.b", "B": "a.b"}, crashes=0, silences=2, deadline=True, decisions="RVS", decisions_max=2
)  # fmt: skip
UNDO_FAILS: Final = Scenario(
    "undo that fails", {"A": "r.s>a.b", "B": "a.b"}, fails="B", undo_fails="AB", crashes=1, crashing="B", decisions="RVS", decisions_max=2
)  # fmt: skip
STUCK_PIVOT: Final = replace(
    PIVOT, name="pivot that a person decides on", crashing="P", crashes=1, retries="", fails="R", decisions="RVS", decisions_max=1
)  # fmt: skip
WORD_ON_PIVOT: Final = replace(
    STUCK_PIVOT, name="pivot whose agent answers too late", crashing="", crashes=0, fails="", silences=1, decisions_max=2
)  # fmt: skip
WORD_BEFORE_PIVOT: Final = Scenario(
    "a person's word two steps before a pivot", {"Z": "r.s>z.a", "A": "z.a>a.b", "P": "a.b"}, kinds={"P": "pivot"},
    silences=1, deadline=True, decisions="VS", decisions_max=1,
)  # fmt: skip
JOIN_AGAIN: Final = Scenario(
    "optional join whose time was up, with another chance", {"A": "r.s>a.b", "B": "r.s>c.d", "D": "a.b+c.d"}, within="D", optional="D",
    fails="DB", empty="B", deadline=True, decisions="R", decisions_max=1,
)  # fmt: skip
JOIN_PAST_PIVOT: Final = Scenario(
    "join past a pivot whose time was up", {"P": "r.s>a.b c.d", "A": "a.b>e.f", "B": "c.d>g.h", "D": "e.f+g.h"},
    kinds={"P": "pivot", "A": "retriable", "B": "events", "D": "retriable"}, within="D", fails="BD", crashes=1, crashing="D",
    decisions="R", decisions_max=1,
)  # fmt: skip
WORD_PAST_PIVOT: Final = Scenario(
    "a person's word past a pivot", {"P": "r.s>a.b", "A": "a.b>c.d", "B": "c.d>e.f", "C": "e.f"},
    kinds={"P": "pivot", "A": "retriable", "B": "retriable", "C": "retriable"}, empty="A", silences=1, deadline=True, decisions="RVS",
)  # fmt: skip
WORD_ON_PURE: Final = replace(
    WORD_PAST_PIVOT, name="a person's word on a pure step past a pivot",
    kinds={"P": "pivot", "A": "pure", "B": "pure", "C": "retriable"}, empty="", fails="A", crashes=1, crashing="A",
)  # fmt: skip
WORD_ON_A_PART: Final = replace(
    JOIN_PAST_PIVOT, name="a person's word on a part of a join past a pivot", empty="B", deadline=True, decisions="S",
)  # fmt: skip
PURE_OPTIONAL: Final = Scenario(
    "pure optional step that nothing follows", {"A": "r.s>a.b", "O": "r.s", "B": "a.b"}, kinds={"O": "pure"}, optional="O", fails="O",
    crashes=1, crashing="O",
)  # fmt: skip

BOUNDED: Final = (
    CHAIN, CHAIN3, RETRIES, TAKEOVER, NEVER, FAN_OUT, FAN_OUT_LATE, DIAMOND, EXPIRING, EXPIRING_QUIET, EXPIRING_EARLY, PIVOT,
    BEFORE_PIVOT, BESIDE_PIVOT, PURE, PURE_FIRST, QUIET, OPTIONAL, OPTIONAL_AGAIN, OPTIONAL_LATE, LOOP, LOOP_JOIN, SHARED,
    SHARED_FAN_OUT, SHARED_PIVOT, CHOICE, SILENT, SLOW, UNDO_FAILS, STUCK_PIVOT, WORD_ON_PIVOT, WORD_BEFORE_PIVOT, JOIN_AGAIN,
    JOIN_PAST_PIVOT, WORD_PAST_PIVOT, WORD_ON_PURE, WORD_ON_A_PART, PURE_OPTIONAL,
)  # fmt: skip

FULL: Final = (
    replace(CHAIN3, fails="ABC", retries="B", crashes=2),
    replace(FAN_OUT, deadline=True),
    replace(FAN_OUT, name="fan-out with takeover", takeover=True, crashing="ABC"),
    replace(DIAMOND, deadline=True, crashing="AD", crashes=2),
    replace(EXPIRING, fails="BD", deadline=True, crashing="AD", crashes=1),
    replace(PIVOT, crashes=3, takeover=True),
    replace(BEFORE_PIVOT, fails="A", crashes=2, crashing="ZAP"),
    replace(BESIDE_PIVOT, fails="Q", crashes=2, crashing="APQ"),
    replace(PURE, crashes=3, crashing="APC"),
    replace(QUIET, crashes=2, crashing="ANC"),
    replace(OPTIONAL, deadline=True, crashing="AOB"),
    replace(OPTIONAL_LATE, crashing="PO", deadline=True, decisions="RVS"),
    replace(LOOP, deadline=True, crashing="AB"),
    replace(LOOP_JOIN, kinds={}, deadline=True, crashing="AD"),
    replace(SHARED, fails="XY", retries="XY", attempts_max=3, crashes=3, takeover=True),
    replace(SHARED_FAN_OUT, deadline=True, crashes=2),
    replace(SHARED_PIVOT, retries="R", crashes=2, takeover=True),
    replace(
        SHARED, name="agent that is there twice and never answers", fails="", retries="", crashes=1, silent="XY", silences=1,
        decisions="RVS", decisions_max=2,
    ),
    replace(SILENT, silences=1, fails="C"),
    replace(SLOW, fails="AB", crashes=1, crashing="A", silences=2),
    replace(WORD_ON_PIVOT, fails="PR", crashes=1, crashing="P"),
    replace(WORD_BEFORE_PIVOT, crashes=1, crashing="A"),
    replace(JOIN_AGAIN, crashes=1, crashing="D"),
    replace(JOIN_PAST_PIVOT, crashes=2, crashing="AD"),
    replace(EXPIRING_EARLY, fails="ND", crashes=1, crashing="D", deadline=True),
    replace(WORD_PAST_PIVOT, fails="BC", silences=2, decisions_max=2),
    replace(WORD_ON_PURE, fails="AB", crashing="AB"),
    replace(WORD_ON_A_PART, crashing="AD", decisions="VS"),
)  # fmt: skip
