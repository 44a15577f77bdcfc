"""A collector of spans that takes everything and keeps nothing, so that exporting costs what it costs and nothing is lost to retries."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class _Swallow(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the overridden method's
        """Says nothing: requests come by the thousand."""


@contextmanager
def collector() -> Iterator[str]:
    """Yields its address, an OTLP endpoint over HTTP on loopback."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Swallow) as server:
        threading.Thread(target=server.serve_forever, name="collector", daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
