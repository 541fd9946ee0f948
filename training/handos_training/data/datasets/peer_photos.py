"""Weak 2D labels on real photographs: boxes drawn by people, landmarks from a peer system.

Reads a folder of photographs with `mediapipe_peer.json` beside them (what MediaPipe Hands finds in
each photo: 21 landmarks in MPII order and the side). SubhiH photos also carry VOC boxes, which
label every hand; its recordings of `VALIDATION_PREFIXES` and the sets of `VALIDATION_SETS` are
never trained on. `tools/label_video.py` makes such a folder from a video. The labels are pseudo
labels: 2D joints and side only, no visibility and nothing metric.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from handos_model.errors import UserError
from handos_model.hand.model import HandModel
from handos_model.types import Camera
from handos_training.data.sample import HandLabels, Sample, empty_labels

VALIDATION_SETS = ('hagrid-subset', 'hamer', 'mediapipe', 'mediapipe-samples', 'tfjs-hand')
VALIDATION_PREFIXES = ('5_', '16_', '26_', '46_')  # also in benchmarks/real_photos.py
LANDMARK_MARGIN = 0.08  # landmarks are bone ends; skin reaches about this part of the box further
SIDE_SCORE = 0.9
MATCH_IOU = 0.4


class PeerPhotos:
    """The photographs under `root`: 'train', or 'test', the SubhiH recordings kept apart.

    Each item is a Sample of the full image. A photo where nothing is labelled is left out.
    """

    splits = ('train', 'test')
    has_camera = False

    def __init__(self, root: Path, split: str = 'train', mano: HandModel | None = None) -> None:
        """`mano` is not used: there are no meshes here. Raises UserError for another folder."""
        peer_file = root / 'mediapipe_peer.json'
        if not peer_file.is_file():
            raise UserError(f'{peer_file} is missing: point --root at the photographs folder')
        self.root = root
        self.peer: dict[str, Any] = json.loads(peer_file.read_text())['images']
        self.names = [
            name
            for name in sorted(self.peer)
            if name.split('/')[0] not in VALIDATION_SETS
            and _is_kept_apart(name) == (split == 'test')
            and (self.peer[name]['hands'] or (root / name).with_suffix('.xml').is_file())
        ]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        name = self.names[index]
        image = cv2.imread(str(self.root / name), cv2.IMREAD_COLOR)
        if image is None:
            raise ValueError(f'{name}: not a readable image')
        height, width = image.shape[:2]
        annotation = (self.root / name).with_suffix('.xml')
        boxes = _voc_boxes(annotation) if annotation.is_file() else None
        camera = Camera.uncalibrated(width, height)
        rgb = np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1))
        return Sample(
            torch.from_numpy(rgb),
            torch.from_numpy(camera.matrix_px).float(),
            _labels(self.peer[name]['hands'], boxes, width, height),
            name,
            all_hands_labelled=boxes is not None,
        )

    def sequence(self, index: int) -> str | None:
        """Photographs stand alone."""
        return None


def _is_kept_apart(name: str) -> bool:
    return name.startswith('SubhiH') and Path(name).name.startswith(VALIDATION_PREFIXES)


def _voc_boxes(path: Path) -> NDArray[np.float32]:
    """Boxes [N,4] xyxy, pixel centres, of a VOC annotation (whose pixels count from 1)."""
    keys = ('xmin', 'ymin', 'xmax', 'ymax')
    boxes = [
        [float(box.findtext(key, 'nan')) - 1 for key in keys]
        for box in ElementTree.parse(path).iter('bndbox')
    ]
    return np.array(boxes, dtype=np.float32).reshape(-1, 4)


def _labels(
    peers: list[dict[str, Any]], boxes: NDArray[np.float32] | None, width: int, height: int
) -> HandLabels:
    """Peer landmarks, put into the person's boxes where there are some."""
    # The peer counts pixels from the corner of the image, we from the first pixel's centre.
    joints = np.array([hand['landmarks_px'] for hand in peers], np.float32).reshape(-1, 21, 3)
    joints = joints[..., :2] - 0.5
    extents = np.concatenate([joints.min(1), joints.max(1)], axis=1)
    margin = LANDMARK_MARGIN * (extents[:, 2:] - extents[:, :2]).max(1, initial=0, keepdims=True)
    extents += np.concatenate([-margin, -margin, margin, margin], axis=1)
    limits = np.array([width - 1, height - 1, width - 1, height - 1], np.float32)
    extents = np.clip(extents, 0, limits)
    matches = {index: index for index in range(len(peers))}
    if boxes is not None:
        matches = _match(boxes, extents)
        extents = boxes
    labels = empty_labels(len(extents))
    labels.boxes_xyxy_px = torch.from_numpy(extents)
    labels.amodal_boxes_xyxy_px = torch.from_numpy(extents.copy())
    for hand, peer in matches.items():
        labels.joints_px[hand] = torch.from_numpy(joints[peer])
        labels.has_joint_px[hand] = True
        labels.is_left[hand] = peers[peer]['handedness_unmirrored'] == 'Left'
        labels.has_side[hand] = peers[peer]['score'] >= SIDE_SCORE
    return labels


def _match(boxes: NDArray[np.float32], extents: NDArray[np.float32]) -> dict[int, int]:
    """Box index -> peer index, greedily by IoU."""
    matches: dict[int, int] = {}
    for box_index, box in enumerate(boxes):
        top_left = np.maximum(box[:2], extents[:, :2])
        overlap = np.clip(np.minimum(box[2:], extents[:, 2:]) - top_left, 0, None).prod(1)
        areas = (extents[:, 2:] - extents[:, :2]).prod(1) + (box[2:] - box[:2]).prod() - overlap
        iou = overlap / np.maximum(areas, 1e-6)
        iou[list(matches.values())] = 0
        if len(iou) and iou.max() >= MATCH_IOU:
            matches[box_index] = int(iou.argmax())
    return matches
