"""Images, depth and calibrations as cameras send them, good and bad."""

import array
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from handos_model.types import Camera
from handos_ros.images.encodings import (
    DEPTH_ENCODINGS,
    ENCODINGS,
    ImageError,
    decode_depth_m,
    decode_rgb,
)
from handos_ros.messages import conversions
from handos_ros.messages.conversions import CameraInfoError, Limits

HEIGHT, WIDTH = 12, 16
LIMITS = Limits()


@pytest.fixture
def picture() -> np.ndarray:
    """A smooth picture, so that what Bayer and YUV leave out does not matter much."""
    v, u = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.stack([u * 8 + 40, v * 10 + 40, 200 - u * 5 - v * 3], -1).astype(np.uint8)


def image_message(messages, pixels, encoding, *, padding=0, is_bigendian=0, height=HEIGHT):
    rows = np.ascontiguousarray(pixels).reshape(pixels.shape[0], -1).view(np.uint8)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    return messages('sensor_msgs/msg/Image')(
        width=WIDTH,
        height=height,
        encoding=encoding,
        step=rows.shape[1],
        is_bigendian=is_bigendian,
        data=rows.reshape(-1),
    )


def encode(picture, encoding):
    """The picture as a camera of this encoding would send it."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    if encoding in ('rgb8',):
        return picture
    if encoding in ('bgr8', '8UC3'):
        return picture[..., ::-1]
    if encoding == 'rgba8':
        return np.dstack([picture, np.full((HEIGHT, WIDTH), 9, np.uint8)])
    if encoding == 'bgra8':
        return np.dstack([picture[..., ::-1], np.full((HEIGHT, WIDTH), 9, np.uint8)])
    if encoding in ('mono8', '8UC1'):
        return grey
    if encoding == 'mono16':
        return grey.astype(np.uint16) << 8
    if encoding.startswith('bayer_'):
        mosaic = np.empty((HEIGHT, WIDTH), np.uint8)
        for index, channel in enumerate(encoding[6:10]):
            rows, columns = slice(index // 2, None, 2), slice(index % 2, None, 2)
            mosaic[rows, columns] = picture[rows, columns, 'rgb'.index(channel)]
        return mosaic if encoding.endswith('8') else mosaic.astype(np.uint16) << 8
    b, g, r = (picture[..., index].astype(np.float64) / 255 for index in (2, 1, 0))
    luma = 16 + 65.481 * r + 128.553 * g + 24.966 * b  # BT.601, studio range
    u = 128 - 37.797 * r - 74.203 * g + 112.0 * b
    v = 128 + 112.0 * r - 93.786 * g - 18.214 * b
    luma, u, v = (np.rint(plane).astype(np.uint8) for plane in (luma, u, v))
    if encoding in ('yuv422', 'uyvy', 'yuv422_yuy2', 'yuyv'):
        chroma = np.where(np.arange(WIDTH) % 2 == 0, u, np.roll(v, 1, axis=1))
        first = encoding in ('yuv422', 'uyvy')
        return np.dstack([chroma, luma] if first else [luma, chroma])
    pair = [u, v] if encoding == 'nv12' else [v, u]
    chroma = np.dstack(pair)[::2, ::2].reshape(HEIGHT // 2, WIDTH)
    return np.vstack([luma, chroma])


TOLERANCE = {'bayer': 14, 'yuv': 16, 'uyv': 16, 'yuy': 16, 'nv1': 16, 'nv2': 16}


@pytest.mark.parametrize('padding', [0, 8])
@pytest.mark.parametrize('encoding', ENCODINGS)
def test_every_encoding_gives_the_picture(messages, picture, encoding, padding):
    pixels = encode(picture, encoding)
    message = image_message(messages, pixels, encoding, padding=padding)
    got = conversions.image_to_rgb(message, LIMITS).astype(int)
    assert got.shape == picture.shape
    grey = encoding in ('mono8', 'mono16', '8UC1')
    expected = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None] if grey else picture
    inner = np.s_[2:-2, 2:-2]  # demosaicing has less to go by at the border
    difference = np.abs(got - expected.astype(int))[inner].max()
    assert difference <= TOLERANCE.get(encoding[:5], TOLERANCE.get(encoding[:3], 0))


def test_rgb8_without_padding_is_a_view(messages, picture):
    message = image_message(messages, picture, 'rgb8')
    assert np.shares_memory(conversions.image_to_rgb(message, LIMITS), message.data)


def test_array_array_data_as_rclpy_has_it(messages, picture):
    class Foreign:
        """rclpy's message: its data is an array.array."""

        encoding, width, height, step, is_bigendian = 'bgr8', WIDTH, HEIGHT, WIDTH * 3, 0
        data = array.array('B', picture[..., ::-1].tobytes())

    assert np.array_equal(conversions.image_to_rgb(Foreign, LIMITS), picture)


@pytest.mark.parametrize('encoding', ['mono16', 'bayer_rggb16'])
def test_big_endian(messages, picture, encoding):
    pixels = encode(picture, encoding)
    little = image_message(messages, pixels, encoding)
    big = image_message(messages, pixels.byteswap(), encoding, is_bigendian=1)
    expected = conversions.image_to_rgb(little, LIMITS)
    assert np.array_equal(conversions.image_to_rgb(big, LIMITS), expected)


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'step': WIDTH * 3 - 1}, 'step is'),
        ({'step': WIDTH * 3 + 1}, 'data has'),
        ({'step': 2**32 - 1}, 'data has'),
        ({'data': np.zeros(30, np.uint8)}, 'data has 30 bytes'),
        ({'data': np.zeros(0, np.uint8)}, 'data has 0 bytes'),
        ({'data': np.zeros(WIDTH * HEIGHT * 3 + 5, np.uint8)}, 'data has'),
        ({'width': 0}, 'empty image'),
        ({'height': 0}, 'empty image'),
        ({'width': 0, 'height': 0, 'step': 0, 'data': np.zeros(0, np.uint8)}, 'empty image'),
        ({'width': 10_000, 'height': 10_000, 'step': 30_000}, 'above the limit'),
        ({'width': 2**32 - 1, 'height': 2**32 - 1, 'step': 2**32 - 1}, 'above the limit'),
        ({'encoding': 'rgb9'}, "encoding 'rgb9' is not supported"),
        ({'encoding': ''}, "encoding '' is not supported"),
        ({'encoding': 'nv12', 'width': 15}, 'even width'),
        ({'encoding': 'nv12', 'height': 11}, 'even height'),
    ],
)
def test_bad_images_are_refused_with_the_reason(messages, picture, change, words):
    message = image_message(messages, picture, 'rgb8')
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises(ImageError, match=words):
        conversions.image_to_rgb(message, LIMITS)


def compressed(messages, data: bytes):
    return messages('sensor_msgs/msg/CompressedImage')(
        format='jpeg', data=np.frombuffer(data, np.uint8)
    )


def file_bytes(picture, suffix) -> bytes:
    return cv2.imencode(suffix, picture[..., ::-1])[1].tobytes()


@pytest.mark.parametrize('suffix', ['.jpg', '.png'])
def test_compressed(messages, picture, suffix):
    large = cv2.resize(picture, (160, 120))
    got = conversions.image_to_rgb(compressed(messages, file_bytes(large, suffix)), LIMITS)
    assert np.abs(got.astype(int) - large).mean() < (1e-9 if suffix == '.png' else 3)


def test_a_webcam_pads_its_jpeg_with_zeros(messages, picture):
    raw = file_bytes(picture, '.jpg') + bytes(100)
    assert conversions.image_to_rgb(compressed(messages, raw), LIMITS).shape == picture.shape


@pytest.mark.parametrize('suffix', ['.jpg', '.png'])
def test_a_cut_file_is_refused_at_any_length(messages, picture, suffix):
    raw = file_bytes(picture, suffix)
    for length in range(0, len(raw) - 2, 7):
        with pytest.raises(ImageError):
            conversions.image_to_rgb(compressed(messages, raw[:length]), LIMITS)


def png_bomb(width: int, height: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        check = zlib.crc32(name + body)
        return struct.pack('>I', len(body)) + name + body + struct.pack('>I', check)

    header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(1000))
    return (
        b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', rows) + chunk(b'IEND', b'')
    )


def jpeg_bomb(picture, width: int, height: int) -> bytes:
    raw = bytearray(file_bytes(picture, '.jpg'))
    at = raw.index(b'\xff\xc0')
    raw[at + 5 : at + 9] = struct.pack('>HH', height, width)
    return bytes(raw)


def test_bombs_are_refused_before_they_are_decoded(messages, picture, monkeypatch):
    def decode(*_):
        raise AssertionError('decoded')

    monkeypatch.setattr(cv2, 'imdecode', decode)
    for raw in (png_bomb(60_000, 60_000), jpeg_bomb(picture, 65_500, 65_500)):
        with pytest.raises(ImageError, match='above the limit'):
            conversions.image_to_rgb(compressed(messages, raw), LIMITS)


def test_a_file_that_is_too_long_is_refused(messages, picture):
    raw = file_bytes(picture, '.png')
    with pytest.raises(ImageError, match='bytes is above'):
        conversions.image_to_rgb(compressed(messages, raw), Limits(max_compressed_bytes=10))


def test_neither_jpeg_nor_png(messages):
    with pytest.raises(ImageError, match='neither JPEG nor PNG'):
        conversions.image_to_rgb(compressed(messages, b'GIF89a' + bytes(100)), LIMITS)


def test_a_damaged_file_is_refused(messages, picture):
    raw = bytearray(file_bytes(picture, '.png'))
    raw[45:60] = bytes(15)
    with pytest.raises(ImageError):
        conversions.image_to_rgb(compressed(messages, bytes(raw)), LIMITS)


def test_depth_in_millimetres_and_metres(messages):
    millimetres = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH)
    metres = millimetres.astype(np.float32) / 1000
    metres[0, 1] = np.inf
    metres[0, 2] = -1
    shape = (HEIGHT, WIDTH)
    a = conversions.depth_to_m(image_message(messages, millimetres, '16UC1'), shape, LIMITS)
    b = conversions.depth_to_m(image_message(messages, metres, '32FC1'), shape, LIMITS)
    assert np.isnan(a[0, 0]) and np.isnan(b[0, :3]).all()
    assert np.allclose(a[1:], b[1:]) and a[1, 0] == pytest.approx(0.016)
    big = image_message(messages, metres.byteswap(), '32FC1', is_bigendian=1)
    assert np.array_equal(conversions.depth_to_m(big, shape, LIMITS), b, equal_nan=True)


def test_depth_of_another_size_or_encoding_is_refused(messages, picture):
    depth = image_message(messages, np.zeros((HEIGHT, WIDTH), np.uint16), '16UC1')
    with pytest.raises(ImageError, match='aligned'):
        conversions.depth_to_m(depth, (HEIGHT * 2, WIDTH * 2), LIMITS)
    with pytest.raises(ImageError, match='depth encoding'):
        conversions.depth_to_m(image_message(messages, picture, 'rgb8'), (HEIGHT, WIDTH), LIMITS)


def info_message(messages, **changes):
    values = {
        'width': 640,
        'height': 480,
        'distortion_model': 'plumb_bob',
        'd': [0.1, -0.2, 0.001, 0.002, 0.03],
        'k': [500.0, 0, 320, 0, 510, 240, 0, 0, 1],
    }
    return messages('sensor_msgs/msg/CameraInfo')(**{**values, **changes})


def test_camera_info_round_trip(messages):
    camera = conversions.camera_from_info(info_message(messages), (480, 640))
    header = messages('std_msgs/msg/Header')()
    again = conversions.camera_from_info(
        conversions.camera_to_info_message(messages, header, camera), (480, 640)
    )
    assert camera.calibrated and again.calibrated
    assert np.array_equal(camera.matrix_px, again.matrix_px)
    assert np.array_equal(camera.distortion, again.distortion)
    guess = conversions.camera_to_info_message(messages, header, Camera.uncalibrated(640, 480))
    assert guess.k[0] == 0  # ROS's word for an uncalibrated camera


def test_region_of_interest_and_binning_move_the_camera(messages):
    roi = messages('sensor_msgs/msg/RegionOfInterest')(
        x_offset=100, y_offset=40, width=400, height=200
    )
    message = info_message(messages, roi=roi, binning_x=2, binning_y=2)
    camera = conversions.camera_from_info(message, (100, 200))
    point_m = np.array([0.1, -0.05, 1.0])
    full = message.k.reshape(3, 3) @ point_m
    binned = camera.matrix_px @ point_m
    # Full pixel 100 + 2 b and 101 + 2 b make the binned pixel b: centre 100.5 + 2 b.
    assert full[:2] == pytest.approx(binned[:2] * 2 + [100.5, 40.5])


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'k': np.zeros(9)}, 'not calibrated'),
        ({'k': np.full(9, np.nan)}, 'not calibrated'),
        ({'k': [-500.0, 0, 320, 0, 510, 240, 0, 0, 1]}, 'not calibrated'),
        ({'d': [0.1, np.nan, 0, 0, 0]}, 'coefficients'),
        ({'d': np.zeros(100)}, 'coefficients'),
        ({'distortion_model': 'thin_prism'}, "'thin_prism' is not supported"),
        ({'width': 1280, 'height': 720}, 'camera_info is for 1280x720'),
        ({'width': 0, 'height': 0}, 'camera_info is for 0x0'),
        ({'k': [1e300, 0, 320, 0, 510, 240, 0, 0, 1]}, 'not calibrated'),
    ],
)
def test_bad_camera_info_is_refused_with_the_reason(messages, changes, words):
    with pytest.raises(CameraInfoError, match=words):
        conversions.camera_from_info(info_message(messages, **changes), (480, 640))


BYTES = st.binary(max_size=300)
SIZES = st.one_of(st.integers(0, 40), st.sampled_from([2**16, 2**31 - 1, 2**32 - 1]))
PLAIN_ENCODINGS = st.one_of(
    st.sampled_from([*ENCODINGS, '16UC1', '32FC1', 'x']), st.text(max_size=5)
)
FLOATS = st.floats(width=64, allow_nan=True, allow_infinity=True)


def check_fuzzed_image(data, encoding, width, height, step, is_bigendian):
    decode = decode_depth_m if encoding in DEPTH_ENCODINGS else decode_rgb
    try:
        pixels = decode(
            data,
            encoding=encoding,
            width=width,
            height=height,
            step=step,
            is_bigendian=is_bigendian,
        )
    except ImageError as error:
        assert str(error)
    else:
        assert pixels.shape[:2] == (height, width)


def check_fuzzed_file(data, start):
    prefix = [b'', b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n\0\0\0\rIHDR'][start]
    end = [b'', b'\xff\xd9', b'\0\0\0\0IEND\xaeB`\x82'][start]

    class Message:
        format = 'jpeg'

    Message.data = np.frombuffer(prefix + data + end, np.uint8)
    try:
        pixels = conversions.image_to_rgb(Message, Limits(max_pixels=10_000))
    except ImageError as error:
        assert str(error)
    else:
        assert pixels.shape[0] * pixels.shape[1] <= 10_000


def check_fuzzed_info(messages, k, d, model, width, height, binning):
    message = info_message(
        messages, k=k, d=d, distortion_model=model, width=width, height=height, binning_x=binning
    )
    try:
        camera = conversions.camera_from_info(message, (height, width))
    except CameraInfoError as error:
        assert str(error)
    else:
        assert np.isfinite(camera.matrix_px).all() and np.isfinite(camera.distortion).all()


IMAGE_ARGUMENTS = (BYTES, PLAIN_ENCODINGS, SIZES, SIZES, SIZES, st.booleans())
FILE_ARGUMENTS = (BYTES, st.integers(0, 2))
INFO_ARGUMENTS = (
    st.lists(FLOATS, min_size=9, max_size=9),
    st.lists(FLOATS, max_size=20),
    st.sampled_from(['plumb_bob', 'rational_polynomial', 'equidistant', '', 'x']),
    SIZES,
    SIZES,
    st.integers(0, 5),
)


def fuzz(examples):
    return settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))


@fuzz(1000)
@given(*IMAGE_ARGUMENTS)
def test_any_image_is_used_or_refused(data, encoding, width, height, step, is_bigendian):
    check_fuzzed_image(data, encoding, width, height, step, is_bigendian)


@fuzz(500)
@given(*FILE_ARGUMENTS)
def test_any_file_is_used_or_refused(data, start):
    check_fuzzed_file(data, start)


@fuzz(500)
@given(*INFO_ARGUMENTS)
def test_any_camera_info_is_used_or_refused(messages, k, d, model, width, height, binning):
    check_fuzzed_info(messages, k, d, model, width, height, binning)


@pytest.mark.long
@fuzz(50_000)
@given(*IMAGE_ARGUMENTS)
def test_any_image_at_length(data, encoding, width, height, step, is_bigendian):
    check_fuzzed_image(data, encoding, width, height, step, is_bigendian)


@pytest.mark.long
@fuzz(25_000)
@given(*FILE_ARGUMENTS)
def test_any_file_at_length(data, start):
    check_fuzzed_file(data, start)


@pytest.mark.long
@fuzz(25_000)
@given(*INFO_ARGUMENTS)
def test_any_camera_info_at_length(messages, k, d, model, width, height, binning):
    check_fuzzed_info(messages, k, d, model, width, height, binning)
