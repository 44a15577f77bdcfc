"""What a subscriber requires of an event beyond its type: declarations that can be printed, hashed and announced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from maypole.schemas.errors import ContractRefused


class Rule(StrEnum):
    AT_LEAST = "at_least"
    AT_MOST = "at_most"
    ONE_OF = "one_of"
    PRESENT = "present"


@dataclass(frozen=True, slots=True)
class Requirement:
    """`field` may reach into nested values with dots."""

    field: str
    rule: Rule
    value: Any = None

    def __post_init__(self) -> None:
        values = self.value if isinstance(self.value, tuple) else (self.value,)
        if not all(value is None or isinstance(value, (str, int, float)) for value in values):
            raise TypeError(f"a requirement on {self.field}: expected a number, a text or a truth value, found {self.value!r}")
        if self.compares and (isinstance(self.value, bool) or not isinstance(self.value, (int, float))):
            raise TypeError(f"a requirement on {self.field}: expected a number to compare with, found {self.value!r}")

    @property
    def compares(self) -> bool:
        """Only a number can be more or less than its value."""
        return self.rule in (Rule.AT_LEAST, Rule.AT_MOST)

    def check(self, event: object) -> None:
        """Raises `ContractRefused` naming field, value and rule."""
        found = _read(event, self.field)
        if not self._holds(found):
            raise ContractRefused(field=self.field, value=found, rule=str(self))

    def _holds(self, found: Any) -> bool:
        if found is None:
            return False
        try:
            match self.rule:
                case Rule.AT_LEAST:
                    return bool(found >= self.value)
                case Rule.AT_MOST:
                    return bool(found <= self.value)
                case Rule.ONE_OF:
                    return found in self.value
                case Rule.PRESENT:
                    return found not in ("", b"", ())
        except TypeError:
            return False

    def declaration(self) -> dict[str, Any]:
        value = list(self.value) if isinstance(self.value, tuple) else self.value
        return {"field": self.field, "rule": self.rule.value, "value": value}

    def __str__(self) -> str:
        match self.rule:
            case Rule.AT_LEAST:
                return f"{self.field} >= {self.value}"
            case Rule.AT_MOST:
                return f"{self.field} <= {self.value}"
            case Rule.ONE_OF:
                return f"{self.field} is one of {', '.join(map(repr, self.value))}"
            case Rule.PRESENT:
                return f"{self.field} is present and not empty"


def at_least(field: str, value: float) -> Requirement:
    return Requirement(field, Rule.AT_LEAST, value)


def at_most(field: str, value: float) -> Requirement:
    return Requirement(field, Rule.AT_MOST, value)


def one_of(field: str, *values: str | int | bool) -> Requirement:
    return Requirement(field, Rule.ONE_OF, values)


def present(field: str) -> Requirement:
    return Requirement(field, Rule.PRESENT)


def _read(event: object, path: str) -> Any:
    found: Any = event
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else getattr(found, name, None)
        if found is None:
            return None
    return found
