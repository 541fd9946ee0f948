"""The embedded runtime's names, gathered as `handos_ros.runtime` exports them."""

from __future__ import annotations

from typing import Any

from handos_ros.runtime.embedded.context import get_default_context, init, ok, try_shutdown
from handos_ros.runtime.embedded.executor import ExternalShutdownException, SingleThreadedExecutor
from handos_ros.runtime.embedded.lifecycle import (
    LifecycleNode,
    LifecycleState,
    TransitionCallbackReturn,
)
from handos_ros.runtime.embedded.node import Node
from handos_ros.runtime.embedded.parameters import (
    InvalidParameterTypeException,
    InvalidParameterValueException,
    Parameter,
)
from handos_ros.runtime.embedded.wire.qos import (
    DurabilityPolicy,
    QoSOverridingOptions,
    QoSProfile,
    ReliabilityPolicy,
    SubscriptionEventCallbacks,
)

__all__ = [
    'DurabilityPolicy',
    'ExternalShutdownException',
    'InvalidParameterTypeException',
    'InvalidParameterValueException',
    'LifecycleNode',
    'LifecycleState',
    'Node',
    'Parameter',
    'QoSOverridingOptions',
    'QoSProfile',
    'ReliabilityPolicy',
    'SingleThreadedExecutor',
    'SubscriptionEventCallbacks',
    'TransitionCallbackReturn',
    'init',
    'message_type',
    'ok',
    'try_shutdown',
]


def message_type(name: str) -> Any:
    """The class of `package/msg/Name`. Raises KeyError where no definition of it is known."""
    return get_default_context().store.types[name]
