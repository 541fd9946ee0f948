"""Tracks on simulated hands: ids, smoothing, delay, sides, and everything that can go missing."""

import numpy as np
import pytest

from handos_model.geometry.placement import boundary_vertices, right_probability, wrist_rotation
from handos_model.geometry.projection import project
from handos_model.hand.model import HandModel
from handos_model.tracking.tracker import Tracker, TrackerConfig
from handos_model.types import Camera, Hand, ScaleSource, Side, TrackState

CAMERA = Camera(640, 480, np.array([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]]))
FRAME_S = 1 / 30
MODEL = HandModel.embedded()
VERTICES, JOINTS = MODEL.pose(np.tile(np.eye(3), (16, 1, 1)), np.zeros(10))
SHAPE = np.concatenate([JOINTS, VERTICES]) - JOINTS[9]


def hand_at(
    translation_m: np.ndarray,
    side: Side = 'right',
    probability: float = 0.9,
    noise_m: float = 0.0,
    mirror: tuple[float, float, float] = (-1.0, 1.0, 1.0),
) -> Hand:
    shape = SHAPE * (np.array(mirror) if side == 'left' else 1.0) + noise_m
    points = shape + translation_m
    joints_px = project(points[:21], CAMERA)
    return Hand(
        id=-1, age=0, state=TrackState.TRACKED, side=side, side_probability=probability, score=0.9,
        box_xyxy_px=np.concatenate([joints_px.min(0), joints_px.max(0)]),
        joints_px=joints_px, joint_confidence=np.ones(21), joints_m=points[:21],
        vertices_m=points[21:], translation_m=np.array(translation_m, dtype=float),
        wrist_rotation=wrist_rotation(points[None, :21], np.array([side == 'right']))[0],
        translation_covariance_m2=np.eye(3) * 1e-4, scale_source=ScaleSource.INTRINSICS,
    )  # fmt: skip


def tracked(hands: list[Hand]) -> list[Hand]:
    return [hand for hand in hands if hand.state == TrackState.TRACKED]


def crossing(rng: np.random.Generator, frames: int = 45) -> np.ndarray:
    """Two hands [frames,2,3] that pass each other in the image, at distinct depths or heights."""
    speed = rng.uniform(0.2, 0.8)
    time = (np.arange(frames) - frames / 2) * FRAME_S
    apart = rng.choice([-1, 1]) * np.array([0.0, rng.uniform(0.08, 0.15), rng.uniform(0.1, 0.25)])
    centre = np.array([rng.uniform(-0.05, 0.05), rng.uniform(-0.05, 0.05), rng.uniform(0.5, 0.8)])
    first = centre + time[:, None] * np.array([speed, 0, 0]) + apart / 2
    second = centre - time[:, None] * np.array([speed, 0, 0]) - apart / 2
    return np.stack([first, second], axis=1)


def switches(rng: np.random.Generator) -> int:
    """Identity switches on one sequence with noise, 15 % drops, a 5-frame gap and shuffling."""
    tracker = Tracker()
    paths = crossing(rng)
    gap = rng.integers(5, len(paths) - 10)
    gone = rng.integers(2)
    sides: tuple[Side, Side] = ('left', 'right') if rng.random() < 0.5 else ('right', 'right')
    ids: list[set[int]] = [set(), set()]
    for frame, positions in enumerate(paths):
        seen = [
            index
            for index in range(2)
            if rng.random() > 0.15 and not (index == gone and gap <= frame < gap + 5)
        ]
        rng.shuffle(seen)
        noise = rng.normal(0, 1, (2, 3)) * np.array([0.003, 0.003, 0.015])
        hands = [hand_at(positions[i] + noise[i], sides[i], rng.uniform(0.6, 1)) for i in seen]
        for hand in tracked(tracker.update(hands, frame * FRAME_S)):
            distance = np.linalg.norm(positions[seen] - hand.translation_m, axis=1)
            ids[seen[int(distance.argmin())]].add(hand.id)
    return len(ids[0]) + len(ids[1]) - 2 + len(ids[0] & ids[1])


def test_no_identity_switches() -> None:
    assert sum(switches(np.random.default_rng(seed)) for seed in range(60)) == 0


@pytest.mark.long
def test_no_identity_switches_over_a_thousand_sequences() -> None:
    assert sum(switches(np.random.default_rng(seed)) for seed in range(1000)) == 0


def test_jitter_at_rest_falls_five_times() -> None:
    rng = np.random.default_rng(0)
    tracker = Tracker()
    raw, smooth = [], []
    for frame in range(150):
        noise = rng.normal(0, 1, 3) * np.array([0.001, 0.001, 0.005])
        hand = hand_at(np.array([0.1, 0.0, 0.6]) + noise, noise_m=rng.normal(0, 0.002, (799, 3)))
        (out,) = tracker.update([hand], frame * FRAME_S)
        raw.append(np.concatenate([hand.joints_m, hand.vertices_m]))
        smooth.append(np.concatenate([out.joints_m, out.vertices_m]))

    def jitter(track: list[np.ndarray]) -> float:
        return float(np.linalg.norm(np.diff(np.array(track[30:]), axis=0), axis=-1).mean())

    assert jitter(raw) >= 5 * jitter(smooth)


def test_lag_at_one_metre_a_second_is_at_most_a_frame() -> None:
    tracker = Tracker()
    for frame in range(30):
        position = np.array([-0.5 + frame * FRAME_S, 0.0, 0.7])
        (out,) = tracker.update([hand_at(position)], frame * FRAME_S)
    lag_s = (position - out.translation_m)[0] / 1.0
    assert 0 <= lag_s <= FRAME_S
    assert tracker.added_delay_s == pytest.approx(lag_s, abs=FRAME_S / 2)


def test_a_hand_coasts_then_is_lost_once_and_its_id_never_returns() -> None:
    tracker = Tracker()
    for frame in range(5):
        tracker.update([hand_at(np.array([0, 0, 0.6]))], frame * FRAME_S)
    states = [
        [hand.state for hand in tracker.update([], (5 + frame) * FRAME_S)] for frame in range(30)
    ]
    flat = [state for step in states for state in step]
    assert flat.count(TrackState.LOST) == 1 and flat[-1] == TrackState.LOST
    assert 10 <= flat.count(TrackState.COASTING) <= 13
    (again,) = tracker.update([hand_at(np.array([0, 0, 0.6]))], 36 * FRAME_S)
    assert again.id == 1 and again.age == 0


def test_coasting_moves_on_and_slows_down() -> None:
    tracker = Tracker()
    for frame in range(15):
        tracker.update([hand_at(np.array([frame * FRAME_S, 0.0, 0.7]))], frame * FRAME_S)
    first = tracker.update([], 15 * FRAME_S)[0].translation_m[0]
    later = [tracker.update([], (16 + i) * FRAME_S)[0].translation_m[0] for i in range(8)]
    steps = np.diff([first, *later])
    assert (steps > 0).all() and steps[-1] < 0.5 * steps[0]
    assert first == pytest.approx(15 * FRAME_S, abs=0.02)


def test_a_side_does_not_flicker_and_does_turn_over() -> None:
    tracker = Tracker()
    position = np.array([0, 0, 0.6])
    for frame in range(10):
        tracker.update([hand_at(position, 'right', 0.95)], frame * FRAME_S)
    (once,) = tracker.update([hand_at(position, 'left', 0.7)], 10 * FRAME_S)
    assert once.side == 'right' and 0.5 <= once.side_probability <= 1
    for frame in range(11, 25):
        (later,) = tracker.update([hand_at(position, 'left', 0.9)], frame * FRAME_S)
    assert later.side == 'left' and later.id == once.id


@pytest.mark.parametrize('filtered', [True, False])
def test_what_is_shown_is_of_the_side_that_is_said(filtered: bool) -> None:
    faces = MODEL.faces
    boundary = boundary_vertices(faces)
    tracker = Tracker(TrackerConfig(filtered=filtered))
    position = np.array([0.1, 0.05, 0.6])
    sides = ['right'] * 10 + ['left'] + ['right'] * 3 + ['left'] * 12
    seen = set()
    for frame, side in enumerate(sides):
        # A left hand that looks like the right one, the other way about in depth.
        given = hand_at(position, side, 0.8, mirror=(1, 1, -1))  # type: ignore[arg-type]
        (hand,) = tracker.update([given], frame * FRAME_S)
        mesh = (hand.vertices_m - hand.translation_m)[None]
        right = right_probability(mesh, faces, boundary)[0]
        assert (right > 0.8) if hand.side == 'right' else (right < 0.2), (frame, right)
        shift_px = project(hand.joints_m, CAMERA) - given.joints_px
        assert np.linalg.norm(shift_px, axis=1).max() < 30  # of 150: perspective
        seen.add((side, hand.side))
    assert seen == {('right', 'right'), ('left', 'right'), ('left', 'left')}


def test_bad_stamps_never_spread() -> None:
    tracker = Tracker()
    good = hand_at(np.array([0, 0, 0.6]))
    tracker.update([good], 0.0)
    tracker.update([], FRAME_S)
    (same,) = tracker.update([good], FRAME_S)  # the same stamp again
    assert same.id == 0 and np.isfinite(same.vertices_m).all()
    back = tracker.update([good], -5.0)  # a recording that starts over
    assert sorted((hand.id, hand.state) for hand in back) == [
        (0, TrackState.LOST),
        (1, TrackState.TRACKED),
    ]


def test_unfiltered_tracks_give_the_measurement() -> None:
    tracker = Tracker(TrackerConfig(filtered=False))
    tracker.update([hand_at(np.array([0, 0, 0.6]))], 0.0)
    hand = hand_at(np.array([0.02, 0, 0.6]))
    (out,) = tracker.update([hand], FRAME_S)
    assert out.joints_m is hand.joints_m and out.id == 0


def test_a_wrong_configuration_is_refused() -> None:
    with pytest.raises(ValueError, match='coast_s must be positive'):
        TrackerConfig(coast_s=0)
    with pytest.raises(ValueError, match='side_memory'):
        TrackerConfig(side_memory=1.0)
