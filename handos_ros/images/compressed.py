"""JPEG and PNG images whose size is known before a byte of them is decoded."""

from __future__ import annotations

import struct
from typing import Any

import cv2
import numpy as np

from handos_model.types import ImageArray
from handos_ros.images.encodings import MAX_PIXELS, ImageError

MAX_COMPRESSED_BYTES = 64 * 1024 * 1024
PNG_SIGNATURE = b'\x89PNG\r\n\x1a\n'
PNG_CHUNK_FRAME = 12  # bytes of a chunk's length, kind and checksum
JPEG_SIGNATURE = b'\xff\xd8\xff'
JPEG_END = b'\xff\xd9'
JPEG_SIZE_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0..15, not DHT JPG DAC
JPEG_SCAN_MARKER = 0xDA
JPEG_BARE_MARKERS = frozenset([0x01, *range(0xD0, 0xD9)])  # markers without a length


def decode_compressed_rgb(
    data: Any, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_COMPRESSED_BYTES
) -> ImageArray:
    """Pixels [H,W,3], uint8 RGB, of a whole JPEG or PNG file in memory.

    The header's size is checked against `max_pixels` before decoding, so that a small file cannot
    claim gigabytes. Raises ImageError.
    """
    raw = np.frombuffer(data, np.uint8)
    if len(raw) > max_bytes:
        raise ImageError(f'compressed image of {len(raw)} bytes is above the limit of {max_bytes}')
    width, height = compressed_size(raw.tobytes())
    if width <= 0 or height <= 0 or width * height > max_pixels:
        raise ImageError(
            f'compressed image of {width}x{height} is empty or above the limit of {max_pixels} '
            "pixels: lower the camera's resolution or raise the parameter max_image_pixels"
        )
    try:
        bgr = cv2.imdecode(raw, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise ImageError(f'compressed image cannot be decoded: {error}') from error
    if bgr is None or bgr.shape[:2] != (height, width):
        raise ImageError('compressed image cannot be decoded: it is damaged')
    rgb: ImageArray = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
    return rgb


def compressed_size(raw: bytes) -> tuple[int, int]:
    """Width and height in the header of a complete JPEG or PNG file. Raises ImageError."""
    if raw.startswith(PNG_SIGNATURE):
        return _png_size(raw)
    if raw.startswith(JPEG_SIGNATURE):
        if not raw.rstrip(b'\0').endswith(JPEG_END):  # webcams pad with zeros
            raise ImageError('JPEG image is cut off: parts of it were lost on the way')
        return _jpeg_size(raw)
    raise ImageError(
        'compressed image is neither JPEG nor PNG: set the image transport to jpeg or png '
        '(compressedDepth and video streams are not supported)'
    )


def _png_size(raw: bytes) -> tuple[int, int]:
    """Of the first chunk, after the others were found whole.

    OpenCV believes a chunk's length before it looks how much there is: 45 bytes made it fill 4 GB.
    """
    if len(raw) < 33 or raw[12:16] != b'IHDR':
        raise ImageError('PNG image without a header: it is damaged')
    position, kind, length = len(PNG_SIGNATURE), b'', 0
    while kind != b'IEND':
        if position + PNG_CHUNK_FRAME > len(raw):
            raise ImageError('PNG image is cut off: parts of it were lost on the way')
        length, kind = struct.unpack('>I4s', raw[position : position + 8])
        position += PNG_CHUNK_FRAME + length
    if length or position != len(raw.rstrip(b'\0')):
        raise ImageError('PNG image does not end where it says: it is damaged')
    width, height = struct.unpack('>II', raw[16:24])
    return width, height


def _jpeg_size(raw: bytes) -> tuple[int, int]:
    position = 2
    while position + 9 <= len(raw):
        if raw[position] != 0xFF:
            break
        marker = raw[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
        elif marker in JPEG_BARE_MARKERS:
            position += 2
        elif marker in JPEG_SIZE_MARKERS:
            height, width = struct.unpack('>HH', raw[position + 5 : position + 9])
            return width, height
        elif marker == JPEG_SCAN_MARKER:
            break
        else:
            position += 2 + struct.unpack('>H', raw[position + 2 : position + 4])[0]
    raise ImageError('JPEG image without a size: it is damaged')
