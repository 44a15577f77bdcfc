"""`python -m deploy.local up|down|status`: what `make local` and `make local-down` run."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from deploy.local.faults import LocalFault
from deploy.local.jaeger import has_own_binary
from deploy.local.stack import ENDPOINTS, Endpoints, LocalStack, Service
from deploy.local.tools import say
from maypole.services.cli.targets import REFERENCE_AGENTS
from maypole.settings import WrongSetting, read_home

_SERVICES: tuple[Service, ...] = ("jaeger", "registry")


def main(arguments: Sequence[str]) -> int:
    """Exit codes as the command line's: 0 done, 1 failed, 2 usage, 130 interrupted."""
    asked = _parser().parse_args(arguments)
    try:
        home = read_home(os.environ, Path.cwd())
    except WrongSetting as error:
        say(f"error: {error}")
        return 2
    stack = LocalStack(home)
    try:
        if asked.command == "up":
            began = time.monotonic()
            without = cast("list[Service]", asked.without)
            others = "".join(f", {each}" for each in _SERVICES if each not in without)
            say(f"starting Kafka ({asked.nodes} node{'s' if asked.nodes > 1 else ''}){others}")
            endpoints = stack.up(asked.nodes, without)
            _tell(endpoints, home, stack, time.monotonic() - began)
        elif asked.command == "down":
            stopped = stack.down()
            say(f"stopped {', '.join(process.name for process in stopped)}" if stopped else "nothing that `make local` started is running")
        else:
            return _status(stack)
    except LocalFault as fault:
        say(f"error: {fault}")
        return 1
    except KeyboardInterrupt:
        say("interrupted: what had been started was ended again")
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.local", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start the services and write endpoints.json")
    up.add_argument("--nodes", type=int, choices=(1, 3), default=1, help="Kafka nodes (default: 1)")
    up.add_argument("--without", type=_services, default=[], metavar="jaeger,registry", help="services to leave out")
    commands.add_parser("down", help="end what `up` started; Kafka's data stays")
    commands.add_parser("status", help="what runs; exit code 1 when something that was started does not")
    return parser


def _services(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in _SERVICES:
            raise argparse.ArgumentTypeError(f"expected some of {','.join(_SERVICES)}, found {name!r}")
    return names


def _tell(endpoints: Endpoints, home: Path, stack: LocalStack, seconds: float) -> None:
    print(f"Kafka      {endpoints.kafka}")
    if endpoints.registry:
        print(f"registry   {endpoints.registry}")
    if endpoints.jaeger:
        note = "" if has_own_binary() else "   (API only: its Go module has no UI; JAEGER_BIN names a Jaeger that has)"
        print(f"Jaeger     {endpoints.jaeger}{note}")
        print(f"OTLP       {endpoints.otlp}")
    print(f"logs       {stack.logs}")
    print(f"\nready after {seconds:.0f} s; every command run here finds them in {home / ENDPOINTS}. Next:")
    agents = " ".join(REFERENCE_AGENTS)
    print(f"  .venv/bin/maypole topics apply {agents}")
    print(f"  .venv/bin/maypole run {agents}")
    print('  .venv/bin/maypole publish research.requested --data \'{"question": "How do generators work?"}\' --follow')
    print("  make local-down")


def _status(stack: LocalStack) -> int:
    processes = stack.recorded()
    if not processes:
        say("nothing was started here; `make local` starts it")
    for process in processes:
        print(f"{process.name:16} {'running' if process.alive else 'ENDED':8} pid {process.pid:<8} {process.log}")
    return 0 if all(process.alive for process in processes) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
