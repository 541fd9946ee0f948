"""Mosaics: labels move with their tiles, are cut where these end, and claim nothing metric."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hand_samples import labelled_sample

from handos_training.data.mix import Mixture, Source
from handos_training.data.mosaic import LAYOUTS, Mosaic, MosaicConfig, joined
from handos_training.data.sample import Sample, empty_labels

CANVAS_HW = (240, 320)


def spotted(colour: int) -> Sample:
    """A dark image whose joints are single bright squares of `colour`."""
    sample = labelled_sample(colour)
    image = torch.zeros_like(sample.image)
    for x, y in sample.hands.joints_px.flatten(0, 1).round().long().tolist():
        image[:, max(y - 6, 0) : y + 7, max(x - 6, 0) : x + 7] = colour
    return sample.replace(image=image)


@pytest.mark.parametrize('layout', LAYOUTS)
def test_a_joint_lies_where_its_pixel_went(layout: tuple[int, int]) -> None:
    samples = [spotted(120 + 40 * n) for n in range(layout[0] * layout[1])]
    seen = 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        whole = joined(samples, layout, CANVAS_HW, MosaicConfig(), rng)
        whole.check()
        for has, joints in zip(whole.hands.has_joint_px, whole.hands.joints_px, strict=True):
            for x, y in joints[has].round().long().tolist():
                y, x = min(max(y, 0), CANVAS_HW[0] - 1), min(max(x, 0), CANVAS_HW[1] - 1)
                near = whole.image[0, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
                assert near.max() > 60, (seed, x, y)
                seen += 1
    assert seen > 50


def test_hands_stay_in_their_tiles_and_lose_what_is_metric() -> None:
    samples = [labelled_sample(n) for n in range(4)]
    assert all(bool(sample.hands.has_translation.all()) for sample in samples)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        whole = joined(samples, (2, 2), CANVAS_HW, MosaicConfig(cut=(0.5, 0.5)), rng)
        hands = whole.hands
        assert not (hands.has_translation | hands.has_vertices_m | hands.has_joints_m).any()
        low = hands.boxes_xyxy_px[:, :2] + 0.5
        high = hands.boxes_xyxy_px[:, 2:] - 0.5
        middle = torch.tensor([CANVAS_HW[1] / 2, CANVAS_HW[0] / 2]) - 0.5
        one_tile = (low >= middle - 0.01) | (high <= middle + 0.01)
        assert bool(one_tile.all()), seed


def test_joints_guessed_from_a_photograph_are_kept() -> None:
    sample = labelled_sample(0)
    sample.hands.has_translation[:] = False
    whole = joined([sample] * 2, (1, 2), CANVAS_HW, MosaicConfig(), np.random.default_rng(0))
    assert len(whole.hands) and bool(whole.hands.has_joints_m.all())


def test_one_incomplete_image_makes_the_whole_incomplete() -> None:
    sample = labelled_sample(0)
    bare = sample.replace(hands=empty_labels(0))
    rng = np.random.default_rng(0)
    assert joined([bare, bare], (1, 2), CANVAS_HW, MosaicConfig(), rng).all_hands_labelled
    lacking = bare.replace(all_hands_labelled=False)
    assert not joined([bare, lacking], (1, 2), CANVAS_HW, MosaicConfig(), rng).all_hands_labelled


class Photos:
    def __len__(self) -> int:
        return 9

    def __getitem__(self, index: int) -> Sample:
        return labelled_sample(index).replace(name=f'photo {index}')


def test_the_stream_joins_its_share_and_gives_the_same_again() -> None:
    def names() -> list[str]:
        join = Mosaic(CANVAS_HW, MosaicConfig(share=0.4))
        mixture = Mixture([Source('photos', Photos())], 3, join=join)
        return [mixture[position].sample.name for position in range(200)]

    first = names()
    assert first == names()
    tiles = np.bincount([1 + name.count(' + ') for name in first], minlength=5)
    assert tiles[3] == 0 and min(tiles[1], tiles[2], tiles[4]) > 20
    assert tiles[1] == pytest.approx(120, abs=25)


class OneDamaged(Photos):
    def __getitem__(self, index: int) -> Sample:
        if index == 4:
            raise ValueError('photo 4: not a readable image')
        return super().__getitem__(index)


def test_a_damaged_image_is_passed_over_wherever_it_was_asked_for() -> None:
    join = Mosaic(CANVAS_HW, MosaicConfig(share=1.0))
    mixture = Mixture([Source('photos', OneDamaged())], 3, join=join)
    loaded = [mixture[position] for position in range(60)]
    assert all('photo 4' not in one.sample.name for one in loaded)
    assert sum(len(one.failures) for one in loaded) > 60 / 9


def test_shares_are_probabilities() -> None:
    with pytest.raises(ValueError, match='probability'):
        MosaicConfig(share=1.5)
    with pytest.raises(ValueError, match='sum to 1'):
        MosaicConfig(layout_shares=(1, 1, 1))
