"""The launch file on a genuine ROS 2: a camera and the node are started, seen and stopped."""

# ruff: noqa: E402 (what is imported below may be missing)

from __future__ import annotations

import tempfile
import time
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

REASON = 'needs a sourced ROS 2 with this package built in a workspace'
launch_testing = pytest.importorskip('launch_testing', reason=REASON)
pytest.importorskip('handos.msg', reason=REASON)

import cv2
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from handos.msg import HandMeshArray
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import PathJoinSubstitution
from launch_ros.substitutions import FindPackageShare
from launch_testing.actions import ReadyToTest
from launch_testing.asserts import assertExitCodes
from lifecycle_msgs.srv import GetState
from rcl_interfaces.msg import Parameter, ParameterValue
from rcl_interfaces.srv import SetParameters

import handos_ros
from launch import LaunchDescription

VIDEO = Path(handos_ros.__file__).parent / 'assets/human_hand.mp4'
CLIP_HZ, CLIP_SIZE_PX = 5.0, (640, 360)  # what a machine that does other work can follow
PATIENCE_S = 120.0  # weights are loaded, and the machine may do other work
DOUBLE = 3  # rcl_interfaces/msg/ParameterType


def write_clip(path: Path) -> None:
    """Every tenth image of the demo's video, smaller."""
    video = cv2.VideoCapture(str(VIDEO))
    clip = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'mp4v'), CLIP_HZ, CLIP_SIZE_PX)
    for _ in range(10):
        for _ in range(9):
            video.grab()
        clip.write(cv2.resize(video.read()[1], CLIP_SIZE_PX))
    clip.release()


@pytest.mark.launch_test
def generate_test_description() -> LaunchDescription:
    clip = Path(tempfile.mkdtemp(prefix='handos-launch-')) / 'clip.mp4'
    write_clip(clip)
    path = PathJoinSubstitution([FindPackageShare('handos'), 'launch', 'handos.launch.py'])
    arguments = {'camera': 'usb', 'device': str(clip), 'namespace': 'left', 'respawn': 'false'}
    source = PythonLaunchDescriptionSource(path)
    launched = IncludeLaunchDescription(source, launch_arguments=arguments.items())
    return LaunchDescription([launched, ReadyToTest()])


class TestWhileItRuns(unittest.TestCase):
    node: ClassVar[Any]

    @classmethod
    def setUpClass(cls) -> None:
        rclpy.init()
        cls.node = rclpy.create_node('probe')

    @classmethod
    def tearDownClass(cls) -> None:
        cls.node.destroy_node()
        rclpy.shutdown()

    def wait_for(self, message_type: Any, topic: str, wanted: Callable[[Any], Any]) -> Any:
        """The first message that is wanted."""
        found: list[Any] = []
        subscription = self.node.create_subscription(
            message_type, topic, lambda message: wanted(message) and found.append(message), 10
        )
        deadline_s = time.monotonic() + PATIENCE_S
        while not found and time.monotonic() < deadline_s:
            rclpy.spin_once(self.node, timeout_sec=0.1)
        self.node.destroy_subscription(subscription)
        self.assertTrue(found, f'nothing that was wanted on {topic}')
        return found[0]

    def call(self, service_type: Any, name: str, request: Any) -> Any:
        client = self.node.create_client(service_type, name)
        self.assertTrue(client.wait_for_service(timeout_sec=PATIENCE_S), name)
        answer = client.call_async(request)
        rclpy.spin_until_future_complete(self.node, answer, timeout_sec=PATIENCE_S)
        return answer.result()

    def test_hands_of_the_camera_come_in_the_namespace(self) -> None:
        message = self.wait_for(HandMeshArray, '/left/handos/hands', lambda hands: hands.hands)
        self.assertEqual(message.header.frame_id, 'camera_optical')

    def test_the_node_starts_itself(self) -> None:
        self.wait_for(
            DiagnosticArray,
            '/diagnostics',
            lambda array: any('images arrive' in status.message for status in array.status),
        )
        state = self.call(GetState, '/left/handos/get_state', GetState.Request())
        self.assertEqual(state.current_state.label, 'active')

    def test_a_parameter_out_of_range_is_refused_with_the_reason(self) -> None:
        value = ParameterValue(type=DOUBLE, double_value=7.0)
        too_high = Parameter(name='score_threshold', value=value)
        request = SetParameters.Request(parameters=[too_high])
        (result,) = self.call(SetParameters, '/left/handos/set_parameters', request).results
        self.assertFalse(result.successful)
        self.assertIn('score_threshold', result.reason)


@launch_testing.post_shutdown_test()
class TestAfterIt(unittest.TestCase):
    def test_camera_and_node_end_cleanly(self, proc_info: Any) -> None:
        assertExitCodes(proc_info)
        self.assertEqual(len(proc_info.process_names()), 2)
