"""Where the steps of a flow stand in its trace: twelve bytes a step, because a coordinator keeps them for every open flow.

The trace follows from the flow's id. A step that acted is known by the span that wrote its last record; any other has
written nothing that a command could be about, and the flow's root stands for it.
"""

from __future__ import annotations

from zlib import crc32

from maypole.schemas.identifiers import FlowId, root_traceparent, trace_id_of

_BYTES = 12


def with_step(traces: bytes, step_id: str, traceparent: bytes | None) -> bytes:
    """`traceparent` as the header has it: version, trace, span and flags."""
    if traceparent is None or len(traceparent) < 52:
        return traces
    try:
        span = bytes.fromhex(traceparent[36:52].decode("ascii"))
    except ValueError:
        return traces  # observation: what cannot be read is as good as absent
    key = _key(step_id)
    at = _find(traces, key)
    return traces + key + span if at is None else traces[: at + 4] + span + traces[at + _BYTES :]


def traceparent_of(flow: FlowId, traces: bytes, step_id: str) -> str:
    at = _find(traces, _key(step_id))
    return root_traceparent(flow) if at is None else f"00-{trace_id_of(flow)}-{traces[at + 4 : at + _BYTES].hex()}-01"


def _key(step_id: str) -> bytes:
    # Two steps of one flow with one key would share a place in the trace, and nothing else.
    return crc32(step_id.encode()).to_bytes(4, "big")


def _find(traces: bytes, key: bytes) -> int | None:
    at = traces.find(key)
    while at % _BYTES and at >= 0:  # a span that looks like a key
        at = traces.find(key, at + 1)
    return None if at < 0 else at
