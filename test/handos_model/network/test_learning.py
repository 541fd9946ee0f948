"""The network learns a few drawn hands by heart."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_networks import (
    drawn_hands,
    hand_model,
)

from handos_model.config import HandOSConfig
from handos_model.network.detectors.dfine import initialise_detector
from handos_model.network.handos import HandOS


def learn(steps: int, count: int, size_hw: tuple[int, int], rate: float = 1e-3):
    """Overfit drawn hands; mean 2D error over box side, and PA-MPVPE in mm."""
    torch.manual_seed(0)
    labels = drawn_hands(count, size_hw)
    network = HandOS.from_config(replace(HandOSConfig.nano(), input_size_hw=size_hw), hand_model())
    initialise_detector(network.detector, seed=0)
    network.train()
    optimiser = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, rate, total_steps=steps, pct_start=0.1
    )
    image_index, boxes = torch.arange(count), labels['boxes_cxcywh']

    features = network.encode(labels['images'])
    detected = features.detector  # frozen, so once is enough
    nearest = (detected.boxes_cxcywh[..., :2] - boxes[:, None, :2]).norm(dim=-1).argmin(1)
    queries = detected.instance_queries[image_index, nearest]

    def forward():
        tuned = replace(
            features, values_source=network.side_tuning(detected, labels['images'] / 255)
        )
        return network.decode(tuned, image_index, queries, boxes)

    size = boxes[:, None, 2:]
    for _ in range(steps):
        loss = torch.zeros(())
        for output in forward():
            loss = loss + 5 * ((output.joints_2d - labels['joints_2d']) / size).abs().mean()
            if output.vertices_m is not None:
                for name in ('vertices_m', 'joints_m'):
                    loss = loss + 50 * (getattr(output, name) - labels[name]).abs().mean()
                loss = loss + 5 * (output.translation_m - labels['translation_m']).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        final = forward()[-1]
    pixels = torch.tensor([size_hw[1], size_hw[0]])
    error_px = ((final.joints_2d - labels['joints_2d']) * pixels).norm(dim=-1).mean(1)
    joint_error = (error_px / (boxes[:, 2:] * pixels).amax(-1)).mean().item()
    return joint_error, procrustes_error_mm(final.vertices_m, labels['vertices_m'])


def procrustes_error_mm(found, true):
    """Mean vertex distance after the best similarity transform of each mesh."""
    errors = []
    for x, y in zip(found.double().numpy(), true.double().numpy(), strict=True):
        x, y = x - x.mean(0), y - y.mean(0)
        u, s, vt = np.linalg.svd(x.T @ y)
        sign = np.array([1, 1, np.sign(np.linalg.det(u @ vt))])
        aligned = x @ (u * sign) @ vt * (s @ sign) / (x**2).sum()
        errors.append(np.linalg.norm(aligned - y, axis=1).mean())
    return 1000 * float(np.mean(errors))


def test_it_begins_to_learn():
    joint_error, vertex_error_mm = learn(steps=60, count=2, size_hw=(96, 128))
    assert joint_error < 0.12
    assert vertex_error_mm < 12


@pytest.mark.long
def test_it_learns_eight_images():
    joint_error, vertex_error_mm = learn(steps=200, count=8, size_hw=(192, 256))
    assert joint_error < 0.02
    assert vertex_error_mm < 5
