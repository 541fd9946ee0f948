"""The frames of a recording: its hands, each with the image and calibration that it is of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from handos_model.errors import UserError
from handos_ros.node.bag_processing import find_camera
from handos_ros.runtime.bags import BagReader, Messages
from handos_ros.view.frames import FrameAssembler, ViewFrame

HANDS_TYPE = 'handos/msg/HandMeshArray'
TOPOLOGY_TYPE = 'handos/msg/HandTopology'


def recorded_frames(path: Path, image: str, camera_info: str) -> Iterator[tuple[int, ViewFrame]]:
    """(time of reception in ns, frame) of a recording's hands. Raises UserError without any."""
    messages = Messages()
    assembler = FrameAssembler()
    with BagReader(path) as reader:
        hands_topic = _topic_of(reader.topics, HANDS_TYPE)
        if not hands_topic:
            raise UserError(f'{path} holds no hands: add them with `handos bag {path} OUTPUT`')
        camera = find_camera(reader.topics, image, camera_info)
        add: dict[str, Callable[[Any], None]] = {
            camera.image: assembler.add_image,
            camera.camera_info: assembler.add_camera_info,
            _topic_of(reader.topics, TOPOLOGY_TYPE): assembler.add_topology,
        }
        for message in reader.messages():
            if message.topic != hands_topic and message.topic not in add:
                continue
            try:
                content = messages.deserialize(message)
            except ValueError:  # a malformed image; the node left it out as well
                continue
            if message.topic == hands_topic:
                yield message.time_ns, assembler.assemble(content, message.time_ns)
            else:
                add[message.topic](content)


def _topic_of(topics: dict[str, str], type_name: str) -> str:
    return next((topic for topic, name in topics.items() if name == type_name), '')
