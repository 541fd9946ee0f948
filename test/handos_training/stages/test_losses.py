"""Each loss term: an analytic case, its gradient, zero at the truth, and missing labels."""

import math
from dataclasses import replace

import pytest
import torch

from handos_model.network.heads import DecoderOutput as Output
from handos_training.data.sample import Batch, empty_labels
from handos_training.stages.losses import (
    HAND_LENGTH_M,
    HAND_SIGMAS,
    MeshTopology,
    Term,
    edge_length,
    hand_losses,
    joints_relative,
    mesh_topology,
    normal,
    normal_consistency,
    oks,
    points_l1,
    side,
    visibility,
    weighted_loss,
)
from handos_training.stages.targets import hand_targets

# A tetrahedron on the corner of a cube, outward normals.
FACES = torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
TOPOLOGY = mesh_topology(FACES)
CORNER = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.float64)


def value(term: Term) -> float:
    return float(term.total / term.size)


def full_batch(num_hands: int, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    labels = empty_labels(num_hands)
    corner = torch.rand(num_hands, 2, generator=generator) * 40
    labels.boxes_xyxy_px = torch.cat([corner, corner + 30], dim=1)
    labels.amodal_boxes_xyxy_px = labels.boxes_xyxy_px
    labels.joints_px = corner[:, None] + 30 * torch.rand(num_hands, 21, 2, generator=generator)
    labels.joints_m = 0.05 * torch.randn(num_hands, 21, 3, generator=generator)
    labels.vertices_m = 0.05 * torch.randn(num_hands, 778, 3, generator=generator)
    labels.joint_visible = torch.rand(num_hands, 21, generator=generator) > 0.5
    for name in vars(labels):
        if name.startswith('has_'):
            getattr(labels, name)[:] = True
    images = torch.zeros(1, 3, 64, 96, dtype=torch.uint8)
    return Batch(
        images, torch.eye(3)[None], labels, [num_hands], ['drawn'], torch.ones(1, dtype=torch.bool)
    )


def output_at_truth(batch: Batch) -> Output:
    targets = hand_targets(batch)
    labels = targets.labels
    return Output(
        targets.joints_2d.clone(),
        torch.where(labels.joint_visible, 50.0, -50.0),
        labels.vertices_m.clone(),
        labels.joints_m.clone(),
        torch.zeros(len(targets), 3),
        targets.joints_2d.clone(),
        torch.where(labels.is_left, -50.0, 50.0),
    )


def hand_topology() -> MeshTopology:
    generator = torch.Generator().manual_seed(0)
    return mesh_topology(
        torch.stack([torch.randperm(778, generator=generator)[:3] for _ in range(9)])
    )


def test_neighbouring_faces_share_an_edge() -> None:
    assert len(TOPOLOGY.face_pairs) == 6  # the edges of a tetrahedron
    for first, second in TOPOLOGY.face_pairs.tolist():
        assert len(set(FACES[first].tolist()) & set(FACES[second].tolist())) == 2


def test_points_l1_counts_labelled_points_only() -> None:
    predicted, target = torch.zeros(2, 3, 2), torch.zeros(2, 3, 2)
    predicted[0, 0] = torch.tensor([0.3, -0.4])
    predicted[1, 2] = 9.0  # unlabelled
    labelled = torch.tensor([[True, True, False], [True, False, False]])
    term = points_l1(predicted, target, labelled)
    assert float(term.size) == 3
    assert value(term) == pytest.approx(0.7 / 3)


def test_oks_of_a_known_distance() -> None:
    joints, truth = torch.zeros(1, 21, 2), torch.zeros(1, 21, 2)
    labelled = torch.zeros(1, 21, dtype=torch.bool)
    labelled[0, 4] = True
    size_px, area_px2 = torch.tensor([200.0, 100.0]), torch.tensor([2500.0])
    joints[0, 4] = torch.tensor([3 / 200, 4 / 100])  # 5 px
    exponent = 5**2 / (2 * 2500 * (2 * HAND_SIGMAS[4]) ** 2)
    term = oks(joints, truth, labelled, area_px2, size_px)
    assert value(term) == pytest.approx(1 - math.exp(-exponent), rel=1e-5)


def test_edge_length_of_a_scaled_mesh() -> None:
    # Each face has edges of 1 or sqrt(2); scaling by 1.1 adds a tenth of each.
    lengths = [1, math.sqrt(2), 1] * 3 + [math.sqrt(2)] * 3
    term = edge_length(1.1 * CORNER[None], CORNER[None], FACES)
    assert value(term) == pytest.approx(0.1 * sum(lengths) / 12, rel=1e-6)


def test_normal_of_a_turned_triangle() -> None:
    face = torch.tensor([[0, 1, 2]])
    truth = CORNER[None, :3]
    angle = math.radians(30)
    turned = torch.tensor(
        [[0, 0, 0], [math.cos(angle), 0, math.sin(angle)], [0, 1, 0]], dtype=torch.float64
    )
    # Edges: 01 leaves the plane by sin 30; 12 by sin 30 / sqrt 2; 20 stays in it.
    expected = (math.sin(angle) + math.sin(angle) / math.sqrt(2)) / 3
    assert value(normal(turned[None], truth, face)) == pytest.approx(expected, rel=1e-6)


def test_normal_consistency_of_a_fold() -> None:
    faces = mesh_topology(torch.tensor([[0, 1, 2], [1, 0, 3]]))
    for angle_deg in (0, 60, 90, 180):
        angle = math.radians(angle_deg)
        vertices = torch.tensor(
            [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, -math.cos(angle), math.sin(angle)]],
            dtype=torch.float64,
        )
        term = normal_consistency(vertices[None], faces)
        assert value(term) == pytest.approx(1 - math.cos(angle), abs=1e-9)


def test_visibility_is_binary_cross_entropy() -> None:
    logits = torch.full((2, 21), math.log(3.0))  # probability 0.75
    visible = torch.zeros(2, 21, dtype=torch.bool)
    visible[0] = True
    term = visibility(logits, visible, torch.tensor([True, True]))
    assert value(term) == pytest.approx(-(math.log(0.75) + math.log(0.25)) / 2, rel=1e-5)
    assert float(visibility(logits, visible, torch.tensor([True, False])).size) == 21


GRADIENTS = ('l1', 'oks', 'relative', 'side', 'edge', 'normal', 'consistency', 'visibility')


@pytest.mark.parametrize('name', GRADIENTS)
def test_gradients(name: str) -> None:
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    labelled = random(2, 21) > 0.3
    truth_2d, area, size = random(2, 21, 2), 900 * random(2) + 300, random(2) * 50 + 50
    truth_mesh = CORNER + 0.1 * random(2, 4, 3)
    functions = {
        'l1': (lambda x: points_l1(x, truth_2d, labelled).total, random(2, 21, 2)),
        'oks': (lambda x: oks(x, truth_2d, labelled, area, size).total,
                truth_2d + 0.02 * random(2, 21, 2)),
        'edge': (lambda x: edge_length(x, truth_mesh, FACES).total,
                 CORNER + 0.2 * random(2, 4, 3)),
        'normal': (lambda x: normal(x, truth_mesh, FACES).total, CORNER + 0.2 * random(2, 4, 3)),
        'consistency': (lambda x: normal_consistency(x, TOPOLOGY).total,
                        CORNER + 0.2 * random(2, 4, 3)),
        'visibility': (lambda x: visibility(x, labelled, labelled[:, 0] | True).total,
                       random(2, 21)),
        'side': (lambda x: side(x, labelled[:, 0], labelled[:, 0] | True).total, random(2)),
        'relative': (lambda x: joints_relative(x, truth_2d, labelled, area, size).total,
                     truth_2d + 0.02 * random(2, 21, 2)),
    }  # fmt: skip
    function, point = functions[name]
    assert torch.autograd.gradcheck(function, point.requires_grad_(), eps=1e-7, atol=1e-5)


def test_all_terms_vanish_at_the_truth() -> None:
    batch = full_batch(3)
    terms = hand_losses([output_at_truth(batch)], hand_targets(batch), hand_topology())
    assert set(terms) == {
        'joints_2d', 'oks_2d', 'joints_relative', 'side', 'visibility', 'joints_projected',
        'oks_projected', 'joints_3d', 'vertices', 'edge', 'normal', 'normal_consistency',
    }  # fmt: skip
    for name, term in terms.items():
        if name != 'normal_consistency':  # a regulariser: a hand is not flat
            assert float(term.total) == pytest.approx(0, abs=1e-4), name


def test_3d_terms_are_in_hand_lengths_and_summed_over_layers() -> None:
    batch = full_batch(2)
    output = output_at_truth(batch)
    output = replace(output, vertices_m=output.vertices_m + 0.1 * HAND_LENGTH_M)
    terms = hand_losses([output, output], hand_targets(batch), hand_topology())
    assert value(terms['vertices']) == pytest.approx(2 * 3 * 0.1, rel=1e-4)
    assert float(terms['vertices'].size) == 2 * 778


def test_missing_labels_drop_out_for_their_hand_only() -> None:
    batch = full_batch(2)
    topology = hand_topology()
    generator = torch.Generator().manual_seed(5)
    truth = output_at_truth(batch)
    noisy = Output(**{
        name: item + 0.05 * torch.randn(item.shape, generator=generator)
        for name, item in vars(truth).items()
    })  # fmt: skip
    labels = batch.hands
    for name in ('has_joints_m', 'has_vertices_m', 'has_translation', 'has_visibility'):
        getattr(labels, name)[1] = False
    labels.has_joint_px[1, 5:] = False
    both = hand_losses([noisy], hand_targets(batch), topology)
    assert {name: float(both[name].size) for name in ('vertices', 'joints_3d', 'visibility')} == {
        'vertices': 778, 'joints_3d': 21, 'visibility': 21,
    }  # fmt: skip
    assert float(both['joints_projected'].size) == 21 + 5  # weak supervision of the second hand
    assert float(both['normal_consistency'].size) == 2 * len(topology.face_pairs)
    first = Output(**{name: item[:1] for name, item in vars(noisy).items()})
    alone = hand_losses([first], hand_targets(batch)[torch.tensor([0])], topology)
    for name in ('vertices', 'joints_3d', 'visibility', 'edge', 'normal'):
        assert float(both[name].total) == pytest.approx(float(alone[name].total), rel=1e-5), name


@pytest.mark.parametrize('num_hands', [0, 2])
def test_finite_without_any_label(num_hands: int) -> None:
    batch = full_batch(num_hands)
    batch.hands = empty_labels(num_hands)
    batch.hands.boxes_xyxy_px = torch.tensor([[1.0, 1, 9, 9]]).repeat(num_hands, 1)
    shapes = {'joints_2d': (21, 2), 'visibility_logits': (21,), 'vertices_m': (778, 3),
              'joints_m': (21, 3), 'translation_m': (3,), 'joints_projected': (21, 2),
              'right_logits': ()}  # fmt: skip
    output = Output(**{
        name: torch.randn(num_hands, *shape, requires_grad=True) for name, shape in shapes.items()
    })  # fmt: skip
    terms = hand_losses([output], hand_targets(batch), hand_topology())
    loss, means = weighted_loss(terms, lambda name: 1.0)
    loss.backward()
    assert math.isfinite(float(loss))
    assert all(math.isfinite(float(mean)) for mean in means.values())
    for name in shapes:
        gradient = getattr(output, name).grad
        assert gradient is None or gradient.isfinite().all(), name
    assert float(means['vertices']) == 0


def test_relative_joints_are_in_hand_sizes_and_forget_what_is_far_off() -> None:
    target = torch.zeros(2, 21, 2)
    image_px, area_px2 = torch.tensor([320.0, 240.0]), torch.tensor([40.0, 80.0]).square()
    moved = target + torch.tensor([8.0, 0]) / image_px
    labelled = torch.ones(2, 21, dtype=torch.bool)
    term = joints_relative(moved, target, labelled, area_px2, image_px)
    assert value(term) == pytest.approx((8 / 40 + 8 / 80) / 2)
    far = (target + 0.9).requires_grad_()
    joints_relative(far, target, labelled, area_px2, image_px).total.backward()
    assert not far.grad.any()


def test_2d_layers_have_no_3d_terms() -> None:
    batch = full_batch(1)
    truth = output_at_truth(batch)
    flat = Output(truth.joints_2d, truth.visibility_logits)
    terms = hand_losses([flat, truth], hand_targets(batch), hand_topology())
    assert {'joints_2d', 'vertices'} <= set(terms)
    only_flat = hand_losses([flat], hand_targets(batch), hand_topology())
    assert set(only_flat) == {'joints_2d', 'oks_2d', 'joints_relative', 'visibility'}


def test_degenerate_mesh_has_finite_gradients() -> None:
    vertices = torch.zeros(1, 4, 3, requires_grad=True)
    target = CORNER.float()[None]
    total = (
        edge_length(vertices, target, FACES).total
        + normal(vertices, target, FACES).total
        + normal_consistency(vertices, TOPOLOGY).total
    )
    total.backward()
    assert vertices.grad is not None
    assert vertices.grad.isfinite().all()


def test_weighted_loss_uses_the_sizes_of_all_processes() -> None:
    terms = {'vertices': Term(torch.tensor(6.0, requires_grad=True), torch.tensor(2.0))}

    def two_processes(values: torch.Tensor) -> torch.Tensor:
        return values + torch.tensor([4.0, 3.0, 1.0])  # the other one: total 4, size 3

    loss, means = weighted_loss(terms, lambda name: 10.0, two_processes)
    assert float(means['vertices']) == pytest.approx(10 * (6 + 4) / (2 + 3))
    # Averaged with the other process' loss, 4 / 5 * 10 * 2, this gives the mean above.
    assert float(loss) == pytest.approx(10 * 6 / 5 * 2)
