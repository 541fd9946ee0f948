"""What the node costs without the network: receive to publish, and recordings a second.

Camera, node and listener are processes of their own on the loopback; the model is one that
returns two full meshes at once. Prints JSON; times are milliseconds.

    python benchmarks/node.py --seconds 20
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from handos_model.environment import describe_machine
from handos_model.hand.model import HandModel
from handos_model.types import Camera, FloatArray, Hand, ImageArray, ScaleSource, TrackState
from handos_ros.node.parameters import Settings

SIZES = {'640x480': (640, 480), '1280x720': (1280, 720)}
RATE_HZ = 30.0
WARM_UP_FRAMES = 30
TARGETS_P99_MS = {'640x480': 5.0, '1280x720': 12.0}
MARKERS_ADD_MS = 8.0
BAG_FRAMES = 300


class NullPerception:
    """Two hands for every image, in no time."""

    model = 'null'
    backend = 'nothing'
    not_finite = 0

    def __init__(self) -> None:
        hand_model = HandModel.embedded()
        self.template_hash = hand_model.template_hash
        self.triangles = hand_model.faces
        vertices_m = hand_model.v_template + np.array([0.0, 0.0, 0.5])
        joints_m = hand_model.joint_regressor_21 @ vertices_m
        right = Hand(
            id=0,
            age=1,
            state=TrackState.TRACKED,
            side='right',
            side_probability=0.9,
            score=0.9,
            box_xyxy_px=np.array([10.0, 10.0, 100.0, 100.0]),
            joints_px=np.full((21, 2), 50.0),
            joint_confidence=np.ones(21),
            joints_m=joints_m,
            vertices_m=vertices_m,
            wrist_rotation=np.eye(3),
            translation_m=joints_m[9],
            translation_covariance_m2=np.eye(3) * 1e-4,
            scale_source=ScaleSource.INTRINSICS,
        )
        self.hands = [right, replace(right, id=1, side='left')]

    def __call__(
        self, image_rgb: ImageArray, camera: Camera, depth_m: FloatArray | None
    ) -> list[Hand]:
        return self.hands

    def theta(self, hand: Hand) -> FloatArray:
        return np.zeros(48)


def percentiles(seconds: list[float]) -> dict[str, float]:
    """p50, p95 and p99 in milliseconds."""
    values = np.percentile(seconds, [50, 95, 99]) * 1e3
    return {
        name: round(float(v), 2) for name, v in zip(('p50', 'p95', 'p99'), values, strict=True)
    }


def run_node() -> None:
    """The node, timed from the moment its executor takes an image from DDS."""
    from handos_ros.node import hand_node as node
    from handos_ros.runtime.embedded.endpoints import Subscription

    taken_s = callback_s = 0.0
    stages: dict[str, list[float]] = {}
    execute = Subscription.execute

    def timed_execute(self: Subscription) -> bool:
        nonlocal taken_s
        if self.topic_name == '/image':
            taken_s = time.monotonic()
        return execute(self)

    setattr(Subscription, 'execute', timed_execute)  # noqa: B010

    class TimedNode(node.HandNode):
        def _on_image(self, message: Any) -> None:
            nonlocal callback_s
            callback_s = time.monotonic()
            super()._on_image(message)

        def _publish(self, result: Any) -> None:
            begun_s = taken_s, callback_s  # at 30 Hz no other image has come meanwhile
            super()._publish(result)
            times_s = {
                **result.stages_s,
                'taking and deserialising': begun_s[1] - begun_s[0],
                'take to publish': time.monotonic() - begun_s[0],
            }
            for stage, seconds in times_s.items():
                stages.setdefault(stage, []).append(seconds)

    setattr(node, 'HandNode', TimedNode)  # noqa: B010
    cpu_s, started_s = time.process_time(), time.monotonic()
    without_tracks = ['--ros-args', '-p', 'track:=false']
    node.run(lambda settings, report: NullPerception(), args=without_tracks)
    share = (time.process_time() - cpu_s) / (time.monotonic() - started_s)
    report: dict[str, Any] = {
        stage: percentiles(values[WARM_UP_FRAMES:]) for stage, values in stages.items()
    }
    report['frames processed'] = len(stages['take to publish'])
    report['share of a core'] = round(share, 3)
    print(json.dumps(report))


def run_camera(width: int, height: int, seconds: float) -> None:
    from handos_ros.messages import conversions
    from handos_ros.runtime import Node, QoSProfile, init, message_type, try_shutdown

    init(args=[])
    node = Node('camera')
    publisher = node.create_publisher(
        message_type('sensor_msgs/msg/Image'), 'image', QoSProfile(depth=5)
    )
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    while publisher.get_subscription_count() == 0:
        time.sleep(0.05)
    time.sleep(1.0)
    due_s = time.monotonic()
    for _ in range(int(seconds * RATE_HZ)):
        time.sleep(max(0.0, due_s - time.monotonic()))
        due_s += 1 / RATE_HZ
        header = message_type('std_msgs/msg/Header')(stamp=node.get_clock().now().to_msg())
        message = conversions.rgb_to_image_message(message_type, header, pixels)
        message.encoding = 'bgr8'  # the usual one, which has to be converted
        publisher.publish(message)
    try_shutdown()


def run_listener(with_markers: bool) -> None:
    """Takes the bytes and leaves them, except for the stamp of the hands."""
    from handos_ros.runtime import (
        Node,
        QoSProfile,
        SingleThreadedExecutor,
        init,
        message_type,
        ok,
        try_shutdown,
    )

    init(args=[])
    node = Node('listener')
    ages_s: list[float] = []

    def on_hands(raw: bytes) -> None:
        sec, nanosec = np.frombuffer(raw, np.uint32, 2, offset=4)
        ages_s.append(time.time() - float(sec) - float(nanosec) / 1e9)

    qos = QoSProfile(depth=10)
    hands_type = message_type('handos/msg/HandMeshArray')
    node.create_subscription(hands_type, '/handos/hands', on_hands, qos, raw=True)
    if with_markers:
        marker_type = message_type('visualization_msgs/msg/MarkerArray')
        node.create_subscription(marker_type, '/handos/markers', lambda raw: None, qos, raw=True)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    while ok():
        executor.spin_once(timeout_sec=0.5)
    print(json.dumps(percentiles(ages_s[WARM_UP_FRAMES:])))
    executor.shutdown()
    try_shutdown()


def measure_node(width: int, height: int, with_markers: bool, seconds: float) -> dict[str, Any]:
    """Three processes for `seconds` at 30 Hz."""

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, __file__, '--role', *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    listener = start('listener', *(['--markers'] if with_markers else []))
    node = start('node')
    camera = start(
        'camera', '--width', str(width), '--height', str(height), '--seconds', str(seconds)
    )
    camera.wait()
    time.sleep(0.5)
    node.send_signal(signal.SIGINT)
    stopped_s = time.monotonic()
    report: dict[str, Any] = json.loads(node.communicate(timeout=60)[0])
    report['exit after SIGINT'] = round((time.monotonic() - stopped_s) * 1e3)
    listener.send_signal(signal.SIGINT)
    report['stamp to receipt'] = json.loads(listener.communicate(timeout=60)[0])
    report['frames sent'] = int(seconds * RATE_HZ)
    return report


def measure_bag(width: int, height: int, *, mcap: bool, with_markers: bool) -> dict[str, float]:
    """Frames a second of `handos bag` over images of random pixels."""
    from handos_ros.node.bag_processing import BagProcessor, find_camera
    from handos_ros.runtime.bags import BagReader, BagWriter, Messages

    messages = Messages()
    image_type = messages('sensor_msgs/msg/Image')
    pixels = np.random.default_rng(0).integers(0, 256, width * height * 3).astype(np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / 'in', Path(folder) / 'out'
        with BagWriter(source, messages, mcap=mcap) as writer:
            writer.add_topic('/image', image_type.__msgtype__)
            for index in range(BAG_FRAMES):
                image = image_type(
                    width=width, height=height, step=width * 3, encoding='bgr8', data=pixels
                )
                image.header.stamp.sec, image.header.stamp.nanosec = 1, index + 1
                writer.write('/image', 10**9 + index, messages.serialize(image))
        started_s, cpu_s = time.perf_counter(), time.process_time()
        with BagReader(source) as reader, BagWriter(target, messages, mcap=mcap) as writer:
            processor = BagProcessor(
                messages,
                writer,
                NullPerception(),
                Settings(track=False),
                find_camera(reader.topics),
                with_markers=with_markers,
            )
            for _ in processor.run(reader):
                pass
        elapsed_s, cpu_s = time.perf_counter() - started_s, time.process_time() - cpu_s
    return {
        'frames a second': round(BAG_FRAMES / elapsed_s, 1),
        'frames a second of processor time': round(BAG_FRAMES / cpu_s, 1),
    }


def main(seconds: float) -> None:
    os.environ['ROS_LOCALHOST_ONLY'] = '1'
    os.environ['HANDOS_RUNTIME'] = 'embedded'
    os.environ.setdefault('ROS_DOMAIN_ID', str(1 + os.getpid() % 99))
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    nodes: dict[str, Any] = {}
    for name, (width, height) in SIZES.items():
        for with_markers in (False, True):
            key = f'{name}{", markers" if with_markers else ""}'
            nodes[key] = measure_node(width, height, with_markers, seconds)
            limit = TARGETS_P99_MS[name] + (MARKERS_ADD_MS if with_markers else 0.0)
            nodes[key]['target p99'] = limit
            nodes[key]['met'] = nodes[key]['take to publish']['p99'] <= limit
    bags = {
        f'{"mcap" if mcap else "sqlite3"}{", markers" if markers else ""}': measure_bag(
            640, 480, mcap=mcap, with_markers=markers
        )
        for mcap in (False, True)
        for markers in (False, True)
    }
    report = {
        'environment': describe_machine(),
        'load average': os.getloadavg(),
        'input': f'bgr8 images of random pixels at {RATE_HZ:g} Hz, two hands of 778 vertices',
        'node [ms]': nodes,
        'bag 640x480': bags,
    }
    print(json.dumps(report, indent=2))


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--seconds', type=float, default=20.0)
    parser.add_argument('--role', choices=('node', 'camera', 'listener'), help=argparse.SUPPRESS)
    parser.add_argument('--width', type=int, help=argparse.SUPPRESS)
    parser.add_argument('--height', type=int, help=argparse.SUPPRESS)
    parser.add_argument('--markers', action='store_true', help=argparse.SUPPRESS)
    options = parser.parse_args()
    roles: dict[str, Callable[[], None]] = {
        'node': run_node,
        'camera': lambda: run_camera(options.width, options.height, options.seconds),
        'listener': lambda: run_listener(options.markers),
    }
    roles[options.role]() if options.role else main(options.seconds)
