"""Accuracy on real photographs: JSON on stdout, a contact sheet of every set beside it.

    python benchmarks/real_photos.py DATA --negatives PHOTOS --sheets OUT > real_photos.json

DATA is the folder of development photographs. Hands are counted at `--score`, by default the
pipeline's own threshold. What each set can show:

- SubhiH recordings kept for validation: hand boxes drawn by a person, so recall and precision.
- hagrid, mediapipe: agreement with another system's landmarks (a peer, not ground truth; photos
  where the peer finds nothing are left out). Found is a hand whose box overlaps the peer's by IoU
  0.5; one that is not found counts as PCK 0. `by_joints` asks the same of the boxes around the
  joints of both, which is stricter: joints that are off then lose the hand.
- tfjs video: 325 frames of one right hand with golden landmarks: jitter and landmark error. Its
  frames also give the time an image takes, and MediaPipe's beside it where `mediapipe` is
  installed (0.10.21, which has its models inside).
- negatives: photographs of PHOTOS without any hand, of sets that no training reads: false hands a
  picture. Pictures of robots' hands are counted apart: taken for human ones.
- reliability: of the SubhiH and negative photographs, how often a hand of a score is one.
- hamer: five hard photos, pictures only.

A sheet shows the worst first: the surest false hands, missed hands, the largest errors.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
from numpy.typing import NDArray

from handos_model.environment import describe_machine
from handos_model.following import HandFollower
from handos_model.geometry.boxes import pairwise_iou
from handos_model.pipeline import HandPipeline, PipelineConfig
from handos_model.tracking.tracker import Tracker
from handos_model.types import Camera, Hand
from handos_model.weights.store import sha256
from handos_training.data.datasets.peer_photos import (
    ROBOT_HAND_SETS,
    VALIDATION_PREFIXES,
    Negatives,
)
from handos_training.evaluation.reliability import Reliability
from handos_training.evaluation.worst import WorstSheet

PCK_THRESHOLDS = (0.1, 0.2)
IOU_FOUND = 0.5
PRECISION_FLOOR = 0.85
VIDEO_HZ = 25.0
FALSE_AT = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
LOWEST_SCORE = 0.1
SKIN_MARGIN = 0.08  # landmarks are bone ends: skin reaches further by this part of the box


def skin_box(joints_px: NDArray[Any]) -> NDArray[Any]:
    """The box of a hand whose landmarks [21,2] these are."""
    box = extent(joints_px)
    return box + SKIN_MARGIN * (box[2:] - box[:2]).max() * np.array([-1, -1, 1, 1])


def extent(points_px: NDArray[Any]) -> NDArray[Any]:
    """The smallest box around points [...,2] -> [4] xyxy."""
    return np.concatenate([points_px.min(0), points_px.max(0)])


def reconstruct(pipeline: HandPipeline | HandFollower, image_bgr: NDArray[np.uint8]) -> list[Hand]:
    height, width = image_bgr.shape[:2]
    image_rgb = np.ascontiguousarray(image_bgr[..., ::-1])
    return pipeline(image_rgb, Camera.uncalibrated(width, height))


def subhih_validation(data: Path) -> Iterator[tuple[Path, NDArray[Any]]]:
    """Photo and its hand boxes [N,4] of the validation recordings, in a fixed order."""
    folder = data / 'SubhiH-HandsDataset' / 'images'
    for xml in sorted(folder.glob('*/*.xml')):
        if not xml.name.startswith(VALIDATION_PREFIXES):
            continue
        boxes = [
            [float(box.findtext(key, 'nan')) for key in ('xmin', 'ymin', 'xmax', 'ymax')]
            for box in ElementTree.parse(xml).iter('bndbox')
        ]
        yield xml.with_suffix('.jpg'), np.array(boxes).reshape(-1, 4)


def measure_boxes(
    pipeline: HandPipeline, data: Path, sheet: WorstSheet, score: float, found: Reliability
) -> dict[str, Any]:
    """Recall and precision at IoU 0.5: at `score`, and the best with precision >= 0.85."""
    scores, correct, photos, labelled = [], [], 0, 0
    for path, boxes in subhih_validation(data):
        image = cv2.imread(str(path))
        if image is None:
            continue
        hands = sorted(reconstruct(pipeline, image), key=lambda hand: -hand.score)
        photos, labelled = photos + 1, labelled + len(boxes)
        taken: set[int] = set()
        hits_here = []
        for hand in hands:
            overlaps = (
                pairwise_iou(hand.box_xyxy_px[None], boxes)[0] if len(boxes) else np.zeros(0)
            )
            overlaps[list(taken)] = 0
            hit = bool(overlaps.size > 0 and overlaps.max() >= IOU_FOUND)
            if hit:
                taken.add(int(overlaps.argmax()))
            hits_here.append(hit)
        scores += [hand.score for hand in hands]
        correct += hits_here
        shown = [hand for hand in hands if hand.score >= score]
        wrong = [h.score for h, hit in zip(hands, hits_here, strict=True) if not hit]
        sheet.add(image, shown, max(wrong, default=0.0) + len(boxes) - sum(hits_here))
    for one in zip(scores, correct, strict=True):
        found.add(*one)
    order = np.argsort(scores)[::-1]
    hits = np.cumsum(np.array(correct, dtype=float)[order])
    precision = hits / np.arange(1, len(hits) + 1)
    recall = hits / max(labelled, 1)
    good = np.flatnonzero(precision >= PRECISION_FLOOR)
    best = int(good[recall[good].argmax()]) if len(good) else None
    sure = int((np.array(scores) >= score).sum()) - 1
    return {
        'photos': photos,
        'labelled_hands': labelled,
        'recall': float(recall[sure]) if sure >= 0 else 0.0,
        'precision': float(precision[sure]) if sure >= 0 else None,
        'recall_at_precision_0.85': float(recall[best]) if best is not None else 0.0,
        'score_at_precision_0.85': float(np.array(scores)[order][best])
        if best is not None
        else None,
    }


def measure_negatives(
    pipeline: HandPipeline,
    roots: list[Path],
    sheets: dict[str, WorstSheet],
    score: float,
    found: Reliability,
) -> dict[str, Any]:
    """False hands a picture in photographs without hands, and pictures of robots' hands."""
    false_scores: dict[str, list[list[float]]] = {'negatives': [], 'robot_hands': []}
    kept_apart = [(root, name) for root in roots for name in Negatives(root, 'test').names]
    for root, name in kept_apart:
        kind = 'robot_hands' if name.split('/')[0] in ROBOT_HAND_SETS else 'negatives'
        image = cv2.imread(str(root / name))
        if image is None:
            continue
        hands = reconstruct(pipeline, image)
        of_image = [hand.score for hand in hands]
        for one in of_image:
            found.add(one, False)
        false_scores[kind].append(of_image)
        shown = [hand for hand in hands if hand.score >= score]
        sheets[kind].add(image, shown, max(of_image, default=0.0))

    def report(images: list[list[float]]) -> dict[str, Any]:
        everything = np.array([one for image in images for one in image])
        best = np.array([max(image, default=0.0) for image in images])
        return {
            'photos': len(images),
            'false_hands_a_picture': float((everything >= score).sum() / len(images)),
            'pictures_with_a_false_hand': float((best >= score).mean()),
            'at_scores': {str(t): float((everything >= t).sum() / len(images)) for t in FALSE_AT},
        }

    return {kind: report(images) for kind, images in false_scores.items() if images}


def measure_peer(
    pipeline: HandPipeline, data: Path, prefix: str, sheet: WorstSheet, score: float
) -> dict[str, Any]:
    """Found rate, PCK and side agreement with the peer's hands of the photos under `prefix`."""
    peer = json.loads((data / 'mediapipe_peer.json').read_text())['images']
    by_box, by_joints = Agreement(), Agreement()
    for name in sorted(name for name in peer if name.startswith(prefix)):
        peers = peer[name]['hands']
        image = cv2.imread(str(data / name))
        if image is None or not peers:
            continue
        hands = [hand for hand in reconstruct(pipeline, image) if hand.score >= score]
        boxes = np.array([hand.box_xyxy_px for hand in hands]).reshape(-1, 4)
        extents = np.array([extent(hand.joints_px) for hand in hands]).reshape(-1, 4)
        for one in peers:
            # The peer counts pixels from the image's corner, we from the first pixel's centre.
            joints_px = np.array(one['landmarks_px'])[..., :2] - 0.5
            side = one['handedness_unmirrored'].lower()
            by_box.add(joints_px, side, hands, pairwise_iou(skin_box(joints_px)[None], boxes)[0])
            by_joints.add(
                joints_px, side, hands, pairwise_iou(extent(joints_px)[None], extents)[0]
            )
        worst = max(float(np.minimum(one, 9).mean()) for one in by_box.errors[-len(peers) :])
        sheet.add(image, hands, worst)
    return by_box.report() | {'by_joints': by_joints.report()}


class Agreement:
    """Found rate, PCK and side agreement, hand by hand of the peer."""

    def __init__(self) -> None:
        self.errors: list[NDArray[Any]] = []  # [21] each, of the peer's box side
        self.sides: list[bool] = []

    def add(
        self, joints_px: NDArray[Any], side: str, hands: list[Hand], overlaps: NDArray[Any]
    ) -> None:
        """A hand of the peer, its joints [21,2], and the IoU of its box with each of ours [N]."""
        best = int(overlaps.argmax()) if len(overlaps) else -1
        if best < 0 or overlaps[best] < IOU_FOUND:
            self.errors.append(np.full(21, np.inf))
            return
        size_px = np.ptp(joints_px, axis=0).max()
        self.errors.append(np.linalg.norm(hands[best].joints_px - joints_px, axis=1) / size_px)
        self.sides.append(hands[best].side == side)

    def report(self) -> dict[str, Any]:
        errors = np.array(self.errors).reshape(-1, 21)
        found = np.isfinite(errors).all(1)

        def pck(errors: NDArray[Any], threshold: float) -> float:
            return float((errors <= threshold).mean()) if len(errors) else 0.0

        return {
            'peer_hands': len(errors),
            'found': float(found.mean()) if len(errors) else 0.0,
            'side_agreement_of_found': float(np.mean(self.sides)) if self.sides else 0.0,
            **{f'pck@{t}': pck(errors, t) for t in PCK_THRESHOLDS},
            **{f'pck@{t}_of_found': pck(errors[found], t) for t in PCK_THRESHOLDS},
        }


def golden_video(data: Path) -> tuple[list[NDArray[np.uint8]], NDArray[Any]]:
    """The frames in BGR and their golden landmarks [F,21,2], in pixels."""
    folder = data / 'tfjs-hand' / 'hand-pose-detection' / 'test_data'
    golden = np.array(json.loads((folder / 'asl_hand.full.json').read_text()))[..., :2] - 0.5
    capture = cv2.VideoCapture(str(folder / 'asl_hand.25fps.mp4'))
    frames: list[NDArray[np.uint8]] = []
    while (read := capture.read())[0]:
        frames.append(read[1])
    if len(frames) < len(golden):
        sys.exit(f'{folder}: the video has {len(frames)} frames for {len(golden)} golden ones')
    return frames[: len(golden)], golden


def measure_video(
    pipeline: HandPipeline | HandFollower,
    frames_bgr: list[NDArray[np.uint8]],
    golden: NDArray[Any],
    sheet: WorstSheet,
    score: float,
) -> dict[str, Any]:
    """Golden video: frames found, landmark error by box side, frame-to-frame jitter."""
    errors, found_by_joints, tracks, tracked = [], [], [], []
    tracker = Tracker()
    for index, (image, joints) in enumerate(zip(frames_bgr, golden, strict=True)):
        hands = [hand for hand in reconstruct(pipeline, image) if hand.score >= score]
        skin = skin_box(joints)
        steady = max(
            tracker.update(hands, index / VIDEO_HZ),
            key=lambda hand, box=skin: _overlap(hand, box),
            default=None,
        )
        tracked.append(np.full((21, 2), np.nan) if steady is None else steady.joints_px)
        best = max(hands, key=lambda hand, box=skin: _overlap(hand, box), default=None)
        if best is None or _overlap(best, skin) < IOU_FOUND:
            errors.append(np.inf)
            sheet.add(image, hands, 9.0)
            found_by_joints.append(False)
            tracks.append(np.full((21, 2), np.nan))
            continue
        distance_px = np.linalg.norm(best.joints_px - joints, axis=1)
        errors.append(float(distance_px.mean() / np.ptp(joints, axis=0).max()))
        if index % 8 == 0:
            sheet.add(image, hands, errors[-1])
        overlap = pairwise_iou(extent(best.joints_px)[None], extent(joints)[None])[0, 0]
        found_by_joints.append(bool(overlap >= IOU_FOUND))
        tracks.append(best.joints_px)
    # Acceleration: what a still or steadily moving hand does not have.
    ours, reference = _acceleration_px(np.array(tracks)), _acceleration_px(golden)
    return {
        'frames': len(errors),
        'found': float(np.isfinite(errors).mean()),
        'landmark_error_median_of_box': float(np.median(errors)),
        'found_by_joints': float(np.mean(found_by_joints)),
        'jitter_px': ours,
        'jitter_tracked_px': _acceleration_px(np.array(tracked)),
        'golden_jitter_px': reference,
    }


def measure_latency(pipeline: HandPipeline, frames_bgr: list[NDArray[np.uint8]]) -> dict[str, Any]:
    """Milliseconds a frame takes: ours, and MediaPipe's with and without its tracking."""
    images = [np.ascontiguousarray(frame[..., ::-1]) for frame in frames_bgr]
    height, width = images[0].shape[:2]
    camera = Camera.uncalibrated(width, height)
    ours = _times_ms(lambda image: pipeline(image, camera), images)
    result: dict[str, Any] = {'size': f'{width}x{height}', 'ours': ours}
    if find_spec('mediapipe') is None:
        return result | {'mediapipe': 'not installed'}
    import mediapipe

    for name, every_frame in (('mediapipe', False), ('mediapipe_without_tracking', True)):
        with mediapipe.solutions.hands.Hands(every_frame, max_num_hands=4) as hands:
            result[name] = _times_ms(hands.process, images)
    return result


def _times_ms(
    run: Callable[[NDArray[np.uint8]], object], images: list[NDArray[np.uint8]]
) -> dict[str, float]:
    times_s = []
    for image in images:
        start = time.perf_counter()
        run(image)
        times_s.append(time.perf_counter() - start)
    p50, p95 = np.percentile(np.array(times_s) * 1e3, [50, 95])
    return {'p50': float(p50), 'p95': float(p95)}


def _overlap(hand: Hand, box: NDArray[Any]) -> float:
    return float(pairwise_iou(hand.box_xyxy_px[None], box[None])[0, 0])


def _acceleration_px(tracks_px: NDArray[Any]) -> float | None:
    acceleration = np.linalg.norm(np.diff(tracks_px, n=2, axis=0), axis=-1)
    return float(np.nanmean(acceleration)) if np.isfinite(acceleration).any() else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('data', type=Path)
    parser.add_argument('--weights', default='weights/nano')
    parser.add_argument('--backend', default='auto')
    parser.add_argument(
        '--negatives', type=Path, nargs='*', default=[], help='folders with negatives.txt'
    )
    parser.add_argument('--score', type=float, default=PipelineConfig().score_threshold)
    parser.add_argument('--sheets', type=Path, default=Path('real_photos'))
    parser.add_argument(
        '--only',
        nargs='*',
        default=['boxes', 'hagrid', 'mediapipe', 'video', 'negatives', 'hamer'],
    )
    arguments = parser.parse_args()
    data: Path = arguments.data
    if not (data / 'mediapipe_peer.json').is_file():
        sys.exit(f'{data} is not the development data: mediapipe_peer.json is missing')
    score = arguments.score
    # Down to a low score, so that scores can be judged; what counts is what passes `score`.
    config = PipelineConfig(score_threshold=min(score, LOWEST_SCORE), max_hands=4)
    pipeline = HandPipeline(arguments.weights, arguments.backend, config)

    found = Reliability()
    result: dict[str, Any] = {'score': score}
    sheets = {name: WorstSheet(pipeline.faces) for name in arguments.only}
    if 'boxes' in sheets:
        result['subhih_boxes'] = measure_boxes(pipeline, data, sheets['boxes'], score, found)
    for name, prefix in (('hagrid', 'hagrid-subset'), ('mediapipe', 'mediapipe/')):
        if name in sheets:
            result[name] = measure_peer(pipeline, data, prefix, sheets[name], score)
    if 'video' in sheets:
        frames, golden = golden_video(data)
        result['golden_video'] = measure_video(pipeline, frames, golden, sheets['video'], score)
        if pipeline.can_look_closer:
            sheets['video_followed'] = WorstSheet(pipeline.faces)
            result['golden_video_followed'] = measure_video(
                HandFollower(pipeline), frames, golden, sheets['video_followed'], score
            )
        result['latency_ms'] = measure_latency(pipeline, frames)
    if 'hamer' in sheets:
        for path in sorted((data / 'hamer').rglob('*.jp*g')):
            if (image := cv2.imread(str(path))) is not None:
                hands = [hand for hand in reconstruct(pipeline, image) if hand.score >= score]
                sheets['hamer'].add(image, hands, 0.0)
    if 'negatives' in sheets and arguments.negatives:
        sheets['robot_hands'] = WorstSheet(pipeline.faces)
        result |= measure_negatives(pipeline, arguments.negatives, sheets, score, found)
    if found.scores:
        result['reliability'] = found.report()
    for name, sheet in sheets.items():
        sheet.write(arguments.sheets / f'{name}.jpg')
    result['inputs'] = {
        'weights': str(arguments.weights),
        'backend': pipeline.backend,
        'peer_sha256': sha256(data / 'mediapipe_peer.json'),
        'subhih_validation_prefixes': VALIDATION_PREFIXES,
    }
    result['environment'] = describe_machine()
    print(json.dumps(result, indent=2))


if __name__ == '__main__':
    main()
