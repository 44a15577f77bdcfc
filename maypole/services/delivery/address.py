"""A report to an HTTP address: one POST that a receiver can recognise when it is repeated."""

from __future__ import annotations

from maypole.services.delivery.destinations import DestinationRefused, ToAddress

TIMEOUT_SECONDS = 20.0
_PASSING = frozenset({408, 425, 429})


class DeliveryFailed(ConnectionError):
    """The address did not take the report now, or nobody knows whether it did. It may later."""


class NotSent(DeliveryFailed):
    """Nobody was there to take it."""


async def post(address: ToAddress, markdown: str, idempotency_key: str, flow_id: str) -> int:
    """POST `text/markdown` with `Idempotency-Key` and `Maypole-Flow-Id`; returns the status.

    2xx is delivered. Other answers below 500, redirects among them (a report is not sent where nobody asked for
    it), raise `DestinationRefused`; 408, 425, 429, 5xx and everything that went wrong on the way raise `DeliveryFailed`,
    where no connection came about `NotSent`.
    """
    import httpx  # a tenth of a second, for those who deliver over HTTP only

    headers = {
        "content-type": "text/markdown; charset=utf-8",
        "idempotency-key": idempotency_key,
        "maypole-flow-id": _header_value(flow_id),
    }
    try:
        async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS, follow_redirects=False) as client:
            response = await client.post(address.url, content=markdown.encode(), headers=headers)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError) as error:
        raise DestinationRefused(f"cannot send to {address.shown}: {error}") from error
    except httpx.HTTPError as error:
        never_sent = isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout))
        failure = NotSent if never_sent else DeliveryFailed
        raise failure(f"{address.shown} could not be reached: {type(error).__name__} {error}".rstrip()) from error
    status = response.status_code
    if response.is_success:
        return status
    answer = f"{address.shown} answered {status} {response.reason_phrase}".rstrip()
    if status >= 500 or status in _PASSING:
        raise DeliveryFailed(answer)
    raise DestinationRefused(f"expected 2xx, {answer}")


def _header_value(text: str) -> str:
    """Flow ids may be foreign strings: what a header cannot hold is escaped."""
    return text.encode("unicode_escape").decode("ascii")
