"""A schema registry that speaks Confluent's REST API: Confluent's own, Karapace, Apicurio under `/apis/ccompat/v7`."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from maypole.schemas.avro import DERIVED_ID_MIN, Schema, is_derived
from maypole.schemas.errors import UnknownSchema, UnsafeSchema, shown

if TYPE_CHECKING:
    import httpx

_MEDIA: Final = "application/vnd.schemaregistry.v1+json"
_CLIENT_ERROR: Final = 400
_NOT_FOUND: Final = 404
_REFUSALS: Final = {409: "it breaks the subject's compatibility", 422: "the schema or the request is invalid"}
_ABOUT_THE_ID: Final = frozenset({400, 410, 422})
_PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
"""A registry that starts, elects a leader or is overloaded, and what stands before it. All others come again when asked again."""
_SHOWN_MAX: Final = 200
UNKNOWN_SECONDS: Final = 30.0
"""How long the answer "no such schema" is believed. A poison record would otherwise cost a request each."""
ANSWERS_MAX: Final = 10_000
TIMEOUT_SECONDS: Final = 10.0

T = TypeVar("T")
K = TypeVar("K")


class RegistryUnreachable(ConnectionError):
    """The registry did not answer, or said that it cannot now. It may pass: the caller retries."""


class RegistryRefused(ValueError):
    """The registry said no; `reasons` are its own words, `status` that of HTTP. Asking again does not help."""

    def __init__(self, message: str, reasons: tuple[str, ...] = (), status: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.reasons = reasons
        self.status = status

    def __reduce__(self) -> tuple[type[RegistryRefused], tuple[str, tuple[str, ...], int]]:
        return type(self), (self.message, self.reasons, self.status)


class NoRegistry(RegistryRefused):
    """What answers at the address is no schema registry, or one that lacks what is asked of it."""


class ConfluentRegistry:
    """The registry at `url`; a user and password in it are sent as basic authentication. Use as an asynchronous context manager.

    Every answer is kept, also the negative ones for `UNKNOWN_SECONDS` of `clock` (monotonic seconds); callers who ask the
    same thing at the same time share one request.
    """

    def __init__(self, url: str, *, clock: Callable[[], float] = time.monotonic, transport: httpx.AsyncBaseTransport | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            message = f"expected the registry's address as http(s)://[user:password@]host[:port][/path], found {_hidden(url)!r}"
            raise ValueError(message)
        self._auth = (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
        self._url = _hidden(url).rstrip("/")
        self._clock = clock
        self._transport = transport
        self._client: httpx.AsyncClient | None = None
        self._ids: dict[tuple[str, str], int] = {}
        self._schemas: dict[int, Schema | UnsafeSchema] = {}
        self._unknown: dict[int, float] = {}
        self._asking: dict[object, asyncio.Task[Any]] = {}

    async def __aenter__(self) -> ConfluentRegistry:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Cancel what is under way and close the connections. Safe to repeat."""
        asking = list(self._asking.values())
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def id_of(self, subject: str, schema: Schema) -> int:
        """Registers `schema` under `subject` unless it is there. Raises `RegistryRefused` when it breaks the subject's compatibility."""
        key = subject, schema.canonical
        if (known := self._ids.get(key)) is not None:
            return known
        schema_id = await self._once(key, lambda: self._register(subject, schema))
        _keep(self._ids, key, schema_id)
        return schema_id

    async def schema_of(self, schema_id: int) -> Schema:
        """Raises `UnknownSchema`; `UnsafeSchema` when the registry has it and it is outside the safe subset."""
        found = self._schemas.get(schema_id)
        if found is None:
            # Derived ids are nobody's but ours: a registry asked for one would answer for another schema or none.
            if is_derived(schema_id) or self._unknown.get(schema_id, self._clock()) > self._clock():
                raise UnknownSchema(schema_id, f"the registry at {self._url}")
            found = await self._once(schema_id, lambda: self._fetch(schema_id))
        if isinstance(found, UnsafeSchema):
            raise UnsafeSchema(*found.args)
        return found

    async def lookup(self, subject: str, schema: Schema) -> int | None:
        """The id that `schema` already has under `subject`; None when it has none. Registers nothing."""
        path = f"/subjects/{quote(subject, safe='')}"
        status, body = await self._request("POST", path, {"schema": schema.text})
        return None if status == _NOT_FOUND else self._id_in(f"POST {path}", status, body)

    async def check(self, subject: str, schema: Schema) -> tuple[str, ...]:
        """Why the registry would refuse `schema` under the subject's compatibility, in its own words; empty when it would not."""
        path = f"/compatibility/subjects/{quote(subject, safe='')}/versions?verbose=true"
        status, body = await self._request("POST", path, {"schema": schema.text})
        if status == _NOT_FOUND:
            return ()
        if not isinstance(body, dict) or not isinstance(body.get("is_compatible"), bool):
            raise self._senseless(f"POST {path}", status, "a verdict on compatibility", body)
        return () if body["is_compatible"] else (_texts(body.get("messages")) or ("the registry gave no reason",))

    async def require(self, subject: str, level: str = "BACKWARD_TRANSITIVE") -> None:
        """Set the compatibility that the registry holds the subject to."""
        await self._request("PUT", f"/config/{quote(subject, safe='')}", {"compatibility": level})

    async def require_answer(self) -> None:
        """Raises `RegistryUnreachable` or `RegistryRefused` unless a registry answers at the address."""
        status, body = await self._request("GET", "/subjects")
        if not isinstance(body, list):
            raise self._senseless("GET /subjects", status, "a list of subjects", body)

    async def _register(self, subject: str, schema: Schema) -> int:
        path = f"/subjects/{quote(subject, safe='')}/versions"
        status, body = await self._request("POST", path, {"schema": schema.text})
        schema_id = self._id_in(f"POST {path}", status, body)
        _keep(self._schemas, schema_id, schema)
        self._unknown.pop(schema_id, None)
        return schema_id

    async def _fetch(self, schema_id: int) -> Schema | UnsafeSchema:
        path = f"/schemas/ids/{schema_id}"
        try:
            status, body = await self._request("GET", path)
        except RegistryRefused as error:
            if isinstance(error, NoRegistry) or error.status not in _ABOUT_THE_ID:
                raise
            status, body = _NOT_FOUND, None
        if status == _NOT_FOUND:
            _keep(self._unknown, schema_id, self._clock() + UNKNOWN_SECONDS)
            raise UnknownSchema(schema_id, f"the registry at {self._url}")
        if not isinstance(body, dict) or not isinstance(body.get("schema"), str):
            raise self._senseless(f"GET {path}", status, "a schema", body)
        found: Schema | UnsafeSchema
        try:
            if body.get("schemaType", "AVRO") != "AVRO" or body.get("references"):
                found = UnsafeSchema(f"schema id {schema_id}: expected Avro without references, found {body.get('schemaType', 'some')}")
            else:
                found = Schema.parse(body["schema"])
        except UnsafeSchema as error:
            found = UnsafeSchema(f"schema id {schema_id} of the registry at {self._url}: {error}")
        _keep(self._schemas, schema_id, found)
        return found

    async def _request(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
        import httpx  # takes longer to import than the rest of this package

        if self._client is None:
            headers = {"Accept": f"{_MEDIA}, application/json", "Content-Type": _MEDIA}
            self._client = httpx.AsyncClient(
                auth=self._auth, headers=headers, timeout=TIMEOUT_SECONDS, transport=self._transport, trust_env=self._transport is None
            )
        try:
            content = None if body is None else json.dumps(body)
            response = await self._client.request(method, self._url + path, content=content)
        except httpx.HTTPError as error:
            raise self._unanswered(f"{method} {path}", error) from error
        status, asked = response.status_code, f"{method} {path}"
        if status in _PASSING:
            message = f"the schema registry at {self._url} answered {asked} with {status}: {shown(response.text)}"
            raise RegistryUnreachable(message)
        try:
            found = response.json() if response.content else None
        except (ValueError, RecursionError):
            if status in (401, 403, 407):
                raise self._refused(asked, status, response.text) from None
            raise self._senseless(asked, status, "JSON", response.text) from None
        if status == _NOT_FOUND and not (isinstance(found, dict) and "error_code" in found):
            raise self._senseless(asked, status, "an `error_code` beside it", found)
        if 300 <= status < _CLIENT_ERROR or status >= 500:
            raise self._senseless(asked, status, "an answer", found)
        if status >= _CLIENT_ERROR and status != _NOT_FOUND:
            raise self._refused(asked, status, found)
        return status, found

    def _unanswered(self, asked: str, error: httpx.HTTPError) -> RegistryUnreachable | NoRegistry:
        import httpx

        # Who hangs up may be restarting; who speaks another language, or cannot show who it is, does so again.
        foreign = isinstance(error, httpx.RemoteProtocolError) and "disconnected" not in str(error)
        if foreign or "[SSL" in str(error):
            return self._senseless(asked, 0, "HTTP", f"{type(error).__name__}: {error}")
        return RegistryUnreachable(f"the schema registry at {self._url} cannot be reached ({type(error).__name__}: {error})")

    def _refused(self, asked: str, status: int, found: Any) -> RegistryRefused:
        reason = str(found.get("message", found)) if isinstance(found, dict) else str(found).strip().partition("\n")[0][:_SHOWN_MAX]
        what = _REFUSALS.get(status, f"status {status}")
        message = f"the schema registry at {self._url} refused {asked}: {what}: {reason}"
        return RegistryRefused(message, (reason, *_texts_of(found)), status)

    def _id_in(self, asked: str, status: int, body: Any) -> int:
        schema_id = body.get("id") if isinstance(body, dict) else None
        if type(schema_id) is not int or not 0 <= schema_id < DERIVED_ID_MIN:
            raise self._senseless(asked, status, f"the id of a schema below {DERIVED_ID_MIN}", body)
        return schema_id

    def _senseless(self, asked: str, status: int, expected: str, found: Any) -> NoRegistry:
        return NoRegistry(
            f"the address {self._url} is no schema registry's: expected {expected} in answer to {asked}, "
            f"found status {status} with {shown(found)}; SCHEMA_REGISTRY_URL must be the address "
            "of Confluent's API, with its path (Apicurio: http://HOST:PORT/apis/ccompat/v7)",
            (),
            status,
        )

    async def _once(self, key: object, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask, or wait for whoever is asking. The request is shielded: one impatient caller does not cancel it for the others."""
        task = self._asking.get(key)
        if task is None:

            async def asked() -> T:
                try:
                    return await ask()
                finally:
                    self._asking.pop(key, None)

            task = self._asking[key] = asyncio.create_task(asked())
            # Nobody may be left to look at the outcome; it is looked at here.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(task)


def _keep(answers: dict[K, T], key: K, answer: T) -> None:
    """Bounded, oldest first out: ids come out of record values, and anybody may write those."""
    if len(answers) >= ANSWERS_MAX and key not in answers:
        del answers[next(iter(answers))]
    answers[key] = answer


def _texts(messages: Any) -> tuple[str, ...]:
    return tuple(str(message) for message in messages) if isinstance(messages, list) else ()


def _texts_of(found: Any) -> tuple[str, ...]:
    return _texts(found.get("messages")) if isinstance(found, dict) else ()


def _hidden(url: str) -> str:
    """The address without user and password, which belong in no error message."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
