"""Loopback ports: fixed ones for people, chosen ones for tests."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterable
from typing import Final

from deploy.local.faults import LocalFault, PortTaken

LOOPBACK: Final = "127.0.0.1"

# Below the range that systems hand to outgoing connections. A port from inside it can be taken by some client while the
# node that owns it is down, and a client that keeps dialling such a port on loopback can even connect to itself.
_LOWEST, _HIGHEST = 20_000, 32_000
_handed_out: set[int] = set()


def choose_ports(count: int) -> list[int]:
    """Ports that nothing listens on and that this process has not handed out before."""
    chosen: list[int] = []
    for port in random.sample(range(_LOWEST, _HIGHEST), 1_000):
        if len(chosen) == count:
            break
        if port not in _handed_out and _is_free(port):
            _handed_out.add(port)
            chosen.append(port)
    if len(chosen) < count:
        raise LocalFault(f"expected {count} free ports between {_LOWEST} and {_HIGHEST} on {LOOPBACK}, found {len(chosen)}")
    return chosen


def require_free(ports: Iterable[tuple[str, int]]) -> None:
    """Raise `PortTaken` for the first of these (whose, port) that another program listens on."""
    for whose, port in ports:
        if not _is_free(port):
            raise PortTaken(
                f"port {port} on {LOOPBACK}, wanted for {whose}, is in use by another program: stop it "
                "(`make down` or `make local-down` if it is ours), or find it with `ss -ltnp`"
            )


def accepts(port: int) -> bool:
    """Whether something accepts connections there."""
    try:
        socket.create_connection((LOOPBACK, port), timeout=1).close()
    except OSError:
        return False
    return True


def answers(addresses: str) -> bool:
    """Whether somebody accepts connections at the first of these, `host:port[,host:port]`."""
    host, _, port = addresses.split(",")[0].rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except (OSError, ValueError):
        return False
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the servers do: a connection of an earlier server that lingers in TIME_WAIT is no obstacle, a listener is.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    # A listener on all addresses does not always keep a second one off loopback.
    return not accepts(port)
