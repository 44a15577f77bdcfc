"""librdkafka's properties in aiokafka's words: `MAYPOLE_KAFKA_CONFIG` is one file for both transports."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from typing import Any

from maypole.bus.kafka.embedded import FETCH_WAIT_MS
from maypole.bus.ports import WrongProperty

_BATCH_BYTES_MAX = 16_384

_COMMON: dict[str, tuple[str, Callable[[str], Any]]] = {
    "client.id": ("client_id", str),
    "security.protocol": ("security_protocol", str.upper),
    "sasl.mechanism": ("sasl_mechanism", str),
    "sasl.mechanisms": ("sasl_mechanism", str),
    "sasl.username": ("sasl_plain_username", str),
    "sasl.password": ("sasl_plain_password", str),
    "sasl.kerberos.service.name": ("sasl_kerberos_service_name", str),
    "metadata.max.age.ms": ("metadata_max_age_ms", int),
    "request.timeout.ms": ("request_timeout_ms", int),
    "socket.timeout.ms": ("request_timeout_ms", int),
    "retry.backoff.ms": ("retry_backoff_ms", int),
    "connections.max.idle.ms": ("connections_max_idle_ms", int),
}
_PRODUCER: dict[str, tuple[str, Callable[[str], Any]]] = {
    "linger.ms": ("linger_ms", float),
    "queue.buffering.max.ms": ("linger_ms", float),
    "compression.type": ("compression_type", lambda name: None if name == "none" else name),
    "compression.codec": ("compression_type", lambda name: None if name == "none" else name),
    "batch.size": ("max_batch_size", int),
    "message.max.bytes": ("max_request_size", int),
}
# Not `group.instance.id`: aiokafka does not know the answer that another member has it, and would stand still without a word.
_CONSUMER: dict[str, tuple[str, Callable[[str], Any]]] = {
    "session.timeout.ms": ("session_timeout_ms", int),
    "heartbeat.interval.ms": ("heartbeat_interval_ms", int),
    "client.rack": ("client_rack", str),
    "isolation.level": ("isolation_level", str),
    "fetch.wait.max.ms": ("fetch_max_wait_ms", int),
    "fetch.min.bytes": ("fetch_min_bytes", int),
    "fetch.max.bytes": ("fetch_max_bytes", int),
    "max.partition.fetch.bytes": ("max_partition_fetch_bytes", int),
    "fetch.message.max.bytes": ("max_partition_fetch_bytes", int),
}
_TLS = frozenset({"ssl.ca.location", "ssl.certificate.location", "ssl.key.location", "ssl.key.password"})
_TLS_VERIFY = {"enable.ssl.certificate.verification", "ssl.endpoint.identification.algorithm"}


class AioSettings:
    """Raises `WrongProperty` for one that aiokafka has no word for."""

    def __init__(self, bootstrap: str, config: Mapping[str, str], linger_ms: float) -> None:
        known = _COMMON.keys() | _PRODUCER.keys() | _CONSUMER.keys() | _TLS | _TLS_VERIFY
        for name in config:
            if name not in known:
                raise WrongProperty(
                    f"aiokafka has nothing that corresponds to the librdkafka property {name!r}: "
                    "leave it out, or use the transport `confluent`"
                )
        self.bootstrap = bootstrap
        self._common = {"bootstrap_servers": bootstrap.split(","), **_translated(_COMMON, config)}
        if self._common.get("security_protocol", "PLAINTEXT") in ("SSL", "SASL_SSL"):
            self._common["ssl_context"] = _tls(config)
        self._producer = _translated(_PRODUCER, config)
        self._consumer = _translated(_CONSUMER, config)
        self._linger_ms = linger_ms
        self.embedded = False

    def admin(self) -> dict[str, Any]:
        return dict(self._common)

    @property
    def batch_bytes_max(self) -> int:
        """What a producer begins with: the client's own default."""
        return int(self._producer.get("max_batch_size", _BATCH_BYTES_MAX))

    def producer(self, batch_bytes_max: int) -> dict[str, Any]:
        return {
            "linger_ms": self._linger_ms,
            "max_request_size": 40 * 1024 * 1024,  # what is too large is for the broker to say
            **self._common,
            **self._producer,
            "max_batch_size": batch_bytes_max,
            "acks": "all",
            "enable_idempotence": True,
        }

    def _fetching(self) -> dict[str, Any]:
        return {"fetch_max_wait_ms": FETCH_WAIT_MS} if self.embedded else {}

    def reader(self) -> dict[str, Any]:
        group_only = ("session_timeout_ms", "heartbeat_interval_ms")
        reading = {name: value for name, value in self._consumer.items() if name not in group_only}
        return {**self._fetching(), **self._common, **reading, "enable_auto_commit": False, "auto_offset_reset": "earliest"}

    def consumer(self, group: str) -> dict[str, Any]:
        from aiokafka.coordinator.assignors.range import RangePartitionAssignor

        # On the embedded broker the next member waits for the session of the one before, even of one that left.
        session = self._consumer.get("session_timeout_ms", 3_000 if self.embedded else 10_000)
        return {
            "session_timeout_ms": session,
            "heartbeat_interval_ms": session // 4,
            **self._fetching(),
            **self._common,
            **self._consumer,
            "group_id": group,
            "enable_auto_commit": False,
            # An offset that retention has passed must be noticed, never skipped in silence.
            "auto_offset_reset": "none",
            # Joins need equal partitions of several topics on one member.
            "partition_assignment_strategy": (RangePartitionAssignor,),
            # However long the owner works on a batch, it stays in the group; whoever is dead misses its heartbeats.
            "max_poll_interval_ms": 2**31 - 1,
            "rebalance_timeout_ms": 60_000,
        }


def _translated(table: Mapping[str, tuple[str, Callable[[str], Any]]], config: Mapping[str, str]) -> dict[str, Any]:
    found = {}
    for name, text in config.items():
        if name in table:
            ours, read = table[name]
            try:
                found[ours] = read(text)
            except ValueError as error:
                raise WrongProperty(f"the librdkafka property {name!r} should be a number, not {text!r}") from error
    return found


def _tls(config: Mapping[str, str]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=config.get("ssl.ca.location"))
    if config.get("ssl.endpoint.identification.algorithm") == "none":
        context.check_hostname = False
    if config.get("enable.ssl.certificate.verification", "true").lower() == "false":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    certificate = config.get("ssl.certificate.location")
    if certificate is not None:
        context.load_cert_chain(certificate, config.get("ssl.key.location"), config.get("ssl.key.password"))
    return context
