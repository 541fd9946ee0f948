"""Small hands are looked at from near, and hands are followed, without losing or inventing any."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from patches import patch_pipeline, picture

from handos_model.errors import UserError
from handos_model.following import FollowConfig, HandFollower
from handos_model.pipeline import HandPipeline, PipelineConfig
from handos_model.types import Camera, Hand

CAMERA = Camera.uncalibrated(640, 480)
LARGE = (200, 100, 200, 220)  # 99 pixels of the network's input
SMALL = (501, 313, 33, 35)


def boxes_of(hands: list[Hand]) -> np.ndarray:
    return np.array([hand.box_xyxy_px for hand in hands]).reshape(-1, 4)


def box_of(patch: tuple[int, int, int, int]) -> np.ndarray:
    x, y, w, h = patch
    return np.array([x, y, x + w, y + h]) - 0.5


# Closer looks


def test_only_small_hands_are_seen_again_and_more_exactly() -> None:
    pipeline, whole, window = patch_pipeline()
    coarse, _, _ = patch_pipeline(closer_below_px=None)
    hands = pipeline(picture(LARGE, SMALL), CAMERA)
    assert (whole.runs, window.runs) == (1, 1)
    assert pipeline.times.closer > 0
    small = min(hands, key=lambda hand: np.ptp(hand.box_xyxy_px[::2]))
    before = min(coarse(picture(LARGE, SMALL), CAMERA), key=lambda h: np.ptp(h.box_xyxy_px[::2]))
    assert np.abs(small.box_xyxy_px - box_of(SMALL)).max() < 0.4
    assert np.abs(before.box_xyxy_px - box_of(SMALL)).max() > 0.7
    assert small.score == before.score  # by which it was chosen


def test_a_small_hand_that_is_not_seen_from_near_stays_as_it_was() -> None:
    pipeline, _, window = patch_pipeline()
    window.blind = True
    hands = pipeline(picture(SMALL), CAMERA)
    assert len(hands) == 1


def test_look_answers_box_by_box() -> None:
    pipeline, whole, _ = patch_pipeline()
    boxes = np.stack([box_of(LARGE), box_of((420, 20, 60, 60)), box_of(SMALL)])
    hands = pipeline.look(picture(LARGE, SMALL), CAMERA, boxes)
    assert hands[1] is None and whole.runs == 0
    found = boxes_of([hand for hand in hands if hand is not None])
    np.testing.assert_allclose(found, boxes[[0, 2]], atol=2.5)
    assert pipeline.look(picture(), CAMERA, np.zeros((0, 4))) == []


def test_weights_without_a_window_see_every_hand_once() -> None:
    pipeline, whole, _ = patch_pipeline()
    pipeline.engine.window = None
    assert not pipeline.can_look_closer
    assert len(pipeline(picture(SMALL), CAMERA)) == 1
    with pytest.raises(UserError, match='no graphs of a window'):
        pipeline.look(picture(SMALL), CAMERA, box_of(SMALL)[None])
    follower = HandFollower(pipeline)
    for _ in range(3):
        assert len(follower(picture(SMALL), CAMERA)) == 1 and follower.searched
    assert whole.runs == 4


def test_a_doubtful_hand_counts_if_it_is_sure_from_near() -> None:
    pipeline, whole, window = patch_pipeline(score_threshold=0.6)
    faint = picture(LARGE, brightness=200)  # a score of 0.48
    assert pipeline(faint, CAMERA) == []
    assert (whole.runs, window.runs) == (1, 1)
    window.gain = 1.5
    hands = pipeline(faint, CAMERA)
    assert hands[0].score == pytest.approx(1.5 * 50 / 105)
    np.testing.assert_allclose(boxes_of(hands), box_of(LARGE)[None], atol=2.5)


def test_what_lies_over_a_hand_is_not_doubtful() -> None:
    """A part of a hand that is found already, or of one that is known."""
    pipeline, _, window = patch_pipeline(score_threshold=0.6)
    image = picture(LARGE)
    image[120:180, 220:300] = 0
    image[130:170, 230:290] = 200  # faint, within the other
    window.gain = 1.5
    assert len(pipeline(image, CAMERA)) == 1 and window.runs == 0
    faint = picture(LARGE, brightness=200)
    assert pipeline(faint, CAMERA, besides_px=box_of(LARGE)[None]) == [] and window.runs == 0


def test_at_most_two_doubtful_ones_are_looked_at() -> None:
    pipeline, _, window = patch_pipeline(score_threshold=0.6)
    patches = [(20 + 150 * i, 20 + 60 * i, 90, 100) for i in range(4)]
    assert pipeline(picture(*patches, brightness=200), CAMERA) == []
    assert window.runs == 2
    sure, _, window = patch_pipeline(score_threshold=0.6, doubtful_score=None)
    assert sure(picture(*patches, brightness=200), CAMERA) == [] and window.runs == 0


def test_known_hands_are_left_out() -> None:
    pipeline, _, _ = patch_pipeline()
    known = box_of(LARGE)[None]
    hands = pipeline(picture(LARGE, SMALL), CAMERA, besides_px=known)
    np.testing.assert_allclose(boxes_of(hands)[0], box_of(SMALL), atol=0.5)
    assert pipeline(picture(LARGE), CAMERA, besides_px=known) == []


# Following


def test_a_moving_hand_is_followed_in_windows() -> None:
    pipeline, whole, window = patch_pipeline(closer_below_px=None)
    follower = HandFollower(pipeline, FollowConfig(search_every=5))
    searched = []
    for step in range(21):
        patch = (100 + 12 * step, 100 + 3 * step, 110 + step, 130)
        hands = follower(picture(patch), CAMERA)
        assert len(hands) == 1
        assert np.abs(hands[0].box_xyxy_px - box_of(patch)).max() < 2.5
        searched.append(follower.searched)
    assert searched == [step % 5 == 0 for step in range(21)]
    assert (whole.runs, window.runs) == (5, 20)


def test_a_further_hand_is_found_within_so_many_images() -> None:
    follower = HandFollower(patch_pipeline()[0], FollowConfig(search_every=4))
    other = (480, 260, 90, 100)
    counts = [len(follower(picture(LARGE), CAMERA)) for _ in range(2)]
    counts += [len(follower(picture(LARGE, other), CAMERA)) for _ in range(6)]
    assert counts == [1, 1, 1, 1, 2, 2, 2, 2]


def test_a_hand_that_is_gone_or_leaps_is_noticed_at_once() -> None:
    pipeline, whole, _ = patch_pipeline()
    follower = HandFollower(pipeline, FollowConfig(search_every=100))
    far = (20, 20, 100, 120)
    assert len(follower(picture(LARGE), CAMERA)) == 1
    hands = follower(picture(far), CAMERA)
    np.testing.assert_allclose(boxes_of(hands), box_of(far)[None], atol=2.5)
    assert follower.searched and whole.runs == 2
    assert follower(picture(), CAMERA) == []
    assert follower(picture(), CAMERA) == [] and whole.runs == 4


def test_what_is_not_sure_is_looked_at_whole() -> None:
    pipeline, whole, _ = patch_pipeline(closer_below_px=None)
    follower = HandFollower(pipeline, FollowConfig(search_every=100))
    faint = picture(LARGE, brightness=190)  # a score of 0.38
    for _ in range(3):
        assert len(follower(faint, CAMERA)) == 1
    assert whole.runs == 3


def test_more_hands_than_pay_are_not_followed() -> None:
    pipeline, whole, window = patch_pipeline(closer_below_px=None)
    follower = HandFollower(pipeline, FollowConfig(search_every=100, most_hands=2))
    three = picture((20, 20, 90, 90), (300, 30, 90, 90), (100, 300, 90, 90))
    for _ in range(3):
        assert len(follower(three, CAMERA)) == 3
    assert (whole.runs, window.runs) == (3, 0)


def test_two_hands_that_come_together_are_looked_at_whole() -> None:
    pipeline, whole, _ = patch_pipeline(closer_below_px=None)
    follower = HandFollower(pipeline, FollowConfig(search_every=100))
    apart = picture((100, 100, 90, 100), (192, 100, 90, 100))
    for _ in range(2):
        assert len(follower(apart, CAMERA)) == 2
    assert whole.runs == 1
    assert len(follower(picture((146, 100, 90, 100)), CAMERA)) == 1
    assert whole.runs == 2


def test_another_image_size_begins_anew() -> None:
    pipeline, whole, _ = patch_pipeline(closer_below_px=None)
    follower = HandFollower(pipeline)
    follower(picture(LARGE), CAMERA)
    half = np.ascontiguousarray(picture(LARGE)[::2, ::2])
    hands = follower(half, Camera.uncalibrated(320, 240))
    np.testing.assert_allclose(boxes_of(hands), box_of(LARGE)[None] / 2, atol=2.5)
    assert whole.runs == 2


def test_never_more_than_max_hands() -> None:
    pipeline, _, _ = patch_pipeline(max_hands=1)
    follower = HandFollower(pipeline, FollowConfig(search_every=2))
    assert [len(follower(picture(LARGE, SMALL), CAMERA)) for _ in range(4)] == [1, 1, 1, 1]


@pytest.mark.parametrize('changes', [{'search_every': 0}, {'most_hands': 0}])
def test_settings_that_make_no_sense_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(UserError, match='at least 1'):
        FollowConfig(**changes)


def test_the_shipped_weights_follow_the_hand_of_a_clip() -> None:
    """Where it is, as well as by the whole image, and mostly without it."""
    from handos_ros.commands.demo import CLIP

    capture, frames = cv2.VideoCapture(str(CLIP)), []
    while len(frames) < 60 and (read := capture.read())[0]:
        frames.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB))
    height, width = frames[0].shape[:2]
    camera = Camera.uncalibrated(width, height)
    pipeline = HandPipeline('nano', config=PipelineConfig(closer_below_px=None))
    follower = HandFollower(pipeline)
    apart, searched = [], 0
    for frame in frames:
        whole, followed = pipeline(frame, camera), follower(frame, camera)
        searched += follower.searched
        assert len(followed) >= min(1, len(whole))
        if whole and followed:
            joints_px = whole[0].joints_px
            size = np.ptp(joints_px, axis=0).max()
            apart.append(np.linalg.norm(followed[0].joints_px - joints_px, axis=1).mean() / size)
    assert len(apart) >= 0.9 * len(frames)
    assert np.median(apart) < 0.1
    assert searched < 0.4 * len(frames)
