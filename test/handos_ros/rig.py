"""A node under test, a camera that sends to it and a listener, in one executor."""

from __future__ import annotations

import array
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from fakes import FakePerception

from handos_model.types import TrackState

HEIGHT, WIDTH = 48, 64
NANOSECONDS = 10**9
K = [50.0, 0, 32, 0, 50, 24, 0, 0, 1]


class Rig:
    """`spin_until` serves everything until a condition holds; `outputs` collects what is sent."""

    def __init__(
        self,
        ros: Any,
        perception: Any = None,
        *,
        factory: Any = None,
        start: bool = True,
        listen: tuple[str, ...] = ('hands', 'topology'),
        **parameters: Any,
    ) -> None:
        from handos_ros.node.hand_node import HandNode

        self.ros = ros
        self.perception = perception or FakePerception()
        overrides = [ros.Parameter(name, value=value) for name, value in parameters.items()]
        self.node = HandNode(
            factory or (lambda settings, report: self.perception), parameter_overrides=overrides
        )
        self.probe = ros.Node('probe')
        self.executor = ros.SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.executor.add_node(self.probe)
        compressed = parameters.get('image_transport') == 'compressed'
        self.image_type = ros.message_type(
            f'sensor_msgs/msg/{"CompressedImage" if compressed else "Image"}'
        )
        topic = 'image/compressed' if compressed else 'image'
        qos = ros.QoSProfile(depth=10)
        self.image = self.probe.create_publisher(self.image_type, topic, qos)
        info_type = ros.message_type('sensor_msgs/msg/CameraInfo')
        self.info = self.probe.create_publisher(info_type, 'camera_info', qos)
        self.outputs: dict[str, list[Any]] = {}
        self.listen('diagnostics', '/diagnostics', 'diagnostic_msgs/msg/DiagnosticArray')
        topics = {
            'hands': ('/handos/hands', 'handos/msg/HandMeshArray'),
            'markers': ('/handos/markers', 'visualization_msgs/msg/MarkerArray'),
            'detections': ('/handos/detections', 'vision_msgs/msg/Detection2DArray'),
            'overlay': ('/handos/overlay', 'sensor_msgs/msg/Image'),
            'topology': ('/handos/topology', 'handos/msg/HandTopology'),
            'tf': ('/tf', 'tf2_msgs/msg/TFMessage'),
        }
        for name in listen:
            self.listen(name, *topics[name])
        if start:
            self.start()

    def listen(self, name: str, topic: str, type_name: str) -> None:
        collected = self.outputs.setdefault(name, [])
        latched = name == 'topology'
        durability = self.ros.DurabilityPolicy
        qos = self.ros.QoSProfile(
            depth=100,
            durability=durability.TRANSIENT_LOCAL if latched else durability.VOLATILE,
        )
        message_type = self.ros.message_type(type_name)
        self.probe.create_subscription(message_type, topic, collected.append, qos)

    def start(self) -> None:
        """Configure, activate, and wait until the camera and the listeners are connected."""
        success = self.ros.TransitionCallbackReturn.SUCCESS
        assert self.node.trigger_configure() == success
        assert self.node.trigger_activate() == success
        self.spin_until(lambda: self.node._configured.worker.state.state != 'loading')
        self.spin_until(self.connected)

    def connected(self) -> bool:
        return self.image.get_subscription_count() > 0 and (
            'hands' not in self.outputs or self.node._configured.outputs._wanted('hands')
        )

    def send(self, *, stamp_ns: int | None = None, **changes: Any) -> int:
        """Publish one image, with now's stamp if none is given; the stamp."""
        stamp_ns = time.time_ns() if stamp_ns is None else stamp_ns
        values = {
            'width': WIDTH,
            'height': HEIGHT,
            'step': WIDTH * 3,
            'encoding': 'rgb8',
            'data': array.array('B', bytes(WIDTH * HEIGHT * 3)),
        }
        message = self.image_type(**{**values, **changes})
        message.header.frame_id = 'camera_optical'
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 10**9)
        self.image.publish(message)
        return stamp_ns

    def send_info(self, **changes: Any) -> None:
        values = {
            'width': WIDTH,
            'height': HEIGHT,
            'k': np.array(K),
            'distortion_model': 'plumb_bob',
        }
        info_type = self.ros.message_type('sensor_msgs/msg/CameraInfo')
        self.info.publish(info_type(**{**values, **changes}))

    def spin_until(self, condition: Callable[[], Any], timeout_s: float = 10.0) -> None:
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline_s, f'timed out; {self.statistics.values()}'
            self.executor.spin_once(timeout_sec=0.02)

    def spin_for(self, seconds: float) -> None:
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            self.executor.spin_once(timeout_sec=0.02)

    def send_and_wait(self, **changes: Any) -> Any:
        """Publish a good image and return the hands that come of it."""
        before = len(self.outputs['hands'])
        self.send(**changes)
        self.spin_until(lambda: len(self.outputs['hands']) > before)
        return self.outputs['hands'][-1]

    @property
    def statistics(self) -> Any:
        return self.node._statistics

    def statuses(self) -> dict[str, Any]:
        """The newest diagnostics by name."""
        statuses: dict[str, Any] = {}
        for message in self.outputs['diagnostics']:
            statuses |= {status.name.split(': ')[1]: status for status in message.status}
        return statuses

    def wait_for_status(self, name: str, words: str, timeout_s: float = 5.0) -> Any:
        """Spin until diagnostics say so."""
        self.outputs['diagnostics'].clear()
        self.spin_until(
            lambda: name in self.statuses() and words in self.statuses()[name].message, timeout_s
        )
        return self.statuses()[name]

    def accounted(self) -> bool:
        """Whether every received frame was processed or dropped."""
        statistics = self.statistics
        return statistics.received == statistics.processed + sum(statistics.dropped.values())

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()
        self.probe.destroy_node()


def stamp_of(message: Any) -> int:
    """In nanoseconds."""
    stamp = message.header.stamp
    return int(stamp.sec * NANOSECONDS + stamp.nanosec)


def tracked(message: Any) -> list[Any]:
    """Its hands without those that a slow machine's pauses have lost."""
    return [hand for hand in message.hands if hand.state == TrackState.TRACKED]
