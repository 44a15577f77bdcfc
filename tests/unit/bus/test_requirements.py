"""Requirements name field, value and rule, and hold at their edges."""

from __future__ import annotations

import pytest

from maypole.bus import Event, Value, at_least, at_most, one_of, present
from maypole.schemas.errors import ContractRefused


class Inner(Value):
    score: float


class Measured(Event, type="tests.measured"):
    confidence: float
    label: str = ""
    inner: Inner | None = None


def test_seven_tenths_passes_and_a_little_less_does_not() -> None:
    at_least("confidence", 0.7).check(Measured(confidence=0.70))
    with pytest.raises(ContractRefused) as refused:
        at_least("confidence", 0.7).check(Measured(confidence=0.69))
    assert refused.value.field == "confidence" and refused.value.value == 0.69 and "confidence >= 0.7" in str(refused.value)


def test_a_mapping_is_held_to_the_same_rule() -> None:
    at_least("confidence", 0.7).check({"confidence": 0.9})
    with pytest.raises(ContractRefused):
        at_least("confidence", 0.7).check({})
    with pytest.raises(ContractRefused):
        at_least("confidence", 0.7).check({"confidence": "high"})


def test_nested_fields_are_reached_with_dots() -> None:
    at_most("inner.score", 1).check(Measured(confidence=1.0, inner=Inner(score=0.5)))
    with pytest.raises(ContractRefused, match=r"inner\.score"):
        at_most("inner.score", 1).check(Measured(confidence=1.0))


def test_presence_and_choice() -> None:
    one_of("label", "a", "b").check(Measured(confidence=1.0, label="b"))
    with pytest.raises(ContractRefused, match="'a', 'b'"):
        one_of("label", "a", "b").check(Measured(confidence=1.0, label="c"))
    with pytest.raises(ContractRefused, match="not empty"):
        present("label").check(Measured(confidence=1.0))
