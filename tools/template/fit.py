"""Shape space, joint regressor and pose blend shapes, fitted to many arms and poses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from handos_model.hand.model import rigid_transforms
from handos_model.hand.pose_limits import INDEX, LITTLE, MIDDLE, RING, THUMB, WRIST
from handos_model.types import FloatArray
from tools.template.rig import IntArray, dual_quaternion_skinning, hand_frame

HAND_LENGTH_M = 0.190  # wrist joint to middle finger tip, adults
HAND_LENGTH_STD_M = 0.015
PALM = [WRIST, THUMB, INDEX, MIDDLE, RING, LITTLE]


@dataclass(frozen=True, eq=False)
class ShapeSpace:
    """Mean and directions (unit standard deviation) of vertices and joints in the hand's frame."""

    vertices_m: FloatArray  # [N,3]
    vertex_dirs_m: FloatArray  # [N,3,10]
    joints_m: FloatArray  # [J,3]
    joint_dirs_m: FloatArray  # [J,3,10]


def kabsch(points: FloatArray, reference: FloatArray) -> FloatArray:
    """Rotations R [S,3,3] with R points ~ reference, for `points [S,P,3]` about the origin."""
    u, _, vt = np.linalg.svd(np.einsum('spi,pj->sij', points, reference))
    vt[:, 2] *= np.sign(np.linalg.det(u @ vt))[:, None]
    rotations: FloatArray = np.swapaxes(u @ vt, 1, 2)
    return rotations


def normalise(
    vertices_m: FloatArray, joints_m: FloatArray, middle_tip: int
) -> tuple[FloatArray, FloatArray]:
    """Every arm with its wrist at the origin, palms aligned, and one hand length."""
    origin = joints_m[:, WRIST, None]
    length = np.linalg.norm(vertices_m[:, middle_tip] - origin[:, 0], axis=1)
    scale = (HAND_LENGTH_M / length)[:, None, None]
    vertices_m, joints_m = (vertices_m - origin) * scale, (joints_m - origin) * scale
    reference = joints_m[0, PALM] @ hand_frame(joints_m[0]).T
    for _ in range(5):
        turned = joints_m[:, PALM] @ np.swapaxes(kabsch(joints_m[:, PALM], reference), 1, 2)
        mean = turned.mean(0)
        centred = np.zeros((16, 3))
        centred[PALM] = mean
        reference = mean @ hand_frame(centred).T
    turn = np.swapaxes(kabsch(joints_m[:, PALM], reference), 1, 2)
    return vertices_m @ turn, joints_m @ turn


def fit_shape_space(vertices_m: FloatArray, joints_m: FloatArray, is_hand: IntArray) -> ShapeSpace:
    """Ten directions from normalised arms: the first is size alone, then 9 principal components.

    The components are of the hand; the forearm and the joints follow by least squares.
    """
    S = len(vertices_m)
    hand = vertices_m[:, is_hand].reshape(S, -1)
    u, _, _ = np.linalg.svd(hand - hand.mean(0), full_matrices=False)
    scores = u[:, :9] * np.sqrt(S)
    scores *= np.sign(scores[np.abs(scores).argmax(0), range(9)])
    design = np.concatenate([np.ones((S, 1)), scores], 1)

    def follow(values: FloatArray) -> tuple[FloatArray, FloatArray]:
        solution = np.linalg.lstsq(design, values.reshape(S, -1), rcond=None)[0]
        solution = solution.reshape(10, *values.shape[1:])
        size = solution[0] * HAND_LENGTH_STD_M / HAND_LENGTH_M
        return solution[0], np.stack([size, *solution[1:]], -1)

    return ShapeSpace(*follow(vertices_m), *follow(joints_m))


def fit_joint_regressor(
    vertices_m: FloatArray, joints_m: FloatArray, candidates: int = 120
) -> FloatArray:
    """Sparse convex weights [J,N] of near vertices that give the joints of `S` meshes."""
    J, N = joints_m.shape[1], vertices_m.shape[1]
    regressor = np.zeros((J, N))
    for joint in range(J):
        distance = np.linalg.norm(vertices_m.mean(0) - joints_m[:, joint].mean(0), axis=1)
        near = np.sort(np.argsort(distance)[:candidates])
        columns = vertices_m[:, near].transpose(0, 2, 1).reshape(-1, len(near))
        columns = np.concatenate([columns, np.ones((1, len(near)))])
        weights, _ = nnls(columns, np.append(joints_m[:, joint].reshape(-1), 1.0))
        regressor[joint, near] = weights / weights.sum()
    return regressor


def acting_joints(weights: FloatArray, parents: Sequence[int]) -> IntArray:
    """[N,J] bool: the joints whose rotation bends the skin at a vertex.

    Those on the paths between the bones that move it, not the bone from which the paths start.
    """

    def path(joint: int) -> list[int]:
        return [joint, *(path(parents[joint]) if parents[joint] >= 0 else [])]

    acting = np.zeros(weights.shape, dtype=bool)
    for vertex, row in enumerate(weights):
        paths = [path(int(joint)) for joint in np.flatnonzero(row)]
        shared = set.intersection(*(set(joints) for joints in paths))
        acting[vertex, sorted(set().union(*paths) - shared)] = True
    return acting


def fit_pose_blend_shapes(
    vertices_m: FloatArray,
    weights: FloatArray,
    joints_m: FloatArray,
    parents: Sequence[int],
    sample_rotations: Callable[[int], FloatArray],
    batches: int = 12,
    batch: int = 150,
    ridge: float = 0.05,
) -> FloatArray:
    """Directions [N,3,9J] on (R - I) that make linear blend skinning follow dual quaternions.

    `sample_rotations(count) -> [count,J,3,3]`. A vertex listens to the joints near it only.
    """
    N, J = weights.shape
    gram, moment = np.zeros((9 * J, 9 * J)), np.zeros((9 * J, N, 3))
    order = sorted(range(J), key=lambda joint: _depth(joint, parents))
    rank = {joint: place for place, joint in enumerate(order)}
    sorted_parents = [rank.get(parents[joint], -1) for joint in order]
    for _ in range(batches):
        rotations = sample_rotations(batch)
        turns, offsets_m = rigid_transforms(rotations, joints_m, parents)
        wanted_m = dual_quaternion_skinning(
            vertices_m, weights[:, order], turns[:, order], offsets_m[:, order], sorted_parents
        )
        blended = np.einsum('vj,bjxy->bvxy', weights, turns)
        unposed = np.linalg.solve(blended, (wanted_m - weights @ offsets_m)[..., None])[..., 0]
        bend = (rotations - np.eye(3)).reshape(batch, -1)
        gram += bend.T @ bend
        moment += np.einsum('bi,bvc->ivc', bend, unposed - vertices_m, optimize=True)
    directions = np.zeros((N, 3, 9 * J))
    acting = acting_joints(weights, parents)
    for pattern in np.unique(acting, axis=0):
        vertices = np.flatnonzero((acting == pattern).all(1))
        columns = np.flatnonzero(np.repeat(pattern, 9))
        if len(columns):
            system = gram[np.ix_(columns, columns)] + ridge * np.eye(len(columns))
            right = moment[np.ix_(columns, vertices)].reshape(len(columns), -1)
            solution = np.linalg.solve(system, right).reshape(len(columns), len(vertices), 3)
            directions[np.ix_(vertices, np.arange(3), columns)] = solution.transpose(1, 2, 0)
    return directions


def _depth(joint: int, parents: Sequence[int]) -> int:
    return 0 if parents[joint] < 0 else 1 + _depth(parents[joint], parents)
