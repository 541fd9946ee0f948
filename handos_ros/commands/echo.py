"""`handos echo`: a readable line for every frame."""

from __future__ import annotations

from collections import deque
from typing import Annotated, Any

import typer

SIDES = ('left', 'right')
STATES = ('', ' coasting', ' lost')
SCALES = ('network', 'intrinsics', 'depth', 'calibrated')


def echo(
    topic: Annotated[str, typer.Argument(help='Topic of HandMeshArray.')] = '/handos/hands',
    count: Annotated[int, typer.Option(help='Stop after so many frames; 0 never stops.')] = 0,
) -> None:
    """Print the hands of every frame: side, id, score, and the middle knuckle's position."""
    from handos_ros.runtime import Node, QoSProfile, init, message_type, ok
    from handos_ros.runtime.serving import serving

    init(args=None)
    node = Node('handos_echo')
    stamps_s: deque[float] = deque(maxlen=30)
    printed = 0

    def on_hands(message: Any) -> None:
        nonlocal printed
        stamps_s.append(message.header.stamp.sec + message.header.stamp.nanosec / 1e9)
        now_s = node.get_clock().now().nanoseconds / 1e9
        print(describe(message, rate_hz(stamps_s), now_s - stamps_s[-1]), flush=True)
        printed += 1

    node.create_subscription(
        message_type('handos/msg/HandMeshArray'), topic, on_hands, QoSProfile(depth=10)
    )
    with serving(node) as executor:
        while ok() and (count == 0 or printed < count):
            executor.spin_once(timeout_sec=1.0)


def describe(message: Any, frames_hz: float, age_s: float) -> str:
    """One line for a HandMeshArray."""
    stamp = f'{message.header.stamp.sec}.{message.header.stamp.nanosec:09d}'
    line = f'{stamp} {message.header.frame_id} {frames_hz:5.1f} Hz, {age_s * 1e3:6.1f} ms old: '
    hands = [_describe_hand(hand) for hand in message.hands]
    return line + ('; '.join(hands) if hands else 'no hands')


def rate_hz(stamps_s: deque[float]) -> float:
    """Frames a second of the stamps; 0 where they do not tell."""
    span_s = stamps_s[-1] - stamps_s[0] if len(stamps_s) > 1 else 0.0
    return (len(stamps_s) - 1) / span_s if span_s > 0 else 0.0


def _describe_hand(hand: Any) -> str:
    x, y, z = hand.translation_m.x, hand.translation_m.y, hand.translation_m.z
    return (
        f'{SIDES[hand.side]} #{hand.id}{STATES[hand.state]} {hand.score:.2f} '
        f'({x:+.3f}, {y:+.3f}, {z:+.3f}) m by {SCALES[hand.scale_source]}'
    )
