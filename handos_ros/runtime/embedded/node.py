"""A node under rclpy's names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from handos_ros.runtime.embedded import names
from handos_ros.runtime.embedded.clock import Clock, Timer
from handos_ros.runtime.embedded.context import Context, get_default_context
from handos_ros.runtime.embedded.endpoints import Publisher, Subscription
from handos_ros.runtime.embedded.logging import Logger
from handos_ros.runtime.embedded.parameters import Parameter, ParameterServer
from handos_ros.runtime.embedded.wire import transport
from handos_ros.runtime.embedded.wire.qos import (
    DurabilityPolicy,
    QoSOverridingOptions,
    QoSProfile,
    SubscriptionEventCallbacks,
    TopicEndpointInfo,
    override,
)

PublisherT = TypeVar('PublisherT', bound=Publisher)


class Node:
    """A node in the default context."""

    def __init__(
        self,
        node_name: str,
        *,
        context: Context | None = None,
        namespace: str | None = None,
        parameter_overrides: Sequence[Parameter] = (),
        **unused: Any,
    ) -> None:
        self.context = context or get_default_context()
        arguments = self.context.arguments
        self._name = arguments.node_name or node_name
        self._namespace = '/' + (arguments.namespace or namespace or '').strip('/')
        overrides = arguments.parameters_for(self.get_fully_qualified_name())
        overrides |= {parameter.name: parameter.value for parameter in parameter_overrides}
        self._parameters = ParameterServer(self.context.store, overrides)
        self._clock = Clock(self.context.store)
        self.publishers: list[Publisher] = []
        self.subscriptions: list[Subscription] = []
        self.timers: list[Timer] = []
        self.context.graph.add_node(self._namespace, self._name)
        log_type: Any = self.context.store.types['rcl_interfaces/msg/Log']
        latched = QoSProfile(depth=1000, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._logger = Logger(self._name, arguments.log_level)
        rosout = self.create_publisher(log_type, '/rosout', latched)

        def publish_log(level: int, text: str) -> None:
            stamp = self._clock.now().to_msg()
            rosout.publish(log_type(stamp=stamp, level=level, name=self._name, msg=text))

        self._logger = Logger(self._name, arguments.log_level, publish_log)

    def get_name(self) -> str:
        return self._name

    def get_fully_qualified_name(self) -> str:
        return f'{self._namespace.rstrip("/")}/{self._name}'

    def get_logger(self) -> Logger:
        return self._logger

    def get_clock(self) -> Clock:
        return self._clock

    def resolve_topic_name(self, topic: str) -> str:
        return names.remap(topic, self._name, self._namespace, self.context.arguments.remaps)

    def declare_parameter(self, name: str, value: Any = None, descriptor: Any = None) -> Parameter:
        return self._parameters.declare(name, value, descriptor)

    def get_parameter(self, name: str) -> Parameter:
        return self._parameters.get(name)

    def set_parameters(self, parameter_list: list[Parameter]) -> list[Any]:
        return self._parameters.set(parameter_list)

    def add_on_set_parameters_callback(self, callback: Callable[[list[Parameter]], Any]) -> None:
        self._parameters.add_on_set(callback)

    def create_publisher(
        self,
        msg_type: Any,
        topic: str,
        qos_profile: QoSProfile | int,
        *,
        qos_overriding_options: QoSOverridingOptions | None = None,
    ) -> Publisher:
        return self._add_publisher(
            Publisher, msg_type, topic, qos_profile, qos_overriding_options=qos_overriding_options
        )

    def create_subscription(
        self,
        msg_type: Any,
        topic: str,
        callback: Callable[[Any], None],
        qos_profile: QoSProfile | int,
        *,
        event_callbacks: SubscriptionEventCallbacks | None = None,
        qos_overriding_options: QoSOverridingOptions | None = None,
        raw: bool = False,
    ) -> Subscription:
        name = self.resolve_topic_name(topic)
        qos = self._overridden(name, 'subscription', qos_profile, qos_overriding_options)
        subscription = Subscription(
            self.context, msg_type, name, callback, qos, event_callbacks, raw, self._logger
        )
        self.subscriptions.append(subscription)
        self._update_graph()
        return subscription

    def create_timer(self, timer_period_sec: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(timer_period_sec, callback)
        self.timers.append(timer)
        return timer

    def destroy_publisher(self, publisher: Publisher) -> bool:
        return self._destroy(self.publishers, publisher, publisher.writer.entity)

    def destroy_subscription(self, subscription: Subscription) -> bool:
        return self._destroy(self.subscriptions, subscription, subscription.reader.entity)

    def destroy_timer(self, timer: Timer) -> bool:
        timer.cancel()
        if timer not in self.timers:
            return False
        self.timers.remove(timer)
        return True

    def get_publishers_info_by_topic(self, topic_name: str) -> list[TopicEndpointInfo]:
        return self.context.graph.publishers(f'rt{self.resolve_topic_name(topic_name)}')

    def get_subscriptions_info_by_topic(self, topic_name: str) -> list[TopicEndpointInfo]:
        return self.context.graph.subscriptions(f'rt{self.resolve_topic_name(topic_name)}')

    def destroy_node(self) -> None:
        for timer in list(self.timers):
            self.destroy_timer(timer)
        for subscription in list(self.subscriptions):
            self.destroy_subscription(subscription)
        self._logger = Logger(self._name, self.context.arguments.log_level)
        for publisher in list(self.publishers):
            self.destroy_publisher(publisher)
        self.context.graph.remove_node(self._namespace, self._name)

    def _add_publisher(
        self,
        publisher_type: type[PublisherT],
        msg_type: Any,
        topic: str,
        qos_profile: QoSProfile | int,
        *,
        qos_overriding_options: QoSOverridingOptions | None = None,
    ) -> PublisherT:
        name = self.resolve_topic_name(topic)
        qos = self._overridden(name, 'publisher', qos_profile, qos_overriding_options)
        publisher = publisher_type(self.context, msg_type, name, qos)
        self.publishers.append(publisher)
        self._update_graph()
        return publisher

    def _destroy(self, endpoints: list[Any], endpoint: Any, entity: Any) -> bool:
        if endpoint not in endpoints:
            return False
        endpoints.remove(endpoint)
        self._update_graph()
        transport.delete(entity)
        return True

    def _update_graph(self) -> None:
        self.context.graph.update(
            self._namespace,
            self._name,
            [subscription.reader.entity for subscription in self.subscriptions],
            [publisher.writer.entity for publisher in self.publishers],
        )

    def _overridden(
        self,
        topic_name: str,
        endpoint: str,
        profile: QoSProfile | int,
        options: QoSOverridingOptions | None,
    ) -> QoSProfile:
        qos = QoSProfile(depth=profile) if isinstance(profile, int) else profile
        values = []
        for kind in options.policy_kinds if options else ():
            name = f'qos_overrides.{topic_name}.{endpoint}.{kind.value}'
            current = getattr(qos, kind.value)
            default = (
                current
                if isinstance(current, int) and kind.value == 'depth'
                else current.name.lower()
            )
            if not self._parameters.has(name):
                self.declare_parameter(name, default)
            values.append((kind, self.get_parameter(name).value))
        return override(qos, values)
