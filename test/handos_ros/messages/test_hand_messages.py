"""Hands as messages: ours, topology, detections and transforms."""

import cv2
import numpy as np
import pytest
from fakes import make_hand

from handos_model.types import NUM_JOINTS, ScaleSource, TrackState
from handos_ros.messages import conversions


def header_message(messages):
    header = messages('std_msgs/msg/Header')(frame_id='camera_optical')
    header.stamp.sec, header.stamp.nanosec = 12, 34
    return header


def hands_message(messages, hands, **options):
    values = {'model': 'nano', 'template_hash': 'abc', 'with_vertices': True, **options}
    return conversions.hands_to_message(messages, header_message(messages), hands, **values)


def test_hands_keep_every_value(messages):
    hand = make_hand(7, 'left', state=TrackState.COASTING, scale_source=ScaleSource.DEPTH)
    message = hands_message(messages, [hand], thetas=[np.arange(48) / 10])
    mesh = message.hands[0]
    assert (message.model, message.template_hash) == ('nano', 'abc')
    assert (mesh.header.frame_id, mesh.header.stamp.nanosec) == ('camera_optical', 34)
    assert (mesh.id, mesh.age, mesh.state, mesh.side) == (7, 1, mesh.COASTING, mesh.LEFT)
    assert mesh.scale_source == mesh.SCALE_DEPTH
    assert np.allclose(mesh.vertices_m.reshape(778, 3), hand.vertices_m, atol=1e-6)
    assert np.allclose(mesh.joints_m.reshape(21, 3), hand.joints_m, atol=1e-6)
    assert np.allclose(mesh.joints_px.reshape(21, 2), hand.joints_px, atol=1e-4)
    assert np.allclose(mesh.joint_confidence, hand.joint_confidence)
    assert np.allclose(mesh.box_xyxy_px, hand.box_xyxy_px)
    assert np.allclose(mesh.theta, np.arange(48) / 10)
    position = mesh.wrist.pose.position
    assert np.allclose([position.x, position.y, position.z], hand.joints_m[0])
    covariance = mesh.wrist.covariance.reshape(6, 6)
    assert np.allclose(covariance[:3, :3], hand.translation_covariance_m2)
    assert np.allclose(covariance[3:, 3:], np.eye(3) * np.pi**2)


def test_wrist_orientation_is_the_rotation_matrix(messages):
    angle = 0.7
    rotation = cv2.Rodrigues(np.array([0.0, 0.0, angle]))[0]
    mesh = hands_message(messages, [make_hand(wrist_rotation=rotation)]).hands[0]
    q = mesh.wrist.pose.orientation
    sign = np.sign(q.w)
    half = angle / 2
    assert np.allclose([q.x, q.y, q.z * sign, q.w * sign], [0, 0, np.sin(half), np.cos(half)])


def test_vertices_can_stay_away(messages):
    assert (
        len(hands_message(messages, [make_hand()], with_vertices=False).hands[0].vertices_m) == 0
    )


def test_the_messages_constants_are_the_models(messages):
    mesh = messages('handos/msg/HandMesh')
    assert mesh.NUM_JOINTS == NUM_JOINTS
    assert [int(state) for state in TrackState] == [mesh.TRACKED, mesh.COASTING, mesh.LOST]
    sources = [mesh.SCALE_NETWORK, mesh.SCALE_INTRINSICS, mesh.SCALE_DEPTH, mesh.SCALE_CALIBRATED]
    assert sources == [int(source) for source in ScaleSource]
    from handos_model.types import JOINT_NAMES

    assert [getattr(mesh, name.upper()) for name in JOINT_NAMES] == list(range(21))


def test_topology(messages):
    triangles = np.arange(12).reshape(4, 3)
    message = conversions.topology_to_message(messages, triangles, model='m', template_hash='h')
    assert np.array_equal(message.triangles.reshape(-1, 3), triangles)
    assert message.skeleton_edges.reshape(-1, 2).shape == (20, 2)
    assert message.joint_names[9] == 'middle_mcp'


def test_detections(messages):
    hands = [make_hand(3)]
    message = conversions.detections_to_message(messages, header_message(messages), hands)
    detection = message.detections[0]
    assert (detection.bbox.center.position.x, detection.bbox.center.position.y) == (60.0, 120.0)
    assert (detection.bbox.size_x, detection.bbox.size_y) == (100.0, 200.0)
    assert detection.id == '3' and detection.results[0].hypothesis.class_id == 'right_hand'


def test_transforms(messages):
    message = conversions.transforms_to_message(messages, header_message(messages), [make_hand(3)])
    transform = message.transforms[0]
    assert transform.header.frame_id == 'camera_optical'
    assert transform.child_frame_id == 'camera_optical/hand_3'
    assert transform.transform.translation.z == pytest.approx(make_hand(3).joints_m[0, 2])
