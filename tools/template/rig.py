"""The corrected hand rig: knuckle pivots, joint axes, bone-heat weights, dual-quaternion skinning.

Joints stand in MANO order (wrist, then index, middle, little, ring, thumb from the palm outwards),
followed by three bones of the arm. anny counts fingers from the thumb (1) to the little one (5).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import scipy.sparse
import scipy.sparse.linalg
from scipy.spatial.transform import Rotation

from handos_model.hand.pose_limits import INDEX, LITTLE, MIDDLE, THUMB, WRIST
from handos_model.types import FloatArray

IntArray: TypeAlias = npt.NDArray[Any]

ANNY_FINGERS = (2, 3, 5, 4, 1)  # of the chains in MANO order
CHAINS = (1, 4, 7, 10, 13)  # first joint of each
FOREARM_TWIST, FOREARM, UPPER_ARM = 16, 17, 18
HAND_PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14)
ARM_PARENTS = (FOREARM_TWIST, *HAND_PARENTS[1:], FOREARM, UPPER_ARM, -1)
ARM_BONE_HEADS = ('lowerarm02', 'lowerarm01', 'upperarm01')

# anny's knuckles sit at the finger webs. Fractions of the way from there to the metacarpal's head,
# so that the average hand's proximal phalanges are to its middle ones as 1.78, 1.70, 1.61 and 1.81
# (Buryanov & Kotiuk, "Proportions of hand segments", 2010), less 5 %, as bones between joint
# centres are shorter than segments. A fixed place along the bone varies less than a fixed ratio.
KNUCKLE_SHIFT = {2: 0.183, 3: 0.163, 4: 0.124, 5: 0.100}
THUMB_MCP_SHIFT = 0.17  # towards the IP joint
WRIST_SHIFT = 0.04  # towards the middle knuckle, which brings it inside the hand's wrist loop


def unit(vectors: FloatArray) -> FloatArray:
    normalised: FloatArray = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return normalised


def constructed_joints(bone_heads_m: Mapping[str, FloatArray]) -> FloatArray:
    """The rig's pivots of `S` arms, [S,19,3], from anny's bone heads (each [S,3]).

    Against anny's own, the fingers' MCPs lie deeper in the palm, the thumb's MCP farther out.
    """

    def between(start: str, end: str, fraction: float) -> FloatArray:
        return bone_heads_m[start] + fraction * (bone_heads_m[end] - bone_heads_m[start])

    joints = [between('wrist', 'finger3-1', WRIST_SHIFT)]
    for finger in ANNY_FINGERS:
        first, second, third = (bone_heads_m[f'finger{finger}-{i}'] for i in (1, 2, 3))
        if finger == 1:
            second = between('finger1-2', 'finger1-3', THUMB_MCP_SHIFT)
        else:
            shift = KNUCKLE_SHIFT[finger]
            first = between(f'finger{finger}-1', f'metacarpal{finger - 1}', shift)
        joints += [first, second, third]
    joints += [bone_heads_m[name] for name in ARM_BONE_HEADS]
    return np.stack(joints, axis=1)


def hand_frame(joints_m: FloatArray) -> FloatArray:
    """Rows: distal (wrist to middle knuckle), radial (to the thumb's side), dorsal. [...,3,3]."""
    distal = unit(joints_m[..., MIDDLE, :] - joints_m[..., WRIST, :])
    across = joints_m[..., INDEX, :] - joints_m[..., LITTLE, :]
    dorsal = unit(np.cross(distal, across))
    return np.stack([distal, np.cross(dorsal, distal), dorsal], axis=-2)


def tip_vertices(
    vertices_m: FloatArray, joints_m: FloatArray, distal_weights: Sequence[FloatArray]
) -> IntArray:
    """The vertex at each chain's end, [5] in chain order; `distal_weights` mark its last bone."""
    tips = []
    for first, weights in zip(CHAINS, distal_weights, strict=True):
        end = joints_m[first + 2]
        along = unit(end - joints_m[first + 1])
        offset = vertices_m - end
        reach = offset @ along
        aside = np.linalg.norm(offset - reach[:, None] * along, axis=1)
        tips.append(np.where(weights > 0.5, reach - 0.3 * aside, -np.inf).argmax())
    return np.array(tips)


def joint_axes(joints_m: FloatArray, tips_m: FloatArray, nail_normals: FloatArray) -> FloatArray:
    """Rows flexion, abduction, twist of the 16 joints at rest, [16,3,3].

    The back of a finger is where its nail looks, steadied by the back of the hand; the thumb's
    is its nail's alone. `tips_m` and `nail_normals` [5,3] in chain order.
    """
    distal, radial, dorsal = hand_frame(joints_m)
    axes = np.zeros((16, 3, 3))
    axes[WRIST] = np.stack([radial, dorsal, distal])
    for first, tip_m, nail in zip(CHAINS, tips_m, nail_normals, strict=True):
        back = nail if first == THUMB else unit(0.6 * nail + 0.4 * dorsal)
        points = [*joints_m[first : first + 3], tip_m]
        for i in range(3):
            twist = unit(points[i + 1] - points[i])
            flexion = unit(np.cross(back, twist))
            axes[first + i] = np.stack([flexion, np.cross(twist, flexion), twist])
    return axes


def cotangent_laplacian(
    vertices_m: FloatArray, faces: IntArray
) -> tuple[scipy.sparse.csr_matrix, FloatArray]:
    """Cotangent Laplacian [N,N], semi-definite, and vertex areas [N] (Pinkall & Polthier 1993)."""
    count = len(vertices_m)
    laplacian = scipy.sparse.csr_matrix((count, count))
    areas = np.zeros(count)
    for k in range(3):
        i, j, apex = faces[:, k], faces[:, (k + 1) % 3], faces[:, (k + 2) % 3]
        u, v = vertices_m[i] - vertices_m[apex], vertices_m[j] - vertices_m[apex]
        doubled_area = np.maximum(np.linalg.norm(np.cross(u, v), axis=1), 1e-12)
        weight = np.clip((u * v).sum(1) / doubled_area, 0.02, 10) / 2
        values = np.concatenate([weight, weight, -weight, -weight])
        rows, columns = np.concatenate([i, j, i, j]), np.concatenate([i, j, j, i])
        laplacian += scipy.sparse.csr_matrix((values, (rows, columns)), shape=(count, count))
        np.add.at(areas, i, doubled_area / 6)
    return laplacian, areas


def distances_to_segment(points: FloatArray, start: FloatArray, end: FloatArray) -> FloatArray:
    along = end - start
    t = np.clip((points - start) @ along / (along @ along), 0, 1)
    distances: FloatArray = np.linalg.norm(points - start - t[:, None] * along, axis=1)
    return distances


def bone_heat_weights(
    vertices_m: FloatArray, faces: IntArray, joints_m: FloatArray, tips_m: FloatArray
) -> FloatArray:
    """Skinning weights [N,19] by heat diffusion from the nearest bone (Baran & Popović 2007)."""
    segments = [(FOREARM, joints_m[FOREARM], joints_m[WRIST])]
    segments += [(UPPER_ARM, joints_m[UPPER_ARM], joints_m[FOREARM])]
    for first, tip_m in zip(CHAINS, tips_m, strict=True):
        points = [joints_m[WRIST], *joints_m[first : first + 3], tip_m]
        owners = [WRIST, first, first + 1, first + 2]
        segments += list(zip(owners, points[:-1], points[1:], strict=True))
    distances = np.stack([distances_to_segment(vertices_m, a, b) for _, a, b in segments], 1)
    distances = np.maximum(distances, 0.002)
    nearest = distances.min(1)
    is_nearest = distances <= nearest[:, None] * 1.0001
    sources = np.zeros((len(vertices_m), 19))
    for column, (owner, _, _) in enumerate(segments):
        sources[:, owner] += is_nearest[:, column]
    sources /= sources.sum(1, keepdims=True)
    laplacian, areas = cotangent_laplacian(vertices_m, faces)
    heat = areas / nearest**2
    solve = scipy.sparse.linalg.splu((laplacian + scipy.sparse.diags(heat)).tocsc()).solve
    weights = np.clip(solve(heat[:, None] * sources), 0, 1)
    weights[weights < 0.004] = 0
    normalised: FloatArray = weights / weights.sum(1, keepdims=True)
    return normalised


def with_forearm(
    weights: FloatArray, vertices_m: FloatArray, joints_m: FloatArray, is_hand: IntArray
) -> FloatArray:
    """Weights [N,19] in which nothing inside the wrist loop moves with the forearm.

    So the hand is the same with and without its arm. Behind the loop the wrist's share fades over
    20 mm, and the forearm's twist over its length.
    """
    elbow, wrist = joints_m[FOREARM], joints_m[WRIST]
    length = np.linalg.norm(elbow - wrist)
    behind = (vertices_m - wrist) @ (elbow - wrist) / length
    t = np.clip(behind / 0.02, 0, 1)
    hand_share = np.where(is_hand, 1.0, 1 - t * t * (3 - 2 * t))
    upper_share = np.where(is_hand, 0.0, weights[:, UPPER_ARM])
    upper_share *= 1 - hand_share
    fore_share = 1 - hand_share - upper_share
    twist_share = fore_share * np.clip(1 - behind / length, 0, 1)
    mixed = np.zeros_like(weights)
    hand_weights = np.where(is_hand[:, None], weights[:, :16], np.eye(16)[WRIST])
    hand_weights[:, WRIST] += 1 - hand_weights.sum(1)
    mixed[:, :16] = hand_share[:, None] * hand_weights
    mixed[:, FOREARM_TWIST], mixed[:, FOREARM] = twist_share, fore_share - twist_share
    mixed[:, UPPER_ARM] = upper_share
    return mixed


def dual_quaternion_skinning(
    vertices_m: FloatArray,
    weights: FloatArray,
    rotations: FloatArray,
    offsets_m: FloatArray,
    parents: Sequence[int],
) -> FloatArray:
    """Posed vertices [B,N,3] from joint transforms [B,J,3,3], [B,J,3] (Kavan et al. 2007).

    A joint's quaternion takes the sign nearest to its parent's (parents come first), so that the
    blend runs the short way along the chain.
    """
    B, J = rotations.shape[:2]
    xyzw = Rotation.from_matrix(rotations.reshape(-1, 3, 3)).as_quat().reshape(B, J, 4)
    q = np.roll(xyzw, 1, axis=-1)
    for joint in range(1, J):
        q[:, joint] *= np.where((q[:, joint] * q[:, parents[joint]]).sum(-1) < 0, -1, 1)[:, None]
    scalar, vector = q[..., :1], q[..., 1:]
    dual = 0.5 * np.concatenate(
        [
            -(offsets_m * vector).sum(-1, keepdims=True),
            scalar * offsets_m + np.cross(offsets_m, vector),
        ],
        axis=-1,
    )
    real, dual = weights @ q, weights @ dual
    norm = np.linalg.norm(real, axis=-1, keepdims=True)
    a, v = real[..., :1] / norm, real[..., 1:] / norm
    b, u = dual[..., :1] / norm, dual[..., 1:] / norm
    turned = 2 * np.cross(v, np.cross(v, vertices_m) + a * vertices_m)
    posed: FloatArray = vertices_m + turned + 2 * (a * u - b * v + np.cross(v, u))
    return posed
