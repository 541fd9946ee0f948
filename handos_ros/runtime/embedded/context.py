"""What the nodes of a process share: the DDS participant, the message types, the arguments."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType
from typing import Any

from cyclonedds.core import Policy, Qos
from cyclonedds.idl import IdlStruct
from cyclonedds.topic import Topic

from handos_ros.runtime.embedded import arguments
from handos_ros.runtime.embedded.wire import transport
from handos_ros.runtime.embedded.wire.dds_types import DdsTypes
from handos_ros.runtime.embedded.wire.graph import Graph
from handos_ros.runtime.embedded.wire.messages import build_typestore


class Context:
    """One participant and its topics; `init` makes the process's default one."""

    def __init__(self) -> None:
        self.arguments = arguments.RosArguments()
        self.store = build_typestore()
        self._types = DdsTypes(self.store)
        self._topics: dict[str, tuple[str, Topic[IdlStruct]]] = {}
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self.participant: Any = None

    def init(self, args: Sequence[str] | None = None, domain_id: int | None = None) -> None:
        """Join the domain of ROS_DOMAIN_ID with the process's arguments."""
        self.arguments = arguments.parse(sys.argv[1:] if args is None else args)
        domain = int(os.environ.get('ROS_DOMAIN_ID', 0)) if domain_id is None else domain_id
        self.participant = transport.create_participant(
            domain, Qos(Policy.Userdata(b'enclave=/;'))
        )
        self._stopped.clear()
        self.graph = Graph(self.participant, self.store, self.topic)

    def topic(self, dds_name: str, type_name: str) -> Topic[IdlStruct]:
        """The topic of that name on the wire; one a name, made once.

        Raises TypeError where this process uses the name with another type.
        """
        with self._lock:
            if dds_name not in self._topics:
                topic = Topic(self.participant, dds_name, self._types[type_name])
                self._topics[dds_name] = (type_name, topic)
            known_type, topic = self._topics[dds_name]
        if known_type != type_name:
            raise TypeError(f'{dds_name} carries {known_type} here, not {type_name}')
        return topic

    def ok(self) -> bool:
        return self.participant is not None and not self._stopped.is_set()

    def stop(self) -> None:
        """Ask every executor to return; safe in a signal handler."""
        self._stopped.set()

    def shutdown(self) -> None:
        """Leave the domain; readers and writers end with the participant."""
        self._stopped.set()
        if self.participant is not None:
            self.graph.close()
            self._topics.clear()
            domain = self.participant.handos_domain
            transport.delete(self.participant)
            self.participant = None
            if domain is not None:
                transport.delete(domain)


_default = Context()
_handlers_before: dict[int, Any] = {}  # signal -> what was done about it before `init`


def get_default_context() -> Context:
    return _default


def init(*, args: Sequence[str] | None = None, domain_id: int | None = None) -> None:
    """Start the default context; SIGINT and SIGTERM make `spin` return."""
    _default.init(args, domain_id)
    if threading.current_thread() is threading.main_thread():

        def on_signal(number: int, frame: FrameType | None) -> None:
            _default.stop()

        for number in (signal.SIGINT, signal.SIGTERM):
            before = signal.signal(number, on_signal)
            _handlers_before.setdefault(number, before)


def ok() -> bool:
    return _default.ok()


def try_shutdown() -> None:
    """Shut the default context down unless that is done already."""
    if _default.participant is not None:
        _default.shutdown()
    if threading.current_thread() is threading.main_thread():
        while _handlers_before:
            number, before = _handlers_before.popitem()
            signal.signal(number, before or signal.SIG_DFL)
