"""Feed the readers of what strangers send with bytes made up to break them.

    pip install atheris
    python -m tools.fuzz cdr --runs 1000000 --corpus corpora/cdr

Each target lets its documented errors pass and nothing else. atheris (libFuzzer) grows its inputs
by the lines of ours that they reach, and keeps those that reach new ones in the corpus. Without it
`test/tools/test_fuzz.py` feeds the same targets with damaged copies of sound inputs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import struct
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np

with contextlib.suppress(ImportError):
    import atheris

INSTRUMENTED = ('handos_model', 'handos_ros', 'rosbags')
TYPES = (
    'sensor_msgs/msg/Image',
    'sensor_msgs/msg/CompressedImage',
    'sensor_msgs/msg/CameraInfo',
    'handos/msg/HandMeshArray',
    'rcl_interfaces/msg/ParameterEvent',
    'diagnostic_msgs/msg/DiagnosticArray',
)
ENCODINGS = ('rgb8', 'bgr8', 'mono8', 'mono16', 'yuv422_yuy2', 'bayer_rggb8', '16UC1', '32FC1', '')
KEY = b'k' * 32
NAMES = (
    *('cdr', 'image', 'compressed', 'camera_info', 'calibration'),
    *('manifest', 'config', 'pickle', 'engine', 'bag'),
)


@dataclass(frozen=True)
class Target:
    """`read` takes any bytes and raises nothing but `refusals`; `seeds` are sound ones."""

    read: Callable[[bytes], object]
    refusals: tuple[type[Exception], ...]
    seeds: Callable[[], Sequence[bytes]]

    def __call__(self, data: bytes) -> bool:
        """Whether `data` was taken."""
        try:
            self.read(data)
        except self.refusals:
            return False
        return True


@cache
def scratch() -> Path:
    """A folder for readers that want a file."""
    return Path(tempfile.mkdtemp(prefix='fuzz.'))


def saved(name: str, data: bytes) -> Path:
    """`data` as a file."""
    path = scratch() / name
    path.write_bytes(data)
    return path


# Messages on the wire


@cache
def store() -> Any:
    from handos_ros.runtime.embedded.wire.messages import build_typestore

    return build_typestore()


def read_cdr(data: bytes) -> object:
    from handos_ros.runtime.embedded.wire.cdr import deserialize

    return deserialize(store(), data[1:], TYPES[data[0] % len(TYPES)] if data else TYPES[0])


def cdr_seeds() -> list[bytes]:
    from handos_ros.runtime.embedded.wire.cdr import serialize

    return [
        bytes([index]) + bytes(serialize(store(), store().types[name]()))
        for index, name in enumerate(TYPES)
    ]


# Images


def read_image(data: bytes) -> object:
    from handos_ros.messages.conversions import Limits, depth_to_m, image_to_rgb

    head = data[:16].ljust(16, b'\0')
    width, height, step, encoding, endian = struct.unpack('<IIIBBxx', head)
    message = SimpleNamespace(
        width=width, height=height, step=step, encoding=ENCODINGS[encoding % len(ENCODINGS)],
        is_bigendian=endian & 1, data=data[16:],
    )  # fmt: skip
    limits = Limits(max_pixels=1 << 16)
    if width & 1:
        return depth_to_m(message, (height, width), limits)  # type: ignore[arg-type]
    return image_to_rgb(message, limits)  # type: ignore[arg-type]


def image_seeds() -> list[bytes]:
    return [  # an odd width is read as depth
        struct.pack('<IIIBBxx', width, 4, width * size, index, 0) + bytes(width * 4 * size)
        for width, index, size in (
            (8, 0, 3), (8, 1, 3), (8, 2, 1), (8, 3, 2), (8, 4, 2), (8, 5, 1), (9, 6, 2), (9, 7, 4),
        )
    ]  # fmt: skip


def read_compressed(data: bytes) -> object:
    from handos_ros.images.compressed import decode_compressed_rgb

    return decode_compressed_rgb(data, max_pixels=1 << 16)


def compressed_seeds() -> list[bytes]:
    picture = np.random.default_rng(0).integers(0, 255, (16, 24, 3), np.uint8)
    encoded = [cv2.imencode(suffix, picture)[1].tobytes() for suffix in ('.jpg', '.png')]
    progressive = cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1]
    return [*encoded, progressive.tobytes()]


# Calibrations


def read_camera_info(data: bytes) -> object:
    from handos_ros.messages.conversions import camera_from_info

    values = np.frombuffer(data[8 : 8 + len(data[8:]) // 8 * 8]).tolist()
    k = (values + [0.0] * 9)[:9]
    numbers = list(data[:8].ljust(8, b'\0'))
    models = ('plumb_bob', 'equidistant', 'rational_polynomial', '', 'x')
    info = SimpleNamespace(
        width=4 * numbers[0], height=4 * numbers[1], k=k, d=values[9:],
        distortion_model=models[numbers[2] % len(models)],
        binning_x=numbers[3] % 5, binning_y=numbers[4] % 5,
        roi=SimpleNamespace(x_offset=numbers[5], y_offset=numbers[6], width=numbers[7], height=0),
    )  # fmt: skip
    return camera_from_info(info, (4 * numbers[1], 4 * numbers[0]))  # type: ignore[arg-type]


def camera_info_seeds() -> list[bytes]:
    k = np.array([100.0, 0, 80, 0, 100, 60, 0, 0, 1])
    return [
        bytes([40, 30, model, 0, 0, 0, 0, 0]) + np.concatenate([k, np.zeros(count)]).tobytes()
        for model, count in ((0, 5), (1, 4), (2, 8))
    ]


def read_calibration(data: bytes) -> object:
    from handos_ros.images.camera_files import read_camera_file

    return read_camera_file(saved('camera.yaml', data))


def calibration_seeds() -> list[bytes]:
    text = (
        'image_width: 640\nimage_height: 480\ncamera_name: a\n'
        'camera_matrix: {rows: 3, cols: 3, data: [600, 0, 320, 0, 600, 240, 0, 0, 1]}\n'
        'distortion_model: plumb_bob\n'
        'distortion_coefficients: {rows: 1, cols: 5, data: [0.1, 0, 0, 0, 0]}\n'
    )
    return [text.encode()]


# Weights


def read_manifest(data: bytes) -> object:
    from handos_model.weights.exported import MANIFEST, ExportedWeights

    saved(MANIFEST, data)
    exported = ExportedWeights.load(scratch())
    for precision, sampling in exported.variants():
        for hands in (None, *exported.hands(precision, sampling)):
            exported.path(hands, precision, sampling)
    return exported


def manifest_seeds() -> list[bytes]:
    from handos_model.weights.exported import MANIFEST, WINDOW_MANIFEST
    from handos_model.weights.store import find_weights

    folder = find_weights('nano')
    return [path.read_bytes() for name in (MANIFEST, WINDOW_MANIFEST)
            if (path := folder / name).is_file()]  # fmt: skip


def read_config(data: bytes) -> object:
    from handos_model.weights.store import CONFIG, load_config

    saved(CONFIG, data)
    return load_config(scratch())


def config_seeds() -> list[bytes]:
    from handos_model.weights.store import CONFIG, find_weights

    return [(find_weights('nano') / CONFIG).read_bytes()]


def read_pickle(data: bytes) -> object:
    from handos_model.hand.mano_pickle import parse_mano

    return parse_mano(data)


def pickle_seeds() -> list[bytes]:
    import pickle

    arrays = {'weights': np.zeros((778, 16)), 'f': np.zeros((1538, 3), np.uint32), 'names': ['a']}
    return [pickle.dumps(arrays, protocol) for protocol in (0, 2, 4)]


def read_engine(data: bytes) -> object:
    """A cached engine: as it is, and with the signature made right, so that the rest is read."""
    from handos_model.backends.tensorrt import signed_file

    path = saved('engine', data)
    path.chmod(0o600)
    with contextlib.suppress(signed_file.RefusedFileError):
        signed_file.read_signed(path, KEY)
    path.write_bytes(signed_file.MAGIC + signed_file._mac(KEY, data) + data)
    return signed_file.read_signed(path, KEY)


def engine_seeds() -> list[bytes]:
    from handos_model.backends.tensorrt import signed_file

    path = scratch() / 'seed'
    signed_file.write_signed(path, KEY, {'frames': 3, 'parity': {}}, b'plan' * 10)
    whole = path.read_bytes()
    return [whole, whole[len(signed_file.MAGIC) + 32 :]]


# Recordings


def read_bag(data: bytes) -> object:
    from handos_ros.runtime.bags import BagReader, Messages

    messages, count = Messages(), 0
    with BagReader(saved('bag.mcap', data)) as reader:
        for message in reader.messages():
            count += 1
            if message.type_name in TYPES:
                with contextlib.suppress(ValueError):
                    messages.deserialize(message)
    return count


def bag_seeds() -> list[bytes]:
    from rosbags.rosbag2 import StoragePlugin, Writer

    folder = Path(tempfile.mkdtemp()) / 'bag'
    with Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection('/image', TYPES[0], typestore=store())
        for stamp_ns in range(3):
            writer.write(connection, stamp_ns, cdr_seeds()[0][1:])
    return [path.read_bytes() for path in folder.glob('*.mcap')]


def targets() -> dict[str, Target]:
    """By name: all of `NAMES`."""
    from handos_model.backends.tensorrt.signed_file import RefusedFileError
    from handos_model.errors import UserError
    from handos_model.hand.safe_pickle import RefusedError
    from handos_ros.images.encodings import ImageError
    from handos_ros.messages.conversions import CameraInfoError

    return {
        'cdr': Target(read_cdr, (ValueError,), cdr_seeds),
        'image': Target(read_image, (ImageError,), image_seeds),
        'compressed': Target(read_compressed, (ImageError,), compressed_seeds),
        'camera_info': Target(read_camera_info, (CameraInfoError,), camera_info_seeds),
        'calibration': Target(read_calibration, (UserError,), calibration_seeds),
        'manifest': Target(read_manifest, (UserError,), manifest_seeds),
        'config': Target(read_config, (UserError,), config_seeds),
        'pickle': Target(read_pickle, (RefusedError,), pickle_seeds),
        'engine': Target(read_engine, (RefusedFileError,), engine_seeds),
        'bag': Target(read_bag, (UserError,), bag_seeds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('target', choices=NAMES)
    parser.add_argument('--runs', type=int, default=100_000)
    parser.add_argument('--corpus', type=Path, help='folder that inputs are kept in')
    arguments = parser.parse_args()
    if 'atheris' not in globals():
        sys.exit('atheris is missing: pip install atheris')
    corpus = arguments.corpus or Path(tempfile.mkdtemp(prefix='corpus.'))
    corpus.mkdir(parents=True, exist_ok=True)
    # Readers import what they need when they first read.
    with atheris.instrument_imports(include=list(INSTRUMENTED), enable_loader_override=False):
        target = targets()[arguments.target]
        for index, seed in enumerate(target.seeds()):
            target(seed)
            (corpus / f'seed{index}').write_bytes(seed)
    options = ['-max_len=4096', '-timeout=10', '-rss_limit_mb=2048']
    options += [f'-runs={arguments.runs}', f'-artifact_prefix={corpus.parent}/']

    def read(data: bytes) -> None:  # libFuzzer wants no answer
        target(data)

    atheris.Setup([sys.argv[0], str(corpus), *options], read)
    print(json.dumps({'target': arguments.target, 'runs': arguments.runs, 'corpus': str(corpus)}))
    atheris.Fuzz()


if __name__ == '__main__':
    main()
