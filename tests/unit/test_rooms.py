"""What a run of the tests says of itself."""

from __future__ import annotations

import pytest

from tests.support.rooms import seconds_by_room


def _report(nodeid: str, when: str, seconds: float) -> pytest.TestReport:
    return pytest.TestReport(nodeid, (nodeid, 1, ""), {}, "passed", None, when, duration=seconds)  # type: ignore[arg-type]  # one of three words


def test_a_room_takes_as_long_as_its_tests_with_what_they_set_up() -> None:
    reports = [
        _report("tests/unit/bus/test_a.py::test_one[tests/x.py::y]", "call", 1.0),
        _report("tests/torture/test_b.py::test_two", "setup", 4.0),
        _report("tests/torture/test_b.py::test_two", "call", 2.0),
        object(),  # a warning, or what could not be collected
    ]
    assert seconds_by_room(reports) == [("tests/torture", 6.0), ("tests/unit/bus", 1.0)]
