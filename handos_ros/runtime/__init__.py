"""ROS 2 for the node: rclpy where it is importable, else the embedded runtime.

Everything has rclpy's name and semantics. HANDOS_RUNTIME=rclpy or embedded forces one of them.
The runtime is imported with the first name that is taken from here, so that recordings can be
read where neither is installed.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from typing import TYPE_CHECKING, Any

from handos_model.errors import UserError

if TYPE_CHECKING:  # the embedded runtime's types stand for both
    from handos_ros.runtime.embedded.api import (
        DurabilityPolicy,
        ExternalShutdownException,
        InvalidParameterTypeException,
        InvalidParameterValueException,
        LifecycleNode,
        LifecycleState,
        Node,
        Parameter,
        QoSOverridingOptions,
        QoSProfile,
        ReliabilityPolicy,
        SingleThreadedExecutor,
        SubscriptionEventCallbacks,
        TransitionCallbackReturn,
        init,
        message_type,
        ok,
        try_shutdown,
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

IMPLEMENTATIONS = {
    'rclpy': 'handos_ros.runtime.genuine',
    'embedded': 'handos_ros.runtime.embedded.api',
}
REMEDIES = {
    'rclpy': 'source a ROS 2 installation, or unset HANDOS_RUNTIME to run without one',
    'embedded': (
        "source a ROS 2 installation, or pip install 'handos-ros[ros-free]' to run without one"
    ),
}


def chosen_runtime() -> str:
    """'rclpy' or 'embedded'. Raises UserError for another value of HANDOS_RUNTIME."""
    wanted = os.environ.get('HANDOS_RUNTIME', '')
    if wanted not in ('', *IMPLEMENTATIONS):
        raise UserError(f'HANDOS_RUNTIME is {wanted!r}; it can be rclpy or embedded')
    return wanted or ('rclpy' if importlib.util.find_spec('rclpy') else 'embedded')


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f'{__name__} has no {name}')
    runtime = chosen_runtime()
    try:
        implementation = importlib.import_module(IMPLEMENTATIONS[runtime])
    except ModuleNotFoundError as error:
        raise UserError(f'{error.name} is not installed: {REMEDIES[runtime]}') from error
    return getattr(implementation, name)
