"""`handos view`: frames from topics and recordings, the scene, and the page in a real browser."""

import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from browser import Browser, find_chromium
from posed_hands import CAMERA, posed_hand

from handos_model.errors import UserError
from handos_model.hand.model import HandModel
from handos_model.types import TrackState
from handos_ros.commands import view
from handos_ros.messages import conversions
from handos_ros.messages.hand_messages import hand_from_message
from handos_ros.runtime.bags import BagWriter
from handos_ros.view.browser import HandViewer, describe
from handos_ros.view.frames import FrameAssembler, ViewFrame

STAMP_NS = 7 * 10**9 + 5


def header(messages, stamp_ns=STAMP_NS):
    message = messages('std_msgs/msg/Header')(frame_id='camera_optical')
    message.stamp.sec, message.stamp.nanosec = divmod(stamp_ns, 10**9)
    return message


def hands_message(messages, hands, stamp_ns=STAMP_NS, **options):
    values = {'model': 'nano', 'template_hash': 'abc', 'with_vertices': True, **options}
    return conversions.hands_to_message(messages, header(messages, stamp_ns), hands, **values)


def image_message(messages, stamp_ns=STAMP_NS, shade=90):
    picture = np.full((CAMERA.height, CAMERA.width, 3), shade, np.uint8)
    return conversions.rgb_to_image_message(messages, header(messages, stamp_ns), picture)


def topology_message(messages):
    return conversions.topology_to_message(
        messages, HandModel.embedded().faces, model='nano', template_hash='abc'
    )


def info_message(messages):
    return conversions.camera_to_info_message(messages, header(messages), CAMERA)


@pytest.fixture
def assembler(messages) -> FrameAssembler:
    made = FrameAssembler()
    made.add_topology(topology_message(messages))
    made.add_camera_info(info_message(messages))
    return made


@pytest.mark.parametrize('side', ['right', 'left'])
def test_a_hand_survives_its_message(messages, side):
    hand = posed_hand(side, hand_id=3)
    (message,) = hands_message(messages, [hand]).hands
    again = hand_from_message(message)
    for name in (
        'box_xyxy_px', 'joints_px', 'joint_confidence', 'joints_m', 'vertices_m',
        'wrist_rotation', 'translation_m', 'translation_covariance_m2',
    ):  # fmt: skip
        assert np.allclose(getattr(again, name), getattr(hand, name), atol=1e-4), name
    for name in ('id', 'age', 'state', 'side', 'scale_source'):
        assert getattr(again, name) == getattr(hand, name)


def test_a_message_without_vertices_is_a_hand_without_a_mesh(messages):
    (message,) = hands_message(messages, [posed_hand()], with_vertices=False).hands
    assert hand_from_message(message).vertices_m.shape == (0, 3)


def test_hands_find_the_image_of_their_stamp(messages, assembler):
    for offset, shade in ((-1, 10), (0, 90), (1, 200)):
        assembler.add_image(image_message(messages, STAMP_NS + offset, shade))
    frame = assembler.assemble(hands_message(messages, [posed_hand()]), STAMP_NS + 25_000_000)
    assert (frame.image_rgb == 90).all()
    assert frame.age_s == pytest.approx(0.025)
    assert np.allclose(frame.camera.matrix_px, CAMERA.matrix_px)
    overlay = frame.overlay_rgb()
    assert (overlay != 90).any(-1).mean() > 0.02  # the hand covers some of it
    assert (frame.image_rgb == 90).all()  # and is drawn on a copy


def test_without_an_image_of_the_stamp_there_is_no_overlay(messages, assembler):
    assembler.add_image(image_message(messages, STAMP_NS + 1))
    frame = assembler.assemble(hands_message(messages, [posed_hand()]), STAMP_NS)
    assert frame.image_rgb is None and frame.camera is None and frame.overlay_rgb() is None


def test_a_broken_image_is_no_image(messages, assembler):
    image = image_message(messages)
    image.data = image.data[:100]
    assembler.add_image(image)
    assert assembler.assemble(hands_message(messages, []), STAMP_NS).image_rgb is None


def test_without_topology_or_calibration_the_skeleton_is_drawn(messages):
    assembler = FrameAssembler()
    assembler.add_image(image_message(messages))
    frame = assembler.assemble(hands_message(messages, [posed_hand()]), STAMP_NS)
    assert frame.triangles is None and not frame.camera.calibrated
    assert (frame.overlay_rgb() != 90).any()


def test_lost_hands_are_not_shown(messages, assembler):
    lost = replace(posed_hand(), state=TrackState.LOST)
    assert assembler.assemble(hands_message(messages, [lost]), STAMP_NS).hands == []


def test_the_text_tells_rate_age_and_hands(messages, assembler):
    hands = [posed_hand(hand_id=4), posed_hand('left', hand_id=5)]
    frame = assembler.assemble(hands_message(messages, hands), STAMP_NS + 20_000_000)
    text = describe(frame, [0.0, 0.05, 0.1])
    assert '**20.0 Hz**' in text and 'age 20 ms' in text
    assert '#4 right' in text and '#5 left' in text and '0.500 m' in text
    assert 'No hands' in describe(replace(frame, hands=[]), [0.0])


def write_recording(messages, path: Path, frames: int = 3) -> None:
    with BagWriter(path, messages, mcap=True) as writer:
        for topic, type_name in (
            ('/camera/image_raw', 'sensor_msgs/msg/Image'),
            ('/camera/camera_info', 'sensor_msgs/msg/CameraInfo'),
            ('/handos/hands', view.HANDS_TYPE),
            ('/handos/topology', view.TOPOLOGY_TYPE),
        ):
            writer.add_topic(topic, type_name)
        writer.write('/handos/topology', 0, messages.serialize(topology_message(messages)))
        writer.write('/camera/camera_info', 0, messages.serialize(info_message(messages)))
        for index in range(1, frames + 1):
            time_ns = index * 50_000_000
            image = image_message(messages, time_ns)
            hands = hands_message(messages, [posed_hand(hand_id=index)], time_ns)
            writer.write('/camera/image_raw', time_ns, messages.serialize(image))
            writer.write('/handos/hands', time_ns + 9_000_000, messages.serialize(hands))


def test_a_recording_gives_its_frames(messages, tmp_path):
    write_recording(messages, tmp_path / 'bag')
    frames = list(view.recorded_frames(tmp_path / 'bag', '', ''))
    assert [frame.hands[0].id for _, frame in frames] == [1, 2, 3]
    assert all(frame.age_s == pytest.approx(0.009) for _, frame in frames)
    assert all(frame.image_rgb is not None and frame.triangles.shape == (1538, 3)
               for _, frame in frames)  # fmt: skip


def test_a_recording_without_hands_says_what_to_do(messages, tmp_path):
    with BagWriter(tmp_path / 'bag', messages, mcap=True) as writer:
        writer.add_topic('/image', 'sensor_msgs/msg/Image')
        writer.write('/image', 1, messages.serialize(image_message(messages)))
    with pytest.raises(UserError, match='handos bag'):
        list(view.recorded_frames(tmp_path / 'bag', '', ''))


def test_a_recording_that_is_not_there_is_an_error():
    with pytest.raises(UserError, match='does not exist'):
        view.view('nowhere.mcap')


class Listener:
    """Stands for the page; `show` ends with Ctrl-C after so many frames."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.frames: list[ViewFrame] = []

    def show(self, frame: ViewFrame) -> None:
        self.frames.append(frame)
        if len(self.frames) == self.count:
            raise KeyboardInterrupt


def test_a_recording_is_played_again_and_again(messages, tmp_path):
    write_recording(messages, tmp_path / 'bag')
    listener = Listener(count=7)
    with pytest.raises(KeyboardInterrupt):
        view.play(listener, tmp_path / 'bag', '', '', speed=10.0, loop=True)
    assert [frame.hands[0].id for frame in listener.frames] == [1, 2, 3, 1, 2, 3, 1]


LIVE = """
from handos_ros.commands import view
class Page:
    def show(self, frame):
        whole = frame.image_rgb is not None and frame.triangles is not None
        print(len(frame.hands), whole, frame.camera is not None, flush=True)
view._watch(Page(), '/handos/hands', '/image', '')
"""


def test_live_topics_are_put_together(ros, messages):
    node = ros.Node('sender')
    executor = ros.SingleThreadedExecutor()
    executor.add_node(node)
    latched = ros.QoSProfile(depth=1, durability=ros.DurabilityPolicy.TRANSIENT_LOCAL)
    publishers = [
        node.create_publisher(ros.message_type(type_name), topic, qos)
        for topic, type_name, qos in (
            ('/handos/topology', view.TOPOLOGY_TYPE, latched),
            ('/camera_info', 'sensor_msgs/msg/CameraInfo', ros.QoSProfile(depth=1)),
            ('/image', 'sensor_msgs/msg/Image', ros.QoSProfile(depth=1)),
            ('/handos/hands', view.HANDS_TYPE, ros.QoSProfile(depth=1)),
        )
    ]
    types = ros.message_type
    publishers[0].publish(topology_message(types))
    program = subprocess.Popen(
        [sys.executable, '-c', LIVE], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    printed: list[str] = []
    reader = threading.Thread(target=lambda: printed.extend(iter(program.stdout.readline, '')))
    reader.start()
    try:
        deadline_s = time.monotonic() + 60.0
        while '2 True True\n' not in printed:
            assert time.monotonic() < deadline_s, printed
            stamp_ns = time.time_ns()
            publishers[1].publish(info_message(types))
            publishers[2].publish(image_message(types, stamp_ns))
            executor.spin_once(timeout_sec=0.1)
            hands = [posed_hand(hand_id=0), posed_hand('left', hand_id=1)]
            publishers[3].publish(hands_message(types, hands, stamp_ns))
            executor.spin_once(timeout_sec=0.1)
        program.send_signal(signal.SIGINT)
        assert program.wait(timeout=30) == 0, program.stderr.read()
    finally:
        program.kill()
        reader.join()
        executor.shutdown()
        node.destroy_node()


@pytest.fixture
def viewer():
    pytest.importorskip('viser', reason="viser is not installed: pip install 'handos-ros[view]'")
    made = HandViewer('127.0.0.1', 18_080)
    yield made
    made.close()


def test_the_page_is_served_on_this_machine_alone(viewer):
    assert viewer.address.startswith('http://127.0.0.1:')


def test_the_scene_follows_the_hands(messages, assembler, viewer):
    def show(*hands) -> None:
        viewer.show(assembler.assemble(hands_message(messages, hands), STAMP_NS))

    show(posed_hand(hand_id=1), posed_hand('left', hand_id=2))
    assert viewer._hands.keys() == {1, 2}
    first = viewer._hands[1]
    moved = posed_hand(hand_id=1, at_m=(0.1, 0.0, 0.6))
    show(moved)
    assert viewer._hands == {1: first}  # the same nodes of the scene, moved
    assert np.allclose(first._mesh.vertices, moved.vertices_m, atol=1e-5)
    assert np.allclose(first._bones.points[0], moved.joints_m[[0, 1]], atol=1e-5)
    show(posed_hand('left', hand_id=1))
    assert viewer._hands[1] is not first  # its triangles are turned round
    show()
    assert not viewer._hands


def test_outward_faces_of_both_sides(messages, assembler, viewer):
    hands = [posed_hand(hand_id=1), posed_hand('left', hand_id=2)]
    viewer.show(assembler.assemble(hands_message(messages, hands), STAMP_NS))
    for shown in viewer._hands.values():
        a, b, c = np.moveaxis(shown._mesh.vertices[shown._mesh.faces] - [0, 0, 0.5], 1, 0)
        assert np.einsum('fa,fa->', a, np.cross(b, c)) > 0  # six times the signed volume


@pytest.mark.long
def test_a_browser_draws_the_mesh_and_asks_nobody_else(messages, assembler, viewer, tmp_path):
    program = find_chromium()
    if program is None:
        pytest.skip('no Chromium: install the package chromium to see the page drawn')
    assembler.add_image(image_message(messages))
    hands = [
        posed_hand(hand_id=1, at_m=(0.09, 0.0, 0.5)),
        posed_hand('left', hand_id=2, at_m=(-0.09, 0.0, 0.5)),
    ]
    frame: ViewFrame = assembler.assemble(hands_message(messages, hands), STAMP_NS + 30_000_000)
    viewer.show(replace(frame, image_rgb=None, camera=None, hands=[]))
    browser = Browser(program, tmp_path)
    try:
        browser.open(viewer.address)
        empty = wait_for(browser, lambda picture: 5 < scene(picture).mean() < 60)
        viewer.show(frame)
        drawn = wait_for(browser, lambda picture: min(orange(picture), blue(picture)) > 2000)
    finally:
        browser.close()
    assert orange(empty) == blue(empty) == 0
    overlay_empty, overlay = (picture[60:300, 960:] for picture in (empty, drawn))
    assert (overlay == 90).all(-1).mean() > 0.3 > (overlay_empty == 90).all(-1).mean()
    local = tuple(f'{scheme}://127.0.0.1:' for scheme in ('http', 'ws'))
    strangers = [url for url in browser.requests if not url.startswith((*local, 'data:', 'blob:'))]
    assert browser.requests and not strangers


def wait_for(browser: Browser, condition) -> np.ndarray:
    """The first screenshot of which the condition holds."""
    deadline_s = time.monotonic() + 400.0  # WebGL in software, on a busy machine
    while True:
        picture = browser.screenshot_rgb()
        if condition(picture):
            return picture
        assert time.monotonic() < deadline_s, 'the page does not show it'
        time.sleep(1.0)


def scene(picture: np.ndarray) -> np.ndarray:
    """The 3D view: neither the panel at the right nor the browser's warning at the top left."""
    return picture[200:, :940].astype(int)


def orange(picture: np.ndarray) -> int:
    """Pixels of a right hand's hue in the 3D view."""
    red, green, blue = np.moveaxis(scene(picture), -1, 0)
    return int(((red - green > 25) & (green - blue > 20) & (red > 90)).sum())


def blue(picture: np.ndarray) -> int:
    """Pixels of a left hand's hue in the 3D view."""
    red, green, blue = np.moveaxis(scene(picture), -1, 0)
    return int(((blue - green > 20) & (green - red > 25) & (blue > 90)).sum())
