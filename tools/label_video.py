"""Frames of a video with MediaPipe's landmarks beside them, as weak labels for training.

    python -m tools.label_video VIDEO OUT --every 3

Writes OUT/NAME/000000.jpg ... and adds them to OUT/mediapipe_peer.json, which the training reader
`peer_photos` reads: `--data.real peer_photos:OUT`. MediaPipe (Apache-2.0) pins old versions of
numpy and protobuf: install it in an environment of its own (`pip install mediapipe==0.10.21`).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np

from tools.label_photos import mediapipe_finder

LONGER_SIDE_PX = 640
JPEG = [cv2.IMWRITE_JPEG_QUALITY, 92]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('video', type=Path)
    parser.add_argument('out', type=Path)
    parser.add_argument('--every', type=int, default=3, help='keep one frame in so many')
    arguments = parser.parse_args()
    folder = arguments.out / arguments.video.stem
    folder.mkdir(parents=True, exist_ok=True)
    index = arguments.out / 'mediapipe_peer.json'
    images = json.loads(index.read_text())['images'] if index.is_file() else {}
    video = cv2.VideoCapture(str(arguments.video))
    find = mediapipe_finder(max_hands=4)
    number = 0
    while True:
        ok, frame = video.read()
        if not ok:
            break
        if number % arguments.every == 0:
            height, width = frame.shape[:2]
            scale = min(1.0, LONGER_SIDE_PX / max(height, width))
            frame = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            height, width = frame.shape[:2]
            hands = find(np.asarray(frame, np.uint8))
            name = f'{folder.name}/{number:06d}.jpg'
            cv2.imwrite(str(arguments.out / name), frame, JPEG)
            images[name] = {'width': width, 'height': height, 'hands': hands}
        number += 1
    index.write_text(json.dumps({'images': images}))
    print(f'{index}: {sum(bool(image["hands"]) for image in images.values())} of {len(images)} '
          'frames with hands')  # fmt: skip


if __name__ == '__main__':
    main()
