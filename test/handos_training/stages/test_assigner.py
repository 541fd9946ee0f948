"""SimOTA against a loop over images, hands and queries."""

import math

import pytest
import torch

from handos_training.stages.assigner import assign
from handos_training.stages.targets import iou_and_giou


def iou(a: list[float], b: list[float]) -> float:
    sides = []
    for axis in (0, 1):
        low = max(a[axis] - a[axis + 2] / 2, b[axis] - b[axis + 2] / 2)
        high = min(a[axis] + a[axis + 2] / 2, b[axis] + b[axis + 2] / 2)
        sides.append(max(0.0, high - low))
    shared = sides[0] * sides[1]
    return shared / max(a[2] * a[3] + b[2] * b[3] - shared, 1e-12)


def brute_force(scores, boxes, hands, image_of_hand, max_queries):
    """{(image, query): hand}"""
    wanted: dict[tuple[int, int], list[tuple[float, int]]] = {}
    for hand, image in enumerate(image_of_hand.tolist()):
        box = hands[hand].tolist()
        overlaps = [iou(query, box) for query in boxes[image].tolist()]
        costs = [
            -math.log(max(score, 1e-8)) - math.log(max(overlap, 1e-8))
            for score, overlap in zip(scores[image].tolist(), overlaps, strict=True)
        ]
        k = max(1, int(sum(sorted(overlaps)[::-1][:max_queries])))
        for query in sorted(range(len(costs)), key=lambda q: costs[q])[:k]:
            wanted.setdefault((image, query), []).append((costs[query], hand))
    return {place: min(hands_there)[1] for place, hands_there in wanted.items()}


@pytest.mark.parametrize('seed', range(20))
@pytest.mark.parametrize('max_queries', [3, 10])
def test_agrees_with_brute_force(seed: int, max_queries: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    B, Q = 4, 25
    counts = torch.randint(0, 4, (B,), generator=generator)
    image_index = torch.arange(B).repeat_interleave(counts)
    hands = torch.rand(len(image_index), 4, generator=generator) * 0.4 + 0.3
    boxes = torch.rand(B, Q, 4, generator=generator) * 0.4 + 0.3
    for image in range(B):  # some queries near hands, so that K varies
        near = hands[image_index == image]
        if len(near):
            noise = 0.03 * torch.randn(8, 4, generator=generator)
            boxes[image, :8] = near[torch.arange(8) % len(near)] + noise
    scores = torch.rand(B, Q, generator=generator)
    found = assign(scores, boxes, hands, image_index, max_queries)
    pairs = zip(found.image_index.tolist(), found.query_index.tolist(), strict=True)
    got = dict(zip(pairs, found.hand_index.tolist(), strict=True))
    assert got == brute_force(scores, boxes, hands, image_index, max_queries)
    for n in range(len(found.iou)):
        box = boxes[found.image_index[n], found.query_index[n]].tolist()
        expected = iou(box, hands[found.hand_index[n]].tolist())
        assert float(found.iou[n]) == pytest.approx(expected, abs=1e-5)


def test_every_lonely_hand_gets_a_query_even_without_overlap() -> None:
    boxes = torch.tensor([[[0.2, 0.2, 0.1, 0.1], [0.3, 0.3, 0.1, 0.1]]])
    hands = torch.tensor([[0.8, 0.8, 0.1, 0.1]])
    found = assign(torch.tensor([[0.4, 0.6]]), boxes, hands, torch.zeros(1, dtype=torch.long))
    assert found.query_index.tolist() == [1]  # no overlap at all: the better score decides


def test_a_contested_query_goes_to_the_cheaper_hand() -> None:
    boxes = torch.tensor([[[0.5, 0.5, 0.2, 0.2]]])
    hands = torch.tensor([[0.56, 0.5, 0.2, 0.2], [0.5, 0.5, 0.2, 0.2]])
    found = assign(torch.tensor([[0.9]]), boxes, hands, torch.zeros(2, dtype=torch.long))
    assert found.hand_index.tolist() == [1]


@pytest.mark.parametrize(('num_queries', 'num_hands'), [(0, 2), (5, 0), (0, 0)])
def test_nothing_to_assign(num_queries: int, num_hands: int) -> None:
    found = assign(
        torch.rand(2, num_queries),
        torch.rand(2, num_queries, 4),
        torch.rand(num_hands, 4),
        torch.zeros(num_hands, dtype=torch.long),
    )
    assert len(found.query_index) == 0


def test_iou_of_empty_boxes_is_zero() -> None:
    point = torch.tensor([0.5, 0.5, 0.5, 0.5])
    assert float(iou_and_giou(point, point)[0]) == 0
