"""The node with a fake model, whose reception can be spoilt by a signal.

SIGUSR1: for two seconds packets are lost in bursts, so that every image arrives torn.
SIGUSR2: the participant's image topic lets nothing through any more, for any reader.
"""

from __future__ import annotations

import ctypes
import signal
import threading
import time
from typing import Any

from cyclonedds.internal import DDS
from fakes import FakePerception

from handos_ros.node import hand_node
from handos_ros.runtime.embedded.context import get_default_context

TORN_S = 2.0
BURST_S = 0.001  # several packets; an image of 1280x720 has two hundred
FOREVER_NS = 2**63 - 1
SAMPLE_INFO_AND_ARGUMENT = 3  # the kind of filter that needs no deserialised sample

dds = DDS._dll_handle


def tear_images(*signal_arguments: Any) -> None:
    threading.Thread(target=_tear, daemon=True).start()


def _tear() -> None:
    set_deaf = dds.dds_domain_set_deafmute
    set_deaf.argtypes = [ctypes.c_int32, ctypes.c_bool, ctypes.c_bool, ctypes.c_int64]
    participant = get_default_context().participant._ref
    end_s = time.monotonic() + TORN_S
    while time.monotonic() < end_s:
        for deaf in (True, False):
            set_deaf(participant, deaf, False, FOREVER_NS)
            time.sleep(BURST_S)


class _Function(ctypes.Union):
    _fields_ = (('pointer', ctypes.c_void_p),)


class _Filter(ctypes.Structure):
    _fields_ = (
        ('mode', ctypes.c_int),
        ('function', _Function),
        ('argument', ctypes.c_void_p),
    )


def filter_everything(*signal_arguments: Any) -> None:
    # A filter in Python would wait for the GIL with a lock of DDS held; this returns 0, for "no".
    refuse = ctypes.cast(ctypes.CDLL(None).sched_yield, ctypes.c_void_p).value
    topic = get_default_context()._topics['rt/image'][1]
    wanted = _Filter(SAMPLE_INFO_AND_ARGUMENT, _Function(refuse), None)
    code = dds.dds_set_topic_filter_extended(topic._ref, ctypes.byref(wanted))
    assert code == 0, code


if __name__ == '__main__':
    signal.signal(signal.SIGUSR1, tear_images)
    signal.signal(signal.SIGUSR2, filter_everything)
    hand_node.run(lambda settings, report: FakePerception())
