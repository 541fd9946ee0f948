"""Augmentation may change everything but the truth of the labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hand_samples import CAMERA, labelled_sample, project, reprojection_error_px

from handos_training.data.augment import Augment, AugmentConfig, cover, photometric, random_affine
from handos_training.data.sample import empty_labels
from handos_training.data.transform import (
    flip,
    letterbox,
    split_camera,
    warp,
)

TURN = np.array([[0.8, -0.5, 120.0], [0.5, 0.8, -40.0], [0, 0, 1]])


def mesh_px(sample, hand: int) -> np.ndarray:
    points = (sample.hands.vertices_m[hand] + sample.hands.translation_m[hand]).numpy()
    return project(points.astype(float), sample.camera_matrix_px.double().numpy())


def test_split_camera_factors_every_map() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        matrix = np.eye(3)
        matrix[:2] = rng.normal(size=(2, 3))
        camera, turn = split_camera(matrix @ CAMERA)
        np.testing.assert_allclose(camera @ turn, matrix @ CAMERA, atol=1e-9)
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
        assert camera[0, 0] > 0 and camera[1, 1] > 0 and camera[1, 0] == 0
        assert np.sign(np.linalg.det(turn)) == np.sign(np.linalg.det(matrix))


@pytest.mark.parametrize('seed', range(20))
def test_augmented_labels_still_project_onto_themselves(seed: int) -> None:
    before = labelled_sample(seed)
    after = Augment((384, 512))(before, np.random.default_rng(seed))
    after.check()
    assert after.image.shape == (3, 384, 512)
    assert reprojection_error_px(after) < 0.01


def test_flip_swaps_sides_and_is_its_own_inverse() -> None:
    before = labelled_sample()
    after = flip(before)
    assert after.hands.is_left.tolist() == [False, True]
    assert reprojection_error_px(after) < 0.01
    assert torch.equal(after.image, before.image.flip(-1))
    np.testing.assert_allclose(after.hands.vertices_m[..., 0], -before.hands.vertices_m[..., 0])
    np.testing.assert_allclose(after.hands.vertices_m[..., 1:], before.hands.vertices_m[..., 1:])
    again = flip(after)
    for name, value in vars(before.hands).items():
        np.testing.assert_allclose(
            getattr(again.hands, name).numpy(), value.numpy(), atol=1e-4, err_msg=name
        )
    np.testing.assert_allclose(again.camera_matrix_px, before.camera_matrix_px, atol=1e-4)


def test_flip_invents_no_side() -> None:
    sample = labelled_sample()
    unknown = replace(
        sample.hands, has_side=torch.zeros(2, dtype=torch.bool), is_left=torch.zeros(2).bool()
    )
    assert not flip(sample.replace(hands=unknown)).hands.is_left.any()


def test_warp_moves_pixels_with_the_labels() -> None:
    """A bright blob on a joint is on the joint afterwards, to a fraction of a pixel."""
    sample = labelled_sample()
    joint = sample.hands.joints_px[0, 4]
    ys, xs = torch.meshgrid(torch.arange(480.0), torch.arange(640.0), indexing='ij')
    blob = torch.exp(-((xs - joint[0]) ** 2 + (ys - joint[1]) ** 2) / 18)
    sample = sample.replace(image=(blob * 250).byte().expand(3, -1, -1).contiguous())
    for matrix in (TURN, np.diag([0.31, 0.31, 1.0]), np.diag([1.7, 1.7, 1.0])):
        after = warp(sample, matrix, (480, 640))
        weights = after.image[0].double()
        weights = torch.where(weights > 120, weights, 0.0) * (weights != 114)
        centre = torch.stack([(weights * xs).sum(), (weights * ys).sum()]) / weights.sum()
        assert (centre - after.hands.joints_px[0, 4]).norm() < 0.3


def test_boxes_follow_the_mesh_when_turned() -> None:
    after = warp(labelled_sample(), TURN, (700, 700))
    for n in range(2):
        pixels = mesh_px(after, n)
        expected = np.concatenate([pixels.min(0), pixels.max(0)])
        np.testing.assert_allclose(after.hands.amodal_boxes_xyxy_px[n], expected, atol=0.01)
        np.testing.assert_allclose(after.hands.boxes_xyxy_px[n], expected, atol=0.01)


def test_without_a_mesh_the_turned_box_still_holds_the_joints() -> None:
    sample = labelled_sample()
    no = torch.zeros(2, dtype=torch.bool)
    flat = replace(sample.hands, has_vertices_m=no, has_translation=no, has_joints_m=no)
    after = warp(sample.replace(hands=flat), TURN, (700, 700)).hands
    for n in range(2):
        low, high = after.joints_px[n].amin(0), after.joints_px[n].amax(0)
        assert (after.amodal_boxes_xyxy_px[n, :2] <= low).all()
        assert (after.amodal_boxes_xyxy_px[n, 2:] >= high).all()


def test_leaving_the_image_hides_joints_and_drops_hands() -> None:
    sample = labelled_sample()
    shift = np.eye(3)
    shift[0, 2] = -float(sample.hands.joints_px[0, 9, 0])  # half of the left hand goes
    after = warp(sample, shift, (480, 640))
    assert len(after.hands) == 2
    outside = after.hands.joints_px[0, :, 0] < -0.5
    assert outside.any() and not outside.all()
    assert torch.equal(after.hands.joint_visible[0], ~outside)
    pixels = mesh_px(after, 0)
    assert torch.equal(after.hands.vertex_visible[0], torch.from_numpy(pixels[:, 0] >= -0.5))
    assert after.hands.boxes_xyxy_px[0, 0] == -0.5
    assert after.hands.amodal_boxes_xyxy_px[0, 0] < -20
    shift[0, 2] = -float(sample.hands.boxes_xyxy_px[0, 2]) - 5
    assert len(warp(sample, shift, (480, 640)).hands) == 1


def test_a_sliver_of_a_hand_is_neither_asked_for_nor_a_negative() -> None:
    sample = labelled_sample()
    left, _, right, _ = sample.hands.boxes_xyxy_px[0].tolist()
    for kept, hands, complete in ((0.2, 2, True), (0.05, 1, False), (-0.1, 1, True)):
        shift = np.eye(3)
        shift[0, 2] = -(right - kept * (right - left)) - 0.5
        after = warp(sample, shift, (480, 640))
        assert (len(after.hands), after.all_hands_labelled) == (hands, complete)


def test_letterbox_is_the_pipelines() -> None:
    sample = labelled_sample(size_hw=(480, 640))
    after = letterbox(sample, (320, 512))
    after.check()
    assert after.image.shape == (3, 320, 512)
    assert (after.image[:, :, :40] == 114).all() and (after.image[:, :, -40:] == 114).all()
    assert reprojection_error_px(after) < 0.01
    same = letterbox(sample, (480, 640))
    assert torch.equal(same.image, sample.image)
    assert torch.equal(same.hands.joints_px, sample.hands.joints_px)


def test_cover_hides_exactly_what_it_paints() -> None:
    sample = labelled_sample()
    box = sample.hands.boxes_xyxy_px[0]
    joint_x = float(sample.hands.joints_px[0, 9, 0])
    rectangle = np.array([0, 0, round(joint_x), 479.0])  # crosses the hand from top to bottom
    after = cover(sample, rectangle, np.random.default_rng(0))
    assert torch.equal(
        after.hands.joint_visible[0], sample.hands.joints_px[0, :, 0] > rectangle[2] + 0.5
    )
    assert after.hands.boxes_xyxy_px[0].tolist() == [rectangle[2] + 0.5, *box[1:].tolist()]
    assert torch.equal(
        after.image[:, :, round(joint_x) + 1 :], sample.image[:, :, round(joint_x) + 1 :]
    )
    assert not torch.equal(after.image, sample.image)
    everything = cover(sample, np.array([0, 0, 639.0, 479.0]), np.random.default_rng(0))
    assert len(everything.hands) == 0
    middle = cover(
        sample,
        np.round([*(box[:2] + 9).tolist(), *(box[2:] - 9).tolist()]),
        np.random.default_rng(0),
    )
    assert torch.equal(middle.hands.boxes_xyxy_px[0], box)  # something shows on every side


def test_photometric_changes_colours_and_keeps_shape() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    always = AugmentConfig(
        colour=1, greyscale=1, blur=1, motion_blur=1, noise=1, jpeg=1, brightness=0.2
    )
    changed = photometric(image, always, np.random.default_rng(1))
    assert changed.shape == image.shape and changed.dtype == np.uint8
    never = AugmentConfig(colour=0, greyscale=0, blur=0, motion_blur=0, noise=0, jpeg=0)
    assert np.array_equal(photometric(image, never, np.random.default_rng(1)), image)


def test_greys_stay_grey_without_white_balance() -> None:
    image = np.repeat(
        np.random.default_rng(0).integers(0, 256, (40, 40, 1), dtype=np.uint8), 3, -1
    )
    only = AugmentConfig(
        colour=1, white_balance=0, greyscale=0, blur=0, motion_blur=0, noise=0, jpeg=0
    )
    changed = photometric(image, only, np.random.default_rng(2)).astype(int)
    assert not np.array_equal(changed, image)
    assert np.ptp(changed, axis=-1).max() <= 1


def test_noise_has_the_spread_that_is_asked_for() -> None:
    image = np.full((200, 200, 3), 128, np.uint8)
    only = AugmentConfig(
        colour=0, greyscale=0, blur=0, motion_blur=0, noise=1, noise_sigma=(8, 8), jpeg=0
    )
    residue = photometric(image, only, np.random.default_rng(0)).astype(float) - 128
    assert abs(residue.std() - 8) < 0.2 and abs(residue.mean()) < 0.2


def test_motion_blur_does_not_move_the_image() -> None:
    image = np.zeros((65, 65, 3), np.uint8)
    image[32, 32] = 255
    only = AugmentConfig(colour=0, greyscale=0, blur=0, motion_blur=1, noise=0, jpeg=0)
    for seed in range(5):
        blurred = photometric(image, only, np.random.default_rng(seed))[..., 0].astype(float)
        ys, xs = np.mgrid[:65, :65]
        assert abs((blurred * xs).sum() / blurred.sum() - 32) < 0.3
        assert abs((blurred * ys).sum() / blurred.sum() - 32) < 0.3


def test_same_seed_same_sample_and_no_hands_is_fine() -> None:
    sample = labelled_sample()
    augment = Augment((384, 512))
    a, b = (augment(sample, np.random.default_rng(3)) for _ in range(2))
    assert torch.equal(a.image, b.image) and torch.equal(a.hands.joints_px, b.hands.joints_px)
    empty = sample.replace(hands=empty_labels(0))
    for seed in range(10):
        augment(empty, np.random.default_rng(seed)).check()


def test_random_affine_keeps_angles() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        linear = random_affine((480, 640), (320, 320), AugmentConfig(), rng)[:2, :2]
        np.testing.assert_allclose(linear @ linear.T, np.eye(2) * np.linalg.det(linear), atol=1e-9)


def test_any_turn_reaches_every_angle() -> None:
    rng = np.random.default_rng(0)
    config = AugmentConfig(any_turn=0.5)
    maps = [random_affine((480, 640), (320, 320), config, rng) for _ in range(400)]
    angles_deg = np.abs([np.degrees(np.arctan2(m[1, 0], m[0, 0])) for m in maps])
    assert 0.3 < (angles_deg > config.rotation_deg).mean() < 0.5  # 5 of 6 of the half
    assert angles_deg.max() > 170


def test_config_says_what_is_wrong() -> None:
    with pytest.raises(ValueError, match='flip'):
        AugmentConfig(flip=2)
    with pytest.raises(ValueError, match='any_turn'):
        AugmentConfig(any_turn=-0.1)
    with pytest.raises(ValueError, match='scale'):
        AugmentConfig(scale=(0, 1))


def test_focus_frames_a_hand() -> None:
    config = AugmentConfig(focus=1.0, rotation_deg=0.0, erase=0.0)
    H, W = 96, 128
    for seed in range(8):
        sample = Augment((H, W), config)(labelled_sample(seed), np.random.default_rng(seed))
        boxes = sample.hands.boxes_xyxy_px
        sides = (boxes[:, 2:] - boxes[:, :2]).amax(1)
        inside = ((boxes[:, :2] >= -1) & (boxes[:, 2:] <= torch.tensor([W, H]))).all(1)
        assert ((sides >= 0.3 * H) & (sides <= 0.95 * H) & inside).any()
