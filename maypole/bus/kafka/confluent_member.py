"""A consumer group member on librdkafka: the one thread that owns one `Consumer`.

Every call on a `Consumer` waits for the one before it: a commit issued while another thread sits in a long poll
waits as long as that poll. So one thread owns it, polls in short slices and obeys commands between them.
Records cross to the event loop once per batch, never one by one.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Collection, Mapping

import confluent_kafka as ck
from confluent_kafka import KafkaError, KafkaException

from maypole.bus.kafka.confluent_commits import Commits
from maypole.bus.kafka.confluent_errors import FORBIDDEN, UNSUPPORTED, is_about_instance_id, is_fatal, is_fenced
from maypole.bus.kafka.confluent_rebalance import Rebalance, restart_at
from maypole.bus.kafka.confluent_settings import ConfluentSettings, GroupProtocol
from maypole.bus.kafka.convert import deliveries, native
from maypole.bus.kafka.inbox import Inbox
from maypole.bus.kafka.thread_bridge import ThreadBridge
from maypole.bus.ports import Assignment, Expired, InstanceIdTaken, TopicPartition

_log = logging.getLogger("maypole.bus.kafka")

_SLICE_MIN = 0.001
_SLICE_MAX = 0.05
_SLICE_SHARE = 0.1
_BATCHES_AHEAD = 2
_PATIENCE_SECONDS = 0.5
_WATERMARK_SECONDS = 5.0
_SILENCE_SECONDS = 5.0
_NOTHING_SECONDS = 2.0
_FENCED_SESSIONS = 2
"""Two members that take an id from each other hear of it by their heartbeats, of which each comes within a session."""


class Member:
    """The public part belongs to the loop. `ended` completes when the thread is gone."""

    def __init__(
        self,
        settings: ConfluentSettings,
        group: str,
        topics: Collection[str],
        assignment: Assignment,
        *,
        batch_max: int,
        revoke_seconds: float,
        expired: Callable[[Expired], None],
    ) -> None:
        self._settings = settings
        self._group = group
        self._topics = sorted(topics)
        self._batch_max = batch_max
        self._expired = expired
        self._bridge = ThreadBridge()
        self._commits = Commits(self._bridge)
        self.inbox = Inbox(batch_max, self._batch_taken)
        self._rebalance = Rebalance(
            self._bridge,
            self.inbox,
            self._commits,
            assignment,
            revoke_seconds=revoke_seconds,
            stopping=lambda: self._stopping,
            failed=self._fail,
        )
        self._full = False
        self._away = False
        self._handed = 0
        self._taken = 0
        self._handed_at = 0.0
        self._subscribed_at = 0.0
        self._fenced_at = -math.inf
        self._stopping = False
        self._failure: BaseException | None = None
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Made here, so that a wrong setting is raised where the source is opened.
        self._consumer = self._make()
        self._thread = threading.Thread(target=self._run, name=f"maypole-member-{group}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._bridge.tell(self._begin_stopping)

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        self.inbox.pause(partitions)
        self._bridge.tell(lambda: self._pause(partitions))

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        self.inbox.resume(partitions)
        self._bridge.tell(lambda: self._resume(partitions))

    def begin_anew(self, topic: str) -> None:
        """A topic of this name was made again: its records are others, and are read from the oldest."""
        self._bridge.tell(lambda: self._rebalance.made_anew(self._consumer, topic, incremental=self._incremental))

    async def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        if self.ended.done() or not positions:
            return
        done = asyncio.get_running_loop().create_future()
        self._bridge.tell(lambda: self._commits.ask(positions, done))
        await done

    def _batch_taken(self) -> None:
        self._taken += 1
        if self._full:
            self._bridge.tell(lambda: None)

    # From here on everything runs on the member's thread.

    def _run(self) -> None:
        try:
            self._subscribe()
            while not self._stopping and self._failure is None:
                self._bridge.obey()
                self._commits.send(self._consumer, self._rebalance.ours)
                self._mind_silence()
                if self._behind():
                    self._wait_for_room()
                else:
                    self._poll()
            if self._failure is None:
                self._rebalance.leave(self._consumer)
        except BaseException as error:  # noqa: BLE001 - raised from `fetch`, on the loop
            self._fail(error)
        finally:
            self._close()
            self._bridge.post(self._finish)

    def _poll(self) -> None:
        # A commit follows work: the slice is short after a batch was handed over and grows to a tenth of the
        # time since, so that a commit waits for a tenth of its handler's time at most and idling costs nothing.
        since = time.monotonic() - self._handed_at
        first = self._consumer.poll(min(_SLICE_MAX, max(_SLICE_MIN, since * _SLICE_SHARE)))
        if first is None:
            return
        changed = self._rebalance.changed
        changed.clear()
        messages = [first]
        if self._batch_max > 1:
            # A zero timeout drains what is there; a positive one would wait until the batch is full.
            messages += self._consumer.consume(self._batch_max - 1, 0)
        batch = deliveries(messages)
        if len(batch) != len(messages):
            self._read_errors(messages)
        if changed:
            # librdkafka drops what is outdated inside one call; `first` came by an earlier one.
            if (first.topic(), first.partition()) in changed and first.error() is None:
                del batch[0]
            batch = [d for d in batch if (d.topic, d.partition) in self._rebalance.ours]
        if batch:
            if self._away:
                self._away = False
                _log.info("bus.broker_back group=%s", self._group)
            self._handed += 1
            self._handed_at = time.monotonic()
            self._bridge.post(self.inbox.offer, batch)

    def _behind(self) -> bool:
        return self._handed - self._taken >= _BATCHES_AHEAD and not self._stopping and self._failure is None

    def _wait_for_room(self) -> None:
        """The loop is behind: fetch nothing more, but stay in the group and serve its rebalances."""
        self._full = True
        # Pausing throws away what librdkafka has fetched ahead, so it is for an owner that really stays away.
        patient_until = time.monotonic() + _PATIENCE_SECONDS
        while self._behind() and time.monotonic() < patient_until:
            self._bridge.obey_one(_SLICE_MAX)
            self._commits.send(self._consumer, self._rebalance.ours)
        if self._behind():
            paused: set[TopicPartition] = set()
            while self._behind():
                # Again in each round, because a rebalance may have brought partitions that run.
                more = self._rebalance.ours.keys() - paused
                if more:
                    self._consumer.pause(native(more))
                    paused |= more
                self._rebalance.changed.clear()
                message = self._consumer.poll(0)
                if message is not None:
                    self._offer_late(message)
                # What has come back runs.
                paused -= self._rebalance.changed
                self._bridge.obey_one(_SLICE_MAX)
                self._commits.send(self._consumer, self._rebalance.ours)
            self._consumer.resume(native(p for p in paused if p in self._rebalance.ours and p not in self._rebalance.paused))
        self._full = False

    def _offer_late(self, message: ck.Message) -> None:
        """A record that was on its way when its partition was paused."""
        batch = deliveries([message])
        if batch:
            self._handed += 1
            self._bridge.post(self.inbox.offer, batch)
        else:
            self._read_errors([message])

    def _read_errors(self, messages: list[ck.Message]) -> None:
        for message in messages:
            error = message.error()
            if error is None:
                continue
            if error.code() == KafkaError._AUTO_OFFSET_RESET:
                self._skip_expired(TopicPartition(str(message.topic()), int(message.partition() or 0)), message.offset())
            else:
                self._read_error(error)

    def _read_error(self, error: KafkaError) -> None:
        if error.code() in UNSUPPORTED and self._incremental and self._settings.protocol_is_chosen_by_us:
            self._turn_classic(error.str())
        elif error.code() in FORBIDDEN:
            self._fail(PermissionError(f"group {self._group} may not read {', '.join(self._topics)}: {error.str()}"))
        elif is_fenced(error) and time.monotonic() - self._fenced_at > _FENCED_SESSIONS * self._settings.session_seconds:
            self._join_anew(error.str())
        elif is_about_instance_id(error):
            self._fail(
                InstanceIdTaken(
                    f"group {self._group}: this member is out, because another one has its group.instance.id "
                    f"{self._settings.instance_id!r} ({error.str()}); expected an id of its own for each instance. Where the other was "
                    "killed, it holds the id until its session ends; after the death of a broker it may be an earlier join of this very "
                    "member: start again"
                )
            )
        elif is_fatal(error):
            self._fail(KafkaException(error))
        else:
            _log.warning("bus.consumer_warned group=%s code=%s error=%s", self._group, error.name(), error.str())

    def _mind_silence(self) -> None:
        """In the consumer protocol a member whose share is nothing hears nothing, nor does one that no broker understands."""
        if self._rebalance.answered or not self._incremental:
            return
        seconds = time.monotonic() - self._subscribed_at
        if self._settings.protocol is GroupProtocol.CONSUMER and seconds > _NOTHING_SECONDS:
            self._rebalance.nothing_assigned(self._consumer)
        elif self._settings.protocol is GroupProtocol.AUTO and seconds > _SILENCE_SECONDS:
            self._turn_classic(f"no answer within {_SILENCE_SECONDS:g} s")

    def _turn_classic(self, reason: str) -> None:
        _log.info("bus.group_protocol_chosen protocol=classic group=%s reason=%s", self._group, reason)
        self._settings.protocol = GroupProtocol.CLASSIC
        self._consumer.close()
        self._consumer = self._make()
        self._subscribe()

    def _join_anew(self, reason: str) -> None:
        """Another join has taken the instance id, and it may be one of our own that the broker kept when it lost us.

        It is a living rival if it takes the id again: it hears that we took it from it with its next heartbeat.
        """
        self._fenced_at = time.monotonic()
        _log.warning(
            "bus.member_fenced group=%s instance=%s reason=%s then=joins once more", self._group, self._settings.instance_id, reason
        )
        if self._rebalance.ours:
            self._rebalance.lose(self._consumer, list(self._rebalance.ours))
        self._commits.abandon()
        self._consumer.close()
        self._consumer = self._make()
        self._subscribe()

    def _skip_expired(self, partition: TopicPartition, wanted: int | None) -> None:
        """The committed records are gone. Say so loudly, then go on with the oldest that is left."""
        oldest, _ = self._consumer.get_watermark_offsets(ck.TopicPartition(*partition), timeout=_WATERMARK_SECONDS)
        self._bridge.post(self._expired, Expired(self._group, partition, -1 if wanted is None else wanted, oldest))
        restart_at(self._consumer, partition, oldest, self._rebalance.ours, incremental=self._incremental)
        # Assigning anew undoes pauses.
        self._consumer.pause(native(self._rebalance.paused))

    def _pause(self, partitions: Collection[TopicPartition]) -> None:
        # What was taken away since it was said is left out: it would stand still when it comes back, and nobody would know.
        ours = [partition for partition in partitions if partition in self._rebalance.ours]
        self._rebalance.paused.update(ours)
        self._consumer.pause(native(ours))

    def _resume(self, partitions: Collection[TopicPartition]) -> None:
        self._rebalance.paused.difference_update(partitions)
        self._consumer.resume(native(p for p in partitions if p in self._rebalance.ours))

    def _begin_stopping(self) -> None:
        self._stopping = True

    def _make(self) -> ck.Consumer:
        protocol = self._settings.protocol
        self._incremental = protocol is not GroupProtocol.CLASSIC
        return self._settings.open(ck.Consumer, {**self._settings.consumer(self._group, protocol), "error_cb": self._client_error})

    def _subscribe(self) -> None:
        self._subscribed_at = time.monotonic()
        self._consumer.subscribe(
            self._topics,
            on_assign=lambda consumer, parts: self._rebalance.assigned(consumer, parts, incremental=self._incremental),
            on_revoke=self._rebalance.revoked,
            on_lost=self._rebalance.lost,
        )

    def _client_error(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN and not self._away:
            self._away = True
            _log.warning("bus.broker_away group=%s error=%s then=waits, and goes on by itself", self._group, error.str())
        else:
            _log.debug("bus.client_warned group=%s code=%s error=%s", self._group, error.name(), error.str())

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error
            self._bridge.post(self.inbox.fail, error)

    def _close(self) -> None:
        self._commits.abandon()
        try:
            self._consumer.close()
        except (KafkaException, RuntimeError) as error:
            _log.warning("bus.member_close_failed group=%s error=%s", self._group, error)

    def _finish(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)
