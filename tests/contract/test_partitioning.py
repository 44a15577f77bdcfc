"""Java's murmur2, by values that Kafka's own tests hold."""

from __future__ import annotations

import pytest

from maypole.bus.partitioning import partition_of

# From org.apache.kafka.common.utils.UtilsTest.
JAVA = {
    "21": -973932308,
    "foobar": -790332482,
    "a-little-bit-long-string": -985981536,
    "a-little-bit-longer-string": -1486304829,
    "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    "abc": 479470107,
}


@pytest.mark.parametrize("key", JAVA)
@pytest.mark.parametrize("partitions", [1, 3, 7, 50, 2**31 - 1])
def test_a_key_lies_where_java_puts_it(key: str, partitions: int) -> None:
    assert partition_of(key.encode(), partitions) == (JAVA[key] & 0x7FFFFFFF) % partitions
