"""The embedded runtime's names, gathered as `handos_ros.runtime` exports them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from handos_ros.runtime.embedded import arguments
from handos_ros.runtime.embedded.clock import Timer
from handos_ros.runtime.embedded.context import get_default_context, init, ok, try_shutdown
from handos_ros.runtime.embedded.executor import ExternalShutdownException, SingleThreadedExecutor
from handos_ros.runtime.embedded.lifecycle import (
    LifecycleNode,
    LifecycleState,
    TransitionCallbackReturn,
)
from handos_ros.runtime.embedded.node import Node, Publisher, Subscription
from handos_ros.runtime.embedded.parameters import (
    InvalidParameterTypeException,
    InvalidParameterValueException,
    Parameter,
)
from handos_ros.runtime.embedded.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    QoSOverridingOptions,
    QoSProfile,
    ReliabilityPolicy,
    SubscriptionEventCallbacks,
)

__all__ = [
    'DurabilityPolicy',
    'ExternalShutdownException',
    'HistoryPolicy',
    'InvalidParameterTypeException',
    'InvalidParameterValueException',
    'LifecycleNode',
    'LifecycleState',
    'Node',
    'Parameter',
    'Publisher',
    'QoSOverridingOptions',
    'QoSProfile',
    'ReliabilityPolicy',
    'SingleThreadedExecutor',
    'Subscription',
    'SubscriptionEventCallbacks',
    'Timer',
    'TransitionCallbackReturn',
    'init',
    'message_type',
    'ok',
    'remove_ros_args',
    'try_shutdown',
]


def message_type(name: str) -> Any:
    """The class of `package/msg/Name`. Raises KeyError where no definition of it is known."""
    return get_default_context().store.types[name]


def remove_ros_args(args: Sequence[str]) -> list[str]:
    """What is left of a command line without ROS's arguments."""
    return arguments.parse(args).rest
