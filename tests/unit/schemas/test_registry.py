"""Ids of schemas: derived ones, and those of a registry that answers over HTTP (a fake of it, inside the client's transport)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import httpx
import pytest

from maypole.schemas.avro import DERIVED_ID_MIN, Schema
from maypole.schemas.confluent import UNKNOWN_SECONDS, ConfluentRegistry, NoRegistry, RegistryRefused, RegistryUnreachable
from maypole.schemas.errors import UnknownSchema, UnsafeSchema
from maypole.schemas.registry import DerivedRegistry, subject_of
from tests.unit.schemas.verdicts import one

SCHEMA = Schema.parse(one("string"))
Answer = Callable[[httpx.Request], httpx.Response | Awaitable[httpx.Response]]


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class Fake:
    """Answers from a table of (method, path), and remembers what it was asked."""

    def __init__(self, **answers: tuple[int, object]) -> None:
        self.answers = answers
        self.requests: list[httpx.Request] = []
        self.asked = asyncio.Event()
        self.gate: asyncio.Event | None = None

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        self.asked.set()
        if self.gate is not None:
            await self.gate.wait()
        status, body = self.answers.get(request.method.lower(), (404, {"error_code": 40403, "message": "Schema not found"}))
        return httpx.Response(status, json=body) if not isinstance(body, str) else httpx.Response(status, text=body)


def connected(fake: Fake, clock: Clock | None = None, url: str = "http://registry:8081/") -> ConfluentRegistry:
    return ConfluentRegistry(url, clock=clock or Clock(), transport=httpx.MockTransport(fake))


async def test_without_a_registry_ids_are_derived_and_announced_schemas_are_known() -> None:
    registry = DerivedRegistry()
    with pytest.raises(UnknownSchema, match=str(SCHEMA.derived_id)):
        await registry.schema_of(SCHEMA.derived_id)

    assert registry.announce(SCHEMA) == SCHEMA.derived_id
    assert await registry.schema_of(SCHEMA.derived_id) == SCHEMA
    assert await registry.id_of(subject_of("a.b"), SCHEMA) == SCHEMA.derived_id


def test_two_schemas_of_one_derived_id_are_refused() -> None:
    registry = DerivedRegistry()
    registry.announce(SCHEMA)
    other = Schema.parse(one("long"))

    with pytest.raises(ValueError, match="two schemas derive the id"):
        registry.announce(Schema(other.canonical, SCHEMA.derived_id, other.fullname, other.text, other.node))


async def test_a_schema_is_registered_once_under_its_subject() -> None:
    fake = Fake(post=(200, {"id": 7}))
    async with connected(fake) as registry:
        assert [await registry.id_of(subject_of("a.b"), SCHEMA) for _ in range(3)] == [7, 7, 7]
        assert await registry.schema_of(7) == SCHEMA

    (request,) = fake.requests
    assert (request.method, request.url.path) == ("POST", "/subjects/a.b-value/versions")
    assert Schema.parse(json.loads(request.content)["schema"]) == SCHEMA


async def test_a_schema_is_fetched_once_also_for_callers_at_the_same_time() -> None:
    fake = Fake(get=(200, {"schema": SCHEMA.text}))
    fake.gate = asyncio.Event()
    async with connected(fake) as registry, asyncio.timeout(30):
        callers = [asyncio.create_task(registry.schema_of(7)) for _ in range(5)]
        impatient = callers[0]
        await fake.asked.wait()
        impatient.cancel()
        fake.gate.set()
        found = await asyncio.gather(*callers[1:])
        assert impatient.cancelled()

    assert found == [SCHEMA] * 4
    assert [request.url.path for request in fake.requests] == ["/schemas/ids/7"]


async def test_an_unknown_id_is_asked_again_only_after_a_while() -> None:
    fake, clock = Fake(), Clock()
    async with connected(fake, clock) as registry:
        for _ in range(3):
            with pytest.raises(UnknownSchema):
                await registry.schema_of(7)
        assert len(fake.requests) == 1

        clock.seconds += UNKNOWN_SECONDS + 1
        fake.answers = {"get": (200, {"schema": SCHEMA.text})}
        assert await registry.schema_of(7) == SCHEMA


async def test_a_derived_id_is_never_asked_of_a_registry() -> None:
    fake = Fake()
    async with connected(fake) as registry:
        with pytest.raises(UnknownSchema):
            await registry.schema_of(DERIVED_ID_MIN)

    assert fake.requests == []


async def test_a_schema_outside_the_safe_subset_is_refused_and_not_fetched_again() -> None:
    recursive = {"type": "record", "name": "R", "fields": [{"name": "next", "type": ["null", "R"]}]}
    fake = Fake(get=(200, {"schema": json.dumps(recursive)}))
    async with connected(fake) as registry:
        for _ in range(2):
            with pytest.raises(UnsafeSchema, match=r"schema id 7.*schema\.next\[1\]: R contains itself"):
                await registry.schema_of(7)

    assert len(fake.requests) == 1


async def test_a_schema_of_another_kind_is_refused() -> None:
    async with connected(Fake(get=(200, {"schema": "{}", "schemaType": "JSON"}))) as registry:
        with pytest.raises(UnsafeSchema, match="expected Avro without references, found JSON"):
            await registry.schema_of(7)


async def test_a_refusal_carries_the_registrys_reasons() -> None:
    fake = Fake(post=(409, {"error_code": 409, "message": "Schema being registered is incompatible"}))
    async with connected(fake) as registry:
        with pytest.raises(RegistryRefused, match="breaks the subject's compatibility") as caught:
            await registry.id_of("a.b-value", SCHEMA)

    assert caught.value.reasons == ("Schema being registered is incompatible",)


@pytest.mark.parametrize(("status", "body"), [(500, {"error_code": 50003}), (502, "<html>"), (503, {}), (429, {}), (408, "")])
async def test_an_answer_that_passes_is_no_answer_and_may_be_asked_again(status: int, body: object) -> None:
    fake = Fake(post=(status, body))
    async with connected(fake) as registry:
        with pytest.raises(RegistryUnreachable, match=f"http://registry:8081 answered POST /subjects/a.b-value/versions with {status}"):
            await registry.id_of("a.b-value", SCHEMA)
        fake.answers = {"post": (200, {"id": 7})}
        assert await registry.id_of("a.b-value", SCHEMA) == 7


@pytest.mark.parametrize(
    ("status", "body", "found"),
    [
        (501, "<html>not here</html>", "<html>not here</html>"),
        (501, {"message": "no"}, "no"),
        (200, "<!doctype html>" + "x" * 10_000, "<!doctype html>"),
        (200, "[" * 100_000, r"\[\[\["),
        (200, "", "None"),
        (200, {"id": "seven"}, "seven"),
        (200, {"id": True}, "True"),
        (200, {"id": -1}, "-1"),
        (200, {"id": DERIVED_ID_MIN}, str(DERIVED_ID_MIN)),
        (200, [], r"\[\]"),
        (302, "moved", "moved"),
        (404, "<html>", "<html>"),
        (404, {"detail": "Not Found"}, "Not Found"),
    ],
)
async def test_what_answers_as_no_registry_does_is_refused_with_address_status_and_first_bytes(
    status: int, body: object, found: str
) -> None:
    async with connected(Fake(post=(status, body))) as registry:
        with pytest.raises(
            NoRegistry, match=rf"(?s)http://registry:8081 .*POST /subjects/a.b-value/versions.* {status} with .*{found}"
        ) as caught:
            await registry.id_of("a.b-value", SCHEMA)
        assert len(str(caught.value)) < 700
        with pytest.raises(NoRegistry):
            await registry.lookup("a.b-value", SCHEMA)


@pytest.mark.parametrize(
    "found", ["illegal status line: bytearray(b'220 smtp')", "[SSL: CERTIFICATE_VERIFY_FAILED] unable to get local issuer"]
)
async def test_a_port_that_speaks_another_language_is_refused(found: str) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise (httpx.ConnectError if "SSL" in found else httpx.RemoteProtocolError)(found, request=request)

    async with ConfluentRegistry("http://registry:8081", transport=httpx.MockTransport(answer)) as registry:
        with pytest.raises(NoRegistry, match="expected HTTP"):
            await registry.schema_of(7)


@pytest.mark.parametrize("status", [400, 410, 422])
async def test_an_id_that_the_registry_will_not_hear_of_is_unknown(status: int) -> None:
    fake = Fake(get=(status, {"error_code": status, "message": "no such id"}))
    async with connected(fake) as registry:
        for _ in range(2):
            with pytest.raises(UnknownSchema):
                await registry.schema_of(7)
    assert len(fake.requests) == 1


async def test_a_registry_that_is_not_there_is_unreachable() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        message = "connection refused"
        raise httpx.ConnectError(message, request=request)

    async with ConfluentRegistry("http://registry:8081", transport=httpx.MockTransport(refuse)) as registry:
        with pytest.raises(RegistryUnreachable, match="connection refused"):
            await registry.schema_of(7)


async def test_somebody_who_hangs_up_may_be_starting() -> None:
    def hang_up(request: httpx.Request) -> httpx.Response:
        raise httpx.RemoteProtocolError("Server disconnected without sending a response.", request=request)

    async with ConfluentRegistry("http://registry:8081", transport=httpx.MockTransport(hang_up)) as registry:
        with pytest.raises(RegistryUnreachable, match="disconnected"):
            await registry.schema_of(7)


async def test_user_and_password_are_sent_and_never_shown() -> None:
    fake = Fake(get=(401, {"message": "Unauthorized"}))
    async with connected(fake, url="http://ann:s%40cret@registry:8081") as registry:
        with pytest.raises(RegistryRefused) as caught:
            await registry.schema_of(7)

    assert fake.requests[0].headers["authorization"] == httpx.BasicAuth("ann", "s@cret")._auth_header
    assert "cret" not in str(caught.value)


@pytest.mark.parametrize("url", ["registry:8081", "ftp://registry", "http://", ""])
def test_an_address_that_is_none_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="expected the registry's address"):
        ConfluentRegistry(url)


async def test_compatibility_is_asked_and_answered() -> None:
    fake = Fake(post=(200, {"is_compatible": False, "messages": ["READER_FIELD_MISSING_DEFAULT_VALUE"]}), put=(200, {}))
    async with connected(fake) as registry:
        await registry.require("a.b-value")
        assert await registry.check("a.b-value", SCHEMA) == ("READER_FIELD_MISSING_DEFAULT_VALUE",)
        fake.answers = {}
        assert await registry.check("a.b-value", SCHEMA) == ()
        assert await registry.lookup("a.b-value", SCHEMA) is None

    assert json.loads(fake.requests[0].content) == {"compatibility": "BACKWARD_TRANSITIVE"}
