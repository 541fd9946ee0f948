"""Hands over time: stable ids, One-Euro smoothing, a side that does not flicker, lost hands said.

Tracks are matched to the hands of a frame by Hungarian assignment on where each is expected: 2D
joints in units of the hand's box, and the 3D position, which tells two hands apart that cross in
the image. Monocular depth is weak, so across the viewing ray counts in full and along it little.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from handos_model.geometry.placement import wrist_rotation
from handos_model.tracking.assignment import assign
from handos_model.tracking.one_euro import OneEuro, OneEuroConfig
from handos_model.types import FloatArray, Hand, Side, TrackState

FORBIDDEN = 1e6
LARGEST_LOGIT = 6.0
# Speeds are in metres a second, of pixels in boxes a second. At 30 Hz these divide the jitter of a
# still hand by more than five, and hold back a hand at 1 m/s by less than a frame.
TRANSLATION_FILTER = OneEuroConfig(min_cutoff_hz=0.7, beta=6.0)
SHAPE_FILTER = OneEuroConfig(min_cutoff_hz=1.0, beta=10.0)
PIXEL_FILTER = OneEuroConfig(min_cutoff_hz=1.0, beta=2.0)
MOTION_GAIN = 0.5  # part of a prediction's error that corrects the velocity


@dataclass(frozen=True)
class TrackerConfig:
    """Which hand continues which track, and how strongly a track is smoothed."""

    coast_s: float = 0.4  # how long a hand that is not seen keeps its id
    coast_damping_s: float = 0.15  # the motion of an unseen hand dies off with this time constant
    gate: float = 1.0  # largest matching cost
    position_scale_m: float = 0.15  # distance across the ray that costs 1
    depth_scale_m: float = 0.5  # distance along the ray that costs 1
    side_cost: float = 0.3  # of certainly different sides
    side_memory: float = 0.8  # part of the side's evidence that stays from frame to frame
    side_switch_logit: float = 1.0  # evidence needed to turn a side over
    filtered: bool = True
    translation: OneEuroConfig = TRANSLATION_FILTER
    shape: OneEuroConfig = SHAPE_FILTER
    joints_px: OneEuroConfig = PIXEL_FILTER

    def __post_init__(self) -> None:
        for name in ('coast_s', 'coast_damping_s', 'gate', 'position_scale_m', 'depth_scale_m'):
            if not getattr(self, name) > 0:
                raise ValueError(f'{name} must be positive, got {getattr(self, name)}')
        if not 0 <= self.side_memory < 1:
            raise ValueError(f'side_memory must be in [0, 1), got {self.side_memory}')


class Tracker:
    """`update` takes the hands of one frame and returns the hands of all tracks.

    Frames must come with rising stamps: an equal one is taken for the same frame again, one that
    goes back (a recording that starts over) or leaps by more than `coast_s` loses all tracks.
    """

    def __init__(self, config: TrackerConfig | None = None) -> None:
        self.config = config or TrackerConfig()
        self._tracks: list[_Track] = []
        self._next_id = 0
        self._stamp_s: float | None = None

    @property
    def added_delay_s(self) -> float:
        """The longest delay that smoothing adds to the translation of a present track."""
        return max((track.translation.delay_s for track in self._tracks), default=0.0)

    def reset(self) -> list[Hand]:
        """Forget all tracks; returns them as lost."""
        lost = [track.as_lost() for track in self._tracks]
        self._tracks = []
        self._stamp_s = None
        return lost

    def update(self, hands: list[Hand], stamp_s: float) -> list[Hand]:
        """Tracked, coasting and newly lost hands at `stamp_s`."""
        lost: list[Hand] = []
        if self._stamp_s is not None and not (0 <= stamp_s - self._stamp_s <= self.config.coast_s):
            lost = self.reset()
        elapsed_s = 0.0 if self._stamp_s is None else stamp_s - self._stamp_s
        self._stamp_s = stamp_s
        if elapsed_s > 0:
            for track in self._tracks:
                track.predict(elapsed_s)
        rows, columns = self._match(hands)
        seen = dict(zip(rows, columns, strict=True))
        kept: list[_Track] = []
        for row, track in enumerate(self._tracks):
            if row in seen:
                track.correct(hands[seen[row]], elapsed_s)
            elif track.unseen_s > self.config.coast_s:
                lost.append(track.as_lost())
                continue
            kept.append(track)
        for column in sorted(set(range(len(hands))) - set(columns)):
            kept.append(_Track(self._next_id, hands[column], self.config))
            self._next_id += 1
        self._tracks = kept
        return [track.as_hand() for track in kept] + lost

    def _match(self, hands: list[Hand]) -> tuple[list[int], list[int]]:
        """Indices of matched tracks and hands."""
        if not hands or not self._tracks:
            return [], []
        cost = _costs(self._tracks, hands, self.config)
        # A forbidden pair costs more than any number of allowed ones, so it is only ever taken
        # where nothing else is left, and dropped then.
        rows, columns = assign(np.where(cost <= self.config.gate, cost, FORBIDDEN))
        allowed = [
            (int(r), int(c)) for r, c in zip(rows, columns, strict=True)
            if cost[r, c] <= self.config.gate
        ]  # fmt: skip
        return [r for r, _ in allowed], [c for _, c in allowed]


class _Track:
    """One hand: what is expected of it, and its filters."""

    def __init__(self, identity: int, hand: Hand, config: TrackerConfig) -> None:
        self.id = identity
        self.config = config
        self.age = 0
        self.unseen_s = 0.0
        self.hand = hand
        self.side_logit = _side_logit(hand)
        self.is_left = hand.is_left
        self.expected_m = np.array(hand.translation_m, dtype=np.float64)
        self.expected_px = np.array(hand.joints_px, dtype=np.float64)
        self.motion_m = np.zeros(3)  # per second, smoothed, for prediction
        self.motion_px = np.zeros(2)
        self.translation = OneEuro(config.translation, hand.translation_m)
        self.shape = OneEuro(config.shape, _shape(hand))
        self.joints_px = OneEuro(config.joints_px, hand.joints_px)

    def predict(self, elapsed_s: float) -> None:
        """Move on at the present velocity; an unseen hand slows down."""
        self.age += 1
        self.unseen_s += elapsed_s
        if self.unseen_s > elapsed_s:  # was not seen in the frame before either
            damping = math.exp(-elapsed_s / self.config.coast_damping_s)
            self.motion_m *= damping
            self.motion_px *= damping
        self.expected_m = self.expected_m + self.motion_m * elapsed_s
        self.expected_px = self.expected_px + self.motion_px * elapsed_s

    def correct(self, hand: Hand, elapsed_s: float) -> None:
        """Take a hand of this frame as the measurement."""
        turned = self._weigh_side(hand)
        hand = _of_side(hand, self.is_left)
        if elapsed_s > 0:
            since_s = max(self.unseen_s, elapsed_s)
            # Prediction already moved the expectation by the motion, so what is left corrects it.
            self.motion_m += MOTION_GAIN * (hand.translation_m - self.expected_m) / since_s
            shift_px = (hand.joints_px - self.expected_px).mean(0)
            self.motion_px += MOTION_GAIN * shift_px / since_s
            self.translation.update(hand.translation_m, since_s)
            if turned:  # a mean of a left and a right hand is none
                self.shape = OneEuro(self.config.shape, _shape(hand))
            else:
                self.shape.update(_shape(hand), since_s)
            self.joints_px.update(hand.joints_px, since_s, unit=max(_extent_px(hand), 1.0))
        self.expected_m = np.array(hand.translation_m, dtype=np.float64)
        self.expected_px = np.array(hand.joints_px, dtype=np.float64)
        self.unseen_s = 0.0
        self.hand = hand

    def _weigh_side(self, hand: Hand) -> bool:
        """Add a hand's evidence of the side; did it turn the track's side over?"""
        evidence = self.config.side_memory * self.side_logit + _side_logit(hand)
        self.side_logit = min(max(evidence, -LARGEST_LOGIT), LARGEST_LOGIT)
        towards_other = self.side_logit if not self.is_left else -self.side_logit
        turned = towards_other > self.config.side_switch_logit
        self.is_left ^= turned
        return turned

    def as_hand(self) -> Hand:
        """The smoothed hand, or where an unseen one is expected."""
        if self.unseen_s > 0:
            return self._moved(TrackState.COASTING)
        if not (self.config.filtered and self.age > 0):
            return self._said(TrackState.TRACKED)
        translation = self.translation.value
        shape = self.shape.value + translation
        joints, vertices = shape[:21], shape[21:]
        return self._said(
            TrackState.TRACKED,
            joints_px=self.joints_px.value.copy(),
            joints_m=joints,
            vertices_m=vertices,
            translation_m=translation.copy(),
            wrist_rotation=wrist_rotation(joints[None], np.array([not self.is_left]))[0],
        )

    def as_lost(self) -> Hand:
        return self._moved(TrackState.LOST)

    def _moved(self, state: TrackState) -> Hand:
        hand = self.hand
        shift_m = self.expected_m - hand.translation_m
        shift_px = (self.expected_px - hand.joints_px).mean(0)
        return self._said(
            state,
            box_xyxy_px=hand.box_xyxy_px + np.tile(shift_px, 2),
            joints_px=self.expected_px,
            joints_m=hand.joints_m + shift_m,
            vertices_m=hand.vertices_m + shift_m,
            translation_m=self.expected_m,
        )

    def _said(self, state: TrackState, **changes: Any) -> Hand:
        """The hand with these `changes`, under the id and the side of the track."""
        side: Side = 'left' if self.is_left else 'right'
        probability_left = 1.0 / (1.0 + math.exp(-self.side_logit))
        probability = probability_left if self.is_left else 1.0 - probability_left
        return replace(
            self.hand, id=self.id, age=self.age, state=state, side=side,
            side_probability=max(probability, 0.5), **changes,
        )  # fmt: skip


def _costs(tracks: list[_Track], hands: list[Hand], config: TrackerConfig) -> FloatArray:
    """How unlike each track's expected hand each hand is [T,H]; 0 is the same."""
    T, H = len(tracks), len(hands)
    expected_px = np.array([track.expected_px for track in tracks])[:, None]  # [T,1,21,2]
    expected_m = np.array([track.expected_m for track in tracks])  # [T,3]
    extents_px = np.array([_extent_px(track.hand) for track in tracks])[:, None]
    extents_px = np.maximum(extents_px, [max(_extent_px(hand), 1.0) for hand in hands])
    offsets_px = expected_px - np.array([hand.joints_px for hand in hands])
    distance = np.sqrt((offsets_px**2).sum(-1)).sum(-1) / (offsets_px.shape[2] * extents_px)
    offsets = np.array([hand.translation_m for hand in hands]) - expected_m[:, None]  # [T,H,3]
    ray = expected_m / np.maximum(np.sqrt((expected_m**2).sum(-1, keepdims=True)), 1e-6)
    along = (offsets @ ray[..., None]).reshape(T, H)
    across_squares = ((offsets - along[..., None] * ray[:, None]) ** 2).sum(-1)
    position = np.sqrt(
        across_squares / config.position_scale_m**2 + (along / config.depth_scale_m) ** 2
    )
    sides = np.array([math.tanh(_side_logit(hand) / 2) for hand in hands])
    expected_sides = np.array([math.tanh(track.side_logit / 2) for track in tracks])
    disagreement = np.abs(expected_sides[:, None] - sides) / 2
    cost: FloatArray = (distance + position) / 2 + config.side_cost * disagreement
    return cost


def _side_logit(hand: Hand) -> float:
    """Log-odds of a left hand."""
    probability = min(max(hand.side_probability, 0.5), 1 - 1e-4)
    logit = math.log(probability / (1 - probability))
    return logit if hand.is_left else -logit


def _of_side(hand: Hand, is_left: bool) -> Hand:
    """The hand, mirrored along its viewing ray where it is of the other side.

    So what a track says and shows is one side, and the hand stays where it is in the image.
    """
    if hand.is_left == is_left:
        return hand
    root = hand.translation_m
    ray = root / max(float(np.linalg.norm(root)), 1e-9)

    def mirrored(points_m: FloatArray) -> FloatArray:
        depth_m = (points_m - root) @ ray
        return np.asarray(points_m - 2 * depth_m[:, None] * ray)

    joints_m = mirrored(hand.joints_m)
    return replace(
        hand,
        joints_m=joints_m,
        vertices_m=mirrored(hand.vertices_m),
        wrist_rotation=wrist_rotation(joints_m[None], np.array([not is_left]))[0],
    )


def _shape(hand: Hand) -> FloatArray:
    """Joints and vertices relative to the root [21+778,3]."""
    shape: FloatArray = np.concatenate([hand.joints_m, hand.vertices_m]) - hand.translation_m
    return shape


def _extent_px(hand: Hand) -> float:
    x_low, y_low, x_high, y_high = hand.box_xyxy_px.tolist()
    return float(max(x_high - x_low, y_high - y_low))
