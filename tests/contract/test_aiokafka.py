"""What only the transport on aiokafka has to get right."""

from __future__ import annotations

import pytest

from maypole.bus.kafka.aio_settings import AioSettings


def test_librdkafka_properties_are_translated() -> None:
    settings = AioSettings(
        "a:1,b:2",
        {
            "client.id": "me",
            "sasl.mechanisms": "PLAIN",
            "sasl.username": "u",
            "sasl.password": "p",
            "security.protocol": "sasl_plaintext",
            "linger.ms": "2.5",
            "compression.type": "none",
            "session.timeout.ms": "8000",
            "isolation.level": "read_committed",
        },
        0.0,
    )
    common = {
        "bootstrap_servers": ["a:1", "b:2"],
        "client_id": "me",
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": "u",
        "sasl_plain_password": "p",
        "security_protocol": "SASL_PLAINTEXT",
    }
    assert settings.admin() == common
    producer, consumer, reader = settings.producer(1), settings.consumer("g"), settings.reader()
    assert (producer["linger_ms"], producer["compression_type"], producer["client_id"]) == (2.5, None, "me")
    assert (consumer["session_timeout_ms"], consumer["heartbeat_interval_ms"], consumer["isolation_level"]) == (
        8000,
        2000,
        "read_committed",
    )
    assert "session_timeout_ms" not in reader


def test_a_property_without_a_counterpart_is_named_with_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"'queued\.min\.messages'.*transport `confluent`"):
        AioSettings("a:1", {"queued.min.messages": "1"}, 0.0)


def test_a_number_that_is_none_is_named() -> None:
    with pytest.raises(ValueError, match=r"'linger\.ms' should be a number, not 'soon'"):
        AioSettings("a:1", {"linger.ms": "soon"}, 0.0)


def test_guarantees_hold_whatever_is_configured() -> None:
    producer = AioSettings("a:1", {"linger.ms": "1"}, 0.0).producer(1)
    assert (producer["acks"], producer["enable_idempotence"]) == ("all", True)


def test_tls_settings_make_a_context() -> None:
    settings = AioSettings("a:1", {"security.protocol": "ssl", "enable.ssl.certificate.verification": "false"}, 0.0)
    context = settings.admin()["ssl_context"]
    assert (context.check_hostname, context.verify_mode) == (False, 0)
