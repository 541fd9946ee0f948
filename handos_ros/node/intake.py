"""A subscription to what a camera sends, which is made anew where it has gone deaf."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from handos_ros.node.deaf_reader import DeafReader, Remedy
from handos_ros.runtime import (
    QoSOverridingOptions,
    QoSProfile,
    ReliabilityPolicy,
    SubscriptionEventCallbacks,
    message_type,
)


class Intake:
    """Best effort, depth 1: the newest message, of reliable and best-effort publishers alike."""

    def __init__(
        self,
        node: Any,
        topic: str,
        type_name: str,
        callback: Callable[[Any], None],
        reader: DeafReader | None = None,
        on_lost: Callable[[Any], None] | None = None,
    ) -> None:
        self.reader = reader or DeafReader()
        self.qos_mismatch = False
        self._node = node
        self._topic = topic
        self._type_name = type_name
        self._callback = callback
        self._on_lost = on_lost
        self._clears_jam = False  # the subscription is reliable, until messages come again
        self._subscription: Any = None
        self.reader.begin()
        self._subscribe()

    @property
    def topic_name(self) -> str:
        """The topic, resolved."""
        return str(self._subscription.topic_name)

    def publishers(self) -> list[Any]:
        """Who publishes the topic, of whatever type."""
        return list(self._node.get_publishers_info_by_topic(self.topic_name))

    def watch(self) -> Remedy | None:
        """Do what makes a deaf reader hear; what was done, or is left to the caller.

        Called several times a second. A new participant is the caller's to make.
        """
        if self._clears_jam and not self.reader.tried:
            self._subscribe()
        if not self.reader.deaf or self.qos_mismatch:
            return None
        offered = [
            endpoint.qos_profile.reliability
            for endpoint in self.publishers()
            if endpoint.topic_type == self._type_name
        ]
        remedy = self.reader.next_remedy() if offered else None
        if remedy == Remedy.SUBSCRIPTION:
            self._subscribe(reliably=ReliabilityPolicy.RELIABLE in offered)
        return remedy

    def destroy(self) -> None:
        self._node.destroy_subscription(self._subscription)

    def _subscribe(self, *, reliably: bool = False) -> None:
        """In place of the subscription there may be; `reliably` clears a jam of torn messages."""
        if self._subscription is not None:
            self.destroy()
        self._clears_jam = reliably
        reliability = ReliabilityPolicy.RELIABLE if reliably else ReliabilityPolicy.BEST_EFFORT
        overriding = None if reliably else QoSOverridingOptions.with_default_policies()
        self._subscription = self._node.create_subscription(
            message_type(self._type_name),
            self._topic,
            self._on_message,
            QoSProfile(depth=1, reliability=reliability),
            event_callbacks=SubscriptionEventCallbacks(
                incompatible_qos=self._on_qos_mismatch, message_lost=self._on_lost
            ),
            qos_overriding_options=overriding,
        )

    def _on_message(self, message: Any) -> None:
        self.reader.heard()
        self._callback(message)

    def _on_qos_mismatch(self, event: Any) -> None:
        self.qos_mismatch = True
