"""Attention, each rewrite against the plain form it replaces."""

import pytest
import torch
from torch import nn
from transformers import GroundingDinoConfig
from transformers.models.grounding_dino.modeling_grounding_dino import (
    GroundingDinoMultiscaleDeformableAttention,
)

from handos_model.network.attention import (
    VISIBILITY,
    DeformableAttention,
    GroupedSelfAttention,
    HandPacking,
    attention_groups,
    sample_by_gather,
    sample_by_grid,
)

SHAPES = ((12, 16), (6, 8), (3, 4), (2, 2))
L = sum(h * w for h, w in SHAPES)


@pytest.mark.parametrize('strategy', list(VISIBILITY))
def test_grouped_calls_equal_one_dense_mask(strategy):
    torch.manual_seed(0)
    J, V = 21, 778
    attention = GroupedSelfAttention(dim=32, heads=4)
    tokens, position = torch.randn(2, 2, J + V + 1, 32)
    grouped = attention(tokens, position, attention_groups(strategy, J, V))

    kind = torch.tensor([0] * J + [1] * V + [2])
    visible_kinds = {  # rows see columns: joints, vertices, camera; Fig. 8 (a) to (d)
        'independent': [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        'unidirectional': [[1, 0, 0], [1, 1, 0], [1, 1, 1]],
        'hierarchical': [[1, 1, 0], [1, 1, 0], [1, 1, 1]],
        'full': [[1, 1, 1], [1, 1, 1], [1, 1, 1]],
    }[strategy]
    mask = torch.tensor(visible_kinds, dtype=torch.bool)[kind][:, kind]  # [800,800]
    weight = torch.cat([attention.query.weight, attention.key.weight, attention.value.weight])
    dense = nn.functional.multi_head_attention_forward(
        (tokens + position).transpose(0, 1),
        (tokens + position).transpose(0, 1),
        tokens.transpose(0, 1),
        32, 4, weight, torch.zeros(96), None, None, False, 0.0,
        attention.out.weight, attention.out.bias, attn_mask=~mask, need_weights=False,
    )[0].transpose(0, 1)  # fmt: skip
    torch.testing.assert_close(grouped, dense, atol=2e-6, rtol=1e-5)


def deformable_pair():
    """Our deformable attention and transformers', with the same weights."""
    torch.manual_seed(0)
    config = GroundingDinoConfig(d_model=32, disable_custom_kernels=True)
    theirs = GroundingDinoMultiscaleDeformableAttention(config, num_heads=4, n_points=3)
    ours = DeformableAttention(32, heads=4, levels=4, points=3, sampler=sample_by_grid)
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)
    ours.offsets.load_state_dict(theirs.sampling_offsets.state_dict())
    ours.weights.load_state_dict(theirs.attention_weights.state_dict())
    ours.out.load_state_dict(theirs.output_proj.state_dict())
    return ours, theirs


@pytest.mark.parametrize('sampler', [sample_by_grid, sample_by_gather])
def test_deformable_attention_equals_transformers(sampler):
    ours, theirs = deformable_pair()
    ours.sampler = sampler
    memory = torch.randn(1, L, 32)
    queries = torch.randn(3, 5, 32)
    boxes = torch.rand(3, 5, 4) * 1.4 - 0.2  # partly outside the image
    boxes[..., 2:] = boxes[..., 2:].abs() + 0.1
    expected = theirs(
        queries,
        encoder_hidden_states=memory.expand(3, -1, -1),  # per hand, as the paper's code does
        reference_points=boxes[:, :, None].expand(-1, -1, 4, -1),
        spatial_shapes=torch.tensor(SHAPES),
        spatial_shapes_list=list(SHAPES),
        level_start_index=torch.tensor([0]),
    )[0]
    values = theirs.value_proj(memory).unflatten(-1, (4, 8))  # once for the image
    packing = HandPacking.of(torch.zeros(3, dtype=torch.long), 1)
    found = ours(queries, boxes, values, SHAPES, packing)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


def test_gather_equals_grid_sample_with_gradients():
    torch.manual_seed(0)
    values = torch.randn(2, L, 4, 8, requires_grad=True)
    locations = (torch.rand(2, 7, 4, 4, 3, 2) * 1.6 - 0.3).requires_grad_()
    weights = torch.rand(2, 7, 4, 4, 3)
    results = []
    for sampler in (sample_by_grid, sample_by_gather):
        sampled = sampler(values, SHAPES, locations, weights)
        gradients = torch.autograd.grad(sampled.square().sum(), (values, locations))
        results.append((sampled, *gradients))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize('sampler', [sample_by_grid, sample_by_gather])
def test_sampling_keeps_its_accuracy_in_bfloat16(sampler):
    torch.manual_seed(0)
    values = torch.randn(1, L, 4, 16)[..., ::2]  # strided, as one layer's share of all layers is
    locations, weights = torch.rand(1, 9, 4, 4, 3, 2), torch.rand(1, 9, 4, 4, 3)
    exact = sampler(values.bfloat16().float(), SHAPES, locations, weights)
    found = sampler(values.bfloat16(), SHAPES, locations, weights)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact)


def test_packing_returns_each_hand_to_its_place():
    image_index = torch.tensor([2, 0, 2, 2, 3])  # image 1 has none
    packing = HandPacking.of(image_index, num_images=4)
    x = torch.randn(5, 6, 2)
    packed = packing.pack(x)
    # Two hands a page: image 2 has two pages, image 1 none.
    assert packed.shape == (4, 2 * 6, 2)
    assert torch.equal(packing.unpack(packed, 6), x)
    assert torch.equal(packed[0, :6], x[1]) and not packed[0, 6:].any()
    values = torch.arange(4.0).view(4, 1)
    assert packing.of_pages(values).flatten().tolist() == [0, 2, 2, 3]
