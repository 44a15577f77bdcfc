"""Kafka inside this process: the mock cluster that librdkafka brings along, with its real protocol and a real port.

Any client on the machine can join. What it is not: it keeps everything in memory, gives every record the time of its
maker, knows no transactions worth the name, and **trims a partition in silence** at 5 MiB or 100,000 records. Whoever
must notice compares `Cluster.watermarks` with its own position; a consumer group is told through `Expired`.

A topic made here has the number of partitions asked for. A topic that another process asks for first has four: the
broker does not answer CreateTopics, it makes what it is asked about.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import confluent_kafka as ck

FETCH_WAIT_MS = 20
"""How long a fetch should wait: new records do not wake one that waits, as they would on a real broker."""

DEFAULT_PARTITIONS = 4
"""Of a topic that came about because somebody asked for it."""

_CLUSTER_ID_PREFIX = "mockCluster"
_PRODUCER = 0
_HEARTBEAT_MS = 200
_SESSION_MS = 6000

_running: dict[str, EmbeddedKafka] = {}


def is_embedded(cluster_id: str) -> bool:
    """Tell the embedded broker from a real one, in any process that is connected to it."""
    return cluster_id.startswith(_CLUSTER_ID_PREFIX)


def local_cluster(bootstrap: str) -> EmbeddedKafka | None:
    """The embedded broker at this address, if it runs in this very process."""
    return _running.get(bootstrap)


class EmbeddedKafka:
    """A context manager, and a plain one: `bootstrap` is `127.0.0.1:port` while it is open. Not to be opened twice."""

    def __init__(self) -> None:
        self._library = _load()
        self._handle: int | None = None
        self._cluster: int | None = None
        # What is asked of a cluster that another thread takes down waits for ever inside the library.
        self._using = threading.Lock()
        self.bootstrap = ""

    def __enter__(self) -> EmbeddedKafka:
        library = self._library
        reason = ctypes.create_string_buffer(512)
        conf = library.rd_kafka_conf_new()
        # The client that carries the cluster talks to nobody and has nothing to say.
        library.rd_kafka_conf_set(conf, b"log_level", b"0", reason, len(reason))
        self._handle = library.rd_kafka_new(_PRODUCER, conf, reason, len(reason))
        if not self._handle:
            raise RuntimeError(f"librdkafka made no client for the embedded broker: {reason.value.decode()}")
        self._cluster = library.rd_kafka_mock_cluster_new(self._handle, 1)
        if not self._cluster:
            library.rd_kafka_destroy(self._handle)
            raise RuntimeError("librdkafka could not start its embedded broker: is there a free port on 127.0.0.1?")
        # Classic groups would wait three seconds for more members before their first assignment.
        library.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, 0)
        # Members learn by heartbeats that they are to hand over, and hold what they had for a session after they died.
        library.rd_kafka_mock_set_group_consumer_heartbeat_interval_ms(self._cluster, _HEARTBEAT_MS)
        library.rd_kafka_mock_set_group_consumer_session_timeout_ms(self._cluster, _SESSION_MS)
        self.bootstrap = library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()
        _running[self.bootstrap] = self
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        _running.pop(self.bootstrap, None)
        with self._using:
            self._library.rd_kafka_mock_cluster_destroy(self._cluster)
            self._library.rd_kafka_destroy(self._handle)
            self._cluster = self._handle = None

    def create_topic(self, name: str, partitions: int) -> None:
        """Safe to repeat and to race: a topic that exists stays as it is. Raises `RuntimeError` when the broker has stopped."""
        if partitions < 1:
            raise ValueError(f"topic {name} needs at least one partition, not {partitions}")
        with self._used(f"topic {name} cannot be created") as cluster:
            answer = self._library.rd_kafka_mock_topic_create(cluster, name.encode(), partitions, 1)
        if answer not in (0, ck.KafkaError.TOPIC_ALREADY_EXISTS):
            raise RuntimeError(f"the embedded broker did not create topic {name}: error {answer}")

    def trim(self, topic: str, partition: int, before: int) -> None:
        """Delete the records of a partition before an offset, as retention would."""
        with self._used(f"topic {topic} cannot be trimmed") as cluster:
            answer = self._library.rd_kafka_mock_partition_delete_records(cluster, topic.encode(), partition, before)
        if answer:
            raise LookupError(f"the embedded broker did not trim partition {partition} of topic {topic}: error {answer}")

    def fail_next(self, request: int, error: int, times: int = 1) -> None:
        """Answer the next requests of a kind (Kafka's API key: 0 is Produce, 1 Fetch, 8 OffsetCommit) with an error code."""
        errors = (ctypes.c_int * times)(*[error] * times)
        with self._used("requests cannot be made to fail") as cluster:
            self._library.rd_kafka_mock_push_request_errors_array(cluster, request, times, errors)

    @contextmanager
    def _used(self, otherwise: str) -> Iterator[int]:
        """The cluster, which stays while the body runs; on any thread. Raises `RuntimeError` when it is not running."""
        with self._using:
            if self._cluster is None:
                raise RuntimeError(f"{otherwise}: the embedded broker is not running")
            yield self._cluster


def _load() -> ctypes.CDLL:
    library = ctypes.CDLL(str(_library_path()))
    library.rd_kafka_conf_new.restype = ctypes.c_void_p
    library.rd_kafka_conf_set.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t]
    library.rd_kafka_new.restype = ctypes.c_void_p
    library.rd_kafka_new.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
    library.rd_kafka_destroy.argtypes = [ctypes.c_void_p]
    library.rd_kafka_mock_cluster_new.restype = ctypes.c_void_p
    library.rd_kafka_mock_cluster_new.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.rd_kafka_mock_cluster_destroy.argtypes = [ctypes.c_void_p]
    library.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
    library.rd_kafka_mock_cluster_bootstraps.argtypes = [ctypes.c_void_p]
    library.rd_kafka_mock_group_initial_rebalance_delay_ms.argtypes = [ctypes.c_void_p, ctypes.c_int32]
    library.rd_kafka_mock_set_group_consumer_heartbeat_interval_ms.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.rd_kafka_mock_set_group_consumer_session_timeout_ms.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.rd_kafka_mock_partition_delete_records.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32, ctypes.c_int64]
    library.rd_kafka_mock_push_request_errors_array.argtypes = [
        ctypes.c_void_p, ctypes.c_int16, ctypes.c_size_t, ctypes.POINTER(ctypes.c_int)
    ]  # fmt: skip
    library.rd_kafka_mock_topic_create.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_int]
    return library


def _library_path() -> Path:
    """The librdkafka that `confluent_kafka` itself runs on: wheels carry it beside the package."""
    package = Path(ck.__file__).parent
    for folder, pattern in ((package.parent / "confluent_kafka.libs", "librdkafka*"), (package / ".dylibs", "librdkafka*.dylib")):
        found = sorted(folder.glob(pattern))
        if found:
            return found[0]
    raise RuntimeError(
        f"no librdkafka beside {package}: the embedded broker needs confluent-kafka's own wheel (a build from source links the system's)"
    )
