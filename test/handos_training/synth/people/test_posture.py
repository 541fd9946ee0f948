"""People: arms that hang together with their bodies, sleeves, and hands outside of trunks."""

import pytest
import torch

from handos_training.synth.config import SynthConfig
from handos_training.synth.people.arm import ArmModel, ArmPose
from handos_training.synth.people.body import CHEST, LEFT, UPPER_ARM, BodyModel
from handos_training.synth.people.outfit import Dresser, Outfits
from handos_training.synth.people.placement import camera_matrices, project
from handos_training.synth.people.pose import PoseSampler
from handos_training.synth.people.posture import (
    ACROSS,
    FRONT,
    OWN_EYES,
    People,
    Reacher,
    body_spheres,
)
from handos_training.synth.render.surface import skin_tones
from handos_training.synth.sampling import Sampler

P = 24


@pytest.fixture(scope='module')
def body() -> BodyModel:
    return BodyModel()


@pytest.fixture(scope='module')
def draw() -> Sampler:
    return Sampler(torch.Generator().manual_seed(0))


@pytest.fixture(scope='module')
def cameras(draw: Sampler) -> torch.Tensor:
    return camera_matrices(SynthConfig(), P, draw)


@pytest.fixture(scope='module')
def people(body: BodyModel, draw: Sampler, cameras: torch.Tensor) -> People:
    angles = PoseSampler()(2 * P, draw)
    poses = ArmPose(
        draw.normal(0.7, 2 * P, 10),
        torch.ones(2 * P),
        angles,
        torch.zeros(2 * P),
        torch.zeros(2 * P),
    )
    framing = torch.tensor([FRONT, ACROSS, OWN_EYES]).repeat(P // 3)
    reacher = Reacher(ArmModel(), body)
    return reacher(SynthConfig(), torch.arange(P), framing, poses, cameras, draw)


def test_shoulders_of_arms_are_the_body_s(people: People) -> None:
    arm = people.arm_placement(people.arms.shoulder_m[:, None])[:, 0]
    bodies = people.bodies
    right = people.view(bodies.joint(UPPER_ARM, CHEST)[:, None])[:, 0]
    left = people.view(bodies.joint(UPPER_ARM + LEFT, CHEST)[:, None])[:, 0]
    assert (arm - torch.cat([right, left])).norm(dim=1).max() < 4e-3


def test_right_arms_turn_and_left_arms_mirror(people: People) -> None:
    handedness = torch.linalg.det(people.arm_placement.linear)
    assert torch.allclose(handedness[:P], torch.ones(P), atol=1e-4)
    assert torch.allclose(handedness[P:], -torch.ones(P), atol=1e-4)


def test_hands_stay_out_of_trunks_and_heads(people: People) -> None:
    centres, radii = body_spheres(people.bodies, people.posture.scale)
    centres = people.view(centres).repeat(2, 1, 1)
    hands = people.arm_placement(people.arms.joints_m)
    depth = radii.repeat(2, 1)[:, None] - torch.cdist(hands, centres)
    assert (depth.amax((1, 2)) < 0.02).float().mean() > 0.9


def test_most_people_show_a_hand(people: People, cameras: torch.Tensor) -> None:
    hands = people.arm_placement(people.arms.joints_m)
    pixels = project(hands, cameras.repeat(2, 1, 1))
    inside = ((pixels > 0) & (pixels < torch.tensor([640, 480]))).all(-1) & (hands[..., 2] > 0)
    shown = inside.float().mean(1) > 0.8
    assert (shown[:P] | shown[P:]).float().mean() > 0.75


def test_sleeves_follow_the_arms(body: BodyModel, people: People) -> None:
    dresser = Dresser(body)
    skin = people.view(body.skin(people.bodies))
    arm = people.arm_placement(people.arms.vertices_m)[:P]  # right arms
    forearm = (dresser.along_sleeve > 0.15) & (dresser.along_sleeve < 0.85)
    forearm &= body.v_template[:, 0] < 0
    gap = torch.cdist(skin[:, forearm], arm).amin(2)
    assert gap.mean() < 0.02


def test_outfits_show_what_was_chosen(body: BodyModel, people: People, draw: Sampler) -> None:
    headless = people.framing == OWN_EYES
    outfits = Outfits.sample(P, headless, draw)
    mesh = Dresser(body)(
        people.bodies, outfits, skin_tones(P, draw), people.view, people.image, draw
    )
    assert mesh.vertices_m.isfinite().all()
    assert (mesh.albedo > 0).all() and (mesh.albedo < 1).all()
    faces = torch.bincount(mesh.face_image, minlength=P)
    assert faces[headless].max() < faces[~headless].min()
