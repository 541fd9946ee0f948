"""Calibrated scores: the fit, and which queries are judged."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hand_samples import labelled_sample

from handos_training.data.transform import letterbox
from handos_training.evaluation.calibration import (
    fit_score,
    judged_evidence,
)


def test_the_fit_finds_the_score_that_made_the_labels() -> None:
    rng = np.random.default_rng(0)
    told = rng.normal(0, 3, (20_000, 2))
    are_hands = rng.random(20_000) < 1 / (1 + np.exp(-(told @ [0.5, 0.2] - 1)))
    score = fit_score(told, are_hands)
    assert np.allclose((score.tokens, score.queries, score.offset), (0.5, 0.2, -1), atol=0.1)


def test_what_weighs_nothing_changes_nothing() -> None:
    told = np.random.default_rng(0).normal(0, 3, (2_000, 2))
    are_hands = told.sum(1) + np.random.default_rng(1).normal(0, 2, 2_000) > 1
    doubled = np.concatenate([told, told]), np.concatenate([are_hands, ~are_hands])
    assert fit_score(*doubled, np.repeat([1.0, 0.0], 2_000)) == fit_score(told, are_hands)


def test_a_query_that_says_no_never_makes_a_hand_surer() -> None:
    told = np.random.default_rng(0).normal(0, 3, (20_000, 2))
    score = fit_score(told, told[:, 0] > told[:, 1])
    assert score.queries == 0 and score.tokens > 0


def test_one_kind_alone_is_refused() -> None:
    with pytest.raises(ValueError, match='all of one kind'):
        fit_score([[1.0, 0.0], [2.0, 0.0]], [True, True])


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
                token_logits=logits[None, :, None] + 1,
            )

    told, are_hands = judged_evidence(
        Detector(), [sample, sample.replace(all_hands_labelled=False)], (128, 160)
    )
    # The query beside them is as sure as its copy, which a surer one would have spoken for.
    assert told.tolist() == [[4, 3], [3, 2], [1, 0], [4, 3], [3, 2]]
    assert are_hands.tolist() == [True, True, False, True, True]
