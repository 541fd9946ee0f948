"""Hours of camera, node and listeners: what grows, and how old hands are, over time.

Each part is a process of its own on the loopback. Prints JSON; slopes are least-squares lines
through what was measured after the warm-up. With --series a line of JSON a sample is written, so
that a run can be cut into slices and still be put together.

    python benchmarks/soak.py --hours 6 --series soak.jsonl --plot soak.png
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil

from handos_model.environment import describe_machine

RATE_HZ = 30.0
WARM_UP_S = 60.0  # caches fill, threads start
MOST_GROWTH_MB_H = 0.5
COLOURS = ((86, 180, 233), (230, 159, 0), (0, 158, 115), (204, 121, 167), (240, 228, 66))


def start_parts(model: str) -> dict[str, subprocess.Popen[bytes]]:
    """Camera, node and those who listen to it; the viewer where it can run."""
    clip = Path(__file__).resolve().parents[1] / 'handos_ros/assets/human_hand.mp4'
    commands = {
        'node': ['run', '--ros-args', '-p', f'model:={model}'],
        'camera': ['camera', str(clip), '--loop', '--rate', str(RATE_HZ)],
        'echo': ['echo'],
    }
    if importlib.util.find_spec('viser'):
        commands['viewer'] = ['view', '--image', '/image', '--port', '18099']
    return {
        name: subprocess.Popen(
            [sys.executable, '-m', 'handos_ros.cli', *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for name, arguments in commands.items()
    }


class Listener:
    """Counts the hands' messages, and how old they are when they come."""

    def __init__(self) -> None:
        from handos_ros.runtime import Node, QoSProfile, SingleThreadedExecutor, init, message_type

        init(args=[])
        node = Node('soak')
        node.create_subscription(
            message_type('handos/msg/HandMeshArray'),
            '/handos/hands',
            self._on_hands,
            QoSProfile(depth=10),
        )
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)
        self.ages_ms: list[float] = []

    def _on_hands(self, message: Any) -> None:
        from handos_ros.messages.conversions import stamp_ns

        self.ages_ms.append((time.time_ns() - stamp_ns(message)) / 1e6)

    def listen(self, seconds: float) -> None:
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            self._executor.spin_once(timeout_sec=0.1)


def sample(processes: dict[str, psutil.Process], listener: Listener, began_s: float) -> Any:
    """Of each part its memory, threads and descriptors; of the hands their number and age."""
    ages_ms, listener.ages_ms = listener.ages_ms, []
    p50, p99 = np.percentile(ages_ms, [50, 99]) if ages_ms else (np.nan, np.nan)
    parts = {
        name: {
            'rss_mb': round(process.memory_info().rss / 1e6, 3),
            'threads': process.num_threads(),
            'descriptors': process.num_fds(),
        }
        for name, process in processes.items()
    }
    return {
        'hours': (time.monotonic() - began_s) / 3600,
        'hands': len(ages_ms),
        'age_p50_ms': None if np.isnan(p50) else round(float(p50), 1),
        'age_p99_ms': None if np.isnan(p99) else round(float(p99), 1),
        'parts': parts,
    }


def slope(samples: list[Any], name: str, quantity: str) -> float:
    """Units an hour."""
    hours = np.array([entry['hours'] for entry in samples])
    values = np.array([entry['parts'][name][quantity] for entry in samples])
    return float(np.polyfit(hours, values, 1)[0]) if len(samples) > 2 else float('nan')


def summarise(samples: list[Any]) -> dict[str, Any]:
    settled = [entry for entry in samples if entry['hours'] * 3600 >= WARM_UP_S] or samples
    hours = settled[-1]['hours'] - settled[0]['hours']
    parts = {
        name: {
            'rss_mb': settled[-1]['parts'][name]['rss_mb'],
            'rss_growth_mb_an_hour': round(slope(settled, name, 'rss_mb'), 3),
            **{
                quantity: [
                    settled[0]['parts'][name][quantity],
                    settled[-1]['parts'][name][quantity],
                ]
                for quantity in ('threads', 'descriptors')
            },
        }
        for name in settled[0]['parts']
    }
    ages = [entry['age_p99_ms'] for entry in settled if entry['age_p99_ms'] is not None]
    return {
        'hours': round(hours, 3),
        'hands': sum(entry['hands'] for entry in settled),
        'seconds_without_hands': sum(entry['hands'] == 0 for entry in settled),
        'age_p99_ms_median_and_worst': [float(np.median(ages)), max(ages)] if ages else None,
        'parts': parts,
        'grows_too_fast': [
            name
            for name, part in parts.items()
            if part['rss_growth_mb_an_hour'] > MOST_GROWTH_MB_H
        ],
    }


def plot(samples: list[Any], path: Path) -> None:
    """Memory of each part, from its first value, and the age of hands below it."""
    picture = np.full((640, 1000, 3), 255, np.uint8)
    hours = np.array([entry['hours'] for entry in samples])
    x = 80 + (hours / max(hours[-1], 1e-9) * 900).astype(int)

    def draw(values: Any, top: int, low: float, high: float, colour: tuple[int, ...]) -> None:
        y = top + 260 - (np.nan_to_num(values) - low) / max(high - low, 1e-9) * 260
        line = np.stack([x, y.astype(int)], 1).reshape(-1, 1, 2)
        cv2.polylines(picture, [line], isClosed=False, color=colour[::-1], thickness=2)

    def write(text: str, at: tuple[int, int], colour: tuple[int, ...] = (0, 0, 0)) -> None:
        cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour[::-1], 1, cv2.LINE_AA)

    names = list(samples[0]['parts'])
    growth = {
        name: np.array([entry['parts'][name]['rss_mb'] for entry in samples]) for name in names
    }
    growth = {name: values - values[0] for name, values in growth.items()}
    low = min(float(values.min()) for values in growth.values())
    high = max(1.0, *(float(values.max()) for values in growth.values()))
    write(f'memory since the start [MB], {low:.1f} to {high:.1f}', (80, 24))
    for index, (name, values) in enumerate(growth.items()):
        draw(values, 40, low, high, COLOURS[index])
        write(name, (480 + 110 * index, 24), COLOURS[index])
    ages = np.array([entry['age_p99_ms'] or 0.0 for entry in samples])
    write(f'p99 age of hands [ms], 0 to {ages.max():.0f}; {hours[-1]:.2f} hours', (80, 344))
    draw(ages, 360, 0.0, float(ages.max()), COLOURS[0])
    cv2.imwrite(str(path), picture)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--hours', type=float, default=0.03)
    parser.add_argument('--period', type=float, default=1.0, help='of the samples [s]')
    parser.add_argument('--model', default='nano')
    parser.add_argument('--series', type=Path, help='a line of JSON for each sample')
    parser.add_argument('--plot', type=Path, help='a picture of the same')
    options = parser.parse_args()
    os.environ.update(ROS_LOCALHOST_ONLY='1', ROS_AUTOMATIC_DISCOVERY_RANGE='LOCALHOST')
    os.environ.setdefault('ROS_DOMAIN_ID', str(1 + os.getpid() % 99))
    running = start_parts(options.model)
    listener = Listener()
    processes = {name: psutil.Process(process.pid) for name, process in running.items()}
    samples: list[Any] = []
    while not listener.ages_ms:  # the model loads
        listener.listen(1.0)
    began_s = time.monotonic()
    with contextlib.ExitStack() as open_files:
        series = open_files.enter_context(options.series.open('a')) if options.series else None
        try:
            while time.monotonic() - began_s < options.hours * 3600:
                listener.listen(options.period)
                ended = [name for name, process in running.items() if process.poll() is not None]
                if ended:
                    raise SystemExit(f'ended by itself: {", ".join(ended)}')
                samples.append(sample(processes, listener, began_s))
                if series is not None:
                    print(json.dumps(samples[-1]), file=series, flush=True)
        finally:
            for process in running.values():
                process.send_signal(signal.SIGINT)
            for process in running.values():
                process.wait(10)
    if options.plot:
        plot(samples, options.plot)
    print(json.dumps({'machine': describe_machine(), **summarise(samples)}, indent=2))


if __name__ == '__main__':
    main()
