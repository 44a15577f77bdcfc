"""What can be wrong with a contract, a schema or the bytes of an event."""

from __future__ import annotations

from typing import Final

_SHOWN_LENGTH_MAX: Final = 120


class Undecodable(ValueError):
    """The bytes or headers of a record cannot be read. Repeating it can never help: the record is poison."""


class UnknownSchema(Undecodable):
    """No schema is known under the id that the value names. `schema_id` says which."""

    def __init__(self, schema_id: int, where: str) -> None:
        super().__init__(f"expected a known schema, found schema id {schema_id}, which is not known to {where}")
        self.schema_id = schema_id
        self.where = where

    def __reduce__(self) -> tuple[type[UnknownSchema], tuple[int, str]]:
        return UnknownSchema, (self.schema_id, self.where)


class Absent:
    """What was found where a field is missing: not a value, and not null either."""

    def __repr__(self) -> str:
        return "nothing: the field is missing"


class UnreadableHeader(Undecodable):
    """A header of an event is missing, repeated, or not what it must be. `byte` is where its text broke, None if not in its bytes."""

    def __init__(self, message: str, header: str, byte: int | None = None) -> None:
        super().__init__(message)
        self.header = header
        self.byte = byte

    def __reduce__(self) -> tuple[type[UnreadableHeader], tuple[str, str, int | None]]:
        return UnreadableHeader, (str(self), self.header, self.byte)


class ContractRefused(ValueError):
    """The event was read, and one of its fields breaks a rule.

    `field` is a dotted path (`findings.3.score`; empty: the event as a whole), `value` what was found (`Absent()` where the
    field is missing), `rule` what was expected ("less than or equal to 1"), `more` how many other fields were refused
    beside this one.
    """

    def __init__(self, *, field: str, value: object, rule: str, event_type: str = "", more: int = 0) -> None:
        self.field = field
        self.value = value
        self.rule = rule
        self.event_type = event_type
        self.more = more
        super().__init__(str(self))

    def __str__(self) -> str:
        subject = f"{self.event_type}: " if self.event_type else ""
        others = f" (and {self.more} more)" if self.more else ""
        return f"{subject}{self.field or 'the event'}: expected {self.rule}, found {shown(self.value)}{others}"

    def __reduce__(self) -> tuple[object, ...]:
        return _refused, (self.field, self.value, self.rule, self.event_type, self.more)


class TooLarge(ContractRefused):
    """The encoded event has more bytes than a value may have."""

    def __init__(self, event_type: str, found_bytes: int, bytes_max: int) -> None:
        super().__init__(field=event_type, value=found_bytes, rule=f"at most {bytes_max} bytes")


class UnsafeSchema(TypeError):
    """An event class or a writer's schema is outside the safe subset. The message names the class or schema and the field."""


def shown(value: object) -> str:
    """A value as an error shows it: its repr, shortened in the middle so that both ends can be recognised."""
    if isinstance(value, str | bytes) and len(value) > _SHOWN_LENGTH_MAX:
        half = _SHOWN_LENGTH_MAX // 2
        return f"{value[:half]!r}...{value[-half:]!r} ({len(value)} {'characters' if isinstance(value, str) else 'bytes'})"
    text = repr(value)
    if len(text) <= _SHOWN_LENGTH_MAX:
        return text
    half = _SHOWN_LENGTH_MAX // 2
    return f"{text[:half]}...{text[-half:]}"


def _refused(field: str, value: object, rule: str, event_type: str, more: int) -> ContractRefused:
    return ContractRefused(field=field, value=value, rule=rule, event_type=event_type, more=more)
