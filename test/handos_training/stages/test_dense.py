"""Dense targets: where they lie, what is left out, and that they teach."""

from pathlib import Path

import pytest
import torch
from hand_samples import labelled_sample

from handos_model.config import DetectorConfig
from handos_model.network.detectors.dfine import DFineDetector, build_dfine, initialise_detector
from handos_model.network.joint_maps import JointMaps
from handos_training.data.sample import Batch, collate
from handos_training.data.transform import letterbox
from handos_training.stages.dense import (
    NUM_PARTS,
    DenseHeads,
    DenseStage,
    centre_tokens,
    focal,
    joint_cross_entropy,
    joint_depths,
    load_dense_heads,
    part_targets,
    pose_losses,
    save_dense_heads,
    selection_losses,
)
from handos_training.stages.losses import weighted_loss
from handos_training.stages.network import tiny
from handos_training.stages.targets import cxcywh_to_xyxy, hand_targets, iou_and_giou

SHAPES = [(12, 16), (6, 8), (3, 4)]  # of 96x128 at strides 8, 16, 32
PARTS = torch.arange(778) % NUM_PARTS


def batch_of(*seeds: int) -> Batch:
    return collate([letterbox(labelled_sample(seed), (96, 128)) for seed in seeds])


def build_stage() -> DenseStage:
    torch.manual_seed(0)
    detector = build_dfine(
        DetectorConfig(family='d_fine', model=tiny().detector.model), freeze=False
    )
    assert isinstance(detector, DFineDetector)
    initialise_detector(detector.model, 0)
    heads = DenseHeads(detector.dim, PARTS, width=32)
    return DenseStage(detector, JointMaps(detector.dim, width=32), heads)


def test_joint_cross_entropy_is_least_at_the_joint() -> None:
    batch = batch_of(0)
    targets = hand_targets(batch)
    h, w = SHAPES[0]
    one = targets[torch.tensor([1])]
    one.labels.has_joint_px[:, 1:] = False
    cell = (one.joints_2d[0, 0] * torch.tensor([w, h]) - 0.5).round().long()
    losses = {}
    for offset in (0, 1, 2):
        logits = torch.zeros(1, 21, h, w)
        logits[0, 0, cell[1], cell[0] + offset] = 3.0
        losses[offset] = float(joint_cross_entropy(logits, one).total)
    assert losses[0] < losses[1] < losses[2]


def test_joint_cross_entropy_vanishes_for_the_perfect_map() -> None:
    targets = hand_targets(batch_of(0))[torch.tensor([0])]
    logits = torch.zeros(1, 21, *SHAPES[0], requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], lr=1, max_iter=100)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        total = joint_cross_entropy(logits, targets).total
        total.backward()
        return total

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    flat = float(joint_cross_entropy(torch.zeros_like(logits), targets).total)
    assert float(joint_cross_entropy(logits, targets).total.detach()) < 1e-3 * flat


def test_joint_cross_entropy_gradient() -> None:
    targets = hand_targets(batch_of(0))[torch.tensor([0])]
    targets.labels.has_joint_px[:, 3:] = False
    logits = torch.randn(1, 21, *SHAPES[2], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: joint_cross_entropy(x, targets).total, logits)


def test_depths_are_read_where_the_joints_are() -> None:
    targets = hand_targets(batch_of(0))
    h, w = SHAPES[0]
    wrong = torch.full((1, 21, h, w), 7.0, requires_grad=True)
    cells = (targets.joints_2d * torch.tensor([w, h]) - 0.5).floor().long()
    right = wrong.detach().clone()
    for hand, joint in targets.labels.has_joint_px.nonzero():
        x, y = cells[hand, joint].tolist()
        depth_m = targets.labels.joints_m[hand, joint, 2]
        right[0, joint, max(y, 0) : y + 2, max(x, 0) : x + 2] = depth_m
    first = targets[torch.tensor([0])]
    assert float(joint_depths(right, first).total) < 1e-5
    term = joint_depths(wrong, first)
    term.total.backward()
    assert float(term.total.detach() / term.size) == pytest.approx(35, rel=0.05)  # 7 m / 0.2 m
    assert wrong.grad is not None and int((wrong.grad != 0).flatten(2).sum(-1).max()) <= 4

    targets.labels.has_joints_m[:] = False
    assert float(joint_depths(wrong, targets).size) == 0


def test_parts_mark_the_cells_of_visible_vertices() -> None:
    batch = batch_of(0, 1)
    batch.hands_of(0).vertex_visible[0] = False  # only hand 1 of image 0 is seen
    targets = hand_targets(batch)
    maps, known = part_targets(targets, batch, PARTS, torch.Size(SHAPES[0]))
    assert known.tolist() == [True, True]
    labels = batch.hands_of(0)
    points = labels.vertices_m[1] + labels.translation_m[1]
    pixels = points @ batch.camera_matrices_px[0].T
    pixels = pixels[:, :2] / pixels[:, 2:]
    expected = torch.zeros_like(maps[0])
    for vertex in range(778):
        if labels.vertex_visible[1, vertex]:
            x, y = ((pixels[vertex] + 0.5) / 8).floor().long().tolist()
            expected[PARTS[vertex], y, x] = 1
            expected[NUM_PARTS + 1, y, x] = 1  # hand 1 is a right hand
    assert torch.equal(maps[0], expected)
    assert maps[1, NUM_PARTS].sum() > 0  # image 1 shows its left hand too


@pytest.mark.parametrize('flag', ['has_vertices_m', 'has_translation', 'has_side'])
def test_images_with_an_unknown_surface_teach_no_parts(flag: str) -> None:
    batch = batch_of(0, 1)
    getattr(batch.hands_of(1), flag)[0] = False
    _, known = part_targets(hand_targets(batch), batch, PARTS, torch.Size(SHAPES[0]))
    assert known.tolist() == [True, False]
    assert float(focal(torch.zeros(2, 18, 12, 16), torch.zeros(2, 18, 12, 16), ~known).size) == 0


def test_centre_tokens_surround_the_centre_on_the_level_of_the_size() -> None:
    batch = batch_of(0)
    batch.hands_of(0).boxes_xyxy_px[0] = torch.tensor([20.0, 20, 50, 50])  # 30 px: stride 8
    batch.hands_of(0).boxes_xyxy_px[1] = torch.tensor([10.0, 0, 120, 90])  # 99 px: stride 16
    image, token, hand = centre_tokens(hand_targets(batch), SHAPES)
    assert set(image.tolist()) == {0}
    small = {divmod(t, 16) for t in token[hand == 0].tolist()}
    assert small == {(y, x) for y in (3, 4, 5) for x in (3, 4, 5)}
    large = token[hand == 1]
    assert ((large >= 12 * 16) & (large < 12 * 16 + 6 * 8)).all()


def test_a_shared_token_finds_the_smaller_hand() -> None:
    batch = batch_of(0)
    batch.hands_of(0).boxes_xyxy_px[0] = torch.tensor([20.0, 20, 50, 50])
    batch.hands_of(0).boxes_xyxy_px[1] = torch.tensor([25.0, 25, 45, 45])
    _, token, hand = centre_tokens(hand_targets(batch), SHAPES)
    assert len(token) == len(set(token.tolist())) == 9
    assert set(hand.tolist()) == {1}


def test_giou_of_known_boxes() -> None:
    a = torch.tensor([[0.25, 0.25, 0.5, 0.5], [0.25, 0.5, 0.5, 1.0]])
    b = torch.tensor([[0.25, 0.25, 0.5, 0.5], [0.75, 0.5, 0.5, 1.0]])
    iou, giou = iou_and_giou(cxcywh_to_xyxy(a), cxcywh_to_xyxy(b))
    assert iou.tolist() == pytest.approx([1, 0])
    assert giou.tolist() == pytest.approx([1, 0])
    far = torch.tensor([[0.9, 0.9, 0.1, 0.1]])
    assert float(iou_and_giou(cxcywh_to_xyxy(a[:1]), cxcywh_to_xyxy(far))[1]) < 0


def test_incomplete_images_have_no_negative_tokens() -> None:
    batch = batch_of(0)
    num_tokens = sum(h * w for h, w in SHAPES)
    logits, boxes = torch.zeros(1, num_tokens), torch.rand(1, num_tokens, 4)
    targets = hand_targets(batch)
    centres = centre_tokens(targets, SHAPES)
    full = selection_losses(logits, boxes, centres, targets, torch.tensor([True]))
    part = selection_losses(logits, boxes, centres, targets, torch.tensor([False]))
    assert 0 < float(part['dense_score'].total) < float(full['dense_score'].total)
    assert torch.equal(part['dense_l1'].total, full['dense_l1'].total)


def test_pose_losses_vanish_at_the_truth_and_leave_out_what_is_unknown() -> None:
    targets = hand_targets(batch_of(0))
    boxes = targets.boxes_cxcywh[:, None]
    offsets = ((targets.joints_2d - boxes[..., :2]) / boxes[..., 2:]).flatten(1)
    side = 50.0 * (2 * targets.labels.is_left.float() - 1)
    truth = torch.cat([offsets, side[:, None]], dim=1)
    assert all(float(term.total) < 1e-4 for term in pose_losses(truth, targets).values())
    wrong = pose_losses(torch.cat([offsets + 0.1, -side[:, None]], dim=1), targets)
    count = float(wrong['dense_pose'].size)
    assert float(wrong['dense_pose'].total) == pytest.approx(5 * 0.2 * count, rel=1e-4)
    assert float(wrong['dense_side'].total) > 10
    targets.labels.has_joint_px[:] = False
    targets.labels.has_side[:] = False
    assert all(float(term.size) == 0 for term in pose_losses(truth, targets).values())


def test_finite_without_hands_and_without_labels() -> None:
    stage = build_stage()
    for keep in (torch.zeros(0, dtype=torch.long), torch.tensor([0, 1])):
        batch = batch_of(0, 1)
        samples = [batch.sample(i) for i in range(2)]
        batch = collate([sample.replace(hands=sample.hands[keep]) for sample in samples])
        for name in vars(batch.hands):
            if name.startswith('has_'):
                getattr(batch.hands, name)[:] = False
        loss, _ = weighted_loss(stage(batch), lambda name: 1.0)
        loss.backward()
        assert loss.isfinite()
        gradients = [p.grad for p in stage.parameters() if p.grad is not None]
        assert all(gradient.isfinite().all() for gradient in gradients)


def test_learns_a_few_images() -> None:
    stage = build_stage().train()
    batch = batch_of(0, 1, 2)
    optimizer = torch.optim.AdamW(stage.parameters(), lr=2e-3)
    history = []
    for _ in range(12):
        loss, means = weighted_loss(stage(batch), lambda name: 1.0)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(stage.parameters(), 1.0)
        optimizer.step()
        history.append({'loss': float(loss.detach())} | {n: float(v) for n, v in means.items()})
    assert history[-1]['loss'] < 0.8 * history[0]['loss']
    assert history[-1]['dense_joints'] < history[0]['dense_joints']


def test_heads_go_on_in_the_next_stage_and_others_stay_fresh(tmp_path: Path) -> None:
    first, second = DenseHeads(32, PARTS, width=32), DenseHeads(32, PARTS, width=32)
    assert not load_dense_heads(second, tmp_path)
    save_dense_heads(torch.nn.Sequential(first), tmp_path)
    assert load_dense_heads(second, tmp_path)
    assert all(map(torch.equal, first.state_dict().values(), second.state_dict().values()))
    other = DenseHeads(48, PARTS, width=32)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    assert not load_dense_heads(other, tmp_path)
    assert all(map(torch.equal, before.values(), other.state_dict().values()))
