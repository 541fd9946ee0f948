"""Hand shapes that people make, as joint angles in degrees.

Each row: weight, thumb (CMC flexion, CMC abduction, MCP, IP), the curls of index, middle, ring and
little finger (MCP, PIP, DIP), and the spread of the four (positive towards the thumb). Thumbs that
lie on fingers, beside them or against their tips were fitted to touch the embedded hand there,
with no capsule of `pose.py` more than 2.5 mm within another.
"""

from __future__ import annotations

from typing import NamedTuple

Curl = tuple[float, float, float]


class HandShape(NamedTuple):
    weight: float
    thumb: tuple[float, float, float, float]
    curls: tuple[Curl, Curl, Curl, Curl]
    spread: tuple[float, float, float, float] = (0, 0, 0, 0)


S: Curl = (-2, 3, 2)  # straight
C: Curl = (84, 100, 62)  # curled
H: Curl = (42, 52, 32)  # half
WIDE = (14.0, 2.0, -9.0, -20.0)

HAND_SHAPES: dict[str, HandShape] = {
    'palm': HandShape(2.0, (-10, 8, -4, -4), (S, S, S, S), (8, 1, -5, -11)),
    'stop': HandShape(1.5, (5, -4, 0, 0), (S, S, S, S)),
    'spread': HandShape(
        1.5, (-18, 14, -8, -6), ((-8, 0, 0), (-8, 0, 0), (-8, 0, 0), (-8, 0, 0)), WIDE
    ),
    'fist': HandShape(3.0, (26, 10, 18, 69), (C, C, C, C)),
    'fist_thumb_aside': HandShape(1.0, (-18, -14, 48, 42), (C, C, C, C)),
    'fist_thumb_off': HandShape(0.8, (14, 2, 18, 22), (C, C, C, C)),
    'fist_thumb_between': HandShape(0.7, (20, 1, 12, 43), (C, C, C, C)),
    'fist_thumb_under': HandShape(
        0.5, (45, 45, 52, 57), ((78, 78, 40), (78, 78, 40), (80, 80, 42), (84, 92, 52))
    ),
    'fingers_on_thumb': HandShape(
        0.7, (22, -6, 56, 77), ((36, 100, 66), (36, 100, 66), (38, 100, 66), (40, 98, 64))
    ),
    'fist_loose': HandShape(
        1.0, (30, 5, 9, 57), ((65, 85, 50), (70, 88, 52), (72, 90, 52), (74, 90, 52))
    ),
    'thumbs_up': HandShape(3.0, (-20, 4, -8, -10), (C, C, C, C)),
    'thumb_half_up': HandShape(
        1.0, (-6, 12, 0, 5), ((70, 90, 52), (74, 92, 55), (78, 94, 55), (80, 94, 55))
    ),
    'call': HandShape(2.5, (-22, 16, -8, -10), (C, C, C, S), (0, 0, 0, -20)),
    'mute': HandShape(1.5, (9, 12, 43, 53), ((5, 8, 5), C, C, C)),
    'pointing': HandShape(2.5, (9, 12, 43, 53), (S, C, C, C)),
    'pointing_thumb_in': HandShape(
        1.0, (14, 4, 14, 20), ((8, 14, 8), (76, 96, 58), (80, 98, 60), C)
    ),
    'gun': HandShape(1.0, (-16, 6, -6, -6), (S, C, C, C)),
    'gun_two': HandShape(0.5, (-14, 6, -6, -6), (S, S, C, C)),
    'victory': HandShape(2.0, (27, 5, 44, 43), (S, S, C, C), (13, -8, 0, 0)),
    'victory_thumb_between': HandShape(
        0.6, (12, -12, 30, 31), (S, (52, 12, 6), C, C), (6, -2, 0, 0)
    ),
    'index_hook': HandShape(0.7, (9, 12, 44, 52), ((18, 92, 50), C, C, C)),
    'two_together': HandShape(1.2, (26, 5, 44, 43), (S, S, C, C), (-2, 3, 0, 0)),
    'three': HandShape(1.2, (34, -9, 47, 60), (S, S, S, C), (10, 0, -9, 0)),
    'three_thumb': HandShape(1.0, (-14, 12, -4, -6), (S, S, C, C), (12, -6, 0, 0)),
    'four': HandShape(1.4, (12, -15, 56, 67), (S, S, S, S), (11, 2, -7, -16)),
    'rock': HandShape(1.4, (11, 13, 41, 60), (S, C, C, S), (4, 0, 0, -12)),
    'spider': HandShape(0.6, (-16, 12, -4, -4), (S, C, C, S), (4, 0, 0, -12)),
    'ok': HandShape(
        1.6, (-1, 26, 31, 56), ((46, 58, 36), (14, 14, 8), (6, 9, 5), (2, 8, 5)), (2, 0, -7, -16)
    ),
    'little_up': HandShape(0.6, (26, 10, 18, 69), (C, C, C, S), (0, 0, 0, -8)),
    'middle_out': HandShape(0.3, (5, 7, 31, 59), (C, S, C, C)),
    'crossed': HandShape(0.3, (25, 4, 43, 41), ((4, 6, 4), (12, 10, 6), C, C), (-8, 10, 0, 0)),
    'pinch': HandShape(1.0, (4, 28, 29, 43), ((50, 52, 30), H, H, H)),
    'pinch_open': HandShape(
        0.6, (24, 34, 10, 20), ((40, 40, 22), (12, 16, 10), (14, 18, 10), (16, 20, 10))
    ),
    'finger_heart': HandShape(0.5, (-3, 23, 39, 50), ((52, 66, 30), C, C, C)),
    'tripod': HandShape(
        0.8, (17, 31, 23, 31), ((48, 48, 25), (50, 52, 28), (62, 62, 36), (64, 62, 36))
    ),
    'five_pinch': HandShape(
        0.6, (25, 35, 19, 16), ((56, 36, 20), (58, 36, 20), (60, 38, 22), (62, 40, 24))
    ),
    'cylinder': HandShape(
        0.8, (18, 40, 20, 24), ((42, 50, 30), (46, 54, 33), (50, 57, 35), (55, 57, 35))
    ),
    'wide_cylinder': HandShape(
        0.6, (0, 42, 6, 10), ((26, 34, 20), (28, 36, 21), (30, 38, 22), (34, 40, 23))
    ),
    'sphere': HandShape(
        0.8, (8, 44, 12, 18), ((26, 38, 25), (26, 38, 25), (26, 38, 25), (28, 40, 25)), WIDE
    ),
    'hook': HandShape(0.5, (-5, 10, 0, 0), ((8, 92, 58), (8, 92, 58), (8, 92, 58), (8, 92, 58))),
    'lateral': HandShape(
        0.7, (-5, -7, 25, 42), ((55, 72, 42), (65, 82, 46), (70, 86, 48), (75, 88, 48))
    ),
    'phone': HandShape(
        0.7, (0, 34, 4, 10), ((24, 36, 20), (28, 42, 25), (32, 46, 28), (36, 50, 30))
    ),
    'relaxed': HandShape(
        1.6, (8, 14, 10, 14), ((18, 28, 15), (24, 33, 18), (29, 37, 20), (32, 38, 20))
    ),
    'hanging': HandShape(
        0.8, (6, 8, 12, 18), ((24, 36, 20), (32, 42, 24), (38, 46, 26), (42, 48, 26))
    ),
    'roof': HandShape(0.5, (10, 22, 10, 10), ((70, 8, 4), (72, 8, 4), (74, 8, 4), (74, 8, 4))),
    'mouse': HandShape(
        0.4, (6, 22, 8, 10),
        ((20, 32, 16), (15, 30, 15), (22, 35, 17), (26, 36, 18)), (5, 0, -3, -8)
    ),
    'claw': HandShape(
        0.5, (0, 40, 10, 40), ((-5, 70, 55), (-5, 70, 55), (-5, 70, 55), (-5, 70, 55)), WIDE
    ),
    'cup': HandShape(
        0.5, (10, 40, 10, 10), ((20, 23, 13), (25, 25, 13), (28, 27, 15), (30, 28, 15))
    ),
    'typing': HandShape(
        0.5, (4, 22, 8, 12),
        ((18, 42, 22), (20, 44, 24), (20, 42, 22), (18, 36, 20)), (6, 0, -4, -8)
    ),
    'little_apart': HandShape(0.3, (4, 10, 4, 4), (S, S, S, S), (2, 0, 2, -20)),
}  # fmt: skip
