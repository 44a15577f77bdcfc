"""What can go wrong with local services, said so that somebody can act on it."""

from __future__ import annotations


class LocalFault(RuntimeError):
    """A service cannot be built or started here. Says what was expected, what was found and what to do."""


class NotHere(LocalFault):
    """This machine lacks a program that the service needs; what could be installed is named."""


class PortTaken(LocalFault):
    """A fixed port is in use by another program."""
