"""The node with a fake model, whose reception can be spoilt by a signal, on either runtime.

SIGUSR1: for two seconds packets are lost in bursts, so that every image arrives torn.
SIGUSR2: no image reaches the node in this participant any more, through whatever subscription.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from typing import Any

from fakes import FakePerception

from handos_ros import runtime
from handos_ros.node import hand_node

TORN_S = 2.0
BURST_S = 0.001  # several packets; an image of 1280x720 has two hundred
FOREVER_NS = 2**63 - 1


def cyclone_dds() -> Any:
    """The library that this process has joined the domain with."""
    if runtime.chosen_runtime() == 'rclpy':
        return ctypes.CDLL('libddsc.so.0')
    from cyclonedds.internal import DDS

    return DDS._dll_handle


def tear_images(*signal_arguments: Any) -> None:
    threading.Thread(target=_tear, daemon=True).start()


def _tear() -> None:
    dds = cyclone_dds()
    dds.dds_domain_set_deafmute.argtypes = [
        *(ctypes.c_int32, ctypes.c_bool, ctypes.c_bool, ctypes.c_int64)
    ]
    participant = ctypes.c_int32()
    domain = ctypes.c_uint32(int(os.environ['ROS_DOMAIN_ID']))
    assert dds.dds_lookup_participant(domain, ctypes.byref(participant), ctypes.c_size_t(1)) == 1
    end_s = time.monotonic() + TORN_S
    while time.monotonic() < end_s:
        for deaf in (True, False):
            dds.dds_domain_set_deafmute(participant, deaf, False, FOREVER_NS)
            time.sleep(BURST_S)


class DeafenedNode(hand_node.HandNode):
    """Of the one that is `deaf`, images are dropped between the middleware and the node."""

    newest: Any = None
    deaf: Any = None

    def create_subscription(
        self, message_type: Any, topic: str, callback: Any, *arguments: Any, **options: Any
    ) -> Any:
        def hear(message: Any) -> None:
            if topic != 'image' or DeafenedNode.deaf is not self:
                callback(message)

        DeafenedNode.newest = self
        return super().create_subscription(message_type, topic, hear, *arguments, **options)


def deafen(*signal_arguments: Any) -> None:
    DeafenedNode.deaf = DeafenedNode.newest


if __name__ == '__main__':
    hand_node.HandNode = DeafenedNode  # type: ignore[misc]
    signal.signal(signal.SIGUSR1, tear_images)
    signal.signal(signal.SIGUSR2, deafen)
    hand_node.run(lambda settings, report: FakePerception())
