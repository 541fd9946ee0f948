"""Looks at this computer and listens to the graph for some seconds."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path
from typing import Any

from handos_ros.health.findings import (
    BUFFER_BYTES,
    LAST_SAFE_DOMAIN,
    SHARED_VARIABLES,
    Endpoint,
    Machine,
    Observed,
    Topic,
)

PROC = Path('/proc')
OURS = {  # the subscriptions that listen
    'image': Endpoint('sensor_msgs/msg/Image', reliable=False, latched=False),
    'camera_info': Endpoint('sensor_msgs/msg/CameraInfo', reliable=False, latched=False),
}
FIRST_PORT, PORTS_A_DOMAIN = 7400, 250  # of RTPS


def observe_graph(seconds: float) -> Observed:
    """Join the graph as `handos_doctor`, with this process's ROS arguments, and listen."""
    from handos_ros.messages import conversions
    from handos_ros.runtime import (
        DurabilityPolicy,
        Node,
        QoSProfile,
        ReliabilityPolicy,
        SingleThreadedExecutor,
        init,
        message_type,
        ok,
        try_shutdown,
    )

    init(args=None)
    node = Node('handos_doctor')
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    ages_s: list[float] = []
    sizes_px: dict[str, set[tuple[int, int]]] = {name: set() for name in OURS}
    heard = dict.fromkeys(OURS, 0)
    calibrated: list[bool] = []

    def on_message(name: str, message: Any) -> None:
        heard[name] += 1
        sizes_px[name].add((message.width, message.height))
        if name == 'image':
            now_ns = node.get_clock().now().nanoseconds
            ages_s.append((now_ns - conversions.stamp_ns(message)) / 1e9)
        else:
            calibrated[:] = [bool(message.k[0] > 0)]

    sensor = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    for name, ours in OURS.items():
        callback = partial(on_message, name)
        node.create_subscription(message_type(ours.type_name), name, callback, sensor)

    def endpoints(found: list[Any]) -> tuple[Endpoint, ...]:
        return tuple(
            Endpoint(
                info.topic_type,
                info.qos_profile.reliability == ReliabilityPolicy.RELIABLE,
                info.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL,
            )
            for info in found
        )

    def topic(name: str) -> Topic:
        subscriptions = [*endpoints(node.get_subscriptions_info_by_topic(name))]
        if name in heard and OURS[name] in subscriptions:
            subscriptions.remove(OURS[name])
        return Topic(
            node.resolve_topic_name(name),
            endpoints(node.get_publishers_info_by_topic(name)),
            tuple(subscriptions),
            heard.get(name, 0),
            tuple(ages_s) if name == 'image' else (),
            frozenset(sizes_px.get(name, ())),
        )

    dropped = dropped_packets()
    try:
        end_s = time.monotonic() + seconds
        while ok() and time.monotonic() < end_s:
            executor.spin_once(timeout_sec=0.1)
        return Observed(
            seconds,
            look_at_machine(dropped_packets() - dropped),
            topic('image'),
            topic('camera_info'),
            tuple(topic(f'handos/{name}') for name in ('hands', 'markers', 'detections')),
            calibrated[0] if calibrated else None,
        )
    finally:
        executor.shutdown()
        node.destroy_node()
        try_shutdown()


def look_at_machine(packets_dropped: int) -> Machine:
    """This computer's settings, and those of the ROS 2 processes on it."""
    rmem_max = PROC / 'sys/net/core/rmem_max'
    return Machine(
        environment={name: os.environ.get(name, '') for name in SHARED_VARIABLES},
        others=other_environments(),
        domains=domains_of_ports((PROC / 'net/udp').read_text()),
        receive_buffer_bytes=int(rmem_max.read_text()) if rmem_max.exists() else BUFFER_BYTES,
        packets_dropped=packets_dropped,
    )


def other_environments() -> dict[str, dict[str, str]]:
    """Of the user's other processes that have joined a graph, the variables that must agree."""
    listeners = sockets_of_ports((PROC / 'net/udp').read_text())
    found = {}
    for folder in PROC.glob('[0-9]*'):
        if folder.name == str(os.getpid()):
            continue
        try:
            links = {str(link.readlink()) for link in (folder / 'fd').iterdir()}
            if not links & listeners:
                continue
            raw = (folder / 'environ').read_text(errors='replace')
            name = (folder / 'comm').read_text().strip()
        except OSError:  # another user's, or gone
            continue
        pairs = dict(line.split('=', 1) for line in raw.split('\0') if '=' in line)
        found[f'process {folder.name} ({name})'] = {
            variable: pairs.get(variable, '') for variable in SHARED_VARIABLES
        }
    return found


def domains_of_ports(udp: str) -> frozenset[int]:
    """The domains to which the ports in /proc/net/udp belong."""
    return frozenset((port - FIRST_PORT) // PORTS_A_DOMAIN for port, _ in _rtps_sockets(udp))


def sockets_of_ports(udp: str) -> frozenset[str]:
    """Those sockets, as the links in /proc/PID/fd name them."""
    return frozenset(f'socket:[{inode}]' for _, inode in _rtps_sockets(udp))


def _rtps_sockets(udp: str) -> list[tuple[int, str]]:
    """Port and inode of each socket that a participant would open."""
    sockets = []
    last_port = FIRST_PORT + PORTS_A_DOMAIN * (LAST_SAFE_DOMAIN + 1)
    for line in udp.splitlines()[1:]:
        fields = line.split()
        port = int(fields[1].rsplit(':', 1)[1], 16)
        if FIRST_PORT <= port < last_port:
            sockets.append((port, fields[9]))
    return sockets


def dropped_packets() -> int:
    """UDP packets that this computer has thrown away for want of a socket buffer."""
    rows = [line.split() for line in (PROC / 'net/snmp').read_text().splitlines()]
    names, values = (row for row in rows if row[0] == 'Udp:')
    return int(dict(zip(names, values, strict=True))['RcvbufErrors'])
