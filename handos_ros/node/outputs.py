"""The node's publishers; nothing is computed for a topic that nobody subscribes to."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from handos_ros.node.frame_messages import FrameMessages
from handos_ros.node.perception import Perception
from handos_ros.node.processing import Result
from handos_ros.runtime import DurabilityPolicy, QoSOverridingOptions, QoSProfile, message_type

if TYPE_CHECKING:  # the embedded runtime's types stand for both
    from handos_ros.runtime.embedded.lifecycle import LifecycleNode, LifecyclePublisher

# output -> topic, type, depth
TOPICS = {
    'hands': ('~/hands', 'handos/msg/HandMeshArray', 10),
    'markers': ('~/markers', 'visualization_msgs/msg/MarkerArray', 1),
    'detections': ('~/detections', 'vision_msgs/msg/Detection2DArray', 1),
    'overlay': ('~/overlay', 'sensor_msgs/msg/Image', 1),
    'transforms': ('/tf', 'tf2_msgs/msg/TFMessage', 100),
}
TOPOLOGY = ('~/topology', 'handos/msg/HandTopology')


class HandPublishers:
    """Publishers of a configured node."""

    def __init__(self, node: LifecycleNode, marker_lifetime_s: float) -> None:
        self._node = node
        self._messages = FrameMessages(message_type, marker_lifetime_s)
        self._lock = threading.Lock()
        self._publishers: dict[str, LifecyclePublisher] = {}
        overriding = QoSOverridingOptions.with_default_policies()
        for name, (topic, type_name, depth) in TOPICS.items():
            try:
                message = message_type(type_name)
            except (ModuleNotFoundError, KeyError):  # vision_msgs is not in every installation
                node.get_logger().warning(f'{topic} is not published: {type_name} is missing')
                continue
            self._publishers[name] = node.create_lifecycle_publisher(
                message, topic, QoSProfile(depth=depth), qos_overriding_options=overriding
            )
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._topology = node.create_lifecycle_publisher(
            message_type(TOPOLOGY[1]), TOPOLOGY[0], latched, qos_overriding_options=overriding
        )

    def anyone_listens(self) -> bool:
        """Whether any output has a subscriber."""
        return any(self._wanted(name) for name in self._publishers)

    def publish_topology(self, perception: Perception) -> None:
        self._topology.publish(self._messages.topology(perception))

    def publish(self, result: Result, perception: Perception) -> None:
        """Send a frame's hands on every topic that somebody subscribes to."""
        messages = self._messages
        with self._lock:
            if self._wanted('hands'):
                message = messages.hands(
                    result,
                    perception,
                    with_vertices=self._parameter('publish_vertices'),
                    with_theta=self._parameter('publish_theta'),
                )
                self._send('hands', message)
            if self._wanted('markers'):
                self._send('markers', messages.markers(result, perception))
            if self._wanted('transforms') and result.seen:
                self._send('transforms', messages.transforms(result))
            if self._wanted('detections'):
                self._send('detections', messages.detections(result))
            if self._wanted('overlay'):
                self._send('overlay', messages.overlay(result, perception))

    def destroy(self) -> None:
        for publisher in [*self._publishers.values(), self._topology]:
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers.clear()

    def _wanted(self, name: str) -> bool:
        publisher = self._publishers.get(name)
        if publisher is None or (name == 'transforms' and not self._parameter('publish_tf')):
            return False
        return bool(publisher.get_subscription_count())

    def _send(self, name: str, message: Any) -> None:
        self._publishers[name].publish(message)

    def _parameter(self, name: str) -> Any:
        return self._node.get_parameter(name).value
