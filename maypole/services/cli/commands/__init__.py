"""One command group a file, each imported when it is typed. `COMMANDS` is what `maypole --help` lists."""

from __future__ import annotations

from typing import Final

COMMANDS: Final = {
    "demo": ("demo", "Watch four agents turn a question into a cited report. Nothing needs to run beforehand."),
    "dev": ("dev", "Embedded Kafka and agents until Ctrl-C, for a second terminal to publish to."),
    "run": ("run", "Run agents as an independent process."),
    "coordinator": ("coordinator", "Run the service that undoes what failed flows did."),
    "new": ("new", "Write a new agent and its test into this folder."),
    "publish": ("publish", "Start a flow by publishing an event."),
    "agents": ("agents", "Who takes part: list, show, retire."),
    "topics": ("topics", "What lies on Kafka: list, plan, apply."),
    "schemas": ("schemas", "What events look like: list, show, check, register."),
    "flows": ("flows", "Flows that wait for a person, and ending one: stuck, cancel."),
    "saga": ("saga", "What a flow did and what is undone: show, decide."),
    "dlq": ("dlq", "What could not be handled: list, show, redrive."),
    "doctor": ("doctor", "What is reachable, what is not, and what to do."),
}
"""Name to module and help line. The help lines stand here so that listing them imports no command."""
