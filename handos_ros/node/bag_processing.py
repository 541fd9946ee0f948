"""A recording in, the same recording with hands out: the node's work without a node."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from handos_model.errors import UserError
from handos_ros.messages import conversions
from handos_ros.messages.stamped import CameraInfo
from handos_ros.node.diagnostics import Statistics
from handos_ros.node.frame_messages import FrameMessages
from handos_ros.node.parameters import Settings
from handos_ros.node.perception import Perception
from handos_ros.node.processing import DepthBuffer, Frame, FrameProcessor, Result, StampGuard
from handos_ros.runtime.bags import BagMessage, BagReader, BagWriter, Messages

IMAGE_TYPES = ('sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage')
HANDS, HANDS_TYPE = '/handos/hands', 'handos/msg/HandMeshArray'
MARKERS, MARKERS_TYPE = '/handos/markers', 'visualization_msgs/msg/MarkerArray'
TOPOLOGY, TOPOLOGY_TYPE = '/handos/topology', 'handos/msg/HandTopology'
TF, TF_TYPE = '/tf', 'tf2_msgs/msg/TFMessage'
OWN_TOPICS = (HANDS, MARKERS, TOPOLOGY)


@dataclass(frozen=True)
class CameraTopics:
    """Topics of one camera in a recording; an empty name is none."""

    image: str
    camera_info: str
    depth: str = ''


@dataclass
class BagReport:
    """What came of the recording's images."""

    images: int = 0
    processed: int = 0
    hands: int = 0
    problems: dict[str, int] = field(default_factory=dict)  # text -> how many images


def find_camera(topics: dict[str, str], image: str = '', camera_info: str = '') -> CameraTopics:
    """The camera in a recording's topics (name -> type); what is given is not looked for.

    Of an image that is there raw and compressed, raw is taken. Raises UserError where there is no
    image topic, or several.
    """
    images = [topic for topic, type_name in topics.items() if type_name in IMAGE_TYPES]
    if image and image not in images:
        raise UserError(f'{image} is no image topic of the recording; it has {images or "none"}')
    candidates = [
        topic
        for topic in images
        if 'depth' not in topic
        and not (topic.endswith('/compressed') and topic.removesuffix('/compressed') in images)
    ]
    if not image and len(candidates) != 1:
        what = f'several image topics: choose one of {candidates}' if candidates else 'no image'
        raise UserError(f'the recording has {what} (--image TOPIC)')
    image = image or candidates[0]
    base = image.removesuffix('/compressed').rsplit('/', 1)[0]
    camera_info = camera_info or f'{base}/camera_info'
    known = topics.get(camera_info) == 'sensor_msgs/msg/CameraInfo'
    return CameraTopics(image, camera_info if known else '')


class BagProcessor:
    """Writes a recording's messages and, after each image, what the node would publish."""

    def __init__(
        self,
        messages: Messages,
        writer: BagWriter,
        perception: Perception,
        settings: Settings,
        camera: CameraTopics,
        *,
        with_markers: bool = True,
    ) -> None:
        self.report = BagReport()
        self._messages = messages
        self._writer = writer
        self._perception = perception
        self._settings = settings
        self._camera = camera
        self._with_markers = with_markers
        self._statistics = Statistics()
        self._depths = DepthBuffer(wait_s=0.0)
        self._process = FrameProcessor(settings, self._statistics, self._depths)
        self._make = FrameMessages(messages, settings.marker_lifetime_s)
        self._stamps = StampGuard()
        self._camera_info: CameraInfo | None = None
        self._waiting: BagMessage | None = None  # an image whose depth may still come

    def run(self, reader: BagReader) -> Iterator[int]:
        """Process everything; yields the number of messages done so far."""
        for connection in reader.connections:
            if connection.topic not in OWN_TOPICS:
                self._writer.copy_topic(connection)
        self._add_topics()
        topology_written = False
        for done, message in enumerate(reader.messages(), 1):
            if not topology_written:
                topology = self._messages.serialize(self._make.topology(self._perception))
                self._writer.write(TOPOLOGY, message.time_ns, topology)
                topology_written = True
            if message.topic not in OWN_TOPICS:  # hands of an earlier run are replaced
                self._writer.write(message.topic, message.time_ns, message.raw)
                self._take(message)
            yield done
        self._process_waiting()

    def _add_topics(self) -> None:
        self._writer.add_topic(HANDS, HANDS_TYPE)
        self._writer.add_topic(TOPOLOGY, TOPOLOGY_TYPE, latched=True)
        if self._settings.publish_tf:
            self._writer.add_topic(TF, TF_TYPE)
        if self._with_markers:
            self._writer.add_topic(MARKERS, MARKERS_TYPE)

    def _take(self, message: BagMessage) -> None:
        if message.topic == self._camera.image:
            self._process_waiting()
            self._waiting = message
            if not self._settings.use_depth:
                self._process_waiting()
        elif message.topic in (self._camera.camera_info, self._camera.depth):
            try:
                content = self._messages.deserialize(message)
            except ValueError as error:
                self._count_problem(str(error))
                return
            if message.topic == self._camera.depth:
                self._depths.add(content)
            else:
                self._camera_info = content

    def _process_waiting(self) -> None:
        message, self._waiting = self._waiting, None
        if message is None:
            return
        self.report.images += 1
        try:
            image = self._messages.deserialize(message)
        except ValueError as error:
            self._count_problem(str(error))
            return
        # Some recordings carry no stamps; the time of reception tells their order.
        stamp_ns = conversions.stamp_ns(image) or message.time_ns
        problem = self._stamps.problem(stamp_ns, None)
        if problem:
            self._count_problem(problem)
            self._process.forget_tracks()
            return
        frame = Frame(image, self._camera_info, stamp_ns, time.monotonic())
        result = self._process(self._perception, frame)
        if result is None:
            self._count_problem(self._statistics.recent_problem('input'))
            return
        self.report.processed += 1
        self._write(result, message.time_ns)

    def _count_problem(self, text: str) -> None:
        self.report.problems[text] = self.report.problems.get(text, 0) + 1

    def _write(self, result: Result, time_ns: int) -> None:
        settings, perception, make = self._settings, self._perception, self._make
        self.report.hands += len(result.seen)
        hands = make.hands(
            result,
            perception,
            with_vertices=settings.publish_vertices,
            with_theta=settings.publish_theta,
        )
        self._writer.write(HANDS, time_ns, self._messages.serialize(hands))
        if settings.publish_tf and result.seen:
            transforms = make.transforms(result)
            self._writer.write(TF, time_ns, self._messages.serialize(transforms))
        if self._with_markers:
            self._writer.write(MARKERS, time_ns, make.markers(result, perception))
