"""Overlays: drawn where the hand is, and never outside the image or over the input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from handos_model.draw import OverlayStyle, close_wrist, draw_hands
from handos_model.geometry.placement import boundary_edges
from handos_model.geometry.projection import project
from handos_model.hand.model import HandModel
from handos_model.types import Camera, Hand, ScaleSource, Side, TrackState

HAND_MODEL = HandModel.embedded()
CAMERA = Camera.uncalibrated(320, 240)
IMAGE = np.full((240, 320, 3), 90, np.uint8)
MESH_ONLY = OverlayStyle(skeleton=False, labels=False)


def hand(x: float = 0.0, z: float = 0.6, side: Side = 'right') -> Hand:
    """A flat hand, its back to the camera."""
    vertices, joints = HAND_MODEL.pose(np.tile(np.eye(3), (16, 1, 1)), np.zeros(10))
    turn = np.array([[0, -1, 0], [-1, 0, 0], [0, 0, -1.0]])
    mirror = np.array([1 if side == 'right' else -1, 1, 1])
    vertices, joints = ((points @ turn.T) * mirror for points in (vertices, joints))
    vertices, joints = (points - joints[9] + [x, 0.03, z] for points in (vertices, joints))
    pixels = project(vertices, CAMERA)
    return Hand(
        id=3, age=1, state=TrackState.TRACKED, side=side, side_probability=0.9, score=0.8,
        box_xyxy_px=np.concatenate([pixels.min(0), pixels.max(0)]),
        joints_px=project(joints, CAMERA), joint_confidence=np.ones(21), joints_m=joints,
        vertices_m=vertices, wrist_rotation=np.eye(3), translation_m=joints[9],
        translation_covariance_m2=np.eye(3), scale_source=ScaleSource.NETWORK,
    )  # fmt: skip


@pytest.mark.parametrize('side', ['right', 'left'])
def test_the_mesh_covers_the_hand_and_nothing_else(side: Side) -> None:
    drawn = draw_hands(IMAGE, [hand(side=side)], CAMERA, HAND_MODEL.faces, MESH_ONLY)
    changed = (drawn != IMAGE).any(-1)
    pixels = np.rint(project(hand(side=side).vertices_m, CAMERA)).astype(int)
    assert changed[pixels[:, 1], pixels[:, 0]].mean() > 0.9
    low, high = pixels.min(0) - 3, pixels.max(0) + 4
    changed[low[1] : high[1], low[0] : high[0]] = False
    assert not changed.any()
    assert (IMAGE == 90).all()


def test_sides_have_their_colours() -> None:
    def warmth(side: Side) -> float:
        drawn = draw_hands(IMAGE, [hand(side=side)], CAMERA, HAND_MODEL.faces, MESH_ONLY)
        changed = (drawn != IMAGE).any(-1)
        return float(drawn[changed].astype(float).mean(0) @ [1, 0, -1])

    assert warmth('right') > 20 and warmth('left') < -20


def test_the_nearer_hand_is_in_front() -> None:
    near, far = hand(z=0.5, side='left'), hand(z=0.9)
    both = draw_hands(
        IMAGE, [near, far], CAMERA, HAND_MODEL.faces, OverlayStyle(1.0, False, False)
    )
    middle = np.rint(project(near.vertices_m.mean(0), CAMERA)).astype(int)
    red, _, blue = both[middle[1], middle[0]].astype(int)
    assert blue > red


def test_transparency_scales_with_alpha_and_nothing_is_drawn_without() -> None:
    def strength(alpha: float) -> float:
        style = OverlayStyle(alpha, False, False)
        drawn = draw_hands(IMAGE, [hand()], CAMERA, HAND_MODEL.faces, style)
        return float(np.abs(drawn.astype(int) - IMAGE).sum())

    assert strength(0.0) == 0
    assert 0.4 < strength(0.5) / strength(1.0) < 0.6
    with pytest.raises(ValueError, match='mesh_alpha'):
        OverlayStyle(1.5)


def test_lost_hands_are_left_out_and_coasting_ones_fade() -> None:
    def strength(state: TrackState) -> float:
        shown = [replace(hand(), state=state)]
        drawn = draw_hands(IMAGE, shown, CAMERA, HAND_MODEL.faces, MESH_ONLY)
        return float(np.abs(drawn.astype(int) - IMAGE).sum())

    assert strength(TrackState.LOST) == 0
    assert strength(TrackState.COASTING) < 0.6 * strength(TrackState.TRACKED)


@pytest.mark.parametrize(
    'offset', [[0.32, 0, 0], [-0.5, 0.3, 0], [9, 9, 0], [0, 0, -0.58], [0, 0, -2]]
)
def test_hands_at_and_beyond_the_border_are_survived(offset: list[float]) -> None:
    moved = hand()
    shift = np.array(offset)
    joints, vertices = moved.joints_m + shift, moved.vertices_m + shift
    away = replace(
        moved, joints_m=joints, vertices_m=vertices, joints_px=project(joints, CAMERA),
        translation_m=joints[9],
    )  # fmt: skip
    drawn = draw_hands(IMAGE, [away], CAMERA, HAND_MODEL.faces)
    assert drawn.shape == IMAGE.shape and drawn.dtype == np.uint8


def test_the_skeleton_takes_each_finger_s_colour() -> None:
    shown = replace(hand(), box_xyxy_px=np.array([0, 0, 320, 240.0]))
    style = OverlayStyle(mesh_alpha=0, labels=False)
    drawn = draw_hands(IMAGE, [shown], CAMERA, HAND_MODEL.faces, style)
    tips = np.rint(shown.joints_px[[4, 8, 12, 16, 20]]).astype(int)
    colours = {tuple(drawn[y, x].tolist()) for x, y in tips}
    assert len(colours) == 5


def test_the_wrist_is_closed() -> None:
    vertices, faces = close_wrist(HAND_MODEL.v_template, HAND_MODEL.faces)
    assert len(vertices) == 779
    assert len(boundary_edges(faces)) == 0
