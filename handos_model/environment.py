"""What a measurement depends on: hardware and versions."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from handos_model.backends.choice import usable_cores

PACKAGES = (
    'handos-ros', 'numpy', 'opencv-python-headless', 'onnxruntime', 'onnxruntime-gpu', 'openvino',
    'tensorrt', 'torch', 'transformers', 'cyclonedds', 'rosbags', 'mediapipe',
)  # fmt: skip


def describe_machine() -> dict[str, Any]:
    """Processor, usable cores, GPU, system, Python and the versions of what is installed."""
    return {
        'processor': _processor(),
        'cores': usable_cores(),
        'gpu': _gpu(),
        'platform': platform.platform(),
        'python': platform.python_version(),
        'versions': installed_versions(),
    }


def installed_versions() -> dict[str, str]:
    """Of `PACKAGES`, those that are there."""
    distributions = {d.metadata['Name']: d.version for d in metadata.distributions()}
    return {package: distributions[package] for package in PACKAGES if package in distributions}


def _processor() -> str:
    cpuinfo = Path('/proc/cpuinfo')
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            key, _, value = line.partition(':')
            if key.strip() in ('model name', 'Model'):
                return value.strip()
    return platform.processor() or platform.machine()


def _gpu() -> str | None:
    """As the driver names it; Jetson has no nvidia-smi of use, its model file says enough."""
    board = Path('/proc/device-tree/model')
    query = ['nvidia-smi', '--query-gpu=name,driver_version', '--format=csv,noheader']
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip().splitlines()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return board.read_text().strip('\x00') if board.is_file() else None
