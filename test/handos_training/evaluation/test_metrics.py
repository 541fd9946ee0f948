"""Each metric against a second implementation, written another way, on random and odd input."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import trapezoid
from scipy.linalg import orthogonal_procrustes
from scipy.spatial.transform import Rotation

from handos_training.evaluation import metrics
from handos_training.evaluation.matching import DetectionCount, match_boxes

RNG = np.random.default_rng(0)
TOLERANCE = 1e-6


def random_hand(points: int = 21) -> np.ndarray:
    return RNG.normal(0, 0.05, (points, 3)) + np.array([0.02, -0.1, 0.6])


def official_alignment(target: np.ndarray, source: np.ndarray) -> np.ndarray:
    """FreiHAND's procedure, step by step, with scipy's own Procrustes solver."""
    a, b = target - target.mean(0), source - source.mean(0)
    size_a, size_b = np.sqrt((a**2).sum()) + 1e-8, np.sqrt((b**2).sum()) + 1e-8
    rotation, scale = orthogonal_procrustes(a / size_a, b / size_b)
    return (b / size_b) @ rotation.T * scale * size_a + target.mean(0)


def proper_alignment(target: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Horn's quaternion method: cannot reflect by construction."""
    a, b = target - target.mean(0), source - source.mean(0)
    s = b.T @ a
    matrix = np.empty((4, 4))
    matrix[0] = [np.trace(s), s[1, 2] - s[2, 1], s[2, 0] - s[0, 2], s[0, 1] - s[1, 0]]
    matrix[1:, 0] = matrix[0, 1:]
    matrix[1:, 1:] = s + s.T - np.trace(s) * np.eye(3)
    w, x, y, z = np.linalg.eigh(matrix)[1][:, -1]
    rotated = b @ Rotation.from_quat([x, y, z, w]).as_matrix().T
    energy = (b**2).sum()
    scale = (rotated * a).sum() / energy if energy > 0 else 0.0
    return rotated * scale + target.mean(0)


CASES = {
    'random': (random_hand(), random_hand()),
    'mesh': (random_hand(778), random_hand(778)),
    'mirrored': (hand := random_hand(), hand * [-1, 1, 1]),
    'identical': (hand, hand.copy()),
    'collinear': (np.outer(np.linspace(-1, 1, 21), [0.01, 0.02, 0.03]) + 0.5, random_hand()),
    'planar': (random_hand() * [1, 1, 0], random_hand()),
    'zero prediction': (random_hand(), np.zeros((21, 3))),
}


@pytest.mark.parametrize('name', CASES)
def test_alignment_agrees_with_other_solvers(name: str) -> None:
    target, source = CASES[name]
    official = metrics.procrustes(source, target, reflection=True)(source)
    expected = official_alignment(target, source)
    if name != 'collinear':  # there the rotation about the line is free, so only the sum is fixed
        np.testing.assert_allclose(official, expected, atol=TOLERANCE)
    squares = ((official - target) ** 2).sum(), ((expected - target) ** 2).sum()
    np.testing.assert_allclose(*squares, atol=TOLERANCE, rtol=TOLERANCE)
    proper = metrics.procrustes(source, target, reflection=False)
    expected = proper_alignment(target, source)
    ours = np.linalg.norm(proper(source) - target, axis=1)
    np.testing.assert_allclose(
        (ours**2).sum(), ((expected - target) ** 2).sum(), atol=TOLERANCE, rtol=TOLERANCE
    )
    assert np.linalg.det(proper.rotation) > 0
    if name in ('random', 'mesh', 'mirrored', 'identical'):  # elsewhere the rotation is not unique
        np.testing.assert_allclose(proper(source), expected, atol=TOLERANCE)


def test_a_mirrored_hand_fools_the_official_alignment_only() -> None:
    hand = random_hand()
    mirrored = hand * [-1, 1, 1]
    assert metrics.aligned_distances(mirrored, hand, reflection=True).mean() < 1e-7
    assert metrics.aligned_distances(mirrored, hand, reflection=False).mean() > 0.01


def test_a_missed_hand_scores_the_distance_to_the_centroid() -> None:
    hand = random_hand()
    errors = metrics.aligned_distances(np.zeros((21, 3)), hand, reflection=True)
    np.testing.assert_allclose(errors, np.linalg.norm(hand - hand.mean(0), axis=1), atol=1e-9)


def test_alignment_works_on_batches() -> None:
    targets, sources = RNG.normal(size=(5, 21, 3)), RNG.normal(size=(5, 21, 3))
    batch = metrics.aligned_distances(sources, targets, reflection=False)
    for i in range(5):
        one = metrics.aligned_distances(sources[i], targets[i], reflection=False)
        np.testing.assert_allclose(batch[i], one, atol=1e-12)


@pytest.mark.parametrize('kind', ['random', 'zero', 'on the thresholds'])
def test_auc(kind: str) -> None:
    errors = {
        'random': np.abs(RNG.normal(0, 0.03, (40, 21))),
        'zero': np.zeros((40, 21)),
        'on the thresholds': RNG.choice(np.linspace(0, 0.05, 100), (40, 21)),
    }[kind]
    thresholds = np.linspace(0, 0.05, 100)
    area = 0.0
    for joint in range(21):
        curve = [np.mean([e <= t for e in errors[:, joint]]) for t in thresholds]
        area += trapezoid(curve, thresholds) / trapezoid(np.ones(100), thresholds) / 21
    assert metrics.auc(errors) == pytest.approx(area, abs=TOLERANCE)
    if kind == 'zero':
        assert metrics.auc(errors) == pytest.approx(1.0)
    assert np.isnan(metrics.auc([]))


@pytest.mark.parametrize('kind', ['near', 'far', 'identical', 'zero'])
def test_f_scores(kind: str) -> None:
    target = RNG.normal(0, 0.04, (120, 3))
    noise = {'near': 0.004, 'far': 0.5, 'identical': 0.0, 'zero': 0.0}[kind]
    prediction = target + RNG.normal(0, 1, target.shape) * noise if kind != 'zero' else target * 0
    pairwise = np.sqrt(((prediction[:, None] - target[None]) ** 2).sum(-1))
    expected = []
    for threshold in (0.005, 0.015):
        p = np.mean(pairwise.min(1) < threshold)
        r = np.mean(pairwise.min(0) < threshold)
        expected.append(0.0 if p + r == 0 else 2 * p * r / (p + r))
    np.testing.assert_allclose(metrics.f_scores(prediction, target), expected, atol=TOLERANCE)


def test_f_score_is_strict() -> None:
    one = np.zeros((1, 3))
    assert metrics.f_scores(one + np.array([0.005, 0, 0]), one, (0.005, 0.015)).tolist() == [
        0.0,
        1.0,
    ]


def test_pck_is_a_mean_over_joints_and_counts_misses() -> None:
    errors = RNG.uniform(0, 30, (50, 21))
    labelled = RNG.random((50, 21)) < 0.6
    labelled[:, 3] = False  # a joint that nobody labelled
    sides = RNG.uniform(80, 200, 50)
    errors[7] = np.inf
    expected = []
    for threshold in (0.05, 0.1, 0.15):
        shares = []
        for joint in range(21):
            hits = [
                errors[i, joint] <= threshold * sides[i] for i in range(50) if labelled[i, joint]
            ]
            if hits:
                shares.append(sum(hits) / len(hits))
        expected.append(sum(shares) / len(shares))
    np.testing.assert_allclose(metrics.pck(errors, labelled, sides), expected, atol=TOLERANCE)
    assert np.isnan(metrics.pck(errors, np.zeros_like(labelled), sides)).all()
    # A joint labelled once weighs as much as one labelled often.
    rare = np.zeros((4, 21), bool)
    rare[:, 0], rare[0, 1] = True, True
    misses = np.zeros((4, 21))
    misses[0, 1] = 1e9
    np.testing.assert_allclose(metrics.pck(misses, rare, np.full(4, 100.0)), 0.5)


def test_absolute_and_root_relative() -> None:
    truth, guess = RNG.normal(size=(6, 21, 3)), RNG.normal(size=(6, 21, 3))
    absolute = [
        [sum((guess[i, j, k] - truth[i, j, k]) ** 2 for k in range(3)) ** 0.5 for j in range(21)]
        for i in range(6)
    ]
    np.testing.assert_allclose(metrics.distances(guess, truth), absolute, atol=TOLERANCE)
    shifted = metrics.root_relative_distances(truth + np.arange(3.0), truth)
    np.testing.assert_allclose(shifted, 0, atol=TOLERANCE)
    expected = np.linalg.norm((guess - guess[:, :1]) - (truth - truth[:, :1]), axis=-1)
    ours = metrics.root_relative_distances(guess, truth)
    np.testing.assert_allclose(ours, expected, atol=TOLERANCE)


@pytest.mark.parametrize('kind', ['random', 'scaled copy', 'zero'])
def test_scale_translation(kind: str) -> None:
    truth = random_hand()
    guess = {'random': random_hand(), 'scaled copy': truth * 3 + 1, 'zero': np.zeros((21, 3))}
    source = guess[kind]
    # HO3D's own order of operations: normalise, scale, then move the wrist.
    bone = np.sqrt(np.sum(np.square(source[9] - source[0])))
    normalised = source / bone if bone > 0 else source.copy()
    normalised = normalised * np.sqrt(np.sum(np.square(truth[9] - truth[0])))
    expected = normalised - normalised[0] + truth[0]
    ours = metrics.scale_translation(source, truth)
    np.testing.assert_allclose(ours, expected, atol=TOLERANCE)
    if kind == 'scaled copy':
        np.testing.assert_allclose(ours, truth, atol=TOLERANCE)


def test_acceleration_error_skips_windows_with_a_miss() -> None:
    truth = RNG.normal(size=(12, 21, 3))
    guess = truth + RNG.normal(size=(12, 21, 3)) * 0.01
    present = np.ones(12, bool)
    present[5] = False
    expected = []
    for t in range(1, 11):
        if present[t - 1] and present[t] and present[t + 1]:
            a = guess[t + 1] - 2 * guess[t] + guess[t - 1]
            b = truth[t + 1] - 2 * truth[t] + truth[t - 1]
            expected.append(np.linalg.norm(a - b, axis=1))
    ours = metrics.acceleration_errors(guess, truth, present)
    np.testing.assert_allclose(ours, expected, atol=TOLERANCE)
    # A constant offset and a constant drift are no jitter.
    drift = truth + 0.1 + np.arange(12)[:, None, None] * 0.02
    np.testing.assert_allclose(metrics.acceleration_errors(drift, truth, present), 0, atol=1e-12)
    assert metrics.acceleration_errors(truth[:2], truth[:2], present[:2]).shape == (0, 21)


def test_matching_takes_the_largest_overlap_once() -> None:
    labels = [[0, 0, 10, 10], [8, 0, 18, 10]]
    predictions = [[7, 0, 17, 10], [100, 100, 110, 110], [1, 0, 11, 10]]
    assert match_boxes(labels, predictions).tolist() == [2, 0]
    assert match_boxes(labels, [[1, 0, 11, 10]]).tolist() == [0, -1]
    assert match_boxes(labels, np.zeros((0, 4))).tolist() == [-1, -1]
    assert match_boxes(np.zeros((0, 4)), predictions).tolist() == []


def test_detection_counts_false_alarms_only_where_all_hands_are_labelled() -> None:
    count = DetectionCount()
    count.add([[0, 0, 10, 10]], [[0, 0, 10, 9], [50, 50, 60, 60]], complete=True)
    count.add([[0, 0, 10, 10]], [[50, 50, 60, 60]], complete=False)
    count.add([[0, 0, 10, 10]], [[0, 0, 10, 10]], complete=False)
    assert (count.labels, count.hits, count.predictions) == (3, 2, 2)
    assert (count.recall, count.precision) == (2 / 3, 0.5)
    assert np.isnan(DetectionCount().recall) and np.isnan(DetectionCount().precision)
