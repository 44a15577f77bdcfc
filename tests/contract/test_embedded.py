"""The embedded broker's own life: what its process may do to it while it goes away."""

from __future__ import annotations

import itertools
import threading

import pytest

from maypole.bus.kafka.embedded import EmbeddedKafka

ROUNDS = 2
THREADS = 4


def test_a_broker_may_be_taken_down_while_threads_create_topics() -> None:
    for round_ in range(ROUNDS):
        kafka = EmbeddedKafka()
        refused: list[str] = []
        begun = threading.Barrier(THREADS + 1)

        def create(number: int, kafka: EmbeddedKafka = kafka, begun: threading.Barrier = begun, refused: list[str] = refused) -> None:
            try:
                # Until it is refused: a number of topics might all be there before the broker is taken down.
                for count in itertools.count():
                    kafka.create_topic(f"topic.{number}.{count}", 1)
                    if count == 0:
                        begun.wait()
            except RuntimeError as error:
                refused.append(str(error))

        threads = [threading.Thread(target=create, args=(number,), daemon=True) for number in range(THREADS)]
        with kafka:
            for thread in threads:
                thread.start()
            begun.wait()
        for thread in threads:
            thread.join(20)
        assert not any(thread.is_alive() for thread in threads), f"a thread waits for ever in round {round_}"
        assert len(refused) == THREADS and all("is not running" in reason for reason in refused)


def test_a_broker_that_has_stopped_refuses_and_says_so() -> None:
    with EmbeddedKafka() as kafka:
        pass
    with pytest.raises(RuntimeError, match="is not running"):
        kafka.create_topic("a.b", 1)
