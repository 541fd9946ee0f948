"""Hands as JSON: what `handos image` and `handos video` write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from handos_model.files import write_whole
from handos_model.types import FloatArray, Hand


def hand_to_json(hand: Hand, index: int, with_vertices: bool) -> dict[str, Any]:
    """One hand; metres in the camera's optical frame, pixels of the image.

    `index` is the id of a hand that no tracker has seen.
    """
    joints_px = np.column_stack([hand.joints_px, hand.joint_confidence])
    entry = {
        'id': hand.id if hand.id >= 0 else index,
        'side': hand.side,
        'side_probability': round(hand.side_probability, 4),
        'score': round(hand.score, 4),
        'box_xyxy_px': _rounded(hand.box_xyxy_px, 2),
        'joints_px': _rounded(joints_px, 3),
        'joints_m': _rounded(hand.joints_m, 5),
        'translation_m': _rounded(hand.translation_m, 5),
        'scale_source': hand.scale_source.name,
    }
    if with_vertices:
        entry['vertices_m'] = _rounded(hand.vertices_m, 5)
    return entry


def write_json(path: Path, content: Any) -> None:
    """Write the whole file or nothing; `-` is standard output."""
    text = json.dumps(content, indent=None, separators=(',', ':')) + '\n'
    if str(path) == '-':
        print(text, end='')
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.encode())


def _rounded(values: FloatArray, digits: int) -> Any:
    return np.round(np.asarray(values, np.float64), digits).tolist()
