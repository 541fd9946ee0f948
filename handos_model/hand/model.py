"""A linear hand: shape and pose blend shapes, linear blend skinning (Romero et al. 2017, MANO).

The embedded hand is our own (see assets/NOTICE); `from_mano` reads the user's MANO instead. Both
have MANO's counts and array names, but the vertices of one are not those of the other: whatever
is trained on one template carries its `template_hash`.

The embedded hand's frame at rest: origin at the wrist, +x along the hand to the fingers, +y to
the thumb's side, +z out of its back (a right hand lying flat before you, in REP-103 axes). Metres.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from handos_model.errors import UserError
from handos_model.types import NUM_FACES, NUM_VERTICES, SKELETON_EDGES, FloatArray

# MANO's 16 joints: wrist, then index, middle, little, ring, thumb from the palm outwards.
PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14)
# Rows of the 21 MPII joints in [16 MANO joints, 5 tips (thumb, index, middle, ring, little)].
MPII_FROM_MANO = (0, 13, 14, 15, 16, 1, 2, 3, 17, 4, 5, 6, 18, 10, 11, 12, 19, 7, 8, 9, 20)
MIRROR = np.array([-1.0, 1.0, 1.0])  # of the MANO pair; any plane would do

SHAPES: dict[str, tuple[int, ...]] = {
    'v_template': (NUM_VERTICES, 3),
    'shapedirs': (NUM_VERTICES, 3, 10),
    'posedirs': (NUM_VERTICES, 3, 135),
    'joint_regressor': (16, NUM_VERTICES),
    'skinning_weights': (NUM_VERTICES, 16),
    'faces': (NUM_FACES, 3),
    'tip_vertices': (5,),
    'rotation_axes': (16, 3, 3),
}


def rigid_transforms(
    rotations: FloatArray, joints_m: FloatArray, parents: Sequence[int] = PARENTS
) -> tuple[FloatArray, FloatArray]:
    """World rotations and offsets of a chain: x -> R x + t, R `[...,J,3,3]`, t `[...,J,3]`.

    `rotations [...,J,3,3]` turn each joint in the rest frame about its rest position `joints_m
    [...,J,3]`; a parent may have any index.
    """
    world: dict[int, tuple[FloatArray, FloatArray]] = {}

    def transform(joint: int) -> tuple[FloatArray, FloatArray]:
        if joint not in world:
            turn, pivot = rotations[..., joint, :, :], joints_m[..., joint, :, None]
            if parents[joint] < 0:
                world[joint] = turn, pivot - turn @ pivot
            else:
                parent, offset = transform(parents[joint])
                world[joint] = parent @ turn, parent @ pivot + offset - parent @ turn @ pivot
        return world[joint]

    chain = [transform(joint) for joint in range(len(parents))]
    return np.stack([r for r, _ in chain], -3), np.stack([t[..., 0] for _, t in chain], -2)


@dataclass(frozen=True, eq=False)
class PoseSpace:
    """MANO's linear space of finger poses, in which some datasets label."""

    mean: FloatArray  # [45] axis angles of joints 1 to 15, radians
    components: FloatArray  # [45,45], one a row

    def axis_angles(self, coefficients: FloatArray) -> FloatArray:
        """[15,3] of `coefficients [45]`."""
        angles: FloatArray = self.mean + coefficients @ self.components
        return angles.reshape(15, 3)


@dataclass(frozen=True, eq=False)
class HandModel:
    """The arrays of a hand model, metres, float64 (indices int64). A joint has one rotation.

    `rotation_axes` are each joint's axes of flexion, abduction and twist at rest
    (`handos_model.hand.pose_limits`).
    """

    v_template: FloatArray  # [778,3]
    shapedirs: FloatArray  # [778,3,10]
    posedirs: FloatArray  # [778,3,135], on the 15 non-root rotations minus identity, row-major
    joint_regressor: FloatArray  # [16,778], rows sum to 1
    skinning_weights: FloatArray  # [778,16], rows sum to 1
    faces: npt.NDArray[np.int64]  # [1538,3], outwards on a right hand
    tip_vertices: npt.NDArray[np.int64]  # [5] thumb, index, middle, ring, little
    rotation_axes: FloatArray  # [16,3,3]
    pose_space: PoseSpace | None = None  # MANO's, where its file has one

    def __post_init__(self) -> None:
        for name, shape in SHAPES.items():
            value = np.asarray(getattr(self, name))
            if value.shape != shape:
                raise ValueError(f'{name} must be {list(shape)}, got {list(value.shape)}')
            if not np.isfinite(value).all():
                raise ValueError(f'{name} must be finite')
            is_index = name in ('faces', 'tip_vertices')
            value = value.astype(np.int64 if is_index else np.float64)
            if is_index and (value.min() < 0 or value.max() >= NUM_VERTICES):
                raise ValueError(f'{name} must index the {NUM_VERTICES} vertices')
            value.setflags(write=False)
            object.__setattr__(self, name, value)
        for name in ('joint_regressor', 'skinning_weights'):
            if np.abs(getattr(self, name).sum(1) - 1).max() > 1e-4:
                raise ValueError(f'rows of {name} must sum to 1')

    @classmethod
    @cache
    def embedded(cls) -> HandModel:
        """The open right hand that ships with this package; always the same, immutable object."""
        with (files('handos_model') / 'assets' / 'hand_template.npz').open('rb') as file:
            arrays: dict[str, Any] = decode_units(dict(np.load(file, allow_pickle=False)))
            return cls(**arrays)

    @classmethod
    def from_mano(cls, path: str | Path) -> HandModel:
        """The user's MANO right hand, from MANO_RIGHT.pkl or its conversion. Raises UserError."""
        from handos_model.hand.mano import load_mano

        return cls.from_mano_arrays(load_mano(Path(path)), Path(path))

    @classmethod
    def from_mano_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]], path: Path) -> HandModel:
        """Of MANO's arrays by our names, read from `path`. Raises UserError if it is no hand."""
        from handos_model.hand.mano import TIP_VERTICES, transferred_axes

        space = None
        if 'hands_mean' in arrays and 'hands_components' in arrays:
            space = PoseSpace(arrays['hands_mean'], arrays['hands_components'])
        embedded = cls.embedded()
        rest_m = embedded.joint_regressor @ embedded.v_template
        try:
            return cls(
                **{name: arrays[name] for name in SHAPES if name in arrays},
                tip_vertices=np.array(TIP_VERTICES),
                rotation_axes=transferred_axes(arrays, rest_m, embedded.rotation_axes),
                pose_space=space,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f'{path} is not a MANO model: {error}') from None

    @classmethod
    def of(cls, mano: str | Path | None) -> HandModel:
        """The user's MANO where its file is given, else the embedded hand. Raises UserError."""
        return cls.from_mano(mano) if mano else cls.embedded()

    @property
    def joint_regressor_21(self) -> FloatArray:
        """`[21,778]`: J = R V are the MPII joints of any mesh of this topology, as in MANO."""
        tips = np.eye(NUM_VERTICES)[self.tip_vertices]
        regressor: FloatArray = np.concatenate([self.joint_regressor, tips])[list(MPII_FROM_MANO)]
        return regressor

    @property
    def skeleton(self) -> tuple[tuple[int, int], ...]:
        """The 20 bones as pairs of MPII joints, each (nearer to the palm, farther)."""
        return SKELETON_EDGES

    @cached_property
    def template_hash(self) -> str:
        """SHA-256 of the arrays that decide what a vertex is; equal templates, equal hash."""
        digest = hashlib.sha256()
        for name in SHAPES:
            value = getattr(self, name)
            digest.update(name.encode())
            digest.update(value.astype('<i4' if value.dtype.kind == 'i' else '<f4').tobytes())
        return digest.hexdigest()

    def pose(
        self, rotations: FloatArray, betas: FloatArray | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """Posed `vertices_m [...,778,3]` and `joints_m [...,21,3]` (J = R V).

        `rotations [...,16,3,3]` about each joint in the rest frame, the first turns the whole
        hand about its wrist; `betas [...,10]`, in standard deviations.
        """
        betas = np.zeros(10) if betas is None else betas
        v_shaped = self.v_template + np.einsum('vcs,...s->...vc', self.shapedirs, betas)
        pivots_m = self.joint_regressor @ v_shaped
        bend = (rotations[..., 1:, :, :] - np.eye(3)).reshape(*rotations.shape[:-3], 135)
        v_posed = v_shaped + (bend @ self.posedirs.reshape(-1, 135).T).reshape(
            *bend.shape[:-1], NUM_VERTICES, 3
        )
        turns, offsets_m = rigid_transforms(rotations, pivots_m)
        blended = np.einsum('vj,...jab->...vab', self.skinning_weights, turns)
        vertices_m = (blended @ v_posed[..., None])[..., 0] + self.skinning_weights @ offsets_m
        return vertices_m, self.joint_regressor_21 @ vertices_m

    def mirrored(self) -> HandModel:
        """The left hand: same vertices, faces and betas, geometry mirrored in x.

        Posed by M R M, M = diag(-1, 1, 1), it is the mirror image of the right hand posed by R.
        """
        turned = np.outer(MIRROR, MIRROR).reshape(-1)  # of the nine entries of M R M
        return replace(
            self,
            v_template=self.v_template * MIRROR,
            shapedirs=self.shapedirs * MIRROR[:, None],
            posedirs=self.posedirs * MIRROR[:, None] * np.tile(turned, 15),
            rotation_axes=-self.rotation_axes * MIRROR,  # an axis is a pseudovector
        )

    def lifting_matrix(self) -> FloatArray:
        """HandOS's L `[779,21]`: what vertex queries, and the translation's, take of the joints.

        Rows sum to 1. A vertex takes its skinning weights; what it has of a finger's last bone is
        shared between that bone's joint and the tip by its place along the bone. The last row,
        the translation's, is uniform.
        """
        joints_m = self.joint_regressor_21 @ self.v_template
        lifting = np.zeros((NUM_VERTICES + 1, 21))
        lifting[-1] = 1 / 21
        columns = list(MPII_FROM_MANO)
        for joint in range(16):
            lifting[:-1, columns.index(joint)] = self.skinning_weights[:, joint]
        for tip in (4, 8, 12, 16, 20):
            bone = joints_m[tip] - joints_m[tip - 1]
            t = np.clip((self.v_template - joints_m[tip - 1]) @ bone / (bone @ bone), 0, 1)
            lifting[:-1, tip] = t * lifting[:-1, tip - 1]
            lifting[:-1, tip - 1] -= lifting[:-1, tip]
        return lifting


def decode_units(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """An asset's arrays: `x_um` are micrometres, `x_q15` and `x_q30` multiples of 2^-15, 2^-30."""
    units = {'um': 1e-6, 'q15': 2.0**-15, 'q30': 2.0**-30}
    decoded: dict[str, npt.NDArray[Any]] = {}
    for name, value in arrays.items():
        stem, _, unit = name.rpartition('_')
        decoded.update({stem: value * units[unit]} if unit in units else {name: value})
    return decoded
