"""What a camera can do wrong while it runs: said by the node where it matters, and survived.

Camera, node and listener are processes that know each other by DDS alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from watched import PROMISED_S, Watched

from handos_ros import runtime

if runtime.chosen_runtime() != 'embedded':
    pytest.skip('faults are put into the embedded runtime', allow_module_level=True)


@pytest.fixture(scope='module')
def together(ros: Any) -> Iterator[Watched]:
    """One node that lives through all the camera's faults."""
    made = Watched(ros)
    yield made
    made.close()


# what the camera does -> the status that says so, its words
REFUSED = {
    'step that is too small': ({'step_off': -30}, 'image', 'step is'),
    'data that is cut off': ({'bytes_missing': 100}, 'image', 'data has'),
    'an encoding that nobody knows': ({'encoding': 'h264'}, 'image', "'h264' is not supported"),
    'a frozen image: its stamp stays': ({'frozen': True}, 'image', 'that of the last image'),
    'no stamp': ({'stamped': False}, 'image', 'the stamp is zero'),
    'a clock that jumps an hour ahead': ({'clock_off_s': 3600.0}, 'image', 'in the future'),
    'images without end but of no size': ({'width': 0}, 'image', 'rejected'),
    'camera_info and no image': ({'images': False}, 'image', 'no image for'),
    'nothing at all': ({'images': False, 'infos': False}, 'image', 'the camera has stopped'),
}
HEALTHY: dict[str, Any] = {
    'width': 64, 'height': 48, 'rate_hz': 20.0, 'encoding': 'rgb8', 'step_off': 0,
    'bytes_missing': 0, 'clock_off_s': 0.0, 'frozen': False, 'stamped': True, 'focal_px': 500.0,
    'info_width': 0, 'burst': 1, 'infos': True, 'images': True,
}  # fmt: skip


@pytest.mark.parametrize('name', REFUSED)
@pytest.mark.fault('camera', '{name}', 'said; hands again when it is over')
def test_what_cannot_be_used_is_said_and_then_over(together: Watched, name: str) -> None:
    changes, status, words = REFUSED[name]
    together.tell_camera(**HEALTHY)
    assert together.hears()
    together.tell_camera(**changes)
    assert together.says(status, words), together.said[-5:]
    together.tell_camera(**HEALTHY)
    assert together.hears(timeout_s=PROMISED_S), together.said[-5:]
    assert together.node.poll() is None


# what the camera does -> the status that says so, or none, and its words
BORNE = {
    'another size midway, with its camera_info': ({'width': 128, 'height': 96}, '', ''),
    'another size midway, with the old camera_info': (
        {'width': 128, 'info_width': 64}, 'calibration', 'camera_info is for 64x48',
    ),
    'a calibration that changes': ({'focal_px': 700.0}, '', ''),
    'a calibration that is lost (K zero)': ({'focal_px': 0.0}, 'calibration', 'not calibrated'),
    'a calibration of no number (K NaN)': ({'focal_px': float('nan')}, 'calibration', 'not cal'),
    'half the rate': ({'rate_hz': 10.0}, '', ''),
    'bursts of ten images': ({'burst': 10}, '', ''),
    'a clock that jumps an hour back': ({'clock_off_s': -3600.0}, '', ''),
    'a clock that runs half a second ahead': ({'clock_off_s': 0.5}, '', ''),
}  # fmt: skip


@pytest.mark.parametrize('name', BORNE)
@pytest.mark.fault('camera', '{name}', 'hands go on; what makes them worse is said')
def test_what_can_be_used_is_used(together: Watched, name: str) -> None:
    changes, status, words = BORNE[name]
    together.tell_camera(**HEALTHY)
    assert together.hears()
    together.tell_camera(**changes)
    together.spin_for(0.5)  # what is on the way, and one image after a clock that went back
    if status:
        assert together.says(status, words), together.said[-5:]
    assert together.hears(timeout_s=PROMISED_S), together.said[-5:]
    assert together.node.poll() is None
