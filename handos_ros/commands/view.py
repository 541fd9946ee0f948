"""`handos view`: hands in the browser, live or of a recording."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from handos_model.errors import UserError
from handos_ros.view.browser import HandViewer
from handos_ros.view.frames import FrameAssembler
from handos_ros.view.page import write_page
from handos_ros.view.recorded import HANDS_TYPE, TOPOLOGY_TYPE, recorded_frames

RECORDING_SUFFIXES = ('.mcap', '.db3')


def view(
    source: Annotated[
        str, typer.Argument(help='Topic of HandMeshArray, or a rosbag2 folder, .mcap or .db3.')
    ] = '/handos/hands',
    image: Annotated[str, typer.Option(help='Image topic.')] = '',
    camera_info: Annotated[str, typer.Option(help='CameraInfo topic, if not a sibling.')] = '',
    host: Annotated[
        str, typer.Option(help='Address to serve on; 0.0.0.0 lets the whole network look.')
    ] = '127.0.0.1',
    port: Annotated[int, typer.Option(help='Port; the next free one where it is taken.')] = 8080,
    speed: Annotated[float, typer.Option(help='Speed of a recording.', min=0.01)] = 1.0,
    loop: Annotated[bool, typer.Option(help='Play a recording again and again.')] = True,
    html: Annotated[
        Path | None, typer.Option(help='Write a recording as a page of its own, and end.')
    ] = None,
) -> None:
    """Show hands in the browser until Ctrl-C: meshes in 3D, the image's overlay, ages, rates."""
    path = Path(source)
    recorded = path.exists() or path.suffix in RECORDING_SUFFIXES
    if recorded and not path.exists():
        raise UserError(f'{source} does not exist: give a recording, or a topic')
    if html is not None:
        if not recorded:
            raise UserError(f'--html takes a recording, and {source} is a topic: record it first')
        frames = (frame for _, frame in recorded_frames(path, image, camera_info))
        count = write_page(frames, html, path.name)
        print(f'{count} frames in {html}: open it in a browser, {html.resolve().as_uri()}')
        return
    viewer = HandViewer(host, port)
    print(f'hands of {source} at {viewer.address}; Ctrl-C ends', flush=True)
    try:
        if recorded:
            play(viewer, path, image, camera_info, speed, loop)
        else:
            _watch(viewer, source, image or '/image', camera_info)
    except KeyboardInterrupt:
        pass
    finally:
        viewer.close()


def play(
    viewer: HandViewer, path: Path, image: str, camera_info: str, speed: float, loop: bool
) -> None:
    """Show a recording in its own time; the last frame stays until Ctrl-C."""
    while True:
        start_s = time.monotonic()
        first_ns: int | None = None
        for time_ns, frame in recorded_frames(path, image, camera_info):
            first_ns = time_ns if first_ns is None else first_ns
            due_s = start_s + (time_ns - first_ns) / 1e9 / speed
            time.sleep(max(0.0, due_s - time.monotonic()))
            viewer.show(frame)
        if first_ns is None:
            raise UserError(f'{path} holds no frame with hands: add them with `handos bag`')
        while not loop:
            time.sleep(1.0)


def _watch(viewer: HandViewer, hands: str, image: str, camera_info: str) -> None:
    """Show live topics; the newest frame wins."""
    from handos_ros.node.deaf_reader import DeafReader, Remedy
    from handos_ros.node.intake import Intake
    from handos_ros.runtime import (
        DurabilityPolicy,
        Node,
        QoSProfile,
        ReliabilityPolicy,
        init,
        message_type,
        ok,
    )
    from handos_ros.runtime.serving import serving

    init(args=None)
    node = Node('handos_view')
    assembler = FrameAssembler()
    newest: list[Any] = []

    def on_hands(message: Any) -> None:
        newest[:] = [message]
        images.reader.pulse()  # the camera lives, or there would be none

    sensor = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    compressed = image.endswith('/compressed')
    image_type = f'sensor_msgs/msg/{"CompressedImage" if compressed else "Image"}'
    base = image.removesuffix('/compressed').rsplit('/', 1)[0]
    reader = DeafReader(remedies=(Remedy.SUBSCRIPTION,))
    images = Intake(node, image, image_type, assembler.add_image, reader)
    for type_name, topic, callback, qos in (
        (HANDS_TYPE, hands, on_hands, QoSProfile(depth=1)),
        (TOPOLOGY_TYPE, f'{hands.rsplit("/", 1)[0]}/topology', assembler.add_topology, latched),
        ('sensor_msgs/msg/CameraInfo', camera_info or f'{base}/camera_info',
         assembler.add_camera_info, sensor),
    ):  # fmt: skip
        node.create_subscription(message_type(type_name), topic, callback, qos)
    with serving(node) as executor:
        while ok():
            executor.spin_once(timeout_sec=0.2)
            images.watch()
            if newest:
                viewer.show(assembler.assemble(newest.pop(), node.get_clock().now().nanoseconds))
