"""A start that converges: dense targets on the encoder's maps before any query is trained.

A DETR-like detector learns slowly from nothing, because only a few matched queries carry a
gradient. Here every cell of the finest map learns what is on it: where each joint of each hand is
(cross-entropy over the cells of the hand's box), how far behind the root it lies, and which part
of which side of a hand is shown; the detector's own query selection (score and box of each encoder
token) is trained as a dense detector, and the tokens at a hand's centre tell its joints and side.
The selection heads stay; the heads of this file never leave the training: they lie beside a run's
weights for its next stage.
Later stages may keep the dense targets beside their own (`dense_along`): from scratch, the encoder
goes on learning from every cell while the queries learn from a few.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F

from handos_model.files import write_whole
from handos_model.network.detectors.dfine import DFineDetector
from handos_model.network.detectors.protocol import flatten_maps
from handos_model.network.heads import MLP
from handos_model.network.joint_maps import JointMaps
from handos_training.data.sample import Batch
from handos_training.stages.detector import encoder_maps
from handos_training.stages.losses import HAND_LENGTH_M, Term
from handos_training.stages.targets import HandTargets, cxcywh_to_xyxy, hand_targets, iou_and_giou

HEADS_FILE = 'dense_heads.safetensors'
NUM_PARTS = 16  # segments of the hand, one an internal joint
NUM_MAPS = NUM_PARTS + 2  # and the visible surface of left and of right hands
SIZE_RANGE = 8  # a level of stride s takes boxes of up to 8 s px; the last takes the rest
CENTRE_RADIUS = 1.5  # cells around a box's centre that are trained to find it
MAX_JOINT_OFFSET = 2.0  # box sizes; joints farther from a box of visible parts are not asked for
JOINTS_WEIGHT = 5.0  # the term that teaches features most; boxes are learned soon and noisily
DEPTH_WEIGHT = 20.0  # 10 mm count 1.0
SIDE_WEIGHT = 4.0  # one number a hand, beside 21 joints
JOINT_SIGMA = 0.03  # width of a joint's target as a part of the box side


class DenseHeads(nn.Module):
    """Light heads on the trunk of the joint maps and on the encoder's tokens, and their losses.

    `part_of_vertex` int64 [778] says which of the 16 segments a vertex belongs to (the largest
    skinning weight); `width` is that of the joint maps' trunk.
    """

    def __init__(self, dim: int, part_of_vertex: Tensor, width: int) -> None:
        super().__init__()
        self.part_of_vertex = nn.Buffer(part_of_vertex, persistent=False)
        self.pose_head = MLP(dim, 2 * dim, 2 * 21 + 1)
        self.part_head = nn.Conv2d(width, NUM_MAPS, 1)
        nn.init.constant_(self.part_head.bias, -4.0)  # type: ignore[arg-type]

    def forward(
        self, model: Any, maps: list[Tensor], trunk: Tensor, targets: HandTargets, batch: Batch
    ) -> dict[str, Term]:
        """Terms of a detector's encoder maps [B,d,h,w], finest first; `model` selects queries.

        `trunk` [B,width,h,w] is what the joint maps are read off.
        """
        part_logits = self.part_head(trunk)
        with torch.autocast(part_logits.device.type, enabled=False):
            maps = [level.float() for level in maps]
            tokens, logits, boxes = selection(model, maps)
            shapes = [(level.shape[2], level.shape[3]) for level in maps]
            centres = centre_tokens(targets, shapes)
            terms = selection_losses(logits, boxes, centres, targets, batch.all_hands_labelled)
            image, token, hand = centres
            terms |= pose_losses(self.pose_head(tokens[image, token]), targets[hand])
            part_maps, known = part_targets(
                targets, batch, self.part_of_vertex, part_logits.shape[-2:]
            )
            terms['dense_parts'] = focal(part_logits.float(), part_maps, known)
        return terms


def save_dense_heads(module: nn.Module, folder: Path) -> None:
    """Put the heads of a training step, if it has any, beside the weights in `folder`."""
    for heads in (part for part in module.modules() if isinstance(part, DenseHeads)):
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: value.contiguous() for name, value in heads.state_dict().items()}
        write_whole(folder / HEADS_FILE, save(tensors))


def load_dense_heads(heads: DenseHeads, folder: Path) -> bool:
    """Continue with the heads of an earlier run; False where its folder holds none that fit.

    Fresh heads would disturb a trained encoder with gradients that mean nothing yet.
    """
    file = folder / HEADS_FILE
    saved = load_file(file) if file.is_file() else {}
    own = heads.state_dict()
    fits = {n: v.shape for n, v in saved.items()} == {n: v.shape for n, v in own.items()}
    if fits:
        heads.load_state_dict(saved)
    return fits


class DenseStage(nn.Module):
    """The detector without its decoder, the decoder's joint maps, and the dense heads."""

    def __init__(self, detector: DFineDetector, joint_maps: JointMaps, heads: DenseHeads) -> None:
        super().__init__()
        self.detector = detector
        self.joint_maps = joint_maps
        self.heads = heads

    def forward(self, batch: Batch) -> dict[str, Term]:
        maps, _ = encoder_maps(self.detector, batch.images.float() / 255)
        targets = hand_targets(batch)
        terms, trunk = joint_map_terms(self.joint_maps, maps[0], targets)
        return terms | self.heads(self.detector.model, maps, trunk, targets, batch)  # type: ignore[no-any-return]

    @torch.no_grad()
    def joint_logits(self, images: Tensor) -> Tensor:
        """Joint maps [B,21,h,w] of images [B,3,H,W] in [0,1], to look at."""
        maps, _ = encoder_maps(self.detector, images)
        return self.joint_maps(maps[0])[0]  # type: ignore[no-any-return]


def joint_map_terms(
    joint_maps: JointMaps, finest: Tensor, targets: HandTargets
) -> tuple[dict[str, Term], Tensor]:
    """The joint maps' losses on the finest map [B,C,h,w], and the trunk that they are read off."""
    trunk: Tensor = joint_maps.trunk(finest)
    logits, depths_m = joint_maps.read(trunk)
    errors = joint_cross_entropy(logits.float(), targets)
    depth_errors = joint_depths(depths_m, targets)
    terms = {
        'dense_joints': Term(JOINTS_WEIGHT * errors.total, errors.size),
        'dense_depths': Term(DEPTH_WEIGHT * depth_errors.total, depth_errors.size),
    }
    return terms, trunk


def selection(model: Any, maps: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """The detector's query selection on every token.

    Tokens [B,L,d] (a selected one becomes a query's initial content), score logits [B,L] and
    boxes [B,L,4].
    """
    inner = model.model
    sources = [
        project(level) for project, level in zip(inner.decoder_input_proj, maps, strict=False)
    ]
    memory, shapes = flatten_maps(sources)
    anchors, valid = inner.generate_anchors(shapes, device=memory.device, dtype=memory.dtype)
    output = inner.enc_output(valid.to(memory.dtype) * memory)
    boxes = (inner.enc_bbox_head(output) + anchors).sigmoid()
    return output, inner.enc_score_head(output)[..., 0], boxes


def selection_losses(
    logits: Tensor,
    boxes: Tensor,
    centres: tuple[Tensor, Tensor, Tensor],
    targets: HandTargets,
    all_hands_labelled: Tensor,
) -> dict[str, Term]:
    """Varifocal, L1 and GIoU of the tokens around each hand's centre (weights 1, 5, 2).

    logits [B,L], boxes [B,L,4], `centres` from `centre_tokens`. Tokens of incompletely labelled
    images are no negatives.
    """
    image, token, hand = centres
    found, truth = boxes[image, token], targets.boxes_cxcywh[hand]
    overlap, generalised = iou_and_giou(cxcywh_to_xyxy(found), cxcywh_to_xyxy(truth))
    quality = torch.zeros_like(logits)
    quality[image, token] = overlap.detach().clamp(min=0.01)
    positive = quality > 0
    negative_weight = 0.75 * logits.detach().sigmoid().square()
    weight = torch.where(positive, quality, negative_weight * all_hands_labelled[:, None])
    errors = F.binary_cross_entropy_with_logits(logits, quality, weight=weight, reduction='none')
    count = logits.new_tensor(float(len(hand)))
    return {
        'dense_score': Term(errors.sum(), count),
        'dense_l1': Term(5 * (found - truth).abs().sum(), count),
        'dense_giou': Term(2 * (1 - generalised).sum(), count),
    }


def pose_losses(predicted: Tensor, targets: HandTargets) -> dict[str, Term]:
    """L1 of the joints in units of the box (weight 5) and cross-entropy of the side (weight 4).

    predicted [P,43] for P tokens and their hands: the offset of each joint from the box's centre
    in units of its size, and the logit of a left hand. Deformable attention chooses where to look
    by the query alone, so the query should know the pose from the start; and the detector cuts
    the gradient from queries to the tokens that they are taken from.
    """
    joints = targets.joints_2d - targets.boxes_cxcywh[:, None, :2]
    joints = joints / targets.boxes_cxcywh[:, None, 2:].clamp(min=1e-3)
    labelled = targets.labels.has_joint_px & (joints.abs().amax(-1) < MAX_JOINT_OFFSET)
    errors = (predicted[:, :-1].reshape(-1, 21, 2) - joints)[labelled].abs().sum(-1)
    side_known = targets.labels.has_side
    side_errors = F.binary_cross_entropy_with_logits(
        predicted[side_known, -1], targets.labels.is_left[side_known].float(), reduction='none'
    )
    return {
        'dense_pose': Term(5 * errors.sum(), errors.new_tensor(float(len(errors)))),
        'dense_side': Term(
            SIDE_WEIGHT * side_errors.sum(), errors.new_tensor(float(len(side_errors)))
        ),
    }


def centre_tokens(
    targets: HandTargets, shapes: list[tuple[int, int]]
) -> tuple[Tensor, Tensor, Tensor]:
    """Image, token and hand index [P] of the tokens that are to find each hand.

    A token near the centres of two hands goes to the smaller hand.
    """
    device = targets.image_index.device
    width_px = targets.image_size_px[0]
    side_px = (targets.boxes_cxcywh[:, 2:] * targets.image_size_px).prod(-1).clamp(min=0).sqrt()
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    start, smallest_px = 0, 0.0
    for level, (h, w) in enumerate(shapes):
        largest_px = float(width_px) / w * SIZE_RANGE
        if level == len(shapes) - 1:
            largest_px = float('inf')
        suited = (side_px > smallest_px) & (side_px <= largest_px)
        size = torch.tensor([w, h], device=device)
        y, x = torch.meshgrid(
            torch.arange(h, device=device), torch.arange(w, device=device), indexing='ij'
        )
        cells = torch.stack([x, y], -1).reshape(-1, 2) + 0.5  # [h*w,2] in cells
        centres = targets.boxes_cxcywh[:, :2].clamp(0, 1) * size  # [N,2]
        offset = (cells[None] - centres[:, None]).abs().amax(-1)  # [N,h*w]
        hand, cell = ((offset <= CENTRE_RADIUS) & suited[:, None]).nonzero(as_tuple=True)
        found.append((targets.image_index[hand], start + cell, hand))
        start, smallest_px = start + h * w, largest_px
    image, token, hand = (torch.cat(parts) for parts in zip(*found, strict=True))
    place = image * start + token
    rank = side_px.argsort(stable=True).argsort()[hand]  # of its hand, the smallest first
    num_places = int(place.max()) + 1 if len(place) else 0
    best = torch.full((num_places,), len(targets), device=device)
    best.scatter_reduce_(0, place, rank, 'amin')
    kept = best[place] == rank
    return image[kept], token[kept], hand[kept]


def joint_cross_entropy(logits: Tensor, targets: HandTargets) -> Term:
    """Cross-entropy of each labelled joint's position over the cells of its hand's box.

    logits [B,21,h,w]. The target is a Gaussian around the joint; the entropy of the target is
    subtracted, so that a perfect map has loss 0.
    """
    h, w = logits.shape[-2:]
    size = logits.new_tensor([w, h])
    joints = targets.joints_2d * size - 0.5  # in cells, a cell's centre at its index
    inside = ((targets.joints_2d >= 0) & (targets.joints_2d <= 1)).all(-1)
    hand, joint = (targets.labels.has_joint_px & inside).nonzero(as_tuple=True)
    x, y = torch.arange(w, device=logits.device), torch.arange(h, device=logits.device)

    # The box, widened by half its size: the borders of joints' boxes hold joints too.
    corners = cxcywh_to_xyxy(targets.boxes_cxcywh * logits.new_tensor([1, 1, 1.5, 1.5]))
    low, high = corners[:, :2] * size - 1, corners[:, 2:] * size
    in_x = (x >= low[:, :1]) & (x <= high[:, :1])
    in_y = (y >= low[:, 1:]) & (y <= high[:, 1:])
    in_box = in_y[:, :, None] & in_x[:, None, :]  # [N,h,w]

    side = (targets.boxes_cxcywh[:, 2:] * size).amax(-1)
    sigma = (JOINT_SIGMA * side).clamp(min=0.7)[hand]
    position = joints[hand, joint]
    distance2 = (x - position[:, :1]).square()[:, None, :] + (y - position[:, 1:]).square()[
        :, :, None
    ]
    lowest = torch.finfo(logits.dtype).min
    outside = ~in_box[hand]
    goal = (-distance2 / (2 * sigma.square())[:, None, None]).masked_fill(outside, lowest)
    goal = goal.flatten(1).log_softmax(-1)
    guess = logits[targets.image_index[hand], joint].masked_fill(outside, lowest)
    guess = guess.flatten(1).log_softmax(-1)
    # Joints beside the widened box (a box of visible parts can be small) have no cell to learn.
    near = (distance2.masked_fill(outside, float('inf')).flatten(1).amin(-1) < 1) if len(hand) \
        else torch.zeros(0, dtype=torch.bool, device=logits.device)  # fmt: skip
    errors = F.kl_div(guess[near], goal[near], reduction='none', log_target=True).sum(-1)
    return Term(errors.sum(), errors.new_tensor(float(errors.numel())))


def joint_depths(depths_m: Tensor, targets: HandTargets) -> Term:
    """|depth - depth*|, in hand lengths, at each labelled joint of maps [B,21,h,w].

    The map is read between its cells, where the joint truly is.
    """
    inside = ((targets.joints_2d >= 0) & (targets.joints_2d <= 1)).all(-1)
    labelled = inside & targets.labels.has_joint_px & targets.labels.has_joints_m[:, None]
    hand, joint = labelled.nonzero(as_tuple=True)
    maps = depths_m[targets.image_index[hand], joint][:, None]  # [P,1,h,w]
    places = (2 * targets.joints_2d[hand, joint] - 1)[:, None, None]
    read = F.grid_sample(maps, places, align_corners=False, padding_mode='border')[:, 0, 0, 0]
    errors = (read - targets.labels.joints_m[hand, joint, 2]).abs() / HAND_LENGTH_M
    return Term(errors.sum(), errors.new_tensor(float(errors.numel())))


def part_targets(
    targets: HandTargets, batch: Batch, part_of_vertex: Tensor, size_hw: torch.Size
) -> tuple[Tensor, Tensor]:
    """Which cell shows which part: maps [B,18,h,w] in {0,1}, and which images [B] are known.

    The visible vertices of each hand, projected by the image's camera, mark their cells. Known are
    images where every hand has a mesh, its visibility, its position and its side.
    """
    labels = targets.labels
    B, (h, w) = len(batch.images), size_hw
    maps = torch.zeros(B, NUM_MAPS, h * w, device=targets.boxes_cxcywh.device)
    complete = labels.has_vertices_m & labels.has_translation & labels.has_side
    complete &= labels.has_visibility
    lacking = torch.zeros(B, device=maps.device).index_add_(
        0, targets.image_index, (~complete).float()
    )
    points = labels.vertices_m + labels.translation_m[:, None]
    camera = batch.camera_matrices_px[targets.image_index]
    homogeneous = points @ camera.transpose(1, 2)
    depth = homogeneous[..., 2]
    pixels = homogeneous[..., :2] / depth.clamp(min=1e-3)[..., None]
    cells = ((pixels + 0.5) / targets.image_size_px * maps.new_tensor([w, h])).floor().long()
    shown = labels.vertex_visible & complete[:, None] & (depth > 1e-3)
    shown &= ((cells >= 0) & (cells < torch.tensor([w, h], device=maps.device))).all(-1)
    hand, vertex = shown.nonzero(as_tuple=True)
    cell = cells[hand, vertex, 1] * w + cells[hand, vertex, 0]
    image = targets.image_index[hand]
    maps[image, part_of_vertex[vertex], cell] = 1
    maps[image, NUM_PARTS + (~labels.is_left[hand]).long(), cell] = 1
    return maps.view(B, NUM_MAPS, h, w), (lacking == 0) & batch.all_hands_labelled


def focal(logits: Tensor, truth: Tensor, known: Tensor) -> Term:
    """Sigmoid focal loss (gamma 2, alpha 0.75) of maps [B,C,h,w] a positive cell; bool [B]."""
    logits, truth = logits[known], truth[known]
    errors = F.binary_cross_entropy_with_logits(logits, truth, reduction='none')
    probability = logits.sigmoid()
    wrong = torch.where(truth > 0, 0.75 * (1 - probability), 0.25 * probability)
    return Term((errors * wrong * torch.where(truth > 0, 1 - probability, probability)).sum(),
                truth.sum())  # fmt: skip
