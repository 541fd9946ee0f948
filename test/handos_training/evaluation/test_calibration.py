"""Calibrated scores: the fit, which queries are judged, and that folding it in is exact."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hand_samples import labelled_sample

from handos_model.network.handos import HandOS
from handos_training.data.transform import letterbox
from handos_training.evaluation.calibration import (
    Platt,
    correct_scores,
    fit_platt,
    judged_logits,
)
from handos_training.stages.network import tiny


def test_the_fit_finds_the_correction_that_made_the_labels() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, 20_000)
    are_hands = rng.random(20_000) < 1 / (1 + np.exp(-(0.5 * logits - 1)))
    assert np.allclose(fit_platt(logits, are_hands), (0.5, -1), atol=0.1)


def test_one_kind_alone_is_refused() -> None:
    with pytest.raises(ValueError, match='all of one kind'):
        fit_platt([1.0, 2.0], [True, True])


def test_a_hand_is_found_once_and_incomplete_images_are_not_judged() -> None:
    sample = labelled_sample()
    seen = letterbox(sample, (128, 160))

    class Detector:
        """Two queries on each hand, one beside them, one that is surely none."""

        hand_label = 0

        def __call__(self, images: torch.Tensor) -> SimpleNamespace:
            low, high = seen.hands.boxes_xyxy_px[:, :2], seen.hands.boxes_xyxy_px[:, 2:]
            size = torch.tensor([160.0, 128.0])
            boxes = torch.cat([((low + high) / 2 + 0.5) / size, (high - low) / size], dim=1)
            far = torch.tensor([[0.95, 0.95, 0.02, 0.02]])
            logits = torch.tensor([3.0, 2.0, 1.0, 0.5, 0.0, -9.0])
            return SimpleNamespace(
                boxes_cxcywh=torch.cat([boxes, boxes, far, far])[None],
                logits=logits[None, :, None],
            )

    logits, are_hands = judged_logits(
        Detector(), [sample, sample.replace(all_hands_labelled=False)], (128, 160)
    )
    assert logits.tolist() == [3, 2, 0] and are_hands.tolist() == [True, True, False]


def test_folding_the_correction_in_corrects_every_logit() -> None:
    torch.manual_seed(0)
    detector = HandOS.from_config(tiny()).detector
    images = torch.rand(1, 3, 128, 160)
    before = detector(images)
    correct_scores(detector, Platt(0.7, -0.4))
    after = detector(images)
    assert torch.allclose(after.logits, 0.7 * before.logits - 0.4, atol=1e-5)
    assert torch.equal(after.boxes_cxcywh, before.boxes_cxcywh)
