"""MediaPipe's landmarks of a folder's photographs, also of far hands, as weak labels for training.

    python -m tools.label_photos PHOTOS

Writes PHOTOS/mediapipe_peer.json, which the training reader `peer_photos` reads:
`--data.real peer_photos:PHOTOS`. MediaPipe looks at each photograph and, enlarged, at overlapping
tiles of it, where it finds hands that are too small in the whole. A hand counts that it finds
again, on the same side, in two closer views. MediaPipe (Apache-2.0) pins old versions of numpy and
protobuf: install it in an environment of its own (`pip install mediapipe==0.10.21`).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from handos_model.geometry.boxes import pairwise_iou

Image: TypeAlias = npt.NDArray[np.uint8]  # [H,W,3] BGR
Box: TypeAlias = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels, ends excluded
Hand: TypeAlias = dict[str, Any]  # of mediapipe_peer.json
Finder: TypeAlias = Callable[[Image], list[Hand]]

SUFFIXES = {'.jpg', '.jpeg', '.png'}
TILE, STEP = 0.4, 0.3  # of a photograph's sides
VIEW_PX = 480  # longer side of what is looked at
EDGE_PX = 3  # a hand that reaches a tile's edge may go on beyond it
SMALLEST_PX = 14
CLOSER = (1.6, 2.6)  # views of a hand, half their side over the longer side of its box
SAME_HAND, SAME_PLACE = 0.25, 0.5  # intersections over unions


def tiles(width: int, height: int) -> Iterator[Box]:
    """Nine tiles that overlap by a quarter of their sides."""
    for row in range(3):
        for column in range(3):
            x, y = int(column * STEP * width), int(row * STEP * height)
            yield x, y, x + int(TILE * width), y + int(TILE * height)


def look(image: Image, box: Box, find: Finder, size_px: int = VIEW_PX) -> list[Hand]:
    """Hands that lie in `box` of the image as a whole, in the image's pixels."""
    height, width = image.shape[:2]
    x0, y0, x1, y1 = max(box[0], 0), max(box[1], 0), min(box[2], width), min(box[3], height)
    if min(x1 - x0, y1 - y0) < SMALLEST_PX:
        return []
    scale = size_px / max(x1 - x0, y1 - y0)
    view = cv2.resize(image[y0:y1, x0:x1], None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    whole = []
    for hand in find(view.astype(np.uint8)):
        points = np.array(hand['landmarks_px'])
        limits = np.array([view.shape[1], view.shape[0]]) - EDGE_PX
        if (points[:, :2] < EDGE_PX).any() or (points[:, :2] > limits).any():
            continue
        placed = points / scale + [x0, y0, 0]
        whole.append({**hand, 'landmarks_px': placed.round(2).tolist()})
    return whole


def hands_of(image: Image, find: Finder) -> list[Hand]:
    """The hands of a photograph and its tiles, each once, that closer views confirm."""
    height, width = image.shape[:2]
    found = find(image)
    for box in tiles(width, height):
        found += look(image, box, find)
    kept: list[Hand] = []
    for hand in sorted(found, key=lambda hand: -float(hand['score'])):
        is_new = all(overlap(hand, other) < SAME_HAND for other in kept)
        if is_new and _side_px(hand) >= SMALLEST_PX and _is_confirmed(image, hand, find):
            kept.append(hand)
    return kept


def overlap(one: Hand, other: Hand) -> float:
    """Intersection over union of the boxes around two hands' landmarks."""
    boxes = (np.concatenate(_corners(hand))[None] for hand in (one, other))
    return float(pairwise_iou(*boxes)[0, 0])


def _is_confirmed(image: Image, hand: Hand, find: Finder) -> bool:
    start, end = _corners(hand)
    for closer in CLOSER:
        x0, y0 = (start + end) / 2 - closer * _side_px(hand)
        x1, y1 = (start + end) / 2 + closer * _side_px(hand)
        again = look(image, (int(x0), int(y0), int(x1), int(y1)), find)
        if not any(
            overlap(hand, other) > SAME_PLACE
            and other['handedness_unmirrored'] == hand['handedness_unmirrored']
            for other in again
        ):
            return False
    return True


def _corners(hand: Hand) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    points = np.array(hand['landmarks_px'])[:, :2]
    return points.min(0), points.max(0)


def _side_px(hand: Hand) -> float:
    start, end = _corners(hand)
    return float((end - start).max())


def mediapipe_finder(max_hands: int = 10) -> Finder:
    """MediaPipe Hands on single images. It takes them for mirrored, so sides are swapped."""
    import mediapipe

    solution = mediapipe.solutions.hands.Hands(static_image_mode=True, max_num_hands=max_hands)

    def find(image: Image) -> list[Hand]:
        found = solution.process(np.ascontiguousarray(image[..., ::-1]))
        size = np.array([image.shape[1], image.shape[0], image.shape[1]])
        if not found.multi_hand_landmarks:
            return []
        joints, in_space = found.multi_hand_landmarks, found.multi_hand_world_landmarks
        return [
            {
                'handedness_unmirrored': (
                    'Right' if side.classification[0].label == 'Left' else 'Left'
                ),
                'score': side.classification[0].score,
                'landmarks_px': (
                    np.array([[p.x, p.y, p.z] for p in hand.landmark]) * size
                ).tolist(),
                'world_landmarks': [[p.x, p.y, p.z] for p in metres.landmark],
            }
            for hand, metres, side in zip(joints, in_space, found.multi_handedness, strict=True)
        ]

    return find


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('photos', type=Path)
    folder: Path = parser.parse_args().photos
    find = mediapipe_finder()
    images = {}
    for path in sorted(folder.rglob('*')):
        image = cv2.imread(str(path)) if path.suffix.lower() in SUFFIXES else None
        if image is None:
            continue
        hands = hands_of(np.asarray(image, np.uint8), find)
        height, width = image.shape[:2]
        if hands:  # a photograph without any may show hands that were not found: it says nothing
            name = path.relative_to(folder).as_posix()
            images[name] = {'width': width, 'height': height, 'hands': hands}
    index = folder / 'mediapipe_peer.json'
    index.write_text(json.dumps({'images': images}))
    print(f'{index}: {sum(len(image["hands"]) for image in images.values())} hands in '
          f'{len(images)} photographs')  # fmt: skip


if __name__ == '__main__':
    main()
