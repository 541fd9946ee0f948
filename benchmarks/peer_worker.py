"""One hand tracker in a process of its own, timed frame by frame; `peer.py` starts it.

Runs under any interpreter that has what it times: it needs numpy, and mediapipe or handos_model.
Reads requests and writes answers as lines of JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time

STARTED_S = time.monotonic()

import numpy as np  # noqa: E402


def open_mediapipe(options):
    """MediaPipe Hands (0.10.21 carries its models); `every_frame`: no tracking."""
    import mediapipe

    hands = mediapipe.solutions.hands.Hands(
        static_image_mode=options['every_frame'], max_num_hands=options['max_hands']
    )

    def run(image):
        found = hands.process(image).multi_hand_landmarks
        return len(found or ())

    return run, {'mediapipe': mediapipe.__version__}


def open_ours(options):
    """A pipeline; with `exactly` so many instances are decoded in every frame."""
    from handos_model.backends.base import EngineOptions
    from handos_model.following import FollowConfig, HandFollower
    from handos_model.pipeline import HandPipeline, PipelineConfig
    from handos_model.types import Camera

    exactly = options.get('exactly')
    if exactly:
        config = PipelineConfig(
            score_threshold=0.0, nms_threshold=1.0, duplicate_similarity=None,
            closer_below_px=None, max_hands=exactly,
        )  # fmt: skip
    else:
        config = PipelineConfig(max_hands=options['max_hands'])
    engine = EngineOptions(
        precision=options.get('precision', 'auto'),
        max_hands=exactly or options['max_hands'],
        threads=options.get('threads'),
    )
    pipelines = [
        HandPipeline(options['weights'], options['backend'], config, engine)
        for _ in range(options.get('cameras', 1))
    ]

    def run_one(find, image):
        height, width = image.shape[:2]
        return len(find(image, Camera.uncalibrated(width, height)))

    if len(pipelines) == 1:
        find = pipelines[0]
        if options.get('follow'):
            find = HandFollower(find, FollowConfig(options['follow']))
        return lambda image: run_one(find, image), {'backend': pipelines[0].backend}
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(len(pipelines))

    def run(image):
        return sum(pool.map(lambda pipeline: run_one(pipeline, image), pipelines))

    return run, {'backend': pipelines[0].backend}


def timed(run, frames, count):
    """Seconds and found hands of `count` frames, the frames over and over."""
    wall_s, cpu_s, found = [], [], []
    for index in range(count):
        frame = frames[index % len(frames)]
        wall, cpu = time.perf_counter(), time.process_time()
        found.append(run(frame))
        wall_s.append(time.perf_counter() - wall)
        cpu_s.append(time.process_time() - cpu)
    return {'wall_s': wall_s, 'cpu_s': cpu_s, 'found': found}


def peak_mib():
    """Most memory that was resident; getrusage would count the parent's, from before exec."""
    with open('/proc/self/status') as status:  # noqa: PTH123
        line = next(line for line in status if line.startswith('VmHWM'))
    return int(line.split()[1]) / 1024


def main():
    answers = os.fdopen(os.dup(1), 'w')  # libraries print to stdout, too
    os.dup2(2, 1)
    run = None
    for line in sys.stdin:
        request = json.loads(line)
        if run is None:
            opened = open_mediapipe if request['kind'] == 'mediapipe' else open_ours
            run, answer = opened(request)
            run(np.load(request['first'])[0])
            answer['start_to_first_frame_s'] = time.monotonic() - STARTED_S
        else:
            answer = timed(run, np.load(request['frames']), request['count'])
            answer['peak_mib'] = peak_mib()
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == '__main__':
    main()
