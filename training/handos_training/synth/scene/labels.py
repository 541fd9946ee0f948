"""Exact labels from the geometry that was rendered and from what each pixel shows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from handos_model.types import ROOT_JOINT
from handos_training.data.sample import HandLabels
from handos_training.synth.config import SynthConfig
from handos_training.synth.people.placement import project
from handos_training.synth.render.mesh import HAND_PARTS
from handos_training.synth.render.raster import Fragments

# Bones (MANO order) whose skin lies over each of the 21 joints: the one that starts there and the
# one that ends there. The wrist's is the palm; its arm counts too.
JOINT_BONES = (
    (0,), (13, 0), (14, 13), (15, 14), (15,), (1, 0), (2, 1), (3, 2), (3,), (4, 0), (5, 4), (6, 5),
    (6,), (10, 0), (11, 10), (12, 11), (12,), (7, 0), (8, 7), (9, 8), (9,),
)  # fmt: skip
# Depth of the joint's centre under the skin above it, for an adult hand; twice of it is the gap
# up to which the surface before a joint is its own.
JOINT_DEPTH_M = (0.022, 0.018, 0.013, 0.011, 0.004) + (0.016, 0.011, 0.009, 0.004) * 4
ADULT_PALM_M = 0.095


@dataclass
class HandsInScene:
    """N hands of a batch of images, in their camera frames (metres)."""

    image: Tensor  # [N] int64
    slot: Tensor  # [N] int64, the hand's number in its image: parts 1 + 16 slot ... 16 + 16 slot
    is_left: Tensor  # [N] bool
    vertices_m: Tensor  # [N,778,3]
    joints_m: Tensor  # [N,21,3]


@dataclass
class Buffers:
    """What the renderer saw at each pixel, and what its faces are."""

    fragments: Fragments
    face_part: Tensor  # [F] int64, see mesh.HAND_PARTS
    face_arm: Tensor  # [F] int64, slot of the hand whose bare arm or hand this is, else -1


def _neighbourhood(
    image: Tensor, pixels: Tensor, fragments: Fragments
) -> tuple[Tensor, Tensor, Tensor]:
    """Face and depth [N,P,9] around `pixels` [N,P,2], and which are in the image."""
    H, W = fragments.face.shape[1:]
    steps = torch.tensor([-1, 0, 1], device=pixels.device)
    dy, dx = (grid.flatten() for grid in torch.meshgrid(steps, steps, indexing='ij'))
    centre = pixels.clamp(-10, max(H, W) + 10).round().long()
    x, y = centre[..., :1] + dx, centre[..., 1:] + dy
    inside = (x >= 0) & (x < W) & (y >= 0) & (y < H)
    index = (image[:, None, None] * H + y.clamp(0, H - 1)) * W + x.clamp(0, W - 1)
    return fragments.face.view(-1)[index], fragments.depth_m.view(-1)[index], inside


def _of_faces(values: Tensor, face: Tensor, nothing: int) -> Tensor:
    """Entries of `values` [F] at `face` (any shape); `nothing` where it is -1."""
    return torch.cat([values, values.new_tensor([nothing])])[face]  # -1 is the last entry


def joint_visibility(hands: HandsInScene, joints_px: Tensor, buffers: Buffers) -> Tensor:
    """[N,21]: some pixel around the joint shows the skin over this very joint."""
    face, depth, inside = _neighbourhood(hands.image, joints_px, buffers.fragments)
    part = _of_faces(buffers.face_part, face, 0)
    arm = _of_faces(buffers.face_arm, face[:, 0], -1)
    first = (1 + HAND_PARTS * hands.slot)[:, None, None]
    bones = torch.tensor([(b + b)[:2] for b in JOINT_BONES], device=part.device)  # [21,2]
    own = (part == first + bones[:, :1]) | (part == first + bones[:, 1:])
    own[:, 0] |= arm == hands.slot[:, None]  # a wrist may show as its forearm
    palm = (hands.joints_m[:, ROOT_JOINT] - hands.joints_m[:, 0]).norm(dim=-1)
    limit = torch.tensor(JOINT_DEPTH_M, device=part.device) * 2 * (palm / ADULT_PALM_M)[:, None]
    near = hands.joints_m[..., 2:] - depth < limit[..., None]
    centre_inside = inside[..., 4]
    visible: Tensor = (own & near & inside).any(-1) & centre_inside
    return visible


def vertex_visibility(
    hands: HandsInScene, vertices_px: Tensor, focal_px: Tensor, buffers: Buffers
) -> Tensor:
    """[N,778]: some pixel around the vertex shows this hand at the vertex's depth."""
    face, depth, inside = _neighbourhood(hands.image, vertices_px, buffers.fragments)
    part = _of_faces(buffers.face_part, face, 0)
    own = (part - 1).div(HAND_PARTS, rounding_mode='floor') == hands.slot[:, None, None]
    z = hands.vertices_m[..., 2]
    tolerance = 0.0015 + 1.5 * z / focal_px[:, None]  # a pixel and a half of a slanted surface
    near = (z[..., None] - depth).abs() < tolerance[..., None]
    visible: Tensor = (own & near & inside).any(-1) & inside[..., 4]
    return visible


def _visible_boxes(hands: HandsInScene, buffers: Buffers) -> tuple[Tensor, Tensor]:
    """Boxes [N,4] of each hand's pixels, edges included, and how many pixels they are."""
    fragments, N, device = buffers.fragments, len(hands.slot), buffers.face_part.device
    B, H, W = fragments.face.shape
    face = fragments.face.view(-1).index_select(0, fragments.covered)
    part = buffers.face_part.index_select(0, face)
    shown = ((part > 0) & (part <= HAND_PARTS * 64)).nonzero().squeeze(1)
    pixel = fragments.covered.index_select(0, shown).int()
    slot = (part.index_select(0, shown) - 1) // HAND_PARTS
    line = pixel // W
    image, y, x = line // H, line % H, pixel % W
    row = torch.full((B, 64), -1, dtype=torch.int64, device=device)
    row[hands.image, hands.slot] = torch.arange(N, device=device)
    hand = row.view(-1).index_select(0, image * 64 + slot)
    count = torch.bincount(hand, minlength=N)
    low = torch.full((N, 2), 1e9, device=device)
    high = torch.full((N, 2), -1e9, device=device)
    xy = torch.stack([x, y], 1).float()
    index = hand[:, None].expand(-1, 2)
    low.scatter_reduce_(0, index, xy, 'amin')
    high.scatter_reduce_(0, index, xy, 'amax')
    return torch.cat([low - 0.5, high + 0.5], 1), count


def _silhouette_px(vertices_px: Tensor, faces: Tensor, is_left: Tensor) -> Tensor:
    """About how many pixels [N] a hand covers where nothing hides it: its front faces' areas."""
    a, b, c = (vertices_px[:, faces[:, i]] for i in range(3))
    u, v = b - a, c - a
    doubled = u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]
    doubled = torch.where(is_left[:, None], -doubled, doubled)
    return (-doubled).clamp(min=0).sum(1) / 2


def label_hands(
    config: SynthConfig,
    hands: HandsInScene,
    hand_faces: Tensor,
    camera_matrices_px: Tensor,
    buffers: Buffers,
) -> tuple[HandLabels, list[int], Tensor]:
    """Labels image after image, their number in each, and whether all visible hands have one [B].

    A hand of which too little is visible has no label; its image is then not fully labelled,
    unless it is so small that nobody could tell.
    """
    B = len(camera_matrices_px)
    cameras = camera_matrices_px[hands.image]
    joints_px = project(hands.joints_m, cameras)
    vertices_px = project(hands.vertices_m, cameras)
    boxes, pixels = _visible_boxes(hands, buffers)
    amodal = torch.cat([vertices_px.amin(1), vertices_px.amax(1)], 1)
    whole = _silhouette_px(vertices_px, hand_faces, hands.is_left)
    joint_visible = joint_visibility(hands, joints_px, buffers)
    vertex_visible = vertex_visibility(hands, vertices_px, cameras[:, 0, 0], buffers)
    enough = (pixels >= config.min_visible_px) & (pixels >= config.min_visible_fraction * whole)
    dropped = ~enough & (pixels >= config.min_visible_px)
    complete = torch.ones(B, dtype=torch.bool, device=dropped.device)
    complete[hands.image[dropped]] = False
    root = hands.joints_m[:, ROOT_JOINT]
    N = len(hands.slot)

    def known(*shape: int) -> Tensor:
        return torch.ones(N, *shape, dtype=torch.bool, device=dropped.device)

    everything = HandLabels(
        boxes_xyxy_px=boxes,
        amodal_boxes_xyxy_px=amodal,
        is_left=hands.is_left,
        joints_px=joints_px,
        joint_visible=joint_visible,
        vertices_m=hands.vertices_m - root[:, None],
        joints_m=hands.joints_m - root[:, None],
        translation_m=root,
        vertex_visible=vertex_visible,
        has_side=known(),
        has_joint_px=known(21),
        has_visibility=known(),
        has_joints_m=known(),
        has_vertices_m=known(),
        has_translation=known(),
    )
    rows = enough.nonzero().flatten()
    rows = rows[hands.image[rows].argsort(stable=True)]
    counts = torch.bincount(hands.image[rows], minlength=B).tolist()
    return everything[rows], counts, complete
