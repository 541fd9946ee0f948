"""What other packages take, given to those packages themselves where they are installed."""

import itertools
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from posed_hands import posed_hand
from scipy.spatial.transform import Rotation

from handos_model.hand.kinematics import OPENXR_JOINTS, PoseFitter
from handos_model.hand.model import HandModel
from handos_model.types import TrackState
from handos_ros.adapters.dex_retargeting import (
    OPERATOR_TO_MANO_LEFT,
    OPERATOR_TO_MANO_RIGHT,
    dex_retargeting_joints,
    operator_frame,
)
from handos_ros.adapters.openxr import NAMED_JOINTS, named_poses, openxr_hand, poses_to_message
from handos_ros.messages import conversions

ROOT = Path(__file__).resolve().parents[3]
SIDES = ('left', 'right')
TURN = Rotation.from_euler('xyz', [0.4, -0.8, 1.9]).as_matrix()
FINGERS = ('thumb', 'index', 'middle', 'ring')
TIPS = (4, 8, 12, 16)
PALM_M, BONE_M = 0.09, 0.04


def hand_urdf(is_left: bool) -> str:
    """A hand in MANO's axes: fingers along z, the index's side at +y (right), two hinges each."""
    side = -1 if is_left else 1
    parts = ['<robot name="hand"><link name="wrist"/>']
    for index, finger in enumerate(FINGERS):
        y, z = side * (0.05, 0.025, 0.0, -0.02)[index], (0.05, PALM_M, PALM_M, PALM_M)[index]
        links = ('wrist', f'{finger}_1', f'{finger}_2', f'{finger}_tip')
        origins = ((0.0, y, z), (0.0, 0.0, BONE_M), (0.0, 0.0, BONE_M))
        for joint, (parent, child) in enumerate(itertools.pairwise(links)):
            kind = 'fixed' if child.endswith('tip') else 'revolute'
            xyz = ' '.join(str(value) for value in origins[joint])
            parts.append(
                f'<link name="{child}"/><joint name="{finger}_j{joint}" type="{kind}">'
                f'<parent link="{parent}"/><child link="{child}"/><origin xyz="{xyz}"/>'
                '<axis xyz="0 -1 0"/>'
                '<limit lower="-1.6" upper="1.6" effort="1" velocity="1"/></joint>'
            )
    return ''.join([*parts, '</robot>'])


def write_robot(folder: Path, is_left: bool) -> Path:
    """URDF and configuration of a vector retargeter; the configuration's path."""
    folder.joinpath('hand.urdf').write_text(hand_urdf(is_left))
    values = {
        'type': 'vector',
        'urdf_path': 'hand.urdf',
        'target_origin_link_names': ['wrist'] * 8,
        'target_task_link_names': [f'{name}_{end}' for end in ('tip', '2') for name in FINGERS],
        'target_link_human_indices': [[0] * 8, [*TIPS, *(tip - 2 for tip in TIPS)]],
        'scaling_factor': 1.0,
        'low_pass_alpha': 1.0,
    }
    path = folder / 'config.yml'
    path.write_text(yaml.safe_dump({'retargeting': values}))
    return path


@pytest.fixture(params=SIDES)
def robot(request, tmp_path):
    reason = 'dex_retargeting is not installed: pip install dex_retargeting'
    retargeting_config = pytest.importorskip('dex_retargeting.retargeting_config', reason=reason)
    is_left = request.param == 'left'
    path = write_robot(tmp_path, is_left)
    config = retargeting_config.RetargetingConfig
    config.set_default_urdf_dir(str(tmp_path))
    return config.load_from_file(path).build(), is_left


def retarget(retargeting, joints):
    origins, targets = retargeting.optimizer.target_link_human_indices
    return retargeting.retarget(joints[targets] - joints[origins])


def test_our_axes_are_those_of_dex_retargeting():
    constants = pytest.importorskip('dex_retargeting.constants', reason='not installed')
    assert (OPERATOR_TO_MANO_LEFT == constants.OPERATOR2MANO_LEFT).all()
    assert (OPERATOR_TO_MANO_RIGHT == constants.OPERATOR2MANO_RIGHT).all()


def test_a_robot_takes_the_pose_that_the_joints_were_made_of(robot):
    retargeting, is_left = robot
    pin_robot = retargeting.optimizer.robot
    wanted = np.linspace(0.2, 0.9, pin_robot.dof)
    pin_robot.compute_forward_kinematics(wanted)

    def place(link: str) -> np.ndarray:
        return pin_robot.get_link_pose(pin_robot.get_link_index(link))[:3, 3]

    joints = np.zeros((21, 3))
    for finger, tip in zip(FINGERS, TIPS, strict=True):
        joints[[tip - 3, tip - 2, tip]] = [
            place(f'{finger}_1'),
            place(f'{finger}_2'),
            place(f'{finger}_tip'),
        ]
    seen = joints @ TURN.T + [0.1, -0.2, 0.7]  # as a camera sees it
    given = dex_retargeting_joints(seen, is_left)
    assert given.dtype == np.float32 and np.allclose(given, joints, atol=1e-6)
    for _ in range(20):
        found = retarget(retargeting, given)
    names = retargeting.optimizer.target_joint_names
    expected = wanted[[pin_robot.dof_joint_names.index(name) for name in names]]
    assert np.allclose(found, expected, atol=0.07)  # it stops when tips agree to a few millimetres


def test_a_closing_hand_closes_the_robot(robot):
    retargeting, is_left = robot
    side = 'left' if is_left else 'right'
    curls = []
    for flexion_rad in (0.0, 0.4, 0.8):
        hand = posed_hand(side, flexion_rad=flexion_rad, turn=TURN)
        for _ in range(10):
            angles = retarget(retargeting, dex_retargeting_joints(hand.joints_m, is_left))
        names = list(retargeting.optimizer.target_joint_names)
        fingers = [names.index(f'{name}_j{joint}') for name in FINGERS[1:] for joint in (0, 1)]
        curls.append(np.abs(angles[fingers]).sum())
        if flexion_rad:  # all bend one way, to the palm
            assert len({np.sign(value) for value in angles[fingers] if abs(value) > 0.1}) == 1
    assert curls[0] + 0.5 < curls[1] < curls[2] - 0.5


@pytest.mark.parametrize('side', SIDES)
def test_joints_do_not_depend_on_the_camera(side):
    joints_m = posed_hand(side).joints_m
    here = dex_retargeting_joints(joints_m, side == 'left')
    there = dex_retargeting_joints(joints_m @ TURN.T + [1.0, 2.0, 3.0], side == 'left')
    assert np.allclose(here, there, atol=1e-6) and (here[0] == 0).all()
    assert here[9, 2] > 0.07 and np.allclose(here[9, :2], 0, atol=1e-6)  # fingers along z
    distances = np.linalg.norm(np.diff(joints_m, axis=0), axis=-1)
    assert np.allclose(np.linalg.norm(np.diff(here, axis=0), axis=-1), distances, atol=1e-6)


def test_the_operators_frame_is_that_of_a_fitted_plane():
    joints_m = posed_hand(turn=TURN).joints_m
    frame = operator_frame(joints_m)
    palm = joints_m[[0, 5, 9]]
    normal = np.linalg.svd(palm - palm.mean(0))[2][2]
    assert abs(frame[:, 1] @ normal) == pytest.approx(1.0)
    assert np.linalg.det(frame) == pytest.approx(1.0)
    assert frame[:, 2] @ (joints_m[5] - joints_m[9]) > 0


def test_joints_without_a_palm_are_refused():
    with pytest.raises(ValueError, match='one line'):
        dex_retargeting_joints(np.linspace([0, 0, 0], [1, 1, 1], 21), False)
    with pytest.raises(ValueError, match='21 x 3'):
        dex_retargeting_joints(np.full((21, 3), np.nan), False)
    with pytest.raises(ValueError, match='21 x 3'):
        dex_retargeting_joints(np.zeros((20, 3)), True)


@pytest.fixture(scope='module')
def fitter() -> PoseFitter:
    return PoseFitter(HandModel.embedded())


@pytest.mark.parametrize('side', SIDES)
def test_openxr_axes_point_along_the_bones_and_out_of_the_back(fitter, side):
    hand = posed_hand(side, flexion_rad=0.2, turn=np.eye(3))
    made = openxr_hand(fitter, hand)
    assert np.allclose(np.linalg.norm(made.orientations_xyzw, axis=-1), 1)
    axes = Rotation.from_quat(made.orientations_xyzw).as_matrix()
    proximal, middle = (
        OPENXR_JOINTS.index(name) for name in ('index_proximal', 'index_intermediate')
    )
    bone = made.positions_m[middle] - made.positions_m[proximal]
    assert axes[proximal, :, 2] @ bone / np.linalg.norm(bone) == pytest.approx(-1.0, abs=1e-6)
    wrist = OPENXR_JOINTS.index('wrist')
    assert axes[wrist, 2, 1] > 0.8  # the palm looks at the camera, the back away from it
    assert np.allclose(made.positions_m[wrist], hand.joints_m[0])


def test_a_hand_that_is_not_seen_is_not_valid(fitter):
    made = openxr_hand(fitter, replace(posed_hand(), state=TrackState.COASTING))
    assert not made.is_valid.any() and np.isfinite(made.positions_m).all()


def test_a_hand_without_a_mesh_has_no_orientations(fitter):
    with pytest.raises(ValueError, match='publish_vertices'):
        openxr_hand(fitter, replace(posed_hand(), vertices_m=np.zeros((0, 3))))


def test_both_hands_have_their_places(fitter):
    right = openxr_hand(fitter, posed_hand('right'))
    poses, valid = named_poses(None, right)
    assert poses.shape == (50, 7) and len(NAMED_JOINTS) == 50
    assert not valid[:25].any() and valid[25:].all()
    assert (poses[:25] == [0, 0, 0, 0, 0, 0, 1]).all()
    row = NAMED_JOINTS.index('right_little_tip')
    assert np.allclose(poses[row, :3], right.positions_m[OPENXR_JOINTS.index('little_tip')])
    assert not any('palm' in name for name in NAMED_JOINTS)


def test_poses_keep_their_order_and_header_in_a_message(fitter, messages):
    poses, _ = named_poses(openxr_hand(fitter, posed_hand('left')), None)
    header = messages('std_msgs/msg/Header')(frame_id='camera_optical')
    message = poses_to_message(messages, header, poses)
    assert message.header.frame_id == 'camera_optical' and len(message.poses) == 50
    third = message.poses[2]
    assert [third.position.x, third.position.y, third.position.z] == poses[2, :3].tolist()
    assert third.orientation.w == poses[2, 6]


def test_isaac_teleop_takes_our_joints(fitter):
    reason = 'isaacteleop is not installed: pip install isaacteleop'
    types = pytest.importorskip('isaacteleop.retargeting_engine.tensor_types', reason=reason)
    interface = pytest.importorskip('isaacteleop.retargeting_engine.interface', reason=reason)
    indices = pytest.importorskip(
        'isaacteleop.retargeting_engine.tensor_types.indices', reason=reason
    )
    assert [joint.name.lower() for joint in indices.HandJointIndex] == list(OPENXR_JOINTS)
    made = openxr_hand(fitter, posed_hand())
    group = interface.TensorGroup(types.HandInput())
    group[indices.HandInputIndex.JOINT_POSITIONS] = made.positions_m.astype(np.float32)
    group[indices.HandInputIndex.JOINT_ORIENTATIONS] = made.orientations_xyzw.astype(np.float32)
    group[indices.HandInputIndex.JOINT_RADII] = np.zeros(26, np.float32)
    group[indices.HandInputIndex.JOINT_VALID] = made.is_valid.astype(np.uint8)
    tip = np.asarray(group[indices.HandInputIndex.JOINT_POSITIONS])[
        indices.HandJointIndex.INDEX_TIP
    ]
    assert np.allclose(tip, posed_hand().joints_m[8], atol=1e-6)


class Sender:
    """Publishes two posed hands until a program has ended."""

    def __init__(self, ros, messages) -> None:
        self.ros = ros
        self.node = ros.Node('handos')
        self.executor = ros.SingleThreadedExecutor()
        self.executor.add_node(self.node)
        hands_type = ros.message_type('handos/msg/HandMeshArray')
        self.publisher = self.node.create_publisher(
            hands_type, '/handos/hands', ros.QoSProfile(depth=1)
        )

    def run(self, *command: str) -> str:
        process = subprocess.Popen(
            [sys.executable, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, 'OMP_NUM_THREADS': '1'},
        )
        hands = [posed_hand('right', hand_id=0), posed_hand('left', hand_id=1)]
        for _ in range(1200):
            header = self.ros.message_type('std_msgs/msg/Header')(frame_id='camera_optical')
            message = conversions.hands_to_message(
                self.ros.message_type, header, hands,
                model='nano', template_hash='abc', with_vertices=True,
            )  # fmt: skip
            self.publisher.publish(message)
            self.executor.spin_once(timeout_sec=0.05)
            if process.poll() is not None:
                break
        else:
            process.kill()
        out, err = process.communicate()
        assert process.returncode == 0, err
        return out


@pytest.fixture(scope='module')
def sender(ros, messages):
    made = Sender(ros, messages)
    yield made
    made.executor.shutdown()
    made.node.destroy_node()


def test_the_example_moves_a_robot(sender, tmp_path):
    pytest.importorskip('dex_retargeting', reason='dex_retargeting is not installed')
    config = write_robot(tmp_path, is_left=False)
    program = str(ROOT / 'examples' / 'retarget_dex.py')
    out = sender.run(program, str(config), '--urdf-dir', str(tmp_path), '--count', '2')
    lines = [line for line in out.splitlines() if line.startswith('[')]
    assert len(lines) == 2
    angles_rad = np.array(lines[-1].strip('[]').split(), float)
    assert len(angles_rad) == 8 and np.abs(angles_rad).max() > 0.1


def test_the_example_publishes_openxr_poses(sender, ros):
    received = []
    pose_type = ros.message_type('geometry_msgs/msg/PoseArray')
    sender.node.create_subscription(
        pose_type, 'hand_poses', received.append, ros.QoSProfile(depth=5)
    )
    sender.run(str(ROOT / 'examples' / 'openxr_hands.py'), '--count', '20')
    assert received and len(received[-1].poses) == 50
    row = NAMED_JOINTS.index('left_wrist')
    assert received[-1].poses[row].position.x == pytest.approx(
        posed_hand('left').joints_m[0, 0], abs=1e-5
    )
    assert received[-1].header.frame_id == 'camera_optical'
