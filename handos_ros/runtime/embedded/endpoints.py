"""Publishers and subscriptions under rclpy's names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from handos_ros.runtime.embedded.context import Context
from handos_ros.runtime.embedded.logging import Logger
from handos_ros.runtime.embedded.wire import cdr, transport
from handos_ros.runtime.embedded.wire.qos import (
    QoSMessageLostInfo,
    QoSProfile,
    QoSRequestedIncompatibleQoSInfo,
    SubscriptionEventCallbacks,
)


class Publisher:
    """Publishes messages, or bytes that are serialised already."""

    def __init__(self, context: Context, msg_type: Any, topic_name: str, qos: QoSProfile) -> None:
        self.msg_type = msg_type
        self.topic_name = topic_name
        self.qos_profile = qos
        self._store = context.store
        user_data = f'typehash={context.store.hash_rihs01(msg_type.__msgtype__)};'.encode()
        self.writer = transport.RawWriter(
            context.participant,
            context.topic(f'rt{topic_name}', msg_type.__msgtype__),
            qos.to_dds(user_data),
        )

    def publish(self, msg: Any) -> None:
        if isinstance(msg, bytes | bytearray | memoryview):
            self.writer.write(msg)
        elif isinstance(msg, self.msg_type):
            self.writer.write(cdr.serialize(self._store, msg))
        else:
            raise TypeError(f'expected {self.msg_type.__msgtype__}, got {type(msg).__name__}')

    def get_subscription_count(self) -> int:
        return self.writer.matched()


class Subscription:
    """Hands messages, or raw bytes, to a callback."""

    def __init__(
        self,
        context: Context,
        msg_type: Any,
        topic_name: str,
        callback: Callable[[Any], None],
        qos: QoSProfile,
        events: SubscriptionEventCallbacks | None,
        raw: bool,
        logger: Logger,
    ) -> None:
        self.msg_type = msg_type
        self.topic_name = topic_name
        self.callback = callback
        self.qos_profile = qos
        self.raw = raw
        self._store = context.store
        self._events = events or SubscriptionEventCallbacks()
        self._logger = logger
        self.reader = transport.RawReader(
            context.participant,
            context.topic(f'rt{topic_name}', msg_type.__msgtype__),
            qos.to_dds(),
        )

    def execute(self) -> bool:
        """Call back with the oldest message that has arrived, if there is one."""
        self._report_events()
        taken = self.reader.take(1)
        if not taken:
            return False
        if self.raw:
            self.callback(taken[0])
            return True
        try:
            message = cdr.deserialize(self._store, taken[0], self.msg_type.__msgtype__)
        except ValueError as error:
            self._logger.warning(f'dropped a malformed message on {self.topic_name}: {error}')
            return True
        self.callback(message)
        return True

    def _report_events(self) -> None:
        incompatible = self.reader.incompatible_qos()
        if incompatible.total_count_change and self._events.incompatible_qos is not None:
            self._events.incompatible_qos(
                QoSRequestedIncompatibleQoSInfo(
                    incompatible.total_count,
                    incompatible.total_count_change,
                    incompatible.last_policy_id,
                )
            )
        lost = self.reader.samples_lost()
        if lost.total_count_change and self._events.message_lost is not None:
            self._events.message_lost(
                QoSMessageLostInfo(lost.total_count, lost.total_count_change)
            )
