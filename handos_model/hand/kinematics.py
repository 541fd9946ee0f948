"""From a mesh to joint rotations: MANO theta and OpenXR hand joints.

A network that gives vertices gives no pose. It is recovered here from the mesh itself: each bone
first takes the rotation that best carries its rigid part of the template onto the mesh (Kabsch);
Gauss-Newton steps on the posed model then take out what blending and pose blend shapes bias.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from handos_model.geometry.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from handos_model.hand.model import MIRROR, MPII_FROM_MANO, PARENTS, HandModel, rigid_transforms
from handos_model.types import FloatArray

TIPS = (4, 8, 12, 16, 20)
ROUNDS = 3
ROTATION_DAMPING_M2 = 1e-6
SHAPE_PRIOR_M2 = 1e-8  # keeps the betas of a noisy mesh near the mean shape

# XR_EXT_hand_tracking's 26 joints, in its order.
OPENXR_JOINTS: tuple[str, ...] = (
    'palm',
    'wrist',
    *('thumb_metacarpal', 'thumb_proximal', 'thumb_distal', 'thumb_tip'),
    *(
        f'{finger}_{part}'
        for finger in ('index', 'middle', 'ring', 'little')
        for part in ('metacarpal', 'proximal', 'intermediate', 'distal', 'tip')
    ),
)
# A metacarpal starts at the carpus, which is no joint of ours: this part of the way from the
# wrist to the knuckle.
CARPUS = 0.22


@dataclass(frozen=True, eq=False)
class Pose:
    """A hand's pose in the terms of MANO with `flat_hand_mean=True` (zero = the template at rest).

    A left hand's values are those of the mirrored model (`HandModel.mirrored`, MANO_LEFT).
    """

    theta: FloatArray  # [16,3] axis-angle in MANO's joint order; the first is the whole hand's
    betas: FloatArray  # [10], standard deviations
    bone_rotations: FloatArray  # [16,3,3] from the rest frame to the camera's frame


class PoseFitter:
    """Recovers `Pose` from meshes of one template."""

    def __init__(self, hand_model: HandModel) -> None:
        self.hand_model = hand_model
        # Where a vertex follows two bones, it says little about either.
        weights = hand_model.skinning_weights**4
        self._rigid = (weights / weights.sum(0)).T  # [16,778]
        # What share of a vertex moves when a bone turns: the bone's own, and its descendants'.
        self._subtree = np.eye(16)
        for joint in range(15, 0, -1):
            self._subtree[PARENTS[joint]] += self._subtree[joint]

    def __call__(self, vertices_m: FloatArray, is_left: bool) -> Pose:
        """Pose of a mesh [778,3] in any frame; the position does not matter."""
        target = np.asarray(vertices_m, dtype=np.float64) * (MIRROR if is_left else 1.0)
        target = target - target.mean(0)
        local = _local(self._rigid_turns(target))
        betas: FloatArray = np.zeros(10)
        for _ in range(ROUNDS):
            local, betas = self._refine(local, betas, target)
        theta = matrix_to_axis_angle(local)
        world, _ = rigid_transforms(local, np.zeros((16, 3)))
        if is_left:  # M R M, M = diag(-1, 1, 1)
            theta = theta * -MIRROR
            world = world * np.outer(MIRROR, MIRROR)
        return Pose(theta, betas, world)

    def _rigid_turns(self, target: FloatArray) -> FloatArray:
        """World rotation of each bone's rigid part of the template [16,3,3] (Kabsch 1976)."""
        w, source = self._rigid, self.hand_model.v_template
        # Centred for each bone: sum w (a - mean a)(b - mean b)^T.
        products = np.einsum('jv,va,vb->jab', w, target, source, optimize=True)
        products -= (w @ target)[:, :, None] * (w @ source)[:, None, :]
        u, _, vt = np.linalg.svd(products)
        u[:, :, 2] *= np.linalg.det(u @ vt)[:, None]
        turns: FloatArray = u @ vt
        return turns

    def _refine(
        self, local: FloatArray, betas: FloatArray, target: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """One Gauss-Newton step on all rotations and betas for a centred mesh [778,3].

        The Jacobian leaves out what pose blend shapes add; the residual does not, so the fixed
        point is exact.
        """
        model = self.hand_model
        posed, pivots = self._pose_shapes(local, np.concatenate([betas[None], betas + np.eye(10)]))
        # Turning bone j by d moves vertex v by d x (share (v - pivot of j)).
        share = self._subtree @ model.skinning_weights.T  # [16,778]
        arms = share[..., None] * (posed[0] - pivots[:, None])  # [16,778,3]
        columns = [np.cross(axis, arms) for axis in np.eye(3)]  # 3 x [16,778,3]
        jacobian = np.concatenate([np.stack(columns, 1).reshape(48, -1, 3), posed[1:] - posed[0]])
        jacobian -= jacobian.mean(1, keepdims=True)  # the translation is free
        jacobian = jacobian.reshape(58, -1)
        residual = (target - (posed[0] - posed[0].mean(0))).reshape(-1)
        normal = jacobian @ jacobian.T
        normal[np.diag_indices(48)] += ROTATION_DAMPING_M2
        normal[range(48, 58), range(48, 58)] += SHAPE_PRIOR_M2
        gradient = jacobian @ residual
        gradient[48:] -= SHAPE_PRIOR_M2 * betas
        step = np.linalg.solve(normal, gradient)
        world, _ = rigid_transforms(local, np.zeros((16, 3)))
        parents = world[[max(parent, 0) for parent in PARENTS]]
        parents[0] = np.eye(3)
        turns = axis_angle_to_matrix(step[:48].reshape(16, 3))
        return np.swapaxes(parents, -1, -2) @ turns @ parents @ local, betas + step[48:]

    def _pose_shapes(self, local: FloatArray, betas: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Vertices [S,778,3] of S shapes [S,10] in one pose, and the joints [16,3] of the first.

        `HandModel.pose` for many shapes, blending the rotations once.
        """
        model = self.hand_model
        v_shaped = model.v_template + np.tensordot(betas, model.shapedirs, axes=(1, 2))
        pivots = model.joint_regressor @ v_shaped
        bend = model.posedirs @ (local[1:] - np.eye(3)).reshape(135)
        turns, offsets = rigid_transforms(np.broadcast_to(local, (len(betas), 16, 3, 3)), pivots)
        blended = np.tensordot(model.skinning_weights, turns[0], axes=1)  # [778,3,3]
        vertices = np.einsum('vab,svb->sva', blended, v_shaped + bend)
        joints = (turns[0] @ pivots[0][..., None])[..., 0] + offsets[0]
        return vertices + model.skinning_weights @ offsets, joints


def openxr_joints(
    hand_model: HandModel, pose: Pose, joints_m: FloatArray, is_left: bool
) -> tuple[FloatArray, FloatArray]:
    """Positions [26,3] and orientations [26,3,3] (columns x, y, z) of OpenXR's hand joints.

    As XR_EXT_hand_tracking has it, for both sides: +z runs along the bone towards the wrist, +y
    out of the back of the hand or finger, x completes the right-handed frame; a tip turns with
    its last bone. `joints_m` [21,3] and the result are in the frame of the pose.
    """
    joints = np.asarray(joints_m, dtype=np.float64)
    rest_dorsal = hand_model.rotation_axes[:, 1] * (MIRROR if is_left else 1.0)
    dorsal = np.einsum('jab,jb->ja', pose.bone_rotations, rest_dorsal)  # [16,3]
    # The palm itself has no hinge: its back is the mean of the four knuckles' at rest.
    palm_dorsal = pose.bone_rotations[0] @ rest_dorsal[[1, 4, 7, 10]].mean(0)
    wrist, middle = joints[0], joints[9]

    positions = [(wrist + middle) / 2, wrist]
    forward = [middle - wrist, middle - wrist]
    up = [palm_dorsal, palm_dorsal]
    for tip in TIPS:
        chain = list(range(tip - 3, tip))
        if tip != TIPS[0]:
            positions.append(wrist + CARPUS * (joints[chain[0]] - wrist))
            forward.append(joints[chain[0]] - positions[-1])
            up.append(palm_dorsal)
        for joint in chain:
            positions.append(joints[joint])
            forward.append(joints[joint + 1] - joints[joint])
            up.append(dorsal[MPII_FROM_MANO[joint]])
        positions.append(joints[tip])
        forward.append(forward[-1])
        up.append(up[-1])
    z = -_unit(np.array(forward))
    y = np.array(up)
    y = _unit(y - (y * z).sum(-1, keepdims=True) * z)
    return np.array(positions), np.stack([np.cross(y, z), y, z], axis=-1)


def _local(world: FloatArray) -> FloatArray:
    """Rotations against the parent bone [16,3,3]."""
    parents = world[[max(parent, 0) for parent in PARENTS]]
    local: FloatArray = np.swapaxes(parents, -1, -2) @ world
    local[0] = world[0]
    return local


def _unit(vectors: FloatArray) -> FloatArray:
    unit: FloatArray = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    return unit
