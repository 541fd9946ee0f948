"""RViz markers of hands: mesh, skeleton and a label, as one MarkerArray in CDR bytes.

A mesh is 4,614 points. As message objects they cost milliseconds in Python; as bytes they are one
array copy, and publishers take bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from handos_model.types import SKELETON_EDGES, FloatArray, Hand, TrackState
from handos_ros.messages.cdr_writer import CdrWriter

ADD, DELETE, DELETE_ALL = 0, 2, 3
LINE_LIST, TEXT_VIEW_FACING, TRIANGLE_LIST = 5, 9, 11
MESH, SKELETON, LABEL = 'mesh', 'skeleton', 'label'
RGB = {'left': (0.30, 0.55, 0.95), 'right': (0.95, 0.60, 0.25)}
COASTING_ALPHA = 0.4
BONE_WIDTH_M = 0.004
LABEL_HEIGHT_M = 0.03
LABEL_OFFSET_M = np.array([0.0, -0.03, 0.0])  # above the wrist; y points down
NO_POINTS = np.zeros((0, 3))
ORIGIN = np.zeros(3)
EDGES = np.array(SKELETON_EDGES)


class HandMarkers:
    """Builds MarkerArrays and remembers which hands are shown, to delete those that are not."""

    def __init__(self, triangles: npt.NDArray[np.int64], lifetime_s: float = 0.0) -> None:
        self._corners = {
            'right': triangles.reshape(-1),
            'left': triangles[:, [0, 2, 1]].reshape(-1),  # a mirrored mesh is inside out
        }
        self._lifetime_s = lifetime_s
        self._shown: set[int] = set()
        self._first = True

    def serialize(self, stamp: tuple[int, int], frame_id: str, hands: Sequence[Hand]) -> bytes:
        """CDR of visualization_msgs/MarkerArray; `stamp` is (seconds, nanoseconds).

        Hands without a track (id -1) are numbered in their order.
        """
        present = {
            hand.id if hand.id >= 0 else index: hand
            for index, hand in enumerate(hands)
            if hand.state != TrackState.LOST
        }
        gone = self._shown - present.keys()
        writer = CdrWriter()
        writer.number('I', int(self._first) + 3 * (len(gone) + len(present)))
        markers = _MarkerWriter(writer, stamp, frame_id, self._lifetime_s)
        if self._first:  # markers of a node that ran before
            markers.write('', 0, 0, DELETE_ALL)
        for marker_id in sorted(gone):
            for namespace in (MESH, SKELETON, LABEL):
                markers.write(namespace, marker_id, 0, DELETE)
        for marker_id, hand in present.items():
            self._write_hand(markers, marker_id, hand)
        self._shown = set(present)
        self._first = False
        return writer.finish()

    def _write_hand(self, markers: _MarkerWriter, marker_id: int, hand: Hand) -> None:
        rgba = (*RGB[hand.side], COASTING_ALPHA if hand.state == TrackState.COASTING else 1.0)
        corners_m = hand.vertices_m[self._corners[hand.side]]
        bones_m = hand.joints_m[EDGES.reshape(-1)]
        text = f'{hand.id} {hand.side} {hand.score:.2f}'
        markers.write(MESH, marker_id, TRIANGLE_LIST, points_m=corners_m, rgba=rgba)
        markers.write(
            SKELETON, marker_id, LINE_LIST, points_m=bones_m, rgba=rgba, scale=(BONE_WIDTH_M, 0, 0)
        )
        markers.write(
            LABEL,
            marker_id,
            TEXT_VIEW_FACING,
            rgba=(1.0, 1.0, 1.0, 1.0),
            scale=(0, 0, LABEL_HEIGHT_M),
            position_m=hand.joints_m[0] + LABEL_OFFSET_M,
            text=text,
        )


class _MarkerWriter:
    """Fields of visualization_msgs/Marker in their order, the same from Humble to Kilted."""

    def __init__(
        self, writer: CdrWriter, stamp: tuple[int, int], frame_id: str, lifetime_s: float
    ) -> None:
        self._writer = writer
        self._stamp = stamp
        self._frame_id = frame_id
        seconds = int(lifetime_s)
        self._lifetime = (seconds, int((lifetime_s - seconds) * 1e9))

    def write(
        self,
        namespace: str,
        marker_id: int,
        kind: int,
        action: int = ADD,
        *,
        points_m: FloatArray = NO_POINTS,
        rgba: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0),
        scale: tuple[float, ...] = (1.0, 1.0, 1.0),
        position_m: FloatArray = ORIGIN,
        text: str = '',
    ) -> None:
        w = self._writer
        _write_header(w, self._stamp, self._frame_id)
        w.string(namespace)
        w.numbers('i', marker_id, kind, action)
        w.numbers('d', *position_m, 0.0, 0.0, 0.0, 1.0)  # pose; orientation is the identity
        w.numbers('d', *scale)
        w.numbers('f', *rgba)
        w.number('i', self._lifetime[0])
        w.number('I', self._lifetime[1])
        w.number('B', 0)  # frame_locked
        w.sequence(points_m, 'f8', 3)
        w.number('I', 0)  # colors
        w.string('')  # texture_resource
        _write_header(w, (0, 0), '')  # texture
        w.string('')
        w.number('I', 0)
        w.number('I', 0)  # uv_coordinates
        w.string(text)
        w.string('')  # mesh_resource
        w.string('')  # mesh_file
        w.number('I', 0)
        w.number('B', 0)  # mesh_use_embedded_materials


def _write_header(writer: CdrWriter, stamp: tuple[int, int], frame_id: str) -> None:
    writer.number('i', stamp[0])
    writer.number('I', stamp[1])
    writer.string(frame_id)
