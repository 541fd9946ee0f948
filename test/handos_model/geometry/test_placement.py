"""Translation solve, depth, sides, wrist frame and Procrustes."""

import numpy as np
import pytest
from scipy.stats import chi2

from handos_model.geometry import placement as geometry
from handos_model.geometry.projection import project, unproject
from handos_model.geometry.rotations import axis_angle_to_matrix
from handos_model.types import ROOT_JOINT, Camera

rng = np.random.default_rng


def random_hand(random: np.random.Generator) -> np.ndarray:
    """Root-relative joints [21,3] of the size and spread of a hand, turned any way."""
    angles = np.deg2rad([0, -50, -20, 0, 15, 35])
    joints = [np.array([0.0, 0.09, 0.0])]
    for finger, length in enumerate([0.11, 0.19, 0.2, 0.19, 0.16]):
        direction = np.array([np.sin(angles[finger + 1]), -np.cos(angles[finger + 1]), 0.0])
        for along in (0.45, 0.7, 0.85, 1.0):
            joints.append(joints[0] + direction * length * along)
    points = np.stack(joints) + random.normal(0, 0.008, (21, 3))
    turn = axis_angle_to_matrix(random.normal(0, 1.5, 3))
    points = points @ turn.T
    return np.asarray(points - points[ROOT_JOINT])


def random_camera(random: np.random.Generator) -> Camera:
    width, height = (int(v) for v in random.integers([320, 240], [1920, 1080]))
    focal = np.exp(random.uniform(np.log(200), np.log(3000)))
    kind = random.integers(4)
    if kind == 3:  # a fisheye's edge is at angle width / 2 focal, and rays end at a right angle
        width, height = min(width, int(2.4 * focal)), min(height, int(1.8 * focal))
    centre = np.array([width, height]) * random.uniform(0.3, 0.7, 2)
    matrix = np.array(
        [[focal, 0, centre[0]], [0, focal * random.uniform(0.95, 1.05), centre[1]], [0, 0, 1]]
    )
    if kind == 0:
        return Camera(width, height, matrix)
    # Coefficients that keep the lens invertible over any image: mild where the image is wide.
    mild = min(1.0, 2 * focal / width)
    if kind == 1:
        strengths = np.array([0.1, 0.02, 1e-3, 1e-3, 0.005]) * mild**4
        return Camera(width, height, matrix, random.uniform(-1, 1, 5) * strengths)
    if kind == 2:
        strengths = np.array([0.2, 0.05, 1e-3, 1e-3, 0.01, 0.2, 0.05, 0.01]) * mild**4
        distortion = random.uniform(-1, 1, 8) * strengths
        return Camera(width, height, matrix, distortion, 'rational_polynomial')
    return Camera(width, height, matrix, random.uniform(-0.02, 0.02, 4), 'equidistant')


def place(random: np.random.Generator, camera: Camera) -> np.ndarray:
    """A point of the image at 0.25 to 2.5 m."""
    pixel = random.uniform(0.15, 0.85, 2) * [camera.width, camera.height]
    ray = unproject(pixel, camera)
    assert np.isfinite(ray).all()
    return np.append(ray, 1.0) * random.uniform(0.25, 2.5)


def test_exact_joints_give_the_exact_place_for_any_camera() -> None:
    random = rng(0)
    worst = 0.0
    for _ in range(200):
        camera, hand = random_camera(random), random_hand(random)
        truth = place(random, camera)
        pixels = project(hand + truth, camera)
        solved = geometry.solve_translation(hand[None], pixels[None], np.ones((1, 21)), camera)
        assert solved.solved[0]
        worst = max(worst, float(np.linalg.norm(solved.translation_m[0] - truth)))
    assert worst < 1e-4


def test_a_pixel_of_noise_is_covered_by_the_covariance() -> None:
    random = rng(1)
    squared, depth_errors = [], []
    for _ in range(400):
        camera, hand = random_camera(random), random_hand(random)
        truth = place(random, camera)
        pixels = project(hand + truth, camera) + random.normal(0, 1, (21, 2))
        if camera.matrix_px[0, 0] < 500 and truth[2] > 1:
            continue  # the hand is 20 px wide: the error is no longer small and Gaussian
        solved = geometry.solve_translation(hand[None], pixels[None], np.ones((1, 21)), camera)
        error = solved.translation_m[0] - truth
        squared.append(error @ np.linalg.inv(solved.covariance_m2[0]) @ error)
        depth_errors.append(error[2] / np.sqrt(solved.covariance_m2[0, 2, 2]))
    count = len(squared)
    assert count > 200
    # The larger of the given and the measured noise is used, so the mean is a little below 3.
    low, high = chi2.ppf([1e-4, 1 - 1e-4], 3 * count) / count
    assert low * 0.8 < np.mean(squared) < high
    assert 0.8 < np.std(depth_errors) < 1.15
    assert abs(np.mean(depth_errors)) < 0.2


def test_larger_residuals_widen_the_covariance_and_confidence_narrows_what_counts() -> None:
    random = rng(2)
    camera, hand = Camera.uncalibrated(640, 480), random_hand(random)
    truth = np.array([0.05, -0.02, 0.5])
    pixels = project(hand + truth, camera)
    noisy = pixels + random.normal(0, 8, pixels.shape)
    one = np.ones((1, 21))
    sharp = geometry.solve_translation(hand[None], pixels[None], one, camera)
    wide = geometry.solve_translation(hand[None], noisy[None], one, camera)
    assert wide.covariance_m2[0, 2, 2] > 10 * sharp.covariance_m2[0, 2, 2]
    assert wide.residual_px[0] > 4 > sharp.residual_px[0]

    outlier = pixels.copy()
    outlier[[4, 8]] += 100
    confidence = np.ones((1, 21))
    confidence[0, [4, 8]] = 0
    trusted = geometry.solve_translation(hand[None], outlier[None], confidence, camera)
    np.testing.assert_allclose(trusted.translation_m[0], truth, atol=1e-6)


def test_hands_are_independent_and_an_empty_batch_is_empty() -> None:
    random = rng(3)
    camera = Camera.uncalibrated(640, 480)
    hands = np.stack([random_hand(random) for _ in range(5)])
    truths = np.array([[0.1 * i - 0.2, 0.0, 0.4 + 0.1 * i] for i in range(5)])
    pixels = project(hands + truths[:, None], camera)
    together = geometry.solve_translation(hands, pixels, np.ones((5, 21)), camera)
    np.testing.assert_allclose(together.translation_m, truths, atol=1e-6)
    none = geometry.solve_translation(hands[:0], pixels[:0], np.ones((0, 21)), camera)
    assert none.translation_m.shape == (0, 3) and none.covariance_m2.shape == (0, 3, 3)


def test_what_cannot_be_placed_is_said_and_stays_in_front() -> None:
    camera, hand = Camera.uncalibrated(640, 480), random_hand(rng(4))
    upside_down = project(hand * [-1, -1, 1] + [0, 0, 0.5], camera)  # solves to negative depth
    solved = geometry.solve_translation(
        np.stack([hand, hand, np.zeros((21, 3))]),
        np.stack([upside_down, np.full((21, 2), np.nan), np.full((21, 2), 300.0)]),
        np.ones((3, 21)),
        camera,
    )
    assert not solved.solved.any()
    assert np.isfinite(solved.translation_m).all() and (solved.translation_m[:, 2] > 0.05).all()
    assert (np.sqrt(solved.covariance_m2[:, 2, 2]) >= 1.0).all()


def sphere(rows: int = 24, columns: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """A sphere of radius 4 cm without its cap, as a hand has none at the wrist."""
    theta = np.linspace(0.5, np.pi, rows)[:, None]
    phi = np.arange(columns)[None] * 2 * np.pi / columns
    x, y = np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi)
    points = np.stack(np.broadcast_arrays(x, y, np.cos(theta)), axis=-1)
    index = np.arange(rows * columns).reshape(rows, columns)
    index[-1] = index[-1, 0]  # the pole is one vertex
    right = np.roll(index, -1, axis=1)
    a, b, c, d = index[:-1], index[1:], right[1:], right[:-1]
    faces = np.concatenate([np.stack([a, b, c], -1), np.stack([a, c, d], -1)]).reshape(-1, 3)
    return points.reshape(-1, 3) * 0.04, faces


def test_signed_volume_closes_the_opening() -> None:
    vertices, faces = sphere()
    boundary = geometry.boundary_vertices(faces)
    assert sorted(boundary.tolist()) == list(range(32))
    cap_height = 0.04 * (1 - np.cos(0.5))
    truth = 4 / 3 * np.pi * 0.04**3 - np.pi * cap_height**2 * (3 * 0.04 - cap_height) / 3
    moved = np.stack([vertices, vertices + np.array([0.3, -1, 2]), vertices * [-1, 1, 1]])
    volume = geometry.signed_volume(moved, faces, boundary)
    np.testing.assert_allclose(volume, [truth, truth, -truth], rtol=0.02)


def test_side_flips_with_the_mirror_and_fades_as_the_mesh_collapses() -> None:
    vertices, faces = sphere()
    boundary = geometry.boundary_vertices(faces)
    flatness = np.array([1, 0.5, 0.2, 0.05, 0.01, 0.0])
    flat = vertices[None] * np.stack([flatness, np.ones(6), np.ones(6)], -1)[:, None]
    right = geometry.right_probability(flat, faces, boundary)
    left = geometry.right_probability(flat * [1, 1, -1], faces, boundary)
    assert right[0] > 0.95 and right[-1] == 0.5
    assert (np.diff(right) < 0).all()
    np.testing.assert_allclose(right + left, 1)
    point = geometry.right_probability(vertices[None] * 1e-6, faces, boundary)
    assert abs(point[0] - 0.5) < 1e-3


def test_a_mesh_that_is_outvoted_is_mirrored_in_depth() -> None:
    vertices, faces = sphere()
    boundary = geometry.boundary_vertices(faces)
    meshes = np.stack([vertices, vertices * [1, 1, -1], vertices * [1, 1, 0.01]])
    joints = meshes[:, :21]
    of_mesh = geometry.right_probability(meshes, faces, boundary)

    def told(*right: float) -> tuple[np.ndarray, ...]:
        return geometry.agree_on_sides(meshes, joints, np.array(right), faces, boundary)

    right, same, same_joints = told(0.5, 0.5, 0.5)
    np.testing.assert_allclose(right, of_mesh, rtol=1e-6)
    assert (same == meshes).all() and (same_joints == joints).all()
    right, shown, shown_joints = told(0.5, 0.5, 0.01)
    assert right[2] < 0.05
    np.testing.assert_array_equal(shown[2], meshes[2] * [1, 1, -1])
    np.testing.assert_array_equal(shown_joints, shown[:, :21])
    assert ((geometry.right_probability(shown, faces, boundary) >= 0.5) == (right >= 0.5)).all()
    right = told(0.0, 1.0, 0.5)[0]  # certain on both sides: no division by zero
    assert np.isfinite(right).all()


@pytest.mark.parametrize('mirror', [1, -1])
def test_depth_scales_the_hand_and_ignores_the_background(mirror: int) -> None:
    vertices, faces = sphere()
    camera = Camera.uncalibrated(320, 240)
    truth = vertices * [mirror, 1, 1] + [0, 0, 0.6]
    pixels = np.rint(project(truth, camera)).astype(int)
    depth = np.full((240, 320), 3.0)
    for (column, row), z in sorted(zip(pixels, truth[:, 2], strict=True), key=lambda p: -p[1]):
        depth[row - 2 : row + 3, column - 2 : column + 3] = z  # nearest drawn last
    depth[:, :150] = np.nan
    scale, sigma = geometry.depth_scale(truth / 0.9, faces, depth, camera)
    assert abs(scale - 0.9) < 0.01 and sigma < 0.03
    assert geometry.depth_scale(truth, faces, np.full((240, 320), np.nan), camera) == (1, np.inf)
    assert geometry.depth_scale(truth, faces, np.full((240, 320), 1.5), camera) == (1, np.inf)


def test_wrist_axes() -> None:
    # A right hand seen from its back, fingers up in the image: the thumb side is left (-x).
    joints = np.zeros((21, 3))
    joints[ROOT_JOINT] = [0, -0.09, 0]
    joints[5], joints[17] = [-0.03, -0.09, 0], [0.03, -0.08, 0]
    right = geometry.wrist_rotation(joints[None], np.array([True]))[0]
    np.testing.assert_allclose(right[:, 0], [0, -1, 0], atol=1e-9)
    np.testing.assert_allclose(right[:, 1], [-1, 0, 0], atol=1e-9)
    np.testing.assert_allclose(right[:, 2], [0, 0, -1], atol=1e-9)  # its back faces the camera
    # The mirrored hand is a left one; its back faces the camera too.
    left = geometry.wrist_rotation(joints[None] * [-1, 1, 1], np.array([False]))[0]
    np.testing.assert_allclose(left[:, 2], [0, 0, -1], atol=1e-9)
    # Degenerate joints still give a rotation.
    for points in (np.zeros((1, 21, 3)), np.linspace([0, 0, 0], [1, 2, 3], 21)[None]):
        turn = geometry.wrist_rotation(points, np.array([True]))[0]
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-9)
        assert np.linalg.det(turn) > 0.99
