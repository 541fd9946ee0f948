"""Seeded small networks of each family, and drawn hands to learn from."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from handos_model.config import DecoderConfig, DetectorConfig, HandOSConfig, SideTuningConfig
from handos_model.hand.model import HandModel
from handos_model.hand.pose_limits import random_pose
from handos_model.network.detectors.dfine import initialise_detector
from handos_model.network.detectors.families import build_detector
from handos_model.network.detectors.protocol import DetectorBase
from handos_model.network.handos import Features, HandOS

RESNET = {
    'model_type': 'rt_detr_resnet', 'embedding_size': 16, 'hidden_sizes': [16, 32, 48, 64],
    'depths': [1, 1, 1, 1], 'layer_type': 'basic', 'out_features': ['stage2', 'stage3', 'stage4'],
}  # fmt: skip
SWIN = {
    'model_type': 'swin', 'embed_dim': 24, 'depths': [1, 1, 2, 1], 'num_heads': [1, 2, 3, 4],
    'window_size': 4, 'image_size': 128, 'out_features': ['stage2', 'stage3', 'stage4'],
}  # fmt: skip
BERT = {
    'model_type': 'bert', 'hidden_size': 32, 'num_hidden_layers': 1, 'num_attention_heads': 2,
    'intermediate_size': 64, 'vocab_size': 3000,
}  # fmt: skip

HGNET = {  # a backbone of the library's own, where nano has ours
    'model_type': 'hgnet_v2', 'stem_channels': [3, 8, 8], 'stage_in_channels': [8, 16, 24, 32],
    'stage_mid_channels': [8, 8, 16, 16], 'stage_out_channels': [16, 24, 32, 48],
    'stage_num_blocks': [1, 1, 1, 1], 'stage_downsample': [False, True, True, True],
    'stage_light_block': [False] * 4, 'stage_kernel_size': [3] * 4,
    'stage_numb_of_layers': [1] * 4, 'hidden_sizes': [16, 24, 32, 48], 'depths': [1] * 4,
    'out_indices': [2, 3, 4],
}  # fmt: skip
SMALL_DETECTORS = {
    'd_fine': DetectorConfig(
        'd_fine', model={**HandOSConfig.nano().detector.model, 'num_queries': 20}
    ),
    'rt_detr_v2': DetectorConfig(
        'rt_detr_v2',
        model={
            'backbone_config': RESNET, 'encoder_in_channels': [32, 48, 64],
            'encoder_hidden_dim': 64, 'encoder_ffn_dim': 128, 'd_model': 64, 'num_queries': 20,
            'decoder_in_channels': [64, 64, 64], 'decoder_ffn_dim': 128, 'decoder_layers': 2,
            'hidden_expansion': 0.5, 'num_labels': 3,
        },
        hand_label=1,
    ),
    'grounding_dino': DetectorConfig(
        'grounding_dino',
        model={
            'backbone_config': SWIN, 'text_config': BERT, 'd_model': 64, 'encoder_layers': 3,
            'decoder_layers': 2, 'encoder_ffn_dim': 128, 'decoder_ffn_dim': 128,
            'encoder_attention_heads': 4, 'decoder_attention_heads': 4, 'num_queries': 20,
        },
    ),
}  # fmt: skip


def small_detector(config: DetectorConfig, freeze: bool = True) -> DetectorBase:
    """Seeded, with every parameter large enough to show in the outputs."""
    torch.manual_seed(0)
    detector = build_detector(replace(config, slim=False), freeze)
    excite(detector.model)
    if config.family == 'grounding_dino' and config.slim:
        from handos_model.network.detectors.grounding_dino import GroundingDinoDetector

        return GroundingDinoDetector(detector.model, memory_layer=config.memory_layer)
    return detector


@torch.no_grad()
def excite(model: nn.Module) -> None:
    """Healthy weights, and noise where the library starts from zero or almost zero."""
    initialise_detector(model, seed=1)
    generator = torch.Generator().manual_seed(2)
    for parameter in model.parameters():
        if parameter.abs().max() < 1e-3:
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)


def small_config(family: str = 'd_fine', **decoder: Any) -> HandOSConfig:
    detector = SMALL_DETECTORS[family]
    settings: dict[str, Any] = {'dim': 64, 'heads': 4, 'ffn_dim': 64, 'vertex_tokens': 98}
    settings['start'] = 'maps' if family == 'd_fine' else 'query'
    settings.update(decoder)
    return HandOSConfig(
        name='small',
        detector=detector,
        side_tuning=SideTuningConfig(width=32, hidden=16),
        decoder=DecoderConfig(**settings),
        input_size_hw=(96, 128),
    )


@lru_cache(maxsize=1)
def hand_model() -> HandModel:
    return HandModel.embedded()


def small_network(config: HandOSConfig | None = None) -> HandOS:
    config = config or small_config()
    torch.manual_seed(3)
    network = HandOS(config, small_detector(config.detector), hand_model())
    excite(network.decoder)
    return network.eval()


def random_images(count: int = 2, size_hw: tuple[int, int] = (96, 128), seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, size_hw[0] // 16, size_hw[1] // 16, generator=generator)
    return nn.functional.interpolate(coarse, size_hw, mode='bicubic').clamp(0, 1) * 255


def instances(features: Features, index: list[tuple[int, int]]) -> tuple[Tensor, Tensor, Tensor]:
    """Image index, queries and boxes of the (image, query) pairs."""
    image, query = torch.tensor(index, dtype=torch.long).reshape(-1, 2).unbind(-1)
    detected = features.detector
    return image, detected.instance_queries[image, query], detected.boxes_cxcywh[image, query]


def drawn_hands(count: int, size_hw: tuple[int, int], seed: int = 0) -> dict[str, Tensor]:
    """One shaded hand an image, right and left by turns, with exact labels.

    `images` uint8 [B,3,H,W]; `boxes_cxcywh` and `joints_2d` normalised; metres under the virtual
    camera, `vertices_m` and `joints_m` relative to joint 9, `translation_m` of joint 9.
    """
    rng = np.random.default_rng(seed)
    samples = [_drawn_hand(size_hw, rng, mirrored=i % 2 == 1) for i in range(count)]
    stacked = {key: np.stack([sample[key] for sample in samples]) for key in samples[0]}
    labels = {key: torch.tensor(value).float() for key, value in stacked.items()}
    labels['images'] = labels['images'].permute(0, 3, 1, 2).to(torch.uint8)
    return labels


def _drawn_hand(
    size_hw: tuple[int, int], rng: np.random.Generator, mirrored: bool
) -> dict[str, np.ndarray]:
    model, (height, width) = hand_model(), size_hw
    size_px, focal_px = np.array([width, height]), max(size_hw)
    vertices, joints = model.pose(random_pose(rng, 1, model.rotation_axes)[0], rng.normal(size=10))
    flip = np.array([-1.0 if mirrored else 1.0, 1, 1])
    vertices, joints = (vertices - joints[9]) * flip, (joints - joints[9]) * flip
    depth = rng.uniform(0.35, 0.8)
    translation = np.array([*(rng.uniform(-0.2, 0.2, 2) * depth * size_px / focal_px), depth])

    def project(points: np.ndarray) -> np.ndarray:
        camera = points + translation
        return camera[:, :2] / camera[:, 2:] * focal_px / size_px + 0.5

    vertices_2d = project(vertices)
    image = cv2.resize(rng.integers(0, 255, (6, 8, 3)).astype(np.uint8), (width, height))
    faces = model.faces[:, ::-1] if mirrored else model.faces
    corners = vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    shade = 0.35 + 0.65 * np.clip(normals @ [0.3, -0.4, -0.85], 0, 1)
    skin = np.array([200.0, 150, 120]) * rng.uniform(0.5, 1.1)
    pixels = np.round((vertices_2d * size_px - 0.5)[faces] * 16).astype(np.int32)
    for face in np.argsort(-corners[:, :, 2].mean(1)):
        colour = np.clip(skin * shade[face], 0, 255).tolist()
        cv2.fillConvexPoly(image, pixels[face], colour, shift=4)
    low, high = vertices_2d.min(0), vertices_2d.max(0)
    return {
        'images': image,
        'boxes_cxcywh': np.concatenate([(low + high) / 2, high - low]),
        'joints_2d': project(joints),
        'vertices_m': vertices,
        'joints_m': joints,
        'translation_m': translation,
    }
