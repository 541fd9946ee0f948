"""How nodes become visible: the topic ros_discovery_info tells which endpoints are whose."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from cyclonedds.builtin import (
    BuiltinDataReader,
    BuiltinTopicDcpsPublication,
    BuiltinTopicDcpsSubscription,
)
from cyclonedds.core import Entity
from cyclonedds.idl import IdlStruct
from cyclonedds.topic import Topic
from rosbags.typesys.store import Typestore

from handos_ros.runtime.embedded.wire import cdr, transport
from handos_ros.runtime.embedded.wire.dds_types import ros_type_name
from handos_ros.runtime.embedded.wire.qos import DurabilityPolicy, QoSProfile, TopicEndpointInfo

MOST_ENDPOINTS = 2000  # read from discovery at once


class Graph:
    """This participant's entry in the graph, and what is known of the others' endpoints."""

    def __init__(
        self, participant: Any, store: Typestore, topic: Callable[[str, str], Topic[IdlStruct]]
    ) -> None:
        self._participant = participant
        self._store = store
        self._lock = threading.Lock()
        self._nodes: dict[tuple[str, str], tuple[list[bytes], list[bytes]]] = {}
        types: Any = store.types
        self._info_type = types['rmw_dds_common/msg/ParticipantEntitiesInfo']
        self._node_type = types['rmw_dds_common/msg/NodeEntitiesInfo']
        self._gid_type = types['rmw_dds_common/msg/Gid']
        self._gid_bytes = len(self._gid_type().data)  # 24 in Humble, 16 since Iron
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._writer = transport.RawWriter(
            participant,
            topic('ros_discovery_info', self._info_type.__msgtype__),
            latched.to_dds(),
        )

    def add_node(self, namespace: str, name: str) -> None:
        with self._lock:
            self._nodes[namespace, name] = ([], [])
            self._publish()

    def remove_node(self, namespace: str, name: str) -> None:
        with self._lock:
            self._nodes.pop((namespace, name), None)
            self._publish()

    def update(
        self, namespace: str, name: str, readers: list[Entity], writers: list[Entity]
    ) -> None:
        """Tell which readers and writers belong to the node now."""
        with self._lock:
            self._nodes[namespace, name] = (
                [reader.guid.bytes for reader in readers],
                [writer.guid.bytes for writer in writers],
            )
            self._publish()

    def publishers(self, dds_topic_name: str) -> list[TopicEndpointInfo]:
        """Writers of a topic, anywhere in the domain."""
        return self._endpoints(BuiltinTopicDcpsPublication, dds_topic_name)

    def subscriptions(self, dds_topic_name: str) -> list[TopicEndpointInfo]:
        """Readers of a topic, anywhere in the domain."""
        return self._endpoints(BuiltinTopicDcpsSubscription, dds_topic_name)

    def close(self) -> None:
        transport.delete(self._writer.entity)

    def _gid(self, guid: bytes) -> Any:
        data = np.zeros(self._gid_bytes, np.uint8)
        data[: len(guid)] = np.frombuffer(guid, np.uint8)
        return self._gid_type(data=data)

    def _publish(self) -> None:
        nodes = [
            self._node_type(
                node_namespace=namespace,
                node_name=name,
                reader_gid_seq=[self._gid(guid) for guid in readers],
                writer_gid_seq=[self._gid(guid) for guid in writers],
            )
            for (namespace, name), (readers, writers) in self._nodes.items()
        ]
        participant = self._gid(self._participant.guid.bytes)
        message = self._info_type(gid=participant, node_entities_info_seq=nodes)
        self._writer.write(cdr.serialize(self._store, message))

    def _endpoints(self, builtin_topic: Any, dds_topic_name: str) -> list[TopicEndpointInfo]:
        """Endpoints that are there now; a reader kept for long would keep those that are gone."""
        reader = BuiltinDataReader(self._participant, builtin_topic)
        try:
            return [
                TopicEndpointInfo(
                    topic_type=ros_type_name(endpoint.type_name),
                    qos_profile=QoSProfile.from_dds(endpoint.qos),
                    endpoint_gid=list(endpoint.key.bytes),
                )
                for endpoint in reader.read(MOST_ENDPOINTS)
                if getattr(endpoint, 'topic_name', None) == dds_topic_name
            ]
        finally:
            transport.delete(reader)
