"""Event classes: immutable facts, declared as frozen and strict pydantic models.

The safe subset is enforced when the class is declared: an error names the field and says what to write instead. The Avro
schema is derived at the same moment, so a class that exists is a class that can be published.
"""

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Final, Self, cast

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler
from pydantic_core import CoreSchema

from maypole.schemas.errors import UnsafeSchema
from maypole.schemas.safety import parse_schema
from maypole.schemas.shape import doc_of, record_shape

_CONFIG: Final = ConfigDict(
    frozen=True,
    strict=True,
    extra="forbid",
    # NaN is not equal to itself, and no JSON number: an event could neither be compared nor shown.
    allow_inf_nan=False,
    # Unknown types are refused by us, with the field's name, instead of by pydantic without it.
    arbitrary_types_allowed=True,
    protected_namespaces=(),
    ser_json_bytes="base64",
    val_json_bytes="base64",
)
_KEPT: Final = ("frozen", "strict", "extra", "allow_inf_nan")

_TYPE: Final = re.compile(r"[a-z][a-z0-9_-]*(\.[a-z][a-z0-9_-]*)+")
_TYPE_LENGTH_MAX: Final = 200
DEADLINE_SECONDS_MAX: Final = 7 * 24 * 60 * 60
"""A flow that gets stuck at its deadline must be decided about while the journal is kept, which is thirty days."""
_PLATFORM: Final = "maypole."
# Topics of the platform's own end like this: a domain event of such a name would share a topic with them.
_TAKEN: Final = re.compile(r".*\.(dlq|commands)|[^.]+\.retry\..*")


class Value(BaseModel):
    """A record inside an event: `class Finding(Value): ...`. Fields and rules as for `Event`; it has no topic of its own."""

    model_config = _CONFIG

    __avro_fields__: ClassVar[list[dict[str, Any]]]
    __to_json__: ClassVar[Mapping[str, Any]]

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """The same with some fields changed, under the same rules as a new one: raises `pydantic.ValidationError`.

        Pydantic's own would take any value. `deep` changes nothing: nothing inside can be changed.
        """
        return type(self).model_validate({name: self.__dict__[name] for name in self.model_fields_set} | dict(update or {}))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = cast(dict[str, Any], handler(source))
        if cls.__module__ == __name__:
            return cast(CoreSchema, schema)
        for setting in _KEPT:
            if cls.model_config.get(setting) != _CONFIG.get(setting):
                raise UnsafeSchema(f"{cls.__name__}: expected model_config to leave {setting}={_CONFIG.get(setting)!r} alone")
        if cls.__private_attributes__:
            raise UnsafeSchema(f"{cls.__name__}.{next(iter(cls.__private_attributes__))}: an event has no private state")

        def tightened(part: dict[str, Any]) -> dict[str, Any]:
            if part["type"] == "model-fields":
                shape = record_shape(part, cls.__name__, cls.__pydantic_fields__, lambda ref: cast(Any, handler.resolve_ref_schema)(ref))
                cls.__avro_fields__ = shape.avro
                cls.__to_json__ = shape.to_json
                return shape.core
            if "schema" not in part:
                raise UnsafeSchema(f"{cls.__name__}: expected a model with fields, found what pydantic calls {part['type']!r}")
            return {**part, "schema": tightened(part["schema"])}

        return cast(CoreSchema, tightened(schema))

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if not cls.__pydantic_complete__:
            raise UnsafeSchema(
                f"{cls.__name__}: expected every annotation to be known when the class is declared; "
                "declare the classes it uses above it, at the same level"
            )


class Event(Value):
    """An immutable fact, named in the past tense like its topic.

        class ResearchCompleted(Event, type="research.completed"):
            question: Annotated[str, Field(min_length=1)]
            findings: tuple[Finding, ...]

    Fields: str, bool, int (64 bits), float (finite), bytes, datetime (aware; kept in UTC), date, Decimal (with max_digits
    and decimal_places), UUID, enums of strings, `Value` classes, `tuple[X, ...]`, `Mapping[str, X]` (read-only once inside),
    `X | None`; pydantic's field constraints; constant defaults. Anything else raises `UnsafeSchema` at the declaration.
    Constructing one that breaks a rule raises `pydantic.ValidationError`, which is a ValueError.
    """

    event_type: ClassVar[str]
    """The name of the type and of its topic: `<domain>.<fact>`."""

    deadline_seconds: ClassVar[float | None] = None
    """How long a flow that begins with one may take, unless its publisher says otherwise; None: an hour.

    `class Asked(Event, type="asked.for", deadline_seconds=60)`
    """

    avro_definition: ClassVar[dict[str, Any]]
    """The Avro schema as parsed JSON; `maypole.schemas.avro.schema_of` gives it as a value with its id."""

    def __init_subclass__(cls, *, type: str | None = None, deadline_seconds: float | None = None, **kwargs: Any) -> None:  # noqa: A002 - it reads as the word it is
        if type is None:
            message = f"{cls.__name__}: expected the event's type, as in class {cls.__name__}(Event, type='domain.fact')"
            raise UnsafeSchema(message)
        cls.event_type = checked_type(type, platform=cls.__module__.startswith(_PLATFORM))
        if deadline_seconds is not None and not 0 < deadline_seconds <= DEADLINE_SECONDS_MAX:
            expected = f"expected deadline_seconds of more than 0 and at most {DEADLINE_SECONDS_MAX}"
            raise UnsafeSchema(f"{cls.__name__}: {expected}, found {deadline_seconds}")
        cls.deadline_seconds = deadline_seconds
        super().__init_subclass__(**kwargs)

    @classmethod
    def __pydantic_init_subclass__(cls, *, type: str | None = None, deadline_seconds: float | None = None, **kwargs: Any) -> None:  # noqa: A002
        super().__pydantic_init_subclass__(**kwargs)
        namespace, name = record_name(cls.event_type)
        definition: dict[str, Any] = {"type": "record", "name": name, "namespace": namespace}
        if cls.__dict__.get("__doc__"):
            definition["doc"] = doc_of(cls)
        definition["fields"] = _declared_once(cls.__avro_fields__, cls.__name__, {name: None})
        cls.avro_definition = definition
        parse_schema(definition)


def checked_type(event_type: str, *, platform: bool = False) -> str:
    """The name itself when it can name an event and its topic. `platform` allows the names kept for Maypole's own records."""
    if not _TYPE.fullmatch(event_type) or len(event_type) > _TYPE_LENGTH_MAX:
        message = (
            f"expected an event type like 'research.completed' (<domain>.<fact>; lower-case letters, digits, '_' and '-', "
            f"at most {_TYPE_LENGTH_MAX} characters), found {event_type[:250]!r}"
        )
        raise UnsafeSchema(message)
    if event_type.startswith(_PLATFORM) and not platform:
        message = f"{event_type!r}: types that begin with {_PLATFORM!r} are kept for the platform's own records"
        raise UnsafeSchema(message)
    if _TAKEN.fullmatch(event_type):
        message = f"{event_type!r}: '<agent>.dlq', '<agent>.commands' and '<agent>.retry.<delay>' are topics of the platform"
        raise UnsafeSchema(message)
    return event_type


def record_name(event_type: str) -> tuple[str, str]:
    """Namespace and name of the Avro record: `research.completed` is `research` and `ResearchCompleted`.

    They come from the type and not from the class, so that two agents which declare one type under different class names
    still speak of one record.
    """
    namespace = event_type.rpartition(".")[0].replace("-", "_")
    return namespace, "".join(part[:1].upper() + part[1:] for part in re.split(r"[._-]", event_type))


def _declared_once(avro: Any, path: str, seen: dict[str, Any]) -> Any:
    """The same schema with every named type declared at its first use and named afterwards, as Avro demands."""
    match avro:
        case [*parts]:
            return [_declared_once(part, path, seen) for part in parts]
        case {"type": "record" | "enum", "name": name} if name in seen:
            if seen[name] != avro:
                raise UnsafeSchema(f"{path}: two different classes are called {name}; in one event every nested class needs its own name")
            return name
        case {"type": "record", "name": name, "fields": fields}:
            seen[name] = avro
            return {**avro, "fields": _declared_once(fields, path, seen)}
        case {"type": "enum", "name": name}:
            seen[name] = avro
            return avro
        case {"type": "array", "items": items}:
            return {**avro, "items": _declared_once(items, path, seen)}
        case {"type": "map", "values": values}:
            return {**avro, "values": _declared_once(values, path, seen)}
        case {"name": name, "type": declared}:
            return {**avro, "type": _declared_once(declared, f"{path}.{name}", seen)}
    return avro
