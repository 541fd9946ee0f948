"""A few vertices that stand for the whole mesh, and the fixed matrix that restores it.

The reduced networks predict `count` vertices instead of 778; every other vertex is an affine
combination of its twelve nearest ones, as in locally linear embedding (Roweis & Saul 2000).
Distances and combinations are those over many random poses and shapes, not of the rest pose: two
fingers that lie side by side are far apart. A combination of vertices moves with the hand,
whatever its rotation and position. Four fifths of the few are chosen by farthest-point sampling,
the others one by one where the restored mesh is worst.

Mean distance to the true vertex over 500 other poses and shapes (99th percentile): 0.19 mm
(0.75 mm) from 195 vertices, 0.32 mm (1.12 mm) from 98. Independent errors of the few vertices are
hardly amplified: a row's norm is 0.71 on average and at most 1.0 from 195, 0.76 and 1.2 from 98.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from handos_model.hand.model import HandModel
from handos_model.hand.pose_limits import random_pose
from handos_model.types import NUM_VERTICES, FloatArray

POSES = 80
NEIGHBOURS = 12
NOISE_M = 1e-3  # expected error of a predicted vertex; keeps weights small
FARTHEST_SHARE = 0.8


def restoring_weights(
    gram: FloatArray, distances: FloatArray, indices: npt.NDArray[np.int64]
) -> tuple[FloatArray, FloatArray]:
    """`upsampling [778,count]` from the vertices `indices`, and each vertex's squared error [778].

    `gram [778,778]` and `distances` (squared) are of the vertices' paths through the poses.
    """
    columns = np.argsort(distances[:, indices], axis=1, kind='stable')[:, :NEIGHBOURS]
    near, own = indices[columns], np.arange(NUM_VERTICES)[:, None]
    towards = gram[own, near]
    offsets_gram = gram[near[:, :, None], near[:, None]] - towards[:, :, None] - towards[:, None]
    offsets_gram += gram.diagonal()[:, None, None] + POSES * NOISE_M**2 * np.eye(NEIGHBOURS)
    weights = np.linalg.solve(offsets_gram, np.ones((NUM_VERTICES, NEIGHBOURS, 1)))[..., 0]
    weights /= weights.sum(1, keepdims=True)
    errors = np.einsum('vi,vij,vj->v', weights, offsets_gram, weights)
    errors[indices] = 0
    upsampling = np.zeros((NUM_VERTICES, len(indices)))
    np.put_along_axis(upsampling, columns, weights, axis=1)
    upsampling[indices] = np.eye(len(indices))
    return upsampling, errors


@lru_cache(maxsize=8)
def select_vertices(hand_model: HandModel, count: int) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """`indices [count]`, ascending, with the five tips, and `upsampling [778,count]`, read-only.

    Rows of `upsampling` sum to 1; `upsampling @ vertices[indices]` restores `vertices`, and
    those at `indices` exactly. The same template gives the same answer.
    """
    if not NEIGHBOURS <= count <= NUM_VERTICES:
        raise ValueError(f'count must be in [{NEIGHBOURS}, {NUM_VERTICES}], got {count}')
    rng = np.random.default_rng(0)
    rotations = random_pose(rng, POSES, hand_model.rotation_axes)
    vertices_m, _ = hand_model.pose(rotations, rng.standard_normal((POSES, 10)))
    paths = vertices_m.transpose(1, 0, 2).reshape(NUM_VERTICES, -1)
    gram = paths @ paths.T
    distances = gram.diagonal()[:, None] + gram.diagonal() - 2 * gram

    chosen = [int(tip) for tip in hand_model.tip_vertices]
    nearest = distances[chosen].min(0)
    while len(chosen) < count * FARTHEST_SHARE:
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, distances[chosen[-1]])
    while len(chosen) < count:
        chosen.append(int(restoring_weights(gram, distances, np.array(chosen))[1].argmax()))
    indices = np.sort(np.array(chosen, dtype=np.int64))
    upsampling, _ = restoring_weights(gram, distances, indices)
    indices.setflags(write=False)
    upsampling.setflags(write=False)
    return indices, upsampling
