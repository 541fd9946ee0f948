"""What a figure depends on: hardware, versions and inputs, for the JSON of every benchmark."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ('numpy', 'torch', 'transformers', 'onnxruntime', 'openvino', 'opencv-python-headless',
            'cyclonedds', 'rosbags', 'mediapipe', 'tensorrt')  # fmt: skip


def describe_environment() -> dict[str, Any]:
    """Processor, cores, Python and the versions of the packages that are installed."""
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return {
        'processor': _processor(),
        'cores': len(os.sched_getaffinity(0))
        if hasattr(os, 'sched_getaffinity')
        else os.cpu_count(),
        'platform': platform.platform(),
        'python': sys.version.split()[0],
        'gpu': _gpu(),
        'versions': versions,
    }


def sha256_of(path: Path) -> str:
    """Hex digest of a file that a benchmark read."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _processor() -> str:
    cpuinfo = Path('/proc/cpuinfo')
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith('model name'):
                return line.split(':', 1)[1].strip()
    return platform.processor() or 'unknown'


def _gpu() -> str | None:
    torch = sys.modules.get('torch')
    if torch is not None and torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return None
