"""Weak labels on real photographs: boxes drawn by people, landmarks from a peer system.

Reads a folder of photographs with `mediapipe_peer.json` beside them (what MediaPipe Hands finds in
each photo: 21 landmarks in MPII order, the side, and its own guess of the third dimension). A
photo may have boxes drawn by people: VOC files label every hand (SubhiH), `labels.json` of a set
some. `negatives.txt` names photographs that were looked at and show no hand. What is in
`VALIDATION_SETS`, and SubhiH's recordings of `VALIDATION_PREFIXES`, is never trained on.
`tools/label_video.py` makes such a folder from a video. Landmarks are pseudo labels: no
visibility, and no position in space.
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
from torch import Tensor

from handos_model.errors import UserError
from handos_model.hand.model import HandModel
from handos_model.types import ROOT_JOINT, Camera
from handos_training.data.sample import HandLabels, Sample, empty_labels

ROBOT_HAND_SETS = ('pollen-robotics-AmazingHand',)  # robots' hands, which are negatives
VALIDATION_SETS = (
    *('hagrid-subset', 'hamer', 'mediapipe', 'mediapipe-samples', 'tfjs-hand'),
    # without hands
    *('Azure-Samples-cognitive-services-sample-data-files', '2004apurva-Medicine_detector'),
    *('3bsalam-1-Screw-Detector', 'JulianEmr-sudoku-solver', 'scikit-image-scikit-image'),
    *('Ahmadfathulalim-DeteksiRobot', '7130-7th-cone_cube_detect_test_1.0'),
    *ROBOT_HAND_SETS,
)
NEGATIVES_FILE = 'negatives.txt'
VALIDATION_PREFIXES = ('5_', '16_', '26_', '46_')  # of SubhiH's recordings
LANDMARK_MARGIN = 0.08  # landmarks are bone ends; skin reaches about this part of the box further
SIDE_SCORE = 0.9
MATCH_IOU = 0.4
CLOSE_UP = 0.35  # a hand over so much of a photo's width and height: the photo is of it alone


class PeerPhotos:
    """The photographs under `root`: 'train', 'test' or 'peer'.

    'test' is the SubhiH recordings kept apart, where people drew a box around every hand, and
    'peer' the other sets kept apart, with the peer's hands alone.

    Each item is a Sample of the full image. A photo where nothing is labelled is left out.
    """

    splits = ('train', 'test', 'peer')
    has_camera = False

    def __init__(self, root: Path, split: str = 'train', mano: HandModel | None = None) -> None:
        """`mano` is not used: there are no meshes here. Raises UserError for another folder."""
        peer_file = root / 'mediapipe_peer.json'
        if not peer_file.is_file():
            raise UserError(f'{peer_file} is missing: point --root at the photographs folder')
        self.root = root
        self.peer: dict[str, Any] = json.loads(peer_file.read_text())['images']
        negatives = _negatives(root)
        self.own_boxes = _own_boxes(root)
        self.names = [
            name
            for name in sorted(self.peer)
            if _is_kept_apart(name) == (split != 'train')
            and (split == 'train' or name.startswith('SubhiH') == (split == 'test'))
            and name not in negatives
            and (
                self.peer[name]['hands']
                or self.own_boxes.get(name)
                or (root / name).with_suffix('.xml').is_file()
            )
        ]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        name = self.names[index]
        image = _read(self.root / name)
        height, width = image.shape[1:]
        record = self.peer[name]
        annotation = (self.root / name).with_suffix('.xml')
        if annotation.is_file():
            labels = _labels(record, _voc_boxes(annotation), width, height)
            return _sample(image, labels, name, all_hands_labelled=True)
        own = np.array(self.own_boxes.get(name, ()), np.float32).reshape(-1, 4)
        own *= np.array([width, height, width, height], np.float32)
        # A person's box where the peer sees nothing; else the peer's, which are alike in all sets.
        labels = _labels(record, None if record['hands'] else own, width, height)
        boxes = labels.boxes_xyxy_px
        size = (boxes[:, 2:] - boxes[:, :2]) / torch.tensor([width, height])
        close_up = len(labels) == 1 and bool((size >= CLOSE_UP).all())
        return _sample(image, labels, name, close_up or len(own) == len(labels))

    def sequence(self, index: int) -> str | None:
        """Photographs stand alone."""
        return None


class Negatives:
    """The photographs without a hand that `root`/negatives.txt names: 'train' or 'test'."""

    splits = ('train', 'test')
    has_camera = False

    def __init__(self, root: Path, split: str = 'train', mano: HandModel | None = None) -> None:
        """`mano` is not used. Raises UserError where the list is missing."""
        self.root = root
        self.names = [n for n in _negatives(root) if _is_kept_apart(n) == (split == 'test')]
        if not self.names:
            raise UserError(f'{root / NEGATIVES_FILE} names no photograph for {split}')

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        name = self.names[index]
        return _sample(_read(self.root / name), empty_labels(0), name, all_hands_labelled=True)

    def sequence(self, index: int) -> str | None:
        """Photographs stand alone."""
        return None


def _read(path: Path) -> Tensor:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(f'{path.name}: not a readable image')
    return torch.from_numpy(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)).permute(2, 0, 1)


def _sample(image: Tensor, labels: HandLabels, name: str, all_hands_labelled: bool) -> Sample:
    camera = Camera.uncalibrated(image.shape[2], image.shape[1])
    matrix = torch.from_numpy(camera.matrix_px).float()
    return Sample(image, matrix, labels, name, all_hands_labelled)


def _is_kept_apart(name: str) -> bool:
    if name.startswith('SubhiH'):
        return Path(name).name.startswith(VALIDATION_PREFIXES)
    return name.split('/')[0] in VALIDATION_SETS


def _negatives(root: Path) -> dict[str, None]:
    """Names in `negatives.txt`, in order."""
    file = root / NEGATIVES_FILE
    return dict.fromkeys(file.read_text().split()) if file.is_file() else {}


def _own_boxes(root: Path) -> dict[str, list[list[float]]]:
    """Boxes of hands [N,4] xyxy, in parts of the image, of each set's `labels.json`."""
    boxes = {}
    for file in sorted(root.rglob('labels.json')):
        content = json.loads(file.read_text())
        if content.get('kind') != 'hands':
            continue
        for name, label in content['images'].items():
            boxes[str(file.parent.relative_to(root) / name)] = [
                one['box'] for one in label.get('boxes', ())
            ]
    return boxes


def _voc_boxes(path: Path) -> NDArray[np.float32]:
    """Boxes [N,4] xyxy, pixel centres, of a VOC annotation (whose pixels count from 1)."""
    keys = ('xmin', 'ymin', 'xmax', 'ymax')
    boxes = [
        [float(box.findtext(key, 'nan')) - 1 for key in keys]
        for box in ElementTree.parse(path).iter('bndbox')
    ]
    return np.array(boxes, dtype=np.float32).reshape(-1, 4)


def _labels(
    record: dict[str, Any], boxes: NDArray[np.float32] | None, width: int, height: int
) -> HandLabels:
    """Peer landmarks, put into the person's boxes where there are some."""
    peers = record['hands']
    # What the peer found only after padding the photo is less reliable than the rest.
    direct = record.get('way', 'direct') == 'direct'
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
        sure = direct and peers[peer]['score'] >= SIDE_SCORE
        labels.has_side[hand] = sure
        if sure and 'world_landmarks' in peers[peer]:
            joints_m = torch.tensor(peers[peer]['world_landmarks'], dtype=torch.float32)
            labels.joints_m[hand] = joints_m - joints_m[ROOT_JOINT]
            labels.has_joints_m[hand] = True
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
