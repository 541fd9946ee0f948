"""rclpy's own names, gathered from its modules; `handos_ros.runtime` lists them."""

# ruff: noqa: F401

from __future__ import annotations

import importlib
from typing import Any

from rclpy import init, ok, try_shutdown
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ModuleNotFoundError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks


def message_type(name: str) -> Any:
    """The class of `package/msg/Name`. Raises ModuleNotFoundError where the package is missing."""
    package, kind, class_name = name.split('/')
    return getattr(importlib.import_module(f'{package}.{kind}'), class_name)
