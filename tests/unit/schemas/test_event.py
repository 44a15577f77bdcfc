"""Declaring event classes: what is accepted, what is refused and how it is said, and that an event cannot be changed."""

import copy
import pickle
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal, Optional
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator

from maypole.schemas.avro import DERIVED_ID_MAX, DERIVED_ID_MIN, schema_of
from maypole.schemas.errors import UnsafeSchema
from maypole.schemas.event import Event, Value, checked_type
from maypole.schemas.readonly import ReadOnly


class Region(StrEnum):
    NORTH = "NORTH"
    SOUTH = "SOUTH"


class Part(Value):
    """A part of the whole."""

    name: str
    weights: Mapping[str, tuple[float, ...]] = {}


class Whole(Event, type="test.whole"):
    """Every supported type."""

    text: str
    flag: bool
    count: int
    ratio: float
    data: bytes
    at: datetime
    day: date
    price: Annotated[Decimal, Field(max_digits=10, decimal_places=2)]
    key: UUID
    region: Region
    part: Part
    parts: tuple[Part, ...]
    labels: Mapping[str, str]
    note: str | None
    limit: int | None = 3
    since: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    tags: tuple[str, ...] = ("a", "b")
    more: Mapping[str, int] = {"x": 1}
    home: Region = Region.SOUTH
    fee: Annotated[Decimal, Field(max_digits=4, decimal_places=1)] = Decimal("2.5")
    first: Part = Part(name="default")
    blob: bytes = b"\x00\xff"
    spare: Part | None = None


def whole(**changes: Any) -> Whole:
    fields: dict[str, Any] = {
        "text": "t", "flag": True, "count": 1, "ratio": 0.5, "data": b"d", "at": datetime(2026, 5, 1, tzinfo=UTC), "day": date(2026, 5, 1),
        "price": Decimal("1.50"), "key": UUID(int=7), "region": Region.NORTH, "part": Part(name="p"), "parts": (Part(name="q"),),
        "labels": {"a": "b"}, "note": None,
    }  # fmt: skip
    return Whole(**(fields | changes))


def test_every_supported_type_has_its_avro_type() -> None:
    types = {field["name"]: field["type"] for field in Whole.avro_definition["fields"]}

    assert types["text"] == "string"
    assert types["flag"] == "boolean"
    assert types["count"] == "long"
    assert types["ratio"] == "double"
    assert types["data"] == "bytes"
    assert types["at"] == {"type": "long", "logicalType": "timestamp-micros"}
    assert types["day"] == {"type": "int", "logicalType": "date"}
    assert types["price"] == {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2}
    assert types["key"] == {"type": "string", "logicalType": "uuid"}
    assert types["region"] == {"type": "enum", "name": "Region", "symbols": ["NORTH", "SOUTH"]}
    assert types["part"]["doc"] == "A part of the whole."
    assert types["parts"] == {"type": "array", "items": "Part"}
    assert types["labels"] == {"type": "map", "values": "string"}
    assert types["note"] == ["null", "string"]


def test_defaults_are_written_as_avro_wants_them() -> None:
    fields = {field["name"]: field for field in Whole.avro_definition["fields"]}

    assert "default" not in fields["note"]
    assert (fields["limit"]["type"], fields["limit"]["default"]) == (["long", "null"], 3)
    assert fields["since"]["default"] == 1767225600000000
    assert fields["tags"]["default"] == ["a", "b"]
    assert fields["more"]["default"] == {"x": 1}
    assert fields["home"]["default"] == "SOUTH"
    assert fields["fee"]["default"] == "\x19"
    assert fields["first"]["default"] == {"name": "default", "weights": {}}
    assert fields["blob"]["default"] == "\x00ÿ"
    assert fields["spare"]["default"] is None


def test_a_record_is_named_after_its_type_and_not_after_its_class() -> None:
    class Anything(Event, type="my-domain.some_fact.v2"):
        a: int

    assert schema_of(Anything).fullname == "my_domain.some_fact.MyDomainSomeFactV2"


def test_derived_ids_lie_above_every_registrys_and_depend_on_defaults_but_not_on_documentation() -> None:
    def declare(default: int, doc: str) -> type[Event]:
        class Same(Event, type="test.same"):
            a: int = default
            __doc__ = doc

        return Same

    first, documented, other = (schema_of(declare(*given)) for given in ((1, "x"), (1, "y"), (2, "x")))

    assert DERIVED_ID_MIN <= first.derived_id <= DERIVED_ID_MAX
    assert first == documented
    assert first.derived_id != other.derived_id


WHOLE_ID = 1446973553
WHOLE_CANONICAL = "963f1071fe63d32d1b5075f224e6dad6bb7ebce869ef58f825ba7d6787b701c1"


def test_the_derived_id_of_a_schema_never_changes() -> None:
    """It is in every value on every log, and in the names of committed schemas."""
    schema = schema_of(Whole)

    assert schema.derived_id == WHOLE_ID
    assert sha256(schema.canonical.encode()).hexdigest() == WHOLE_CANONICAL


@pytest.mark.parametrize("change", ["text", "labels", "tags", "part"])
def test_a_field_cannot_be_assigned(change: str) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        setattr(whole(), change, "x")


def test_a_mapping_inside_an_event_cannot_be_changed_and_is_not_the_callers() -> None:
    mine = {"a": "b"}
    event = whole(labels=mine)
    mine["a"] = "changed"

    assert event.labels == {"a": "b"}
    assert isinstance(event.labels, ReadOnly)
    changes: list[Callable[[Any], Any]] = [
        lambda m: m.__setitem__("a", "x"), lambda m: m.__delitem__("a"), lambda m: m.clear(), lambda m: m.pop("a"), lambda m: m.popitem(),
        lambda m: m.setdefault("z", "x"), lambda m: m.update(a="x"), lambda m: m.__ior__({"a": "x"}),
    ]  # fmt: skip
    for change in changes:
        with pytest.raises(TypeError, match="immutable"):
            change(event.labels)


def test_a_mutable_default_is_shared_by_nobody_who_could_change_it() -> None:
    with pytest.raises(TypeError, match="immutable"):
        whole().more["x"] = 2  # type: ignore[index]


def test_events_are_equal_by_value_hashable_picklable_and_copied() -> None:
    event = whole()

    assert event == whole()
    assert hash(event) == hash(whole())
    assert event != whole(count=2)
    assert pickle.loads(pickle.dumps(event)) == event
    assert copy.deepcopy(event) == event
    assert copy.copy(event.labels) is event.labels
    assert isinstance(pickle.loads(pickle.dumps(event)).labels, ReadOnly)


def test_a_changed_copy_keeps_every_rule() -> None:
    event = whole(part=Part(name="p", weights={"w": (1.0,)}), limit=7)

    assert event.model_copy() == event
    assert event.model_copy(update={"count": 2, "limit": None}) == whole(part=event.part, count=2, limit=None)
    assert event.model_copy(update={"count": 2}).model_fields_set == event.model_fields_set, "what was left to its default stays so"
    assert isinstance(event.model_copy(update={"labels": {"c": "d"}}).labels, ReadOnly)
    for wrong in ({"count": "two"}, {"tags": ["a"]}, {"price": Decimal("1.234")}, {"unknown": 1}, {"text": None}):
        with pytest.raises(ValidationError):
            event.model_copy(update=wrong)
    with pytest.raises(ValidationError):
        event.part.model_copy(update={"weights": {"w": ("much",)}})


def test_an_event_goes_through_json_and_back() -> None:
    event = whole(data=b"\xff\x00", parts=(Part(name="x", weights={"w": (1.0, 2.0)}),))

    assert Whole.model_validate_json(event.model_dump_json()) == event


def test_times_are_kept_in_utc() -> None:
    event = whole(at=datetime(2026, 5, 1, 12, tzinfo=timezone(timedelta(hours=2))))

    assert event.at == datetime(2026, 5, 1, 10, tzinfo=UTC)
    assert event.at.tzinfo is UTC


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"count": 2**63}, "less than or equal to 9223372036854775807"),
        ({"count": -(2**63) - 1}, "greater than or equal to -9223372036854775808"),
        ({"count": True}, "valid integer"),
        ({"count": 1.0}, "valid integer"),
        ({"count": "1"}, "valid integer"),
        ({"ratio": float("nan")}, "finite"),
        ({"ratio": float("inf")}, "finite"),
        ({"text": "\ud800"}, "unicode"),
        ({"labels": {"\ud800": "b"}}, "unicode"),
        ({"labels": {"a": 1}}, "valid string"),
        ({"at": datetime(2026, 5, 1)}, "timezone"),  # noqa: DTZ001
        ({"at": datetime.max.replace(tzinfo=timezone(timedelta(hours=-5)))}, "years 1 and 9999"),
        ({"price": Decimal("1.505")}, "2 decimal places"),
        ({"price": Decimal("NaN")}, "finite"),
        ({"parts": [Part(name="q")]}, "valid tuple"),
        ({"region": "WEST"}, "NORTH"),
        ({"surprise": 1}, "Extra inputs"),
    ],
)
def test_a_broken_rule_is_refused_when_the_event_is_made(change: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValidationError, match=rule):
        whole(**change)


class Plain(BaseModel):
    x: int


class Level(IntEnum):
    ONE = 1


class Spaced(Enum):
    A = "not a symbol"


class SpacedText(str, Enum):  # noqa: UP042 - the older way is supported, too
    A = "not a symbol"


class Hollow(Value):
    pass


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        (list[str], r"tuple\[X, \.\.\.\]"),
        (list, r"tuple\[X, \.\.\.\]"),
        (Sequence[str], r"tuple\[X, \.\.\.\]"),
        (set[str], r"tuple\[X, \.\.\.\]"),
        (frozenset[str], r"tuple\[X, \.\.\.\]"),
        (dict[str, int], r"Mapping\[str, X\]"),
        (Optional[list[str]], r"tuple\[X, \.\.\.\]"),  # noqa: UP045
        (tuple[list[str], ...], r"tuple\[X, \.\.\.\]"),
        (Mapping[str, dict[str, str]], r"Mapping\[str, X\]"),
        (Mapping[int, str], "keys are strings"),
        (tuple[int, str], "fixed length"),
        (tuple[int], "fixed length"),
        (int | str, "union"),
        (int | str | None, "union"),
        (Any, "any"),
        (object, "any"),
        (Literal["a"], "literal"),
        (timedelta, "timedelta"),
        (Path, "Path|found a type"),
        (complex, "complex"),
        (Decimal, "max_digits"),
        (Annotated[Decimal, Field(max_digits=50, decimal_places=2)], "38"),
        (Annotated[int, Field(le=2**70)], "64 bits"),
        (Level, "enum of strings"),
        (Spaced, "enum of strings"),
        (SpacedText, "Avro symbols"),
        (Plain, "derives from Value"),
        (Hollow, "has no fields"),
        (type("Unknown", (), {}), "found a type"),
    ],
)
def test_a_type_outside_the_safe_subset_is_refused_at_the_declaration_naming_the_field(annotation: Any, reason: str) -> None:
    with pytest.raises(UnsafeSchema, match=rf"Bad\.field.*{reason}"):
        type("Bad", (Event,), {"__annotations__": {"field": annotation}, "__module__": __name__}, type="test.bad")


def test_recursion_is_refused() -> None:
    with pytest.raises(UnsafeSchema, match="Tree"):

        class Tree(Value):
            children: "tuple[Tree, ...]"


def test_an_annotation_that_is_not_known_yet_is_refused() -> None:
    with pytest.raises(UnsafeSchema, match="declare the classes it uses above it"):

        class Early(Event, type="test.early"):
            later: "Later"  # type: ignore[name-defined]  # noqa: F821


def test_two_nested_classes_of_one_name_are_refused() -> None:
    def another() -> type[Value]:
        class Part(Value):
            other: int

        return Part

    with pytest.raises(UnsafeSchema, match=r"Twice\.b: two different classes are called Part"):
        type("Twice", (Event,), {"__annotations__": {"a": Part, "b": another()}, "__module__": __name__}, type="test.twice")


def test_a_default_is_a_constant_that_the_field_accepts() -> None:
    with pytest.raises(UnsafeSchema, match=r"Wrong\.a: expected a default that the field itself would accept"):

        class Wrong(Event, type="test.wrong"):
            a: Annotated[int, Field(ge=3)] = 1

    with pytest.raises(UnsafeSchema, match=r"Made\.a: a default that is made at every call"):

        class Made(Event, type="test.made"):
            a: tuple[str, ...] = Field(default_factory=tuple)


def test_the_settings_that_make_an_event_a_fact_cannot_be_loosened() -> None:
    with pytest.raises(UnsafeSchema, match="frozen"):

        class Loose(Event, type="test.loose"):
            model_config = ConfigDict(frozen=False)
            a: int

    with pytest.raises(UnsafeSchema, match="private state"):

        class Private(Event, type="test.private"):
            a: int
            _hidden: list[int] = PrivateAttr(default_factory=list)

    with pytest.raises(UnsafeSchema, match="alias"):

        class Aliased(Event, type="test.aliased"):
            a: int = Field(alias="b")


def test_an_events_own_validators_still_run() -> None:
    class Checked(Event, type="test.checked"):
        a: int

        @field_validator("a")
        @classmethod
        def even(cls, value: int) -> int:
            if value % 2:
                message = "an even number"
                raise ValueError(message)
            return value

    assert Checked(a=2).a == 2
    with pytest.raises(ValidationError, match="an even number"):
        Checked(a=1)


def test_an_event_without_fields_is_a_fact_too() -> None:
    class Happened(Event, type="test.happened"):
        """It happened."""

    assert Happened.avro_definition["fields"] == []


@pytest.mark.parametrize(
    "name",
    ["", "research", "Research.completed", "research.", ".completed", "a..b", "a b.c", "1a.b", "a.1b", "ä.b", "a.b\n", "a." + "b" * 200],
)
def test_a_type_that_cannot_name_a_topic_is_refused(name: str) -> None:
    with pytest.raises(UnsafeSchema, match="expected an event type like"):
        checked_type(name)


@pytest.mark.parametrize("name", ["maypole.mine", "research.dlq", "research.commands", "research.retry.x5s"])
def test_a_type_that_belongs_to_the_platform_is_refused(name: str) -> None:
    with pytest.raises(UnsafeSchema, match="platform"):
        type("Bad", (Event,), {"__annotations__": {"a": int}, "__module__": __name__}, type=name)


def test_a_type_must_be_given() -> None:
    with pytest.raises(UnsafeSchema, match=r"class Untyped\(Event, type="):

        class Untyped(Event):
            a: int
