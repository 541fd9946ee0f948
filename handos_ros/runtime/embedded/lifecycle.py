"""Managed nodes: the states and transitions of ROS 2's life cycle, without its services."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from handos_ros.runtime.embedded.endpoints import Publisher
from handos_ros.runtime.embedded.node import Node


class TransitionCallbackReturn(Enum):
    SUCCESS = 97
    FAILURE = 98
    ERROR = 99


@dataclass(frozen=True)
class LifecycleState:
    """A primary state."""

    state_id: int
    label: str


UNCONFIGURED = LifecycleState(1, 'unconfigured')
INACTIVE = LifecycleState(2, 'inactive')
ACTIVE = LifecycleState(3, 'active')
FINALIZED = LifecycleState(4, 'finalized')


class LifecyclePublisher(Publisher):
    """Publishes only while its node is active."""

    is_activated = False

    def publish(self, msg: Any) -> None:
        if self.is_activated:
            super().publish(msg)


class LifecycleNode(Node):
    """Override `on_configure` and the others; each returns a TransitionCallbackReturn."""

    def __init__(self, node_name: str, **options: Any) -> None:
        super().__init__(node_name, **options)
        self._state = UNCONFIGURED

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        return TransitionCallbackReturn.SUCCESS

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._set_activated(True)
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._set_activated(False)
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        return TransitionCallbackReturn.SUCCESS

    def create_lifecycle_publisher(
        self, msg_type: Any, topic: str, qos_profile: Any, **options: Any
    ) -> LifecyclePublisher:
        return self._add_publisher(LifecyclePublisher, msg_type, topic, qos_profile, **options)

    def destroy_lifecycle_publisher(self, publisher: LifecyclePublisher) -> bool:
        return self.destroy_publisher(publisher)

    def trigger_configure(self) -> TransitionCallbackReturn:
        return self._transition('configure', (UNCONFIGURED,), INACTIVE)

    def trigger_cleanup(self) -> TransitionCallbackReturn:
        return self._transition('cleanup', (INACTIVE,), UNCONFIGURED)

    def trigger_activate(self) -> TransitionCallbackReturn:
        return self._transition('activate', (INACTIVE,), ACTIVE)

    def trigger_deactivate(self) -> TransitionCallbackReturn:
        return self._transition('deactivate', (ACTIVE,), INACTIVE)

    def trigger_shutdown(self) -> TransitionCallbackReturn:
        return self._transition('shutdown', (UNCONFIGURED, INACTIVE, ACTIVE), FINALIZED)

    def _transition(
        self, name: str, allowed: tuple[LifecycleState, ...], target: LifecycleState
    ) -> TransitionCallbackReturn:
        if self._state not in allowed:
            # rclpy raises RCLError, which is a RuntimeError
            raise RuntimeError(f'cannot {name} a node that is {self._state.label}')
        previous = self._state
        result = self._call(f'on_{name}', previous)
        if result == TransitionCallbackReturn.SUCCESS:
            self._state = target
        elif result == TransitionCallbackReturn.ERROR:
            recovered = self._call('on_error', previous) == TransitionCallbackReturn.SUCCESS
            self._state = UNCONFIGURED if recovered else FINALIZED
        elif target == FINALIZED:  # a shutdown that fails is one all the same
            self._state = FINALIZED
        return result

    def _call(self, callback: str, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            result: TransitionCallbackReturn = getattr(self, callback)(state)
        except Exception as error:
            self.get_logger().error(f'{callback} failed: {error!r}')
            return TransitionCallbackReturn.ERROR
        return result

    def _set_activated(self, activated: bool) -> None:
        for publisher in self.publishers:
            if isinstance(publisher, LifecyclePublisher):
                publisher.is_activated = activated
