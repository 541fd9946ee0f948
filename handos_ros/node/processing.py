"""One frame from its messages to hands over time: checks, conversion, the model, the tracks."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field, replace

from handos_model.tracking.tracker import Tracker
from handos_model.types import Camera, FloatArray, Hand, ImageArray, TrackState
from handos_ros.images.encodings import ImageError
from handos_ros.messages import conversions
from handos_ros.messages.conversions import CameraInfoError
from handos_ros.messages.stamped import CameraInfo, Header, Image, Picture
from handos_ros.node.diagnostics import Statistics
from handos_ros.node.parameters import Settings
from handos_ros.node.perception import Perception

FUTURE_TOLERANCE_NS = 10**9
DEPTH_WAIT_S = 0.05  # depth may come a little later than its image
DEPTH_KEPT = 8


@dataclass(frozen=True, eq=False)
class Frame:
    """An image message and what belongs to it."""

    image: Picture
    camera_info: CameraInfo | None  # None before the first one
    stamp_ns: int
    received_at_s: float  # monotonic clock


@dataclass(frozen=True, eq=False)
class Result:
    """Hands of one frame, ready to be published."""

    header: Header
    hands: list[Hand]
    image_rgb: ImageArray
    camera: Camera
    received_at_s: float  # monotonic clock
    stages_s: dict[str, float] = field(default_factory=dict)

    @property
    def seen(self) -> list[Hand]:
        """All but those that are said lost."""
        return [hand for hand in self.hands if hand.state != TrackState.LOST]


class StampGuard:
    """Refuses stamps that cannot be of a new image."""

    def __init__(self) -> None:
        self._last_ns: int | None = None

    def problem(self, stamp_ns: int, now_ns: int | None) -> str:
        """Why the stamp is refused, or an empty string; `now_ns` None leaves the clock out.

        After a step backwards the next image is compared with the earlier stamp.
        """
        last_ns, self._last_ns = self._last_ns, stamp_ns
        if stamp_ns <= 0:
            self._last_ns = last_ns
            return 'the stamp is zero: the camera driver does not set it'
        if now_ns is not None and stamp_ns > now_ns + FUTURE_TOLERANCE_NS:
            self._last_ns = last_ns
            ahead_s = (stamp_ns - now_ns) / 1e9
            return (
                f'the stamp is {ahead_s:.1f} s in the future: synchronise the clocks of the '
                'machines, or set use_sim_time with recorded data'
            )
        if last_ns is not None and stamp_ns == last_ns:
            return 'the stamp is that of the last image: something publishes images twice'
        if last_ns is not None and stamp_ns < last_ns:
            return (
                f'the stamp went back by {(last_ns - stamp_ns) / 1e9:.3f} s: a recording began '
                'anew, or two cameras publish here'
            )
        return ''


class DepthBuffer:
    """The last depth images, to be found by the stamp of a colour image."""

    def __init__(self, wait_s: float = DEPTH_WAIT_S) -> None:
        self._wait_s = wait_s
        self._messages: deque[Image] = deque(maxlen=DEPTH_KEPT)
        self._condition = threading.Condition()

    def add(self, message: Image) -> None:
        with self._condition:
            self._messages.append(message)
            self._condition.notify_all()

    def find(self, stamp_ns: int, tolerance_s: float) -> Image | None:
        """The nearest message within the tolerance, waited for shortly; None if there is none."""
        deadline_s = time.monotonic() + self._wait_s
        with self._condition:
            while True:
                near = min(
                    self._messages,
                    key=lambda message: abs(conversions.stamp_ns(message) - stamp_ns),
                    default=None,
                )
                if near is not None:
                    apart_s = abs(conversions.stamp_ns(near) - stamp_ns) / 1e9
                    if apart_s <= tolerance_s:
                        return near
                if not self._condition.wait(max(0.0, deadline_s - time.monotonic())):
                    return None


class FrameProcessor:
    """Turns frames into results; a frame that cannot be used is counted and named.

    The tracks are here and nowhere else: they outlive a perception that fails and is built anew,
    so that ids are never used again, and every hand that was said is said lost. A `tracker` that
    has followed hands already is gone on with.
    """

    def __init__(
        self,
        settings: Settings,
        statistics: Statistics,
        depths: DepthBuffer,
        tracker: Tracker | None = None,
    ) -> None:
        self._settings = settings
        self._statistics = statistics
        self._depths = depths
        self._tracker = (tracker or Tracker()) if settings.track else None
        self._forget_tracks = threading.Event()
        self._perception: Perception | None = None  # that of the newest frame
        self._last: Result | None = None

    def forget_tracks(self) -> None:
        """Begin anew with the next frame; called by any thread."""
        self._forget_tracks.set()

    def lose_all(self) -> Result | None:
        """All tracked hands, said lost at the last frame; None where there are none.

        To be called while no frame is processed.
        """
        if self._tracker is None or self._last is None:
            return None
        lost = self._tracker.reset()
        return replace(self._last, hands=lost) if lost else None

    def __call__(self, perception: Perception, frame: Frame) -> Result | None:
        """The hands of a frame; None where its image is refused, or it took too long."""
        started_s = time.monotonic()
        try:
            image_rgb = conversions.image_to_rgb(frame.image, self._settings.limits)
        except ImageError as error:
            self._statistics.problem('input', str(error))
            self._statistics.frame_dropped('image rejected')
            return None
        shape = image_rgb.shape[:2]
        camera = self._camera(frame.camera_info, shape)
        depth_m = self._depth(frame.stamp_ns, shape) if self._settings.use_depth else None
        converted_s = time.monotonic()
        self._perception = perception
        hands = perception(image_rgb, camera, depth_m)
        if perception is not self._perception:  # it hung, and another has taken its place
            return None
        if perception.not_finite:
            self._statistics.problem(
                'backend',
                'the network returned NaN: these hands are left out. Use another backend or a '
                'higher precision',
            )
        hands = self._track(hands, frame.stamp_ns / 1e9)
        stages_s = {
            'waiting': started_s - frame.received_at_s,
            'converting': converted_s - started_s,
            'inferring': time.monotonic() - converted_s,
        }
        header = frame.image.header
        self._last = Result(header, hands, image_rgb, camera, frame.received_at_s, stages_s)
        return self._last

    def _track(self, hands: list[Hand], stamp_s: float) -> list[Hand]:
        """The hands with their ids, and those that are lost since the last frame."""
        if self._tracker is None:
            return hands
        lost: list[Hand] = []
        if self._forget_tracks.is_set():
            self._forget_tracks.clear()
            lost = self._tracker.reset()
        return self._tracker.update(hands, stamp_s) + lost

    def _camera(self, info: CameraInfo | None, shape: tuple[int, int]) -> Camera:
        height, width = shape
        problem = 'no camera_info has arrived: publish it, or remap camera_info to its topic'
        if info is not None:
            try:
                return conversions.camera_from_info(info, shape)
            except CameraInfoError as error:
                problem = str(error)
        self._statistics.problem('calibration', f'{problem}. Until then distances are guesses')
        return Camera.uncalibrated(width, height)

    def _depth(self, stamp_ns: int, shape: tuple[int, int]) -> FloatArray | None:
        message = self._depths.find(stamp_ns, self._settings.depth_tolerance_s)
        if message is None:
            self._statistics.problem(
                'depth',
                'no depth image has the stamp of the colour image: remap depth, or raise '
                'depth_tolerance_s',
            )
            return None
        try:
            return conversions.depth_to_m(message, shape, self._settings.limits)
        except ImageError as error:
            self._statistics.problem('depth', str(error))
            return None
