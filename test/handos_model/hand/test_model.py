"""The embedded hand and its posing: what the template promises, in numpy and in torch."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import handos_model
from handos_model.hand.coarse_vertices import select_vertices
from handos_model.hand.model import PARENTS, HandModel, rigid_transforms
from handos_model.hand.pose_limits import (
    ABDUCTION,
    FLEXION,
    LIMITS_DEG,
    random_angles_deg,
    random_pose,
    rotations_from_angles,
)
from handos_model.types import JOINT_NAMES

ASSET = Path(handos_model.__file__).parent / 'assets' / 'hand_template.npz'
FINGERS = (1, 4, 7, 10)  # first joints of index, middle, little, ring


@pytest.fixture(scope='module')
def hand() -> HandModel:
    return HandModel.embedded()


def random_hands(hand: HandModel, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return random_pose(rng, count, hand.rotation_axes), rng.standard_normal((count, 10))


def edges(hand: HandModel) -> Counter:
    return Counter(
        tuple(sorted((int(face[k]), int(face[k - 1])))) for face in hand.faces for k in range(3)
    )


def wrist_loop(hand: HandModel) -> list[int]:
    """Boundary vertices in order around the loop."""
    after = {}
    for face in hand.faces.tolist():
        for k in range(3):
            after[face[k - 1], face[k]] = True
    following = {b: a for a, b in after if (b, a) not in after}
    loop = [min(following)]
    while (vertex := following[loop[-1]]) != loop[0]:
        loop.append(vertex)
    assert len(loop) == len(following), 'more than one loop'
    return loop


def signed_volume_m3(hand: HandModel, vertices_m: np.ndarray) -> np.ndarray:
    """Volume inside the shell, its wrist closed by a fan about the loop's centre."""
    loop = wrist_loop(hand)
    centred = vertices_m - vertices_m[..., loop, :].mean(-2, keepdims=True)
    a, b, c = (centred[..., hand.faces[:, k], :] for k in range(3))
    return (a * np.cross(b, c)).sum((-1, -2)) / 6  # the fan contains the origin: no volume


def flexed(hand: HandModel, joint: int, angle_deg: float, axis: int = FLEXION) -> np.ndarray:
    angles_rad = np.zeros((16, 3))
    angles_rad[joint, axis] = np.radians(angle_deg)
    return rotations_from_angles(angles_rad, hand.rotation_axes)


def test_counts_and_topology(hand: HandModel) -> None:
    uses = edges(hand)
    assert hand.v_template.shape == (778, 3) and hand.faces.shape == (1538, 3)
    assert set(uses.values()) == {1, 2}  # manifold with boundary
    assert 778 - len(uses) + 1538 == 1  # one component: a disk
    assert np.unique(hand.faces).size == 778
    assert len(wrist_loop(hand)) == 16
    directed = Counter((f[k - 1], f[k]) for f in hand.faces.tolist() for k in range(3))
    assert max(directed.values()) == 1  # consistently oriented


def test_asset_is_small_and_holds_no_pickle() -> None:
    assert ASSET.stat().st_size < 1e6
    with np.load(ASSET, allow_pickle=False) as arrays:
        assert all(arrays[name].dtype.kind in 'iu' for name in arrays.files)


def test_weights_and_regressors_are_convex(hand: HandModel) -> None:
    for rows in (hand.skinning_weights, hand.joint_regressor, hand.joint_regressor_21):
        assert rows.min() >= 0
        np.testing.assert_allclose(rows.sum(1), 1, atol=1e-12)
    assert (hand.skinning_weights > 0).any(0).all()


def test_size_and_frame_of_an_average_adult(hand: HandModel) -> None:
    joints_m = hand.joint_regressor_21 @ hand.v_template
    by_name = dict(zip(JOINT_NAMES, joints_m, strict=True))
    np.testing.assert_allclose(by_name['wrist'], 0, atol=1e-6)
    assert 0.18 < np.linalg.norm(by_name['middle_tip']) < 0.20
    assert by_name['middle_mcp'][0] > 0.07  # +x to the fingers
    assert by_name['index_mcp'][1] > by_name['little_mcp'][1]  # +y to the thumb's side
    back = np.cross(by_name['middle_mcp'], by_name['index_mcp'] - by_name['little_mcp'])
    assert back[2] / np.linalg.norm(back) > 0.99  # +z out of the back: a right hand


def test_size_is_its_own_shape(hand: HandModel) -> None:
    sizes = np.random.default_rng(0).standard_normal((300, 10))
    joints_m = hand.joint_regressor_21 @ (
        hand.v_template + np.einsum('vcs,ns->nvc', hand.shapedirs, sizes)
    )
    lengths = np.linalg.norm(joints_m[:, 12] - joints_m[:, 0], axis=-1)
    assert 0.012 < lengths.std() < 0.018
    assert abs(np.corrcoef(lengths, sizes[:, 0])[0, 1]) > 0.98  # nothing else makes a hand long


def test_rest_pose_is_the_template(hand: HandModel) -> None:
    vertices_m, joints_m = hand.pose(np.tile(np.eye(3), (16, 1, 1)))
    np.testing.assert_allclose(vertices_m, hand.v_template, atol=1e-12)
    np.testing.assert_allclose(joints_m, hand.joint_regressor_21 @ vertices_m, atol=1e-12)


def test_root_rotation_is_rigid_about_the_wrist(hand: HandModel) -> None:
    rotations, betas = random_hands(hand, 4, seed=1)
    turned_m, _ = hand.pose(rotations, betas)
    straight = rotations.copy()
    straight[:, 0] = np.eye(3)
    vertices_m, _ = hand.pose(straight, betas)
    np.testing.assert_allclose(turned_m, vertices_m @ rotations[:, 0].swapaxes(1, 2), atol=1e-5)


@pytest.mark.parametrize('first', FINGERS)
def test_positive_flexion_closes_and_positive_abduction_moves_to_the_thumb(
    hand: HandModel, first: int
) -> None:
    tip = {1: 8, 4: 12, 7: 20, 10: 16}[first]
    _, rest_m = hand.pose(np.tile(np.eye(3), (16, 1, 1)))
    _, closed_m = hand.pose(flexed(hand, first, 60))
    _, spread_m = hand.pose(flexed(hand, first, 15, ABDUCTION))
    assert closed_m[tip, 2] < rest_m[tip, 2] - 0.02
    assert spread_m[tip, 1] > rest_m[tip, 1] + 0.01


@pytest.mark.parametrize('first', FINGERS)
def test_a_finger_keeps_its_radius_at_ninety_degrees(hand: HandModel, first: int) -> None:
    pip = first + 1
    crease = np.abs(hand.skinning_weights[:, pip] - 0.5) < 0.25
    pivots_m = hand.joint_regressor @ hand.v_template
    rotations = flexed(hand, pip, 90)
    turns, offsets_m = rigid_transforms(rotations, pivots_m)
    pivot_m = turns[pip] @ pivots_m[pip] + offsets_m[pip]

    def radius_ratio(model: HandModel) -> float:
        bent = np.linalg.norm(model.pose(rotations)[0][crease] - pivot_m, axis=1)
        straight = np.linalg.norm(model.v_template[crease] - pivots_m[pip], axis=1)
        return float((bent / straight).mean())

    assert crease.sum() > 20
    assert radius_ratio(hand) >= 0.97
    assert radius_ratio(replace(hand, posedirs=np.zeros_like(hand.posedirs))) < 0.95


def test_regressed_joints_follow_the_pivots_in_bent_hands(hand: HandModel) -> None:
    rotations, betas = random_hands(hand, 200, seed=2)
    vertices_m, _ = hand.pose(rotations, betas)
    shaped = hand.v_template + np.einsum('vcs,ns->nvc', hand.shapedirs, betas)
    pivots_m = hand.joint_regressor @ shaped
    turns, offsets_m = rigid_transforms(rotations, pivots_m)
    true_m = (turns @ pivots_m[..., None])[..., 0] + offsets_m
    error_mm = 1000 * np.linalg.norm(hand.joint_regressor @ vertices_m - true_m, axis=-1)
    assert error_mm.mean() < 1.0 and error_mm.max() < 6.0


def test_no_pose_within_limits_turns_the_shell_inside_out(hand: HandModel) -> None:
    rotations, betas = random_hands(hand, 1000, seed=3)
    mirror = np.diag([-1.0, 1.0, 1.0])
    right_m, _ = hand.pose(rotations, betas)
    left_m, _ = hand.mirrored().pose(mirror @ rotations @ mirror, betas)
    rest = signed_volume_m3(hand, hand.v_template)
    assert np.isfinite(right_m).all()
    assert 2e-4 < rest < 5e-4
    assert signed_volume_m3(hand, right_m).min() > 0.2 * rest
    assert signed_volume_m3(hand, left_m).max() < -0.2 * rest


def test_mirrored_hand_is_the_mirror_image(hand: HandModel) -> None:
    rotations, betas = random_hands(hand, 20, seed=4)
    mirror = np.diag([-1.0, 1.0, 1.0])
    left = hand.mirrored()
    left_m, left_joints_m = left.pose(mirror @ rotations @ mirror, betas)
    right_m, right_joints_m = hand.pose(rotations, betas)
    np.testing.assert_allclose(left_m, right_m @ mirror, atol=1e-12)
    np.testing.assert_allclose(left_joints_m, right_joints_m @ mirror, atol=1e-12)
    np.testing.assert_array_equal(left.mirrored().posedirs, hand.posedirs)
    angles_rad = np.radians(random_angles_deg(np.random.default_rng(5), 10))
    np.testing.assert_allclose(
        rotations_from_angles(angles_rad, left.rotation_axes),
        mirror @ rotations_from_angles(angles_rad, hand.rotation_axes) @ mirror,
        atol=1e-9,
    )


def test_limits_hold_for_random_poses(hand: HandModel) -> None:
    angles_deg = random_angles_deg(np.random.default_rng(6), 2000)
    assert (angles_deg >= LIMITS_DEG[..., 0]).all() and (angles_deg <= LIMITS_DEG[..., 1]).all()
    assert np.ptp(angles_deg[:, 2, FLEXION]) > 100  # and the index PIP uses its range
    rotations = random_pose(np.random.default_rng(6), 50, hand.rotation_axes)
    identity = rotations @ rotations.swapaxes(-1, -2)
    np.testing.assert_allclose(identity, np.broadcast_to(np.eye(3), identity.shape), atol=1e-6)
    np.testing.assert_allclose(np.linalg.det(rotations), 1, atol=1e-6)


def test_axes_are_orthonormal(hand: HandModel) -> None:
    gram = hand.rotation_axes @ hand.rotation_axes.swapaxes(1, 2)
    np.testing.assert_allclose(gram, np.broadcast_to(np.eye(3), gram.shape), atol=1e-8)


def test_lifting_matrix(hand: HandModel) -> None:
    lifting = hand.lifting_matrix()
    assert lifting.shape == (779, 21) and lifting.min() >= 0
    np.testing.assert_allclose(lifting.sum(1), 1, atol=1e-12)
    np.testing.assert_allclose(lifting[-1], 1 / 21)
    np.testing.assert_array_equal(lifting[hand.tip_vertices].argmax(1), [4, 8, 12, 16, 20])


@pytest.mark.parametrize(('count', 'mean_mm', 'p99_mm'), [(195, 0.25, 1.0), (98, 0.4, 1.5)])
def test_coarse_vertices_restore_the_mesh(
    hand: HandModel, count: int, mean_mm: float, p99_mm: float
) -> None:
    indices, upsampling = select_vertices(hand, count)
    again, _ = select_vertices(replace(hand), count)
    np.testing.assert_array_equal(indices, again)
    assert len(np.unique(indices)) == count and set(hand.tip_vertices) <= set(indices)
    np.testing.assert_allclose(upsampling.sum(1), 1, atol=1e-9)
    vertices_m, _ = hand.pose(*random_hands(hand, 500, seed=7))
    restored_m = upsampling @ vertices_m[:, indices]
    np.testing.assert_allclose(restored_m[:, indices], vertices_m[:, indices], atol=1e-12)
    error_mm = 1000 * np.linalg.norm(restored_m - vertices_m, axis=-1)
    assert error_mm.mean() < mean_mm and np.percentile(error_mm, 99) < p99_mm
    assert np.linalg.norm(upsampling, axis=1).max() < 1.5  # noise is not amplified


def test_template_hash_names_the_template(hand: HandModel) -> None:
    moved = hand.v_template.copy()
    moved[0, 0] += 1e-4
    assert hand.template_hash == HandModel.embedded().template_hash
    assert len(int(hand.template_hash, 16).to_bytes(32, 'big')) == 32
    assert replace(hand, v_template=moved).template_hash != hand.template_hash
    assert hand.mirrored().template_hash != hand.template_hash


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('v_template', np.zeros((777, 3))),
        ('posedirs', np.full((778, 3, 135), np.nan)),
        ('faces', np.full((1538, 3), 778)),
        ('skinning_weights', np.ones((778, 16))),
    ],
)
def test_arrays_that_are_no_hand_are_refused(
    hand: HandModel, name: str, value: np.ndarray
) -> None:
    with pytest.raises(ValueError, match=name):
        replace(hand, **{name: value})


def test_rigid_transforms_take_parents_in_any_order() -> None:
    rng = np.random.default_rng(8)
    joints_m = rng.standard_normal((16, 3))
    rotations = random_pose(rng, 1, np.tile(np.eye(3), (16, 1, 1)))[0]
    turns, offsets_m = rigid_transforms(rotations, joints_m)
    backwards = [15 - parent if parent >= 0 else -1 for parent in PARENTS[::-1]]
    turns_back, offsets_back_m = rigid_transforms(rotations[::-1], joints_m[::-1], backwards)
    np.testing.assert_allclose(turns_back[::-1], turns, atol=1e-12)
    np.testing.assert_allclose(offsets_back_m[::-1], offsets_m, atol=1e-12)
