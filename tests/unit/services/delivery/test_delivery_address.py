from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from maypole.services.delivery.address import DeliveryFailed, post
from maypole.services.delivery.destinations import DestinationRefused, ToAddress


@asynccontextmanager
async def receiver(answer: bytes, requests: list[bytes]) -> AsyncIterator[ToAddress]:
    """A server that records what it gets and answers everything with the same bytes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next((int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")), 0)
        requests.append(head + await reader.readexactly(length))
        writer.write(answer)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield ToAddress(f"http://127.0.0.1:{port}/in?token=secret")


def status(line: str) -> bytes:
    return f"HTTP/1.1 {line}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode()


async def test_a_report_is_posted_so_that_a_repetition_can_be_recognised() -> None:
    requests: list[bytes] = []
    async with receiver(status("201 Created"), requests) as address:
        assert await post(address, "# Ünit\n", "step-1", "flow-Ü") == 201
    (request,) = requests
    head, _, body = request.partition(b"\r\n\r\n")
    lines = head.decode().lower().split("\r\n")
    assert lines[0] == "post /in?token=secret http/1.1"
    assert {"content-type: text/markdown; charset=utf-8", "idempotency-key: step-1", "maypole-flow-id: flow-\\xdc"} <= set(lines)
    assert body.decode() == "# Ünit\n"


@pytest.mark.parametrize("line", ["400 Bad Request", "403 Forbidden", "404 Not Found", "422 Unprocessable", "302 Found"])
async def test_an_answer_that_repeating_cannot_change_is_refused_with_its_status(line: str) -> None:
    async with receiver(status(line), []) as address:
        with pytest.raises(DestinationRefused, match=rf"expected 2xx, http://127\.0\.0\.1:\d+/in answered {line.split()[0]}"):
            await post(address, "text", "step", "flow")


@pytest.mark.parametrize("line", ["408 Request Timeout", "429 Too Many Requests", "500 Internal Server Error", "503 Service Unavailable"])
async def test_an_answer_that_may_change_is_tried_again(line: str) -> None:
    async with receiver(status(line), []) as address:
        with pytest.raises(DeliveryFailed, match=f"answered {line.split()[0]}"):
            await post(address, "text", "step", "flow")


async def test_nobody_listening_is_tried_again() -> None:
    async with receiver(status("200 OK"), []) as address:
        pass
    with pytest.raises(DeliveryFailed, match=r"/in could not be reached: ConnectError") as failed:
        await post(address, "text", "step", "flow")
    assert "secret" not in str(failed.value)


async def test_a_connection_cut_short_is_tried_again() -> None:
    async with receiver(b"HTTP/1.1 20", []) as address:
        with pytest.raises(DeliveryFailed, match="could not be reached"):
            await post(address, "text", "step", "flow")
