"""Detector adapters against the plain transformers models, bit for bit."""

from dataclasses import replace

import pytest
import torch
from small_networks import HGNET, SMALL_DETECTORS, random_images, small_detector

from handos_model.config import DetectorConfig
from handos_model.errors import UserError
from handos_model.network.detectors.dfine import initialise_detector
from handos_model.network.detectors.families import build_detector
from handos_model.network.detectors.grounding_dino import HAND_TOKENS

FAMILIES = list(SMALL_DETECTORS)


def plain_outputs(config, images):
    """The plain model's outputs, with what its decoder was given."""
    detector = small_detector(replace(config, slim=False))
    seen = {}
    detector.model.model.decoder.register_forward_pre_hook(
        lambda _, __, kwargs: seen.update(kwargs), with_kwargs=True
    )
    pixels = images / 255
    extra = {}
    if config.family == 'grounding_dino':
        mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
        pixels = (pixels - mean) / std
        extra = {'input_ids': torch.tensor([HAND_TOKENS] * len(images))}
    with torch.no_grad():
        outputs = detector.model(pixel_values=pixels, output_hidden_states=True, **extra)
    return outputs, seen


@pytest.mark.parametrize('family', FAMILIES)
def test_adapter_is_bit_identical_to_the_plain_model(family):
    config, images = replace(SMALL_DETECTORS[family], slim=False), random_images()
    plain, seen = plain_outputs(config, images)
    found = small_detector(config)(images / 255)
    assert torch.equal(found.boxes_cxcywh, plain.pred_boxes)
    assert torch.equal(found.logits, plain.logits)
    assert torch.equal(found.queries_final, plain.last_hidden_state)
    assert torch.equal(found.queries_initial, seen['inputs_embeds'])
    if family == 'grounding_dino':
        memory, scores = plain.encoder_last_hidden_state_vision, plain.logits.sigmoid().amax(-1)
    else:
        maps = plain.encoder_last_hidden_state
        memory = torch.cat([m.flatten(2).transpose(1, 2) for m in maps], 1)
        assert found.spatial_shapes == tuple(m.shape[2:] for m in maps)
        scores = plain.logits[..., config.hand_label].sigmoid()
    assert torch.equal(found.memory, memory)
    assert torch.equal(found.scores, scores)
    assert found.memory.shape[1] == sum(h * w for h, w in found.spatial_shapes)


@pytest.mark.parametrize('family', FAMILIES)
def test_outputs_have_one_shape_whatever_the_family(family):
    detector = small_detector(SMALL_DETECTORS[family])
    found = detector(random_images() / 255)
    B, Q, d = 2, 20, detector.dim
    assert found.queries_initial.shape == found.queries_final.shape == (B, Q, d)
    assert found.memory.shape[2] == d and len(found.spatial_shapes) == detector.num_levels
    assert found.boxes_cxcywh.shape == (B, Q, 4) and found.scores.shape == (B, Q)
    assert tuple(m.shape[1] for m in found.backbone_maps) == detector.backbone_channels
    for level, m in zip(found.spatial_shapes, found.backbone_maps, strict=False):
        assert m.shape[2:] == level
    assert found.scores.min() >= 0 and found.scores.max() <= 1


def test_initial_queries_are_of_the_instance_except_grounding_dinos():
    for family in FAMILIES:
        found = small_detector(SMALL_DETECTORS[family])(random_images() / 255)
        same = torch.equal(found.queries_initial[0], found.queries_initial[1])
        assert same == (family == 'grounding_dino')


def test_slim_grounding_dino_equals_the_unslimmed():
    config, images = SMALL_DETECTORS['grounding_dino'], random_images() / 255
    full, slimmed = (small_detector(replace(config, slim=s)) for s in (False, True))
    a, b = full(images), slimmed(images)
    T = len(HAND_TOKENS)
    assert torch.isneginf(a.logits[..., T:]).all()
    for one, other in (
        (a.memory, b.memory),
        (a.logits[..., :T], b.logits),
        (a.boxes_cxcywh, b.boxes_cxcywh),
        (a.queries_final, b.queries_final),
    ):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    sizes = [sum(p.numel() for p in d.parameters()) for d in (full, slimmed)]
    assert sizes[1] < sizes[0] - 3000 * 32  # at least BERT's vocabulary is gone


def test_memory_layer_takes_an_earlier_encoder_layer():
    config, images = SMALL_DETECTORS['grounding_dino'], random_images()
    plain, _ = plain_outputs(config, images)
    found = small_detector(replace(config, memory_layer=2))(images / 255)
    expected = plain.encoder_vision_hidden_states[2]
    torch.testing.assert_close(found.memory, expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(expected, plain.encoder_last_hidden_state_vision, atol=1e-2)
    with pytest.raises(UserError, match='memory_layer'):
        DetectorConfig('d_fine', memory_layer=4)


@pytest.mark.parametrize('family', FAMILIES)
def test_a_frozen_detector_stays_frozen(family):
    detector = small_detector(SMALL_DETECTORS[family]).train()
    assert not any(module.training for module in detector.modules())
    found = detector((random_images() / 255).requires_grad_())
    assert not found.memory.requires_grad and not found.boxes_cxcywh.requires_grad
    assert not any(p.requires_grad for p in detector.parameters())


def test_a_released_detector_learns():
    detector = small_detector(SMALL_DETECTORS['d_fine'], freeze=False)
    detector.train()
    detector(random_images() / 255).memory.sum().backward()
    assert any(p.grad is not None and p.grad.any() for p in detector.parameters())
    assert any(module.training for module in detector.modules())
    detector.set_frozen(True)
    assert not any(module.training for module in detector.modules())


@pytest.mark.parametrize('family', ['d_fine', 'rt_detr_v2', 'grounding_dino'])
def test_a_local_folder_loads_as_a_reference(family, tmp_path):
    config, images = SMALL_DETECTORS[family], random_images() / 255
    if family == 'd_fine':
        config = replace(config, model=config.model | {'backbone_config': HGNET})
    original = small_detector(replace(config, slim=False))
    original.model.save_pretrained(tmp_path)
    reference = replace(config, reference=str(tmp_path), model={}, slim=False)
    assert torch.equal(build_detector(reference)(images).logits, original(images).logits)


def test_initialisation_is_healthy_and_seeded():
    torch.manual_seed(5)
    config = SMALL_DETECTORS['d_fine']
    results = []
    for seed in (0, 0, 1):
        detector = build_detector(config)
        initialise_detector(detector, seed)
        results.append(detector(random_images() / 255))
    for found in results:
        for tensor in (found.memory, found.queries_initial, *found.backbone_maps):
            assert 1e-2 < tensor.std() < 1e2
    assert torch.equal(results[0].memory, results[1].memory)
    assert not torch.equal(results[0].memory, results[2].memory)
