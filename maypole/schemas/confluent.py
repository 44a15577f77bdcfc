"""A schema registry that speaks Confluent's REST API: Confluent's own, Karapace, Apicurio under `/apis/ccompat/v7`."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from maypole.schemas.avro import Schema, is_derived
from maypole.schemas.errors import UnknownSchema, UnsafeSchema

if TYPE_CHECKING:
    import httpx

_MEDIA: Final = "application/vnd.schemaregistry.v1+json"
_CLIENT_ERROR: Final = 400
_NOT_FOUND: Final = 404
_REFUSALS: Final = {409: "it breaks the subject's compatibility", 422: "the schema or the request is invalid"}
_SERVER_ERROR: Final = 500
_TOO_MANY: Final = 429
UNKNOWN_SECONDS: Final = 30.0
"""How long the answer "no such schema" is believed. A poison record would otherwise cost a request each."""
ANSWERS_MAX: Final = 10_000
TIMEOUT_SECONDS: Final = 10.0

T = TypeVar("T")
K = TypeVar("K")


class RegistryUnreachable(ConnectionError):
    """The registry did not answer, or not with sense. It may pass: the caller retries."""


class RegistryRefused(ValueError):
    """The registry said no; `reasons` are its own words."""

    def __init__(self, message: str, reasons: tuple[str, ...]) -> None:
        super().__init__(message)
        self.message = message
        self.reasons = reasons

    def __reduce__(self) -> tuple[type[RegistryRefused], tuple[str, tuple[str, ...]]]:
        return RegistryRefused, (self.message, self.reasons)


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
        status, body = await self._request("POST", f"/subjects/{quote(subject, safe='')}", {"schema": schema.text})
        return None if status == _NOT_FOUND else self._id_in(body)

    async def check(self, subject: str, schema: Schema) -> tuple[str, ...]:
        """Why the registry would refuse `schema` under the subject's compatibility, in its own words; empty when it would not."""
        path = f"/compatibility/subjects/{quote(subject, safe='')}/versions?verbose=true"
        status, body = await self._request("POST", path, {"schema": schema.text})
        if status == _NOT_FOUND:
            return ()
        if not isinstance(body, dict) or not isinstance(body.get("is_compatible"), bool):
            raise self._senseless(body)
        return () if body["is_compatible"] else (_texts(body.get("messages")) or ("the registry gave no reason",))

    async def require(self, subject: str, level: str = "BACKWARD_TRANSITIVE") -> None:
        """Set the compatibility that the registry holds the subject to."""
        await self._request("PUT", f"/config/{quote(subject, safe='')}", {"compatibility": level})

    async def _register(self, subject: str, schema: Schema) -> int:
        _, body = await self._request("POST", f"/subjects/{quote(subject, safe='')}/versions", {"schema": schema.text})
        schema_id = self._id_in(body)
        _keep(self._schemas, schema_id, schema)
        self._unknown.pop(schema_id, None)
        return schema_id

    async def _fetch(self, schema_id: int) -> Schema | UnsafeSchema:
        status, body = await self._request("GET", f"/schemas/ids/{schema_id}")
        if status == _NOT_FOUND:
            _keep(self._unknown, schema_id, self._clock() + UNKNOWN_SECONDS)
            raise UnknownSchema(schema_id, f"the registry at {self._url}")
        if not isinstance(body, dict) or not isinstance(body.get("schema"), str):
            raise self._senseless(body)
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
            message = f"the schema registry at {self._url} cannot be reached ({type(error).__name__}: {error})"
            raise RegistryUnreachable(message) from error
        try:
            found = response.json()
        except ValueError:
            found = response.text[:500]
        status = response.status_code
        if status >= _SERVER_ERROR or status == _TOO_MANY:
            message = f"the schema registry at {self._url} answered {method} {path} with {status}: {found}"
            raise RegistryUnreachable(message)
        if status >= _CLIENT_ERROR and status != _NOT_FOUND:
            raise self._refused(method, path, status, found)
        return status, found

    def _refused(self, method: str, path: str, status: int, found: Any) -> RegistryRefused:
        reason = str(found.get("message", found)) if isinstance(found, dict) else str(found).strip().partition("\n")[0][:200]
        what = _REFUSALS.get(status, f"status {status}")
        message = f"the schema registry at {self._url} refused {method} {path}: {what}: {reason}"
        return RegistryRefused(message, (reason, *_texts_of(found)))

    def _id_in(self, body: Any) -> int:
        schema_id = body.get("id") if isinstance(body, dict) else None
        if not isinstance(schema_id, int) or is_derived(schema_id):
            raise self._senseless(body)
        return schema_id

    def _senseless(self, body: Any) -> RegistryUnreachable:
        return RegistryUnreachable(f"expected an answer of a schema registry from {self._url}, found {str(body)[:200]}")

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
