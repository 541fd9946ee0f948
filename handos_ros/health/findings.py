"""What is wrong with a graph and what to do about it: pure functions of what was observed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

MOST_DOMAIN = 232  # above it the UDP ports of RTPS run out
LAST_SAFE_DOMAIN = 101  # above it they fall among those that Linux hands out itself
BUFFER_BYTES = 4 * 1024 * 1024  # holds the packets of one large image
TOO_FAR_AHEAD_S = 0.1
TOO_OLD_S = 5.0
SHARED_VARIABLES = (
    'RMW_IMPLEMENTATION',
    'ROS_DOMAIN_ID',
    'ROS_LOCALHOST_ONLY',
    'ROS_AUTOMATIC_DISCOVERY_RANGE',
)
ALIKE = {'ROS_DOMAIN_ID': ('', '0'), 'ROS_LOCALHOST_ONLY': ('', '0')}  # unset means the last


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, and its cure."""

    what: str
    cure: str


@dataclass(frozen=True)
class Endpoint:
    """A publisher or subscription of a topic."""

    type_name: str
    reliable: bool
    latched: bool  # transient local


@dataclass(frozen=True)
class Topic:
    """A topic as it was found, and what was heard of it."""

    name: str
    publishers: tuple[Endpoint, ...] = ()
    subscriptions: tuple[Endpoint, ...] = ()
    heard: int = 0
    ages_s: tuple[float, ...] = ()  # arrival minus stamp
    sizes_px: frozenset[tuple[int, int]] = frozenset()  # width, height


@dataclass(frozen=True)
class Machine:
    """Of this computer, what decides whether large messages arrive."""

    environment: dict[str, str]  # of this process, SHARED_VARIABLES alone
    others: dict[str, dict[str, str]] = field(default_factory=dict)  # process -> the same of it
    domains: frozenset[int] = frozenset()  # in which somebody on this computer listens
    receive_buffer_bytes: int = BUFFER_BYTES
    packets_dropped: int = 0  # for want of a buffer, while the graph was observed


@dataclass(frozen=True)
class Observed:
    """Everything that was looked at for some seconds."""

    seconds: float
    machine: Machine
    image: Topic
    camera_info: Topic
    outputs: tuple[Topic, ...] = ()
    calibrated: bool | None = None  # whether K is set; None where no camera_info was heard


def find_mistakes(observed: Observed) -> list[Finding]:
    """All that is wrong, the causes before their effects."""
    return [
        *domain_mistakes(observed),
        *environment_mistakes(observed.machine),
        *buffer_mistakes(observed.machine),
        *image_mistakes(observed),
        *camera_info_mistakes(observed),
        *clock_mistakes(observed.image),
        *qos_mistakes((observed.image, observed.camera_info, *observed.outputs)),
    ]


def domain_mistakes(observed: Observed) -> Iterator[Finding]:
    machine = observed.machine
    text = machine.environment.get('ROS_DOMAIN_ID', '') or '0'
    if not text.isdecimal() or int(text) > MOST_DOMAIN:
        yield Finding(
            f'ROS_DOMAIN_ID is {text!r}', f'export a number from 0 to {LAST_SAFE_DOMAIN}'
        )
        return
    if int(text) > LAST_SAFE_DOMAIN:
        yield Finding(
            f'ROS_DOMAIN_ID is {text}: its ports are among those that Linux gives to any program',
            f'take one from 0 to {LAST_SAFE_DOMAIN}',
        )
    elsewhere = sorted(machine.domains - {int(text)})
    if elsewhere and not observed.image.publishers:
        listed = ', '.join(map(str, elsewhere))
        yield Finding(
            f'nobody publishes {observed.image.name} in domain {text}, but on this computer '
            f'somebody is in domain {listed}',
            f'export ROS_DOMAIN_ID={elsewhere[0]} here, or {text} there',
        )


def environment_mistakes(machine: Machine) -> Iterator[Finding]:
    for process, environment in sorted(machine.others.items()):
        for name in SHARED_VARIABLES:
            theirs, ours = environment.get(name, ''), machine.environment.get(name, '')
            alike = ALIKE.get(name, ())
            if theirs == ours or (theirs in alike and ours in alike):
                continue
            yield Finding(
                f'{process} has {name}={theirs or "(unset)"}, here it is {ours or "(unset)"}',
                f'export the same {name} in both',
            )


def buffer_mistakes(machine: Machine) -> Iterator[Finding]:
    if machine.receive_buffer_bytes < BUFFER_BYTES:
        yield Finding(
            f'the kernel allows sockets {machine.receive_buffer_bytes // 1024} KiB: '
            'large images lose packets',
            f'sudo sysctl -w net.core.rmem_max={2 * BUFFER_BYTES} (docs/tuning.md)',
        )
    if machine.packets_dropped:
        yield Finding(
            f'{machine.packets_dropped} packets were thrown away for want of a buffer meanwhile',
            'enlarge the buffers of whoever receives, or give it a core (docs/tuning.md)',
        )


def image_mistakes(observed: Observed) -> Iterator[Finding]:
    image = observed.image
    types = sorted({endpoint.type_name for endpoint in image.publishers})
    if not image.publishers:
        yield Finding(
            f'nobody publishes {image.name}',
            'start the camera, or name its topic: --ros-args -r image:=/camera/image_raw',
        )
    elif types != ['sensor_msgs/msg/Image']:
        yield Finding(
            f'{image.name} carries {", ".join(types)}, not sensor_msgs/msg/Image',
            'remap image to another topic, or set image_transport:=compressed for the node',
        )
    elif len(image.publishers) > 1:
        yield Finding(
            f'{len(image.publishers)} publishers send {image.name}', 'remap all but one away'
        )
    elif not image.heard:
        yield Finding(
            f'{image.name} has a publisher, but nothing of it arrived in {observed.seconds:.0f} s',
            'is the camera streaming? If ros2 topic hz hears it: larger buffers (docs/tuning.md)',
        )


def camera_info_mistakes(observed: Observed) -> Iterator[Finding]:
    info, image = observed.camera_info, observed.image
    if not image.publishers:
        return
    if not info.publishers:
        yield Finding(
            f'nobody publishes {info.name}: distances will be guesses',
            'let the driver publish it, or remap camera_info to where it does',
        )
    elif not info.heard:
        yield Finding(
            f'{info.name} has a publisher, but nothing of it arrived in {observed.seconds:.0f} s',
            'it must be sent with every image',
        )
    elif observed.calibrated is False:
        yield Finding(
            f'{info.name} is not calibrated: its K is zero', 'calibrate it: docs/calibration.md'
        )
    elif image.sizes_px and info.sizes_px and image.sizes_px != info.sizes_px:
        ours, theirs = (_sizes(topic.sizes_px) for topic in (image, info))
        yield Finding(
            f'{info.name} is for {theirs}, but images are {ours}',
            'calibrate at the size in use, or remap camera_info to that of this image',
        )


def clock_mistakes(image: Topic) -> Iterator[Finding]:
    if not image.ages_s:
        return
    age_s = sorted(image.ages_s)[len(image.ages_s) // 2]
    if age_s < -TOO_FAR_AHEAD_S:
        yield Finding(
            f"the camera's clock is {-age_s:.1f} s ahead of this computer's",
            'synchronise them (chrony), or set use_sim_time with recorded data',
        )
    elif age_s > TOO_OLD_S:
        yield Finding(
            f'images are {age_s:.1f} s old when they come',
            'synchronise the clocks (chrony); recorded data needs use_sim_time and '
            'ros2 bag play --clock',
        )


def qos_mistakes(topics: Iterable[Topic]) -> Iterator[Finding]:
    for topic in topics:
        if any(
            s.reliable and not p.reliable for p in topic.publishers for s in topic.subscriptions
        ):
            yield Finding(
                f'{topic.name}: a subscription wants reliable, a publisher offers best effort: '
                'they do not match',
                'subscribe best effort (--qos-reliability best_effort), or publish reliable: '
                f'qos_overrides.{topic.name}.publisher.reliability',
            )
        if any(s.latched and not p.latched for p in topic.publishers for s in topic.subscriptions):
            yield Finding(
                f'{topic.name}: a subscription wants transient local, a publisher is volatile: '
                'they do not match',
                'subscribe volatile (--qos-durability volatile)',
            )


def _sizes(sizes_px: frozenset[tuple[int, int]]) -> str:
    return ' and '.join(f'{width}x{height}' for width, height in sorted(sizes_px))
