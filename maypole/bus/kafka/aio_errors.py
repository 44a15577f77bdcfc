"""What aiokafka's errors mean to the bus, and how long its calls may take."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import errors

from maypole.bus.ports import BrokerUnreachable

_log = logging.getLogger("maypole.bus.kafka")

FORBIDDEN = (errors.TopicAuthorizationFailedError, errors.GroupAuthorizationFailedError, errors.ClusterAuthorizationFailedError)

TOO_LARGE = (errors.MessageSizeTooLargeError, errors.RecordListTooLargeError)
"""Said of every record of a batch that is too large as a whole."""

REFUSED = (
    *FORBIDDEN,
    *TOO_LARGE,
    errors.RecordTooLargeError,
    errors.InvalidTopicError,
    errors.PolicyViolationError,
    errors.UnsupportedForMessageFormatError,
    errors.UnsupportedCodecError,
    errors.InvalidTimestampError,
)
"""The broker will give the same answer to the same record for ever."""

_UNREACHABLE = (
    errors.KafkaConnectionError,
    errors.NodeNotReadyError,
    errors.NoBrokersAvailable,
    errors.KafkaTimeoutError,
    errors.RequestTimedOutError,
    errors.StaleMetadata,
    errors.GroupCoordinatorNotAvailableError,
    errors.NotCoordinatorForGroupError,
    errors.GroupLoadInProgressError,
)


@asynccontextmanager
async def reaching(bootstrap: str, seconds: float) -> AsyncIterator[None]:
    """Turn "nobody answers", however it shows, into `BrokerUnreachable` within `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise BrokerUnreachable(f"no broker answered at {bootstrap} within {seconds:g} s") from error
    except _UNREACHABLE as error:
        raise BrokerUnreachable(f"no broker answered at {bootstrap} within {seconds:g} s: {error}") from error
    except FORBIDDEN as error:
        raise PermissionError(f"the broker at {bootstrap} refused: {error}") from error


async def stop_within(stop: Coroutine[Any, Any, None], seconds: float, what: str) -> None:
    """aiokafka's `stop` may wait for ever for a broker that is gone, and raise what its own tasks died of."""
    stopping = asyncio.ensure_future(stop)
    done, _ = await asyncio.wait({stopping}, timeout=seconds)
    if not done:
        stopping.cancel()
        await asyncio.wait({stopping}, timeout=seconds)
    if not stopping.done() or stopping.cancelled() or stopping.exception() is not None:
        reason = "no end" if not stopping.done() or stopping.cancelled() else repr(stopping.exception())
        _log.warning("bus.client_abandoned client=%s seconds=%s reason=%s", what, seconds, reason)
