"""The loss terms of HandOS (paper, sections 3.4 and VI.2) and our visibility term.

Every term is a pure function that returns a `Term`: a sum over labelled elements and their count.
Elements without a label take no part in either. Means are formed last, over all processes, so that
the loss does not depend on how a batch is split.

Units, under which the paper's weights (10 for lengths, 4 for OKS) balance:
- 2D positions are fractions of the image width and height, as in the detector's boxes. That makes
  the L1 term weak for small hands; OKS, relative to the hand's own size, is strong there.
- 3D positions are in hand lengths of 0.2 m: 10 mm of error a coordinate is 0.05.
An element is a joint, a vertex, an edge of a face, or a pair of faces; its error is the L1 norm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from handos_training.stages.targets import HandTargets

if TYPE_CHECKING:
    from handos_model.network.handos import DecoderOutput

HAND_LENGTH_M = 0.2

# COCO-WholeBody's per-joint falloff of a hand, wrist first (the same order as ours).
HAND_SIGMAS = (
    0.029, 0.022, 0.035, 0.037, 0.047, 0.026, 0.025, 0.024, 0.035, 0.018, 0.024,
    0.022, 0.026, 0.017, 0.021, 0.021, 0.032, 0.02, 0.019, 0.022, 0.031,
)  # fmt: skip


class Term(NamedTuple):
    """A loss term before its mean is formed."""

    total: Tensor  # [] sum over labelled elements
    size: Tensor  # [] number of labelled elements, without gradient


class MeshTopology(NamedTuple):
    """Index tables of the hand mesh, as `mesh_topology` builds them."""

    faces: Tensor  # [F,3] int64
    face_pairs: Tensor  # [E,2] int64, faces that share an edge

    def to(self, device: torch.device | str) -> MeshTopology:
        return MeshTopology(self.faces.to(device), self.face_pairs.to(device))


def mesh_topology(faces: Tensor) -> MeshTopology:
    """Find the pairs of neighbouring faces of `faces` [F,3]."""
    faces_of_edge: dict[tuple[int, int], list[int]] = {}
    for face, (a, b, c) in enumerate(faces.tolist()):
        for i, j in ((a, b), (b, c), (c, a)):
            faces_of_edge.setdefault((min(i, j), max(i, j)), []).append(face)
    pairs = [pair for pair in faces_of_edge.values() if len(pair) == 2]
    return MeshTopology(faces.long(), torch.tensor(pairs, dtype=torch.long).reshape(-1, 2))


def _term(errors: Tensor) -> Term:
    return Term(errors.sum(), errors.new_tensor(errors.numel()))


def points_l1(predicted: Tensor, target: Tensor, labelled: Tensor) -> Term:
    """|P - P*|_1 over labelled points; [N,P,D], [N,P,D], bool [N,P] or [N]."""
    error = (predicted[labelled] - target[labelled]).abs().sum(-1)
    return _term(error)


def oks(
    joints_2d: Tensor,
    target_2d: Tensor,
    labelled: Tensor,
    area_px2: Tensor,
    image_size_px: Tensor,
) -> Term:
    """1 - exp(-d^2 / (2 s^2 (2 sigma)^2)) over labelled joints (COCO keypoint similarity).

    Joints [N,21,2] are normalised, `labelled` is bool [N,21], `area_px2` [N] is s^2,
    `image_size_px` [2] is width and height.
    """
    distance2_px2 = ((joints_2d - target_2d) * image_size_px).square().sum(-1)
    falloff = 2 * joints_2d.new_tensor(HAND_SIGMAS)
    scale_px2 = 2 * area_px2[:, None].clamp(min=1.0) * falloff.square()
    return _term(-torch.expm1(-(distance2_px2 / scale_px2)[labelled]))


def joints_relative(
    joints_2d: Tensor,
    target_2d: Tensor,
    labelled: Tensor,
    area_px2: Tensor,
    image_size_px: Tensor,
) -> Term:
    """|J - J*|_1 in units of the hand's size over labelled joints, at most 1; arguments as `oks`.

    OKS has no gradient for a joint that is far off, and a plain distance nearly none for a small
    hand. Beyond its size away a label is taken to be wrong.
    """
    offset_px = (joints_2d - target_2d) * image_size_px
    size_px = area_px2.clamp(min=1.0).sqrt()[:, None]
    return _term((offset_px.abs().sum(-1) / size_px)[labelled].clamp(max=1.0))


def side(right_logits: Tensor, is_left: Tensor, labelled: Tensor) -> Term:
    """Binary cross-entropy over labelled hands; all [N]."""
    truth = (~is_left[labelled]).to(right_logits.dtype)
    errors = F.binary_cross_entropy_with_logits(right_logits[labelled], truth, reduction='none')
    return _term(errors)


def _edges_of_faces(vertices: Tensor, faces: Tensor) -> Tensor:
    """Vectors [N,F,3,3] along the three edges of each face."""
    corners = vertices[:, faces]
    return corners.roll(-1, dims=2) - corners


def _normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Unit normals [N,F,3]; zero for a face without area."""
    a, b, c = vertices[:, faces].unbind(2)
    return F.normalize(torch.linalg.cross(b - a, c - a), dim=-1, eps=1e-12)


def edge_length(predicted: Tensor, target: Tensor, faces: Tensor) -> Term:
    """| |Vi - Vj|_2 - |Vi* - Vj*|_2 | over the edges of all faces; vertices [N,V,3]."""

    def length(vertices: Tensor) -> Tensor:
        return (_edges_of_faces(vertices, faces).square().sum(-1) + 1e-16).sqrt()

    return _term((length(predicted) - length(target)).abs())


def normal(predicted: Tensor, target: Tensor, faces: Tensor) -> Term:
    """|(Vi - Vj) / |Vi - Vj|_2 . n*| over the edges of all faces; vertices [N,V,3]."""
    directions = F.normalize(_edges_of_faces(predicted, faces), dim=-1, eps=1e-8)
    return _term((directions * _normals(target, faces)[:, :, None]).sum(-1).abs())


def normal_consistency(vertices: Tensor, topology: MeshTopology) -> Term:
    """1 - n1 . n2 over neighbouring faces; vertices [N,V,3]. Needs no label."""
    normals = _normals(vertices, topology.faces)
    first, second = topology.face_pairs.T
    return _term(1 - (normals[:, first] * normals[:, second]).sum(-1))


def visibility(logits: Tensor, visible: Tensor, labelled: Tensor) -> Term:
    """Binary cross-entropy over the joints of labelled hands; [N,21], bool [N,21], bool [N]."""
    errors = F.binary_cross_entropy_with_logits(
        logits[labelled], visible[labelled].to(logits.dtype), reduction='none'
    )
    return _term(errors)


def _layer_losses(
    output: DecoderOutput, targets: HandTargets, topology: MeshTopology
) -> dict[str, Term]:
    labels = targets.labels
    terms: dict[str, Term] = {}

    def joints_2d_terms(joints_2d: Tensor, suffix: str) -> None:
        truth, labelled = targets.joints_2d, labels.has_joint_px
        terms[f'joints_{suffix}'] = points_l1(joints_2d, truth, labelled)
        terms[f'oks_{suffix}'] = oks(
            joints_2d, truth, labelled, targets.area_px2, targets.image_size_px
        )

    joints_2d_terms(output.joints_2d.float(), '2d')
    terms['joints_relative'] = joints_relative(
        output.joints_2d.float(), targets.joints_2d, labels.has_joint_px,
        targets.area_px2, targets.image_size_px,
    )  # fmt: skip
    if output.right_logits is not None:
        terms['side'] = side(output.right_logits.float(), labels.is_left, labels.has_side)
    terms['visibility'] = visibility(
        output.visibility_logits.float(), labels.joint_visible, labels.has_visibility
    )
    if output.vertices_m is None or output.joints_m is None or output.joints_projected is None:
        return terms
    joints_2d_terms(output.joints_projected.float(), 'projected')
    vertices = output.vertices_m.float() / HAND_LENGTH_M
    terms['normal_consistency'] = normal_consistency(vertices, topology)
    terms['joints_3d'] = points_l1(
        output.joints_m.float() / HAND_LENGTH_M,
        labels.joints_m / HAND_LENGTH_M,
        labels.has_joints_m,
    )
    labelled = labels.has_vertices_m
    vertices, truth = vertices[labelled], labels.vertices_m[labelled] / HAND_LENGTH_M
    terms['vertices'] = points_l1(
        vertices, truth, torch.ones_like(truth[..., 0], dtype=torch.bool)
    )
    terms['edge'] = edge_length(vertices, truth, topology.faces)
    terms['normal'] = normal(vertices, truth, topology.faces)
    return terms


def hand_losses(
    layers: Sequence[DecoderOutput], targets: HandTargets, topology: MeshTopology
) -> dict[str, Term]:
    """All terms, summed over the decoder's layers (deep supervision).

    `layers[i]` and `targets` describe the same N hands. 3D terms are missing from the result where
    no layer predicts a mesh. Hands without 3D labels are supervised by their projection and by
    normal consistency only (the paper's weak supervision).
    """
    terms: dict[str, Term] = {}
    for output in layers:
        for name, term in _layer_losses(output, targets, topology).items():
            so_far = terms.get(name)
            terms[name] = term if so_far is None else Term(so_far.total + term.total, term.size)
    return terms


def sum_over_processes(values: Tensor) -> Tensor:
    """All-reduced copy, without gradient; the values themselves in a single process."""
    values = values.detach().clone()
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(values)
    return values


def weighted_loss(
    terms: Mapping[str, Term],
    weight_of: Callable[[str], float],
    reduce: Callable[[Tensor], Tensor] = sum_over_processes,
    sizes: Mapping[str, Tensor] | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of this process, and the weighted mean of each term over all processes.

    Distributed training averages gradients over processes, hence the factor below: the average of
    the returned losses is the loss of the global batch. `sizes` are those of all parts of a batch
    of which `terms` are one part: then losses and means of the parts add up to the batch's.
    """
    names = sorted(terms)
    totals = torch.stack([terms[name].total.float() for name in names])
    weights = totals.new_tensor([weight_of(name) for name in names])
    own = [terms[name].size if sizes is None else sizes[name] for name in names]
    counts = torch.stack([size.float() for size in own])
    # One message for totals, counts and the number of processes.
    reduced = reduce(torch.cat([totals.detach(), counts, counts.new_ones(1)]))
    all_totals, all_counts = reduced[: len(names)], reduced[len(names) : -1].clamp(min=1)
    loss = (totals * weights / all_counts).sum() * reduced[-1]
    return loss, dict(zip(names, weights * all_totals / all_counts, strict=True))
