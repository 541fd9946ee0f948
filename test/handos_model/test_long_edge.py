"""Images at their own aspect: the long edge is fixed, and there is next to no padding."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from small_networks import random_images, small_config, small_network

from handos_model.pipeline import HandPipeline, PipelineConfig
from handos_model.types import Camera


def test_each_aspect_has_its_own_graphs(tmp_path: Path) -> None:
    network = small_network(replace(small_config('grounding_dino'), long_edge=128))
    network.save_pretrained(tmp_path)
    config = PipelineConfig(score_threshold=0.0, duplicate_similarity=None, max_hands=2)
    pipeline = HandPipeline(tmp_path, 'torch', config)
    for size_hw in ((96, 128), (128, 96), (320, 240)):
        image = random_images(1, size_hw)[0].permute(1, 2, 0).to(torch.uint8).numpy()
        camera = Camera.uncalibrated(size_hw[1], size_hw[0])
        hands = pipeline(image, camera)
        scale = 128 / max(size_hw)
        assert pipeline.network_hw == (round(size_hw[0] * scale), round(size_hw[1] * scale))
        if max(size_hw) > 128:
            continue
        # Nothing was resized or padded, so the network says the same of the image itself.
        features = network.encode(torch.from_numpy(image).permute(2, 0, 1)[None])
        best = features.detector.scores[0].max()
        assert np.isclose(hands[0].score, float(best), rtol=1e-4)


def test_true_boxes_are_answered_in_their_order(tmp_path: Path) -> None:
    small_network().save_pretrained(tmp_path)
    pipeline = HandPipeline(tmp_path, 'torch', PipelineConfig.paper())
    image = random_images(1)[0].permute(1, 2, 0).to(torch.uint8).numpy()
    boxes = np.array([[10.0, 10, 60, 70], [70.0, 20, 110, 80], [12.0, 12, 60, 70]])
    camera = Camera.uncalibrated(128, 96)
    hands = pipeline.in_boxes(image, camera, boxes)
    np.testing.assert_allclose([hand.box_xyxy_px for hand in hands], boxes, atol=1e-3)
    again = pipeline.in_boxes(image, camera, boxes[::-1])
    np.testing.assert_allclose(again[2].joints_px, hands[0].joints_px, atol=1e-2)
    assert pipeline.in_boxes(image, camera, boxes[:0]) == []
    assert hands[0].network_joints_px is not None and hands[0].network_joints_px.shape == (21, 2)


def test_every_true_box_has_its_hand_whatever_a_robot_would_drop(tmp_path: Path) -> None:
    small_network().save_pretrained(tmp_path)
    config = PipelineConfig(max_hands=2)
    pipeline = HandPipeline(tmp_path, 'torch', config)
    image = random_images(1)[0].permute(1, 2, 0).to(torch.uint8).numpy()
    boxes = np.array([[10.0, 10, 60, 70]] * 3)
    assert config.duplicate_similarity is not None
    assert len(pipeline.in_boxes(image, Camera.uncalibrated(128, 96), boxes)) == 3
