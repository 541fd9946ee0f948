"""ROS 2 for the node: rclpy where it is importable, else the embedded runtime.

Everything has rclpy's name and semantics. HANDOS_RUNTIME=rclpy or embedded forces one of them.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from typing import TYPE_CHECKING

from handos_model.errors import UserError


def chosen_runtime() -> str:
    """'rclpy' or 'embedded'. Raises UserError for another value of HANDOS_RUNTIME."""
    wanted = os.environ.get('HANDOS_RUNTIME', '')
    if wanted not in ('', 'rclpy', 'embedded'):
        raise UserError(f'HANDOS_RUNTIME is {wanted!r}; it can be rclpy or embedded')
    return wanted or ('rclpy' if importlib.util.find_spec('rclpy') else 'embedded')


RUNTIME = chosen_runtime()

if TYPE_CHECKING or RUNTIME == 'embedded':
    try:
        from handos_ros.runtime.embedded.api import (
            DurabilityPolicy,
            ExternalShutdownException,
            HistoryPolicy,
            InvalidParameterTypeException,
            InvalidParameterValueException,
            LifecycleNode,
            LifecycleState,
            Node,
            Parameter,
            Publisher,
            QoSOverridingOptions,
            QoSProfile,
            ReliabilityPolicy,
            SingleThreadedExecutor,
            Subscription,
            SubscriptionEventCallbacks,
            Timer,
            TransitionCallbackReturn,
            init,
            message_type,
            ok,
            remove_ros_args,
            try_shutdown,
        )
    except ModuleNotFoundError as error:
        raise UserError(
            f'neither rclpy nor {error.name} is installed: source a ROS 2 installation, or '
            "pip install 'handos-ros[ros-free]' to run without one"
        ) from error
else:
    try:
        importlib.import_module('rclpy')
    except ModuleNotFoundError as error:
        raise UserError(
            'HANDOS_RUNTIME is rclpy, which is not installed: source a ROS 2 installation, or '
            'unset HANDOS_RUNTIME'
        ) from error
    from handos_ros.runtime.genuine import (
        DurabilityPolicy,
        ExternalShutdownException,
        HistoryPolicy,
        InvalidParameterTypeException,
        InvalidParameterValueException,
        LifecycleNode,
        LifecycleState,
        Node,
        Parameter,
        Publisher,
        QoSOverridingOptions,
        QoSProfile,
        ReliabilityPolicy,
        SingleThreadedExecutor,
        Subscription,
        SubscriptionEventCallbacks,
        Timer,
        TransitionCallbackReturn,
        init,
        message_type,
        ok,
        remove_ros_args,
        try_shutdown,
    )

__all__ = [
    'RUNTIME',
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
