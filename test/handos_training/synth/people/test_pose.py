"""Hand poses: limits, couplings, collisions and the table of shapes."""

import numpy as np
import pytest
import torch

from handos_model.hand.model import HandModel
from handos_model.hand.pose_limits import FINGERS, FLEXION, LIMITS_DEG, LITTLE, MIDDLE
from handos_model.hand.pose_limits import rotations_from_angles as numpy_rotations
from handos_training.synth.people.arm import ArmModel, ArmPose
from handos_training.synth.people.pose import (
    PoseSampler,
    rotations_from_angles,
    segment_distance,
    self_penetration,
    shape_angles_deg,
)
from handos_training.synth.people.pose_table import HAND_SHAPES
from handos_training.synth.sampling import Sampler


def sampler(seed: int = 0) -> Sampler:
    return Sampler(torch.Generator().manual_seed(seed))


@pytest.fixture(scope='module')
def arm() -> ArmModel:
    return ArmModel()


def test_sampled_angles_stay_within_the_limits() -> None:
    angles = PoseSampler()(2000, sampler()).numpy()
    assert angles.shape == (2000, 16, 3)
    assert (angles >= LIMITS_DEG[..., 0] - 1e-3).all()
    assert (angles <= LIMITS_DEG[..., 1] + 1e-3).all()


def test_flexed_fingers_spread_less() -> None:
    angles = PoseSampler()(4000, sampler())
    for finger in FINGERS:
        flexed = angles[:, finger, FLEXION] > 75
        assert angles[flexed, finger, 1].abs().max() < 0.3 * 28
        assert angles[~flexed, finger, 1].abs().max() > 6


def test_the_table_has_the_common_shapes_and_obeys_the_limits() -> None:
    assert len(HAND_SHAPES) >= 30
    assert {'fist', 'thumbs_up', 'call', 'mute', 'pointing', 'victory', 'ok'} <= set(HAND_SHAPES)
    for name, shape in HAND_SHAPES.items():
        angles = shape_angles_deg(shape).numpy()
        assert (angles >= LIMITS_DEG[..., 0]).all(), name
        assert (angles <= LIMITS_DEG[..., 1]).all(), name
    victory = shape_angles_deg(HAND_SHAPES['victory'])
    assert victory[MIDDLE, FLEXION] < 10 < 70 < victory[LITTLE, FLEXION]


def test_rotations_agree_with_the_hand_model(arm: ArmModel) -> None:
    angles = PoseSampler()(20, sampler())
    expected = numpy_rotations(np.radians(angles.numpy()), arm.axes.numpy())
    assert np.allclose(rotations_from_angles(angles, arm.axes), expected, atol=1e-5)


def test_posed_arms_contain_the_hand_model(arm: ArmModel) -> None:
    draw = sampler()
    angles = PoseSampler()(6, draw)
    betas = draw.normal(1, 6, 10)
    posed = arm.pose(ArmPose(betas, torch.ones(6), angles, draw.normal(40, 6), draw.normal(30, 6)))
    rotations = rotations_from_angles(angles, arm.axes).double().numpy()
    rotations[:, 0] = np.eye(3)  # the hand's own frame
    vertices, joints = HandModel.embedded().pose(rotations, betas.double().numpy())
    assert np.abs(posed.hand_vertices_m.numpy() - vertices).max() < 1e-5
    assert np.abs(posed.joints_m.numpy() - joints).max() < 1e-5


def test_elbow_and_shoulder_agree_with_the_posed_arm(arm: ArmModel) -> None:
    draw = sampler(3)
    angles = torch.zeros(5, 16, 3)
    angles[:, 0, :2] = draw.normal(20, 5, 2)
    pose = ArmPose(
        draw.normal(1, 5, 10), torch.ones(5), angles, draw.normal(40, 5), draw.normal(30, 5)
    )
    posed = arm.pose(pose)
    _, pivots = arm.rest(pose.betas)
    elbow, shoulder = arm.elbow_and_shoulder(
        pivots, angles[:, 0, :2], pose.pronation_deg, pose.elbow_deg
    )
    assert torch.allclose(elbow, posed.elbow_m, atol=1e-5)
    assert torch.allclose(shoulder, posed.shoulder_m, atol=1e-5)


def test_segment_distance() -> None:
    p1, q1 = torch.tensor([[0.0, 0, 0]]), torch.tensor([[1.0, 0, 0]])
    p2, q2 = torch.tensor([[0.5, -1, 2.0]]), torch.tensor([[0.5, 1, 2.0]])
    assert segment_distance(p1, q1, p2, q2).item() == pytest.approx(2)
    assert segment_distance(p1, q1, p1 + torch.tensor([3.0, 4, 0]), p2 + 9).item() > 4
    beyond = torch.tensor([[2.0, 0, 0]]), torch.tensor([[3.0, 0, 0]])
    assert segment_distance(p1, q1, *beyond).item() == pytest.approx(1)


def test_crossed_fingers_are_a_collision_and_an_open_hand_is_not(arm: ArmModel) -> None:
    angles = torch.zeros(2, 16, 3)
    angles[1, 1, 1], angles[1, 4, 1] = -60, 60  # index and middle finger through each other
    depth = self_penetration(arm.hand_joints(angles))
    assert depth[0] < 1e-3
    assert depth[1] > 4e-3
