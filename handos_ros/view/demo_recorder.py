"""What `handos demo` sees of the node: a recording, an overlay video, and figures for a panel."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from handos_model.types import ImageArray
from handos_ros.messages.conversions import Limits, image_to_rgb, stamp_ns
from handos_ros.runtime import DurabilityPolicy, QoSProfile, message_type
from handos_ros.runtime.bags import BagWriter, Messages

LIMITS = Limits()
JPEG = [cv2.IMWRITE_JPEG_QUALITY, 85]
RECENT_FRAMES = 30
LONGEST_PAUSE_FRAMES = 60  # a longer one is cut out of the video
TOPICS = {
    'hands': ('/handos/hands', 'handos/msg/HandMeshArray'),
    'topology': ('/handos/topology', 'handos/msg/HandTopology'),
    'camera_info': ('/camera_info', 'sensor_msgs/msg/CameraInfo'),
    'image': ('/image/compressed', 'sensor_msgs/msg/CompressedImage'),
}


@dataclass
class Figures:
    """What the panel shows."""

    received: int = 0
    frames: int = 0  # that the node answered
    frames_with_hands: int = 0
    ages_s: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT_FRAMES))
    stamps_s: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT_FRAMES))
    model: str = ''
    backend: str = 'loading'
    hands: list[Any] = field(default_factory=list)  # of the last frame
    ready: bool = False  # the node's model is loaded


class DemoRecorder:
    """Subscribes to everything on `node`, writes `hands.mcap` (a rosbag2) and `overlay.mp4`."""

    def __init__(self, node: Any, folder: Path, rate_hz: float) -> None:
        self.figures = Figures()
        self.best_overlay: ImageArray | None = None
        self._best_score = 0.0
        self._node = node
        self._messages = Messages()
        self._bag = BagWriter(folder / 'hands', self._messages, mcap=True)
        for name, (topic, type_name) in TOPICS.items():
            self._bag.add_topic(topic, type_name, latched=name == 'topology')
        self._video = OverlayVideo(folder / 'overlay.mp4', rate_hz)
        self._scores: dict[int, float] = {}  # stamp -> score of the least sure hand
        # The demo's own camera is reliable, and only a reliable reader gets torn images mended.
        latest = QoSProfile(depth=2)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        for topic, type_name, callback, qos in (
            ('/handos/hands', 'handos/msg/HandMeshArray', self._on_hands, QoSProfile(depth=10)),
            ('/handos/topology', 'handos/msg/HandTopology', self._on_topology, latched),
            ('/handos/overlay', 'sensor_msgs/msg/Image', self._on_overlay, QoSProfile(depth=2)),
            ('/camera_info', 'sensor_msgs/msg/CameraInfo', self._on_camera_info, latest),
            ('/image', 'sensor_msgs/msg/Image', self._on_image, latest),
            (
                '/diagnostics',
                'diagnostic_msgs/msg/DiagnosticArray',
                self._on_diagnostics,
                QoSProfile(depth=10),
            ),
        ):
            node.create_subscription(message_type(type_name), topic, callback, qos)

    def close(self) -> None:
        """Finish the files."""
        self._bag.__exit__(None, None, None)
        self._video.close()

    def _record(self, name: str, message: Any) -> None:
        now_ns = self._node.get_clock().now().nanoseconds
        self._bag.write(TOPICS[name][0], now_ns, self._messages.serialize(message))

    def _on_hands(self, message: Any) -> None:
        figures = self.figures
        at_ns = stamp_ns(message)
        figures.frames += 1
        figures.frames_with_hands += bool(message.hands)
        figures.stamps_s.append(at_ns / 1e9)
        figures.ages_s.append((self._node.get_clock().now().nanoseconds - at_ns) / 1e9)
        figures.model = message.model
        figures.hands = list(message.hands)
        self._scores = {at_ns: min((float(hand.score) for hand in message.hands), default=0.0)}
        self._record('hands', message)

    def _on_topology(self, message: Any) -> None:
        self.figures.ready = True
        self._record('topology', message)

    def _on_camera_info(self, message: Any) -> None:
        self._record('camera_info', message)

    def _on_image(self, message: Any) -> None:
        self.figures.received += 1
        image_rgb = image_to_rgb(message, LIMITS)
        _, data = cv2.imencode('.jpg', cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR), JPEG)
        compressed = message_type('sensor_msgs/msg/CompressedImage')(
            header=message.header, format='rgb8; jpeg compressed bgr8', data=data.reshape(-1)
        )
        self._record('image', compressed)

    def _on_overlay(self, message: Any) -> None:
        overlay = image_to_rgb(message, LIMITS)
        at_ns = stamp_ns(message)
        self._video.write(overlay, at_ns / 1e9)
        score = self._scores.get(at_ns, 0.0)
        if self.best_overlay is None or score > self._best_score:
            self.best_overlay, self._best_score = overlay.copy(), score

    def _on_diagnostics(self, message: Any) -> None:
        for status in message.status:
            if status.name.endswith(': backend'):
                self.figures.backend = status.message


class OverlayVideo:
    """An MPEG-4 file that plays as fast as it was seen: pictures stay until the next stamp."""

    def __init__(self, path: Path, rate_hz: float) -> None:
        self._path = path
        self._rate_hz = rate_hz
        self._writer: Any = None
        self._first_s = 0.0
        self._written = 0
        self._last: Any = None

    def write(self, image_rgb: ImageArray, stamp_s: float) -> None:
        """Append a picture of `stamp_s`; one of another size than the first is left out."""
        picture = np.ascontiguousarray(image_rgb[..., ::-1])
        height, width = picture.shape[:2]
        if self._writer is None:
            code = cv2.VideoWriter.fourcc(*'mp4v')
            self._writer = cv2.VideoWriter(str(self._path), code, self._rate_hz, (width, height))
            self._first_s, self._last = stamp_s, picture
        if picture.shape != self._last.shape:
            return
        due = round((stamp_s - self._first_s) * self._rate_hz) - self._written
        for _ in range(min(due, LONGEST_PAUSE_FRAMES)):
            self._writer.write(self._last)
        self._written += max(due, 0) + 1
        self._writer.write(picture)
        self._last = picture

    def close(self) -> None:
        if self._writer is not None:
            self._writer.release()
