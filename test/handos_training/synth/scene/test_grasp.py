"""Held things: signed distances, contact without penetration; hands that touch."""

import pytest
import torch

from handos_training.synth.config import SynthConfig
from handos_training.synth.people.arm import ArmModel, ArmPose
from handos_training.synth.people.placement import (
    ArmPoints,
    arm_capsules,
    camera_matrices,
    place_arms,
    touch_hands,
)
from handos_training.synth.people.pose import PoseSampler, segment_distance
from handos_training.synth.sampling import Sampler
from handos_training.synth.scene.grasp import Grasper
from handos_training.synth.scene.objects import KINDS, ObjectMaker, Things


def sampler(seed: int = 0) -> Sampler:
    return Sampler(torch.Generator().manual_seed(seed))


def test_signed_distances() -> None:
    half = torch.tensor([[0.02, 0.02, 0.05], [0.02, 0.01, 0.05], [0.03, 0.03, 0.03]])
    flags = torch.tensor([True, False, True]), torch.tensor([False, False, True])
    things = Things(torch.zeros(3, dtype=torch.int64), half, *flags)
    points = torch.tensor([[[0.03, 0.0, 0.0], [0.0, 0.0, 0.07], [0.0, 0.0, 0.0]]]).expand(3, 3, 3)
    expected = torch.tensor([[0.01, 0.02, -0.02], [0.01, 0.02, -0.01], [0.0, 0.04, -0.03]])
    assert torch.allclose(things.distance(points), expected, atol=1e-6)


def test_solids_are_closed_and_look_outwards() -> None:
    maker = ObjectMaker()
    things = maker.sample(60, sampler())
    assert len(things.kind.unique()) == len(KINDS)
    a, b, c = (maker.vertices(things)[:, maker.faces[:, i]] for i in range(3))
    volume = (torch.linalg.cross(a, b) * c).sum((1, 2)) / 6
    assert (volume > 0).all()


def test_fingers_close_until_they_touch() -> None:
    arm, draw = ArmModel(), sampler(5)
    N = 48
    angles, betas = PoseSampler()(N, draw), draw.normal(0.7, N, 10)
    grasps = Grasper(arm, ObjectMaker())(angles, betas, draw)
    assert grasps.holds.float().mean() > 0.6
    pose = ArmPose(betas, torch.ones(N), grasps.angles_deg, torch.zeros(N), torch.zeros(N))
    local = arm.pose(pose).hand_vertices_m - grasps.placement.offset_m[:, None]
    distance = grasps.things.distance(local @ grasps.placement.linear)[grasps.holds]
    assert (distance < 0.003).sum(1).min() >= 3  # skin lies on the thing
    assert (-distance.amin(1)).median() < 0.007  # soft skin may give
    assert (distance < -0.004).float().mean() < 0.03
    unheld = ~grasps.holds
    assert torch.equal(grasps.angles_deg[unheld], angles[unheld])


def test_touching_hands_meet_without_interpenetration() -> None:
    config, draw = SynthConfig(), sampler(1)
    arm, N = ArmModel(), 12
    cameras = camera_matrices(config, N, draw)

    def hands() -> ArmPoints:
        angles = PoseSampler()(N, draw)
        pose = ArmPose(torch.zeros(N, 10), torch.ones(N), angles, torch.zeros(N), torch.zeros(N))
        posed = arm.pose(pose)
        return ArmPoints(posed.joints_m, posed.elbow_m, posed.shoulder_m)

    first, second = hands(), hands()
    is_left = torch.arange(N) % 2 == 0
    far = torch.full((N, 1, 3), 1e3)
    stand = place_arms(config, first, is_left, cameras, far, draw)
    seen = ArmPoints(*(stand(v.view(N, -1, 3)).view(v.shape) for v in vars(first).values()))
    touch = touch_hands(config, second, ~is_left, cameras, seen, draw)
    a = arm_capsules(seen.joints_m, seen.elbow_m)
    b = arm_capsules(touch(second.joints_m), touch(second.elbow_m[:, None])[:, 0])
    distance = segment_distance(a[0][:, :, None], a[1][:, :, None], b[0][:, None], b[1][:, None])
    gap = (distance - a[2][:, None] - b[2]).amin((1, 2))
    assert (gap > -0.0031).float().mean() > 0.9
    assert (gap.abs() < 0.005).float().mean() > 0.8


def test_an_unknown_mixture_is_refused() -> None:
    with pytest.raises(ValueError, match='object_fraction must be in'):
        SynthConfig(object_fraction=1.2)
