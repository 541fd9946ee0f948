"""One score of a token's and a query's: who speaks for whom, and that every form computes it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_networks import SMALL_DETECTORS, random_images, small_detector

from handos_model.config import DetectorConfig, HandOSConfig, ScoreConfig
from handos_model.errors import UserError
from handos_model.network.detectors.scores import evidence, fused_logits

HERE, BESIDE, FAR = [0.3, 0.3, 0.2, 0.2], [0.32, 0.3, 0.2, 0.2], [0.8, 0.8, 0.1, 0.2]


def told(*queries: tuple[list[float], float, float]) -> list[tuple[float, float]]:
    """Evidence for queries of a box, a token's logit and a logit of their own."""
    boxes, tokens, logits = (torch.tensor([list(part)]) for part in zip(*queries, strict=True))
    return list(zip(*(part[0].tolist() for part in evidence(tokens, logits, boxes)), strict=True))


def test_the_surest_speaks_for_all_tokens_on_its_hand() -> None:
    assert told((HERE, 1.0, 2.0), (BESIDE, 3.0, -5.0)) == [(3, 2), (-5, 0)]


def test_a_hand_whose_query_was_silenced_is_what_its_token_says() -> None:
    """The second of two alike hands: its query took itself for a copy of the first."""
    assert told((HERE, 3.0, 2.0), (FAR, 2.5, -9.0)) == [(3, 2), (2.5, 0)]


def test_a_second_hand_across_the_first_stays() -> None:
    assert told((HERE, 3.0, 4.0), (BESIDE, 2.0, 3.0)) == [(3, 4), (2, 3)]


def test_a_hair_of_difference_turns_nothing_over() -> None:
    one = told((HERE, 3.0, 2.0), (BESIDE, 3.0, 2.0 - 1e-4))
    other = told((HERE, 3.0, 2.0 - 1e-4), (BESIDE, 3.0, 2.0))
    assert torch.allclose(torch.tensor(one), torch.tensor(other), atol=2e-3)


def test_a_box_without_area_harms_nothing() -> None:
    point = [0.5, 0.5, 0.0, 0.0]
    assert told((point, 1.0, 2.0), (point, 0.5, -1.0)) == [(1, 2), (0.5, 0)]


@pytest.mark.parametrize('family', ['d_fine', 'rt_detr_v2'])
def test_a_detector_scores_by_its_config(family: str) -> None:
    config = SMALL_DETECTORS[family]
    score = ScoreConfig(tokens=1.5, queries=0.5, offset=-0.25)
    images = random_images() / 255
    plain, fused = (
        small_detector(config)(images),
        small_detector(replace(config, score=score))(images),
    )
    assert torch.equal(plain.logits, fused.logits)
    assert plain.token_logits is not None
    label = config.hand_label
    logits = fused_logits(
        score, plain.token_logits[..., label], plain.logits[..., label], plain.boxes_cxcywh
    )
    assert torch.equal(fused.scores, logits.sigmoid())
    assert not torch.allclose(fused.scores, plain.scores, atol=1e-3)


def test_config_json_keeps_the_score() -> None:
    score = ScoreConfig(tokens=1.5, queries=0.5, offset=-0.25)
    config = HandOSConfig(detector=DetectorConfig(score=score))
    assert HandOSConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: ScoreConfig(tokens=0, queries=1, offset=0), 'must be positive'),
        (lambda: ScoreConfig(tokens=1, queries=-1, offset=0), 'not negative'),
        (lambda: DetectorConfig('grounding_dino', score=ScoreConfig(1, 1, 0)), 'd_fine'),
        (lambda: DetectorConfig(score={'tokens': 1, 'q': 0}), "detector.score has unknown.*'q'"),
    ],
)  # fmt: skip
def test_a_score_that_makes_no_sense_is_refused(make: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()  # type: ignore[operator]
