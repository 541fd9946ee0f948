"""The pipeline over a played engine, whose hands are known, and over real graphs without torch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from handos_model.backends.base import Engine
from handos_model.config import HandOSConfig
from handos_model.errors import UserError
from handos_model.geometry.projection import project
from handos_model.geometry.rotations import axis_angle_to_matrix
from handos_model.hand.model import HandModel
from handos_model.pipeline import HandPipeline, PipelineConfig
from handos_model.postprocess import hand_length
from handos_model.preprocess import Letterbox
from handos_model.types import ROOT_JOINT, Camera, ScaleSource, TrackState

HAND_MODEL = HandModel.embedded()
NETWORK = HandOSConfig.nano()
MATRIX = np.array([[900.0, 0, 620], [0, 905.0, 370], [0, 0, 1]])
CAMERA = Camera(1280, 720, MATRIX, np.array([-0.05, 0.01, 0, 0, 0]))
IMAGE = np.zeros((720, 1280, 3), np.uint8)
QUERIES = 12


def posed(seed: int, left: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """A right or left hand, root-relative vertices and joints."""
    random = np.random.default_rng(seed)
    rotations = axis_angle_to_matrix(random.normal(0, 0.2, (16, 3)))
    rotations[0] = axis_angle_to_matrix(random.normal(0, 1, 3))
    vertices, joints = HAND_MODEL.pose(rotations, np.zeros(10))
    mirror = np.array([-1 if left else 1, 1, 1])
    return (vertices - joints[ROOT_JOINT]) * mirror, (joints - joints[ROOT_JOINT]) * mirror


class Played:
    """An engine that sees the hands it was given, through `CAMERA`, in this order of score."""

    def __init__(self, hands: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> None:
        self.hands = hands
        self.letterbox = Letterbox((720, 1280), NETWORK.input_size_hw)
        self.decoded: list[int] = []
        self.scores = np.full((1, QUERIES), 0.01, np.float32)
        self.boxes = np.full((1, QUERIES, 4), 0.1, np.float32)
        self.queries = np.arange(QUERIES, dtype=np.float32)[None, :, None].repeat(4, -1)
        for i, (vertices, _, t) in enumerate(hands):
            pixels = project(vertices + t, CAMERA)
            corners = np.concatenate([pixels.min(0), pixels.max(0)])
            self.scores[0, i] = 0.9 - 0.05 * i
            self.boxes[0, i] = self.letterbox.boxes_to_network(corners)

    def engine(self) -> Engine:
        return Engine('played', self, dict.fromkeys((1, 2, 4), self), 'fp32')

    def infer(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        if 'image' in inputs:
            return {
                'features': np.zeros((1, 1, 1), np.float32), 'queries': self.queries,
                'boxes_cxcywh': self.boxes, 'scores': self.scores,
            }  # fmt: skip
        rows = inputs['queries'][:, 0].astype(int)
        self.decoded.append(len(rows))
        chosen = [self.hands[min(row, len(self.hands) - 1)] for row in rows]
        return {
            'joints_2d': np.stack(
                [self.letterbox.to_network(project(j + t, CAMERA)) for _, j, t in chosen]
            ).astype(np.float32),
            'visibility': np.full((len(rows), 21), 0.9, np.float32),
            'vertices_m': np.stack([v for v, _, _ in chosen]).astype(np.float32),
            'joints_m': np.stack([j for _, j, _ in chosen]).astype(np.float32),
            'translation_m': np.zeros((len(rows), 3), np.float32),
            'right': np.full(len(rows), 0.5, np.float32),
        }


def pipeline_of(played: Played, **changes: Any) -> HandPipeline:
    config = PipelineConfig(**changes)
    pipeline = HandPipeline.of_engine(played.engine(), NETWORK, config, HAND_MODEL)
    played.decoded.clear()
    return pipeline


def two_hands() -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    return [
        (*posed(0), np.array([-0.15, 0.02, 0.6])),
        (*posed(1, left=True), np.array([0.2, -0.05, 0.9])),
    ]


def test_hands_come_back_where_and_what_they_are() -> None:
    played = Played(two_hands())
    hands = pipeline_of(played)(IMAGE, CAMERA)
    assert [hand.side for hand in hands] == ['right', 'left']
    assert played.decoded == [2]
    for hand, (vertices, joints, t) in zip(hands, played.hands, strict=True):
        np.testing.assert_allclose(hand.translation_m, t, atol=1e-4)
        np.testing.assert_allclose(hand.joints_m, joints + t, atol=1e-4)
        np.testing.assert_allclose(hand.vertices_m, vertices + t, atol=1e-4)
        np.testing.assert_allclose(hand.joints_px, project(joints + t, CAMERA), atol=1e-3)
        corners = project(vertices + t, CAMERA)
        expected = np.concatenate([corners.min(0), corners.max(0)])
        np.testing.assert_allclose(hand.box_xyxy_px, expected, atol=1e-3)
        assert hand.scale_source is ScaleSource.INTRINSICS
        assert hand.id == -1 and hand.state is TrackState.TRACKED
        assert 0.9 < hand.side_probability <= 1
        assert np.linalg.det(hand.wrist_rotation) == pytest.approx(1)
    # Depth is known to some 6 % (hand length), across the ray far better.
    sigma = np.sqrt(np.diag(hands[0].translation_covariance_m2))
    assert 0.03 < sigma[2] / 0.6 < 0.12 and sigma[1] < 0.01


@pytest.mark.parametrize(('count', 'calls'), [(1, [1]), (2, [2]), (3, [4]), (4, [4]), (6, [4, 2])])
def test_the_smallest_decoder_that_holds_the_hands_is_run(count: int, calls: list[int]) -> None:
    spread = [(*posed(i), np.array([0.3 * i - 0.8, 0, 1.5])) for i in range(count)]
    played = Played(spread)
    hands = pipeline_of(played, max_hands=6)(IMAGE, CAMERA)
    assert len(hands) == count and played.decoded == calls
    assert [hand.score for hand in hands] == sorted((h.score for h in hands), reverse=True)


def test_no_hands_run_no_decoder() -> None:
    played = Played([])
    pipeline = HandPipeline.of_engine(
        Engine('played', played, {}, 'fp32'), NETWORK, PipelineConfig(), HAND_MODEL
    )
    assert pipeline(IMAGE, CAMERA) == []
    assert played.decoded == []


def test_a_hand_found_twice_is_one_hand_and_clasped_hands_are_two() -> None:
    vertices, joints = posed(0)
    t = np.array([0.0, 0.0, 0.6])
    twice = [(vertices, joints, t), (vertices, joints, t + np.array([0.002, 0.002, 0.05]))]
    played = Played(twice)
    assert len(pipeline_of(played)(IMAGE, CAMERA)) == 1
    assert len(pipeline_of(played, duplicate_similarity=None)(IMAGE, CAMERA)) == 2
    mirrored = (vertices * [-1, 1, 1], joints * [-1, 1, 1], t + np.array([0.01, 0, 0]))
    clasped = Played([twice[0], mirrored])
    assert len(pipeline_of(clasped)(IMAGE, CAMERA)) == 2


def test_max_hands_keeps_the_best_that_are_distinct() -> None:
    vertices, joints = posed(0)
    near = (vertices, joints, np.array([0.0, 0.0, 0.6]))
    again = (vertices, joints, np.array([0.004, 0.0, 0.63]))
    other = (*posed(2), np.array([0.25, 0.1, 0.7]))
    hands = pipeline_of(Played([near, again, other]), max_hands=2)(IMAGE, CAMERA)
    assert len(hands) == 2
    np.testing.assert_allclose(hands[1].translation_m, other[2], atol=1e-4)


def test_an_uncalibrated_camera_is_said() -> None:
    guessed = Camera(1280, 720, MATRIX, calibrated=False)
    hands = pipeline_of(Played(two_hands()))(IMAGE, guessed)
    assert {hand.scale_source for hand in hands} == {ScaleSource.NETWORK}


def test_a_measured_hand_gives_the_scale() -> None:
    played = Played(two_hands()[:1])
    length = float(hand_length(played.hands[0][1][None])[0])
    pipeline = pipeline_of(played, hand_length_m=length * 0.9)
    hand = pipeline(IMAGE, CAMERA)[0]
    assert hand.scale_source is ScaleSource.CALIBRATED
    np.testing.assert_allclose(hand.translation_m, played.hands[0][2] * 0.9, atol=1e-3)
    assert float(hand_length(hand.joints_m[None])[0]) == pytest.approx(length * 0.9, rel=1e-4)


def test_depth_gives_the_scale_and_narrows_the_ray() -> None:
    played = Played(two_hands()[:1])
    vertices, _, t = played.hands[0]
    truth = (vertices + t) * 1.15  # a larger hand, farther away, looks the same
    depth = np.full((720, 1280), np.nan)
    pixels = np.rint(project(truth, CAMERA)).astype(int)
    for (column, row), z in sorted(zip(pixels, truth[:, 2], strict=True), key=lambda p: -p[1]):
        depth[row - 5 : row + 6, column - 5 : column + 6] = z
    pipeline = pipeline_of(played)
    without = pipeline(IMAGE, CAMERA)[0]
    hand = pipeline(IMAGE, CAMERA, depth)[0]
    assert hand.scale_source is ScaleSource.DEPTH
    np.testing.assert_allclose(hand.translation_m, t * 1.15, rtol=0.02, atol=2e-3)
    assert hand.translation_covariance_m2[2, 2] < without.translation_covariance_m2[2, 2]
    nothing = pipeline(IMAGE, CAMERA, np.zeros((720, 1280)))[0]
    assert nothing.scale_source is ScaleSource.INTRINSICS


@pytest.mark.parametrize('part', [0, 1])
def test_candidates_that_are_not_finite_are_dropped_and_counted(part: int) -> None:
    hands = two_hands()
    broken = list(hands[0])
    broken[part] = broken[part] * np.nan
    played = Played(two_hands())
    pipeline = pipeline_of(played)
    assert len(pipeline(IMAGE, CAMERA)) == 2 and pipeline.not_finite == 0
    played.hands = [tuple(broken), hands[1]]
    assert [hand.side for hand in pipeline(IMAGE, CAMERA)] == ['left']
    assert pipeline.not_finite == 1


def test_hands_do_not_share_memory_with_the_engine_s_buffers() -> None:
    played = Played(two_hands())
    pipeline = pipeline_of(played)
    first = pipeline(IMAGE, CAMERA)[0]
    kept = first.joints_px.copy()
    played.hands[0] = (*posed(5), np.array([0.1, 0.1, 0.5]))
    pipeline(IMAGE, CAMERA)
    np.testing.assert_array_equal(first.joints_px, kept)


def test_stage_times_add_up() -> None:
    pipeline = pipeline_of(Played(two_hands()))
    pipeline(IMAGE, CAMERA)
    times = pipeline.times
    parts = (times.preprocess, times.detector, times.select, times.decoder, times.solve)
    assert all(part > 0 for part in parts)
    assert times.total == pytest.approx(sum(parts) + times.track + times.closer)


def test_inputs_that_do_not_fit_are_refused_in_words() -> None:
    pipeline = pipeline_of(Played(two_hands()))
    with pytest.raises(UserError, match='640x480 but its camera 1280x720'):
        pipeline(np.zeros((480, 640, 3), np.uint8), CAMERA)
    with pytest.raises(UserError, match='uint8'):
        pipeline(IMAGE.astype(np.float32), CAMERA)  # type: ignore[arg-type]
    with pytest.raises(UserError, match='register depth'):
        pipeline(IMAGE, CAMERA, np.zeros((480, 640)))


@pytest.mark.parametrize(
    'changes',
    [{'score_threshold': 2.0}, {'nms_threshold': -1.0}, {'max_hands': 0}, {'hand_length_m': 19.0}],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        PipelineConfig(**changes)


def test_the_paper_s_settings() -> None:
    config = PipelineConfig.paper()
    assert (config.score_threshold, config.nms_threshold) == (0.1, 0.9)
    assert config.duplicate_similarity is None


def test_exported_weights_run_without_torch(tiny_weights: Path) -> None:
    code = f"""
import sys
sys.modules['torch'] = None
import numpy as np
from handos_model.pipeline import HandPipeline, PipelineConfig
from handos_model.types import Camera
config = PipelineConfig(score_threshold=0, max_hands=3)
pipeline = HandPipeline({str(tiny_weights)!r}, config=config)
for size in ((240, 320), (300, 200)):
    image = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    hands = pipeline(image, Camera.uncalibrated(size[1], size[0]))
    assert 1 <= len(hands) <= 3
    assert all(np.isfinite(hand.vertices_m).all() for hand in hands)
print(pipeline.backend)
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'on CPU, fp32' in done.stdout
