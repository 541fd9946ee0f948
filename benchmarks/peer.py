"""What a frame costs beside MediaPipe's, and how our cost grows: JSON on stdout.

    python benchmarks/peer.py --mediapipe-python VENV/bin/python > peer.json
    python benchmarks/peer.py --growth > growth.json

Each contender is a process of its own: every CPU backend of ours that is installed, in each
precision that the weights have, and MediaPipe 0.10.21 with and without tracking where an
interpreter has it (it wants numpy 1, so it rarely shares ours). They take turns, `--rounds` times,
over frames with 0, 1, 2 and 4 hands: of the demo's video, blurred for none and side by side for
several, or of `--images`, a folder with pictures in 0, 1, 2 and 4; and over `moving`, frames of
the video one after the other, forth and back, which ours also do following the hand. Times are
milliseconds a frame: wall, and CPU of all threads; ratios are of medians over rounds, and of means
where now and then a frame costs more, to MediaPipe without tracking.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from handos_model.backends.choice import usable_cores, why_unavailable
from handos_model.environment import describe_machine
from handos_model.weights.exported import ExportedWeights
from handos_model.weights.store import find_weights

Frames: TypeAlias = npt.NDArray[np.uint8]  # [N,H,W,3] RGB
Scene: TypeAlias = int | str  # so many hands, or MOVING

ROOT = Path(__file__).resolve().parent.parent
VIDEO = ROOT / 'handos_ros' / 'assets' / 'human_hand.mp4'
BACKENDS = ('openvino', 'onnxruntime')
GRIDS = {1: (1, 1), 2: (1, 2), 4: (2, 2)}  # rows and columns of frames with so many hands
PEER = 'mediapipe, not tracking'
FRAMES_A_SCENE = 10
MOVING = 'moving'  # the scene of one hand from frame to frame
MOVING_FRAMES = 20
FOLLOWING = ', following'  # in the names of those that do, which see that scene alone
FOLLOW = 10  # images from one search of the whole image to the next


class Worker:
    """A contender's process."""

    def __init__(self, python: str, request: Mapping[str, Any]) -> None:
        script = str(ROOT / 'benchmarks' / 'peer_worker.py')
        self._process = subprocess.Popen(
            [python, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, cwd=ROOT,
        )  # fmt: skip
        self.facts = self.ask(request)

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(request) + '\n')
        process.stdin.flush()
        answer: dict[str, Any] = json.loads(process.stdout.readline() or '{"failed": true}')
        if 'failed' in answer:
            raise RuntimeError(f'{dict(request)} failed in {process.args!r}')
        return answer

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def video_frames(size_wh: tuple[int, int], count: int | None = FRAMES_A_SCENE) -> Frames:
    """Frames spread over the demo's video, or all, cut to the aspect of `size_wh`."""
    capture, frames = cv2.VideoCapture(str(VIDEO)), []
    while (read := capture.read())[0]:
        frames.append(cut(read[1][..., ::-1], size_wh))
    chosen = np.linspace(0, len(frames) - 1, len(frames) if count is None else count)
    return np.stack([frames[i] for i in chosen.astype(int)])


def moving_frames(size_wh: tuple[int, int]) -> Frames:
    """Frames of the middle of the demo's video, one after the other, forth and back."""
    frames = video_frames(size_wh, None)
    start = (len(frames) - MOVING_FRAMES) // 2
    forth = frames[start : start + MOVING_FRAMES]
    return np.concatenate([forth, forth[-2:0:-1]])


def cut(image: npt.NDArray[Any], size_wh: tuple[int, int]) -> npt.NDArray[Any]:
    """The middle of an image in the aspect of `size_wh`, at that size."""
    height, width = image.shape[:2]
    scale = min(width / size_wh[0], height / size_wh[1])
    w, h = round(size_wh[0] * scale), round(size_wh[1] * scale)
    top, left = (height - h) // 2, (width - w) // 2
    middle = np.ascontiguousarray(image[top : top + h, left : left + w])
    return cv2.resize(middle, size_wh, interpolation=cv2.INTER_AREA)


def scenes(size_wh: tuple[int, int], images: Path | None) -> dict[Scene, Frames]:
    """Frames by the number of hands in them, and those of a moving hand."""
    width, height = size_wh
    if images is not None:
        found: dict[Scene, Frames] = {}
        for hands in (0, *GRIDS):
            read = [cv2.imread(str(path)) for path in sorted((images / str(hands)).glob('*'))]
            found[hands] = np.stack([cut(i[..., ::-1], size_wh) for i in read if i is not None])
        return found | {MOVING: moving_frames(size_wh)}
    blurred = [cv2.GaussianBlur(frame, (0, 0), width / 12) for frame in video_frames(size_wh)]
    result: dict[Scene, Frames] = {0: np.stack(blurred), MOVING: moving_frames(size_wh)}
    for hands, (rows, columns) in GRIDS.items():
        tiles = video_frames((width // columns, height // rows), FRAMES_A_SCENE)
        shown = [
            np.vstack(
                [
                    np.hstack(
                        [tiles[(i + 3 * (r * columns + c)) % len(tiles)] for c in range(columns)]
                    )
                    for r in range(rows)
                ]
            )
            for i in range(len(tiles))
        ]
        result[hands] = np.stack(shown)
    return result


def contenders(weights: str, peer_python: str | None, threads: int | None) -> dict[str, Any]:
    """Name -> (interpreter, request)."""
    folder = find_weights(weights)
    precisions = dict.fromkeys(p for p, _ in ExportedWeights.load(folder).variants())
    result: dict[str, Any] = {}
    for backend in BACKENDS:
        if why_unavailable(backend, folder) is None:
            for precision in precisions:
                request = {
                    'kind': 'ours', 'backend': backend, 'precision': precision,
                    'weights': str(folder), 'max_hands': 4, 'threads': threads,
                }  # fmt: skip
                result[f'{backend}, {precision}'] = (sys.executable, request)
                follow = request | {'follow': FOLLOW}
                result[f'{backend}, {precision}{FOLLOWING}'] = (sys.executable, follow)
    if peer_python is not None:
        for name, every_frame in ((PEER, True), ('mediapipe, tracking', False)):
            request = {'kind': 'mediapipe', 'every_frame': every_frame, 'max_hands': 4}
            result[name] = (peer_python, request)
    return result


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    values = np.percentile(seconds, [50, 95, 99]) * 1e3
    return dict(zip(('p50', 'p95', 'p99'), np.round(values, 2).tolist(), strict=True))


def compare(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Every contender on every scene, in turns."""
    frames = scenes(arguments.size, arguments.images)
    files = {hands: folder / f'{hands}.npy' for hands in frames}
    for hands, path in files.items():
        np.save(path, frames[hands])
    entries = contenders(arguments.weights, arguments.mediapipe_python, arguments.threads)
    workers = {
        name: Worker(python, request | {'first': str(files[1])})
        for name, (python, request) in entries.items()
    }
    answers: dict[str, dict[Scene, list[dict[str, Any]]]] = {
        name: {scene: [] for scene in files if scene == MOVING or not name.endswith(FOLLOWING)}
        for name in workers
    }
    for _ in range(arguments.rounds):
        for hands, path in files.items():
            for name, worker in workers.items():
                if hands not in answers[name]:
                    continue
                worker.ask({'frames': str(path), 'count': 3})  # warm again after the others
                request = {'frames': str(path), 'count': arguments.frames}
                answers[name][hands].append(worker.ask(request))
    for worker in workers.values():
        worker.close()
    table = {
        name: workers[name].facts
        | {
            'peak_mib': round(max(one['peak_mib'] for rounds in of.values() for one in rounds)),
            'hands': {hands: summary(rounds, hands) for hands, rounds in of.items()},
        }
        for name, of in answers.items()
    }
    digest = {str(h): hashlib.sha256(f.tobytes()).hexdigest()[:16] for h, f in frames.items()}
    return {'contenders': table, 'ratios': ratios(table), 'frames_sha256': digest}


def summary(rounds: Sequence[Mapping[str, Any]], scene: Scene) -> dict[str, Any]:
    """Over rounds: percentiles of all frames, medians of the rounds' medians, hands found."""
    hands = scene if isinstance(scene, int) else 1
    found = np.array([one['found'] for one in rounds])
    return {
        'wall_ms': percentiles([s for one in rounds for s in one['wall_s']]),
        'cpu_ms': percentiles([s for one in rounds for s in one['cpu_s']]),
        'wall_ms_median_of_rounds': _median(rounds, 'wall_s'),
        'cpu_ms_median_of_rounds': _median(rounds, 'cpu_s'),
        'frames_with_all_found': round(float((found == hands).mean()), 3),
        'mean_found': round(float(found.mean()), 2),
        'wall_ms_mean': _mean(rounds, 'wall_s'),
        'cpu_ms_mean': _mean(rounds, 'cpu_s'),
    }


def _median(rounds: Sequence[Mapping[str, Any]], what: str) -> float:
    return round(1e3 * float(np.median([np.median(one[what]) for one in rounds])), 2)


def _mean(rounds: Sequence[Mapping[str, Any]], what: str) -> float:
    """Median over rounds of the mean: what is lost now and then, as by searching, counts."""
    return round(1e3 * float(np.median([np.mean(one[what]) for one in rounds])), 2)


def ratios(table: Mapping[str, Any]) -> dict[str, Any]:
    """Ours over the peer's, of medians of rounds; four hands over one."""
    result: dict[str, Any] = {}
    for name, of in table.items():
        scene = of['hands']
        one = result[name] = {}
        if 4 in scene:
            one['four_hands_over_one'] = _ratio(scene, scene, 'wall', 4, 1)
        if PEER in table and name != PEER:
            peer = table[PEER]['hands']
            for kind in ('wall', 'cpu'):
                one[f'{kind}_over_peer'] = {h: _ratio(scene, peer, kind, h, h) for h in scene}
                one[f'{kind}_mean_over_peer'] = {
                    h: round(scene[h][f'{kind}_ms_mean'] / peer[h][f'{kind}_ms_mean'], 3)
                    for h in scene
                }
    return result


def _ratio(
    a: Mapping[Scene, Any], b: Mapping[Scene, Any], kind: str, of: Scene, to: Scene
) -> float:
    key = f'{kind}_ms_median_of_rounds'
    return round(float(a[of][key] / b[to][key]), 3)


def growth(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Each CPU backend over hands, sizes, threads and cameras, one of them varied at a time."""
    sizes = {w: (w, w * 3 // 4) for w in (320, 640, 1280, 1920)}
    files = {}
    for width, size in sizes.items():
        files[width] = folder / f'{width}.npy'
        np.save(files[width], video_frames(size, 4))
    weights = str(find_weights(arguments.weights))
    axes: dict[str, list[tuple[int, dict[str, Any], int]]] = {
        'hands': [(n, {'exactly': n}, 640) for n in range(1, 9)],
        'width_px': [(w, {}, w) for w in sizes],
        'threads': [(n, {'threads': n}, 640) for n in range(1, min(4, usable_cores()) + 1)],
        'cameras': [(n, {'cameras': n}, 640) for n in range(1, 5)],
    }
    result: dict[str, Any] = {}
    for backend in BACKENDS:
        if why_unavailable(backend, Path(weights)) is not None:
            continue
        tables = result[backend] = {}
        for axis, points in axes.items():
            rows = tables[axis] = {}
            for value, changes, width in points:
                request = {
                    'kind': 'ours', 'backend': backend, 'weights': weights, 'max_hands': 4,
                    'threads': arguments.threads, 'first': str(files[width]),
                }  # fmt: skip
                worker = Worker(sys.executable, request | changes)
                worker.ask({'frames': str(files[width]), 'count': 5})
                answer = worker.ask({'frames': str(files[width]), 'count': arguments.frames})
                worker.close()
                rows[value] = {
                    'wall_ms': percentiles(answer['wall_s']),
                    'cpu_ms': percentiles(answer['cpu_s']),
                    'peak_mib': round(answer['peak_mib']),
                }
    return {'growth': result}


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition('x')
    return int(width), int(height)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--weights', default='nano')
    parser.add_argument('--mediapipe-python', help='an interpreter that can import mediapipe')
    parser.add_argument('--images', type=Path, help='pictures in folders 0, 1, 2 and 4')
    parser.add_argument('--size', type=_size, default=(640, 480))
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--frames', type=int, default=60, help='of a scene, in a round')
    parser.add_argument('--threads', type=int, help='of ours; default: the usable cores')
    parser.add_argument('--growth', action='store_true', help='tables of growth instead')
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure = growth if arguments.growth else compare
        result = measure(arguments, Path(folder))
    inputs = {'weights': arguments.weights, 'size': list(arguments.size)}
    inputs |= {'rounds': arguments.rounds, 'frames': arguments.frames}
    print(json.dumps(result | {'inputs': inputs, 'environment': describe_machine()}, indent=2))


if __name__ == '__main__':
    main()
