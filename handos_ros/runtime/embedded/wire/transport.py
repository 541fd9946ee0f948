"""Raw CDR bytes through Cyclone DDS: one participant, writers and readers of ready-made bytes."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

import numpy as np
from cyclonedds import _clayer
from cyclonedds.core import DDSException, DDSStatus, Entity, Qos
from cyclonedds.domain import Domain, DomainParticipant
from cyclonedds.idl import IdlStruct
from cyclonedds.internal import DDS, dds_c_t
from cyclonedds.pub import DataWriter
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic

ANY_SAMPLE = 0x7F  # every sample, view and instance state
SOCKET_BUFFER_BYTES = 4 * 1024 * 1024


def cyclonedds_config() -> str:
    """Settings that let large images through, then localhost-only discovery, then the user's own.

    Cyclone's defaults lose images above 640x480 on the loopback. Of the comma-separated fragments
    a later one wins, so whatever CYCLONEDDS_URI sets is kept.
    """
    rmem_max = Path('/proc/sys/net/core/rmem_max')
    allowed = int(rmem_max.read_text()) if rmem_max.exists() else 0
    bound = 'min' if allowed >= SOCKET_BUFFER_BYTES else 'max'  # an unreachable min is fatal
    fragments = [
        '<CycloneDDS><Domain>'
        '<General><MaxMessageSize>65500B</MaxMessageSize><FragmentSize>64000B</FragmentSize>'
        '</General>'
        f'<Internal><SocketReceiveBufferSize {bound}="{SOCKET_BUFFER_BYTES}B"/></Internal>'
        '</Domain></CycloneDDS>'
    ]
    discovery = os.environ.get('ROS_AUTOMATIC_DISCOVERY_RANGE', '').upper()
    if os.environ.get('ROS_LOCALHOST_ONLY') == '1' or discovery == 'LOCALHOST':
        fragments.append(
            '<CycloneDDS><Domain>'
            '<General><Interfaces><NetworkInterface address="127.0.0.1"/></Interfaces>'
            '<AllowMulticast>false</AllowMulticast></General>'
            '<Discovery><ParticipantIndex>auto</ParticipantIndex>'
            '<MaxAutoParticipantIndex>32</MaxAutoParticipantIndex>'
            '<Peers><Peer address="127.0.0.1"/></Peers></Discovery>'
            '</Domain></CycloneDDS>'
        )
    user = os.environ.get('CYCLONEDDS_URI', '').strip()
    return ','.join([*fragments, user] if user else fragments)


def create_participant(domain_id: int, user_data: Qos) -> DomainParticipant:
    """A participant in the domain; the domain is configured by the process's first one."""
    try:
        domain = Domain(domain_id, cyclonedds_config())
    except DDSException as error:
        if error.code != DDSException.DDS_RETCODE_PRECONDITION_NOT_MET:  # it exists already
            raise
        domain = None
    participant = DomainParticipant(domain_id, user_data)
    participant.handos_domain = domain  # lives as long as the participant does
    return participant


def delete(entity: Entity) -> None:
    """Delete an entity, and with it its conditions, now rather than when Python collects it."""
    Entity._entities.pop(entity._ref, None)  # else its finaliser would delete the number again
    entity._delete(entity._ref)
    entity._ref = -1


class RawWriter:
    """Writes CDR bytes. With KEEP_LAST it never waits for a slow reader."""

    def __init__(self, participant: DomainParticipant, topic: Topic[IdlStruct], qos: Qos) -> None:
        self.entity = DataWriter(participant, topic, qos)
        self._write = DDS._dll_handle.dds_write
        self._write.argtypes = [ctypes.c_int32, ctypes.c_void_p]
        self._write.restype = ctypes.c_int32

    def write(self, raw: bytes | bytearray | memoryview) -> None:
        """Send one message; called through ctypes, which releases the GIL, as _clayer does not."""
        buffer = np.frombuffer(raw, np.uint8)
        if len(buffer) % 4:
            buffer = np.pad(buffer, (0, -len(buffer) % 4))
        sample = _Sample(buffer.ctypes.data, len(buffer))
        code = self._write(self.entity._ref, ctypes.byref(sample))
        if code < 0:
            raise DDSException(code, 'could not write')

    def matched(self) -> int:
        """How many readers receive what is written."""
        status = dds_c_t.publication_matched_status()
        code = DDS._dll_handle.dds_get_publication_matched_status(
            self.entity._ref, ctypes.byref(status)
        )
        if code < 0:
            raise DDSException(code, 'could not count readers')
        return int(status.current_count)


class RawReader:
    """Takes CDR bytes that have arrived."""

    def __init__(self, participant: DomainParticipant, topic: Topic[IdlStruct], qos: Qos) -> None:
        self.entity = DataReader(participant, topic, qos)
        self.entity.set_status_mask(DDSStatus.SampleLost | DDSStatus.RequestedIncompatibleQos)

    def take(self, at_most: int) -> list[bytes]:
        """Messages that have arrived, oldest first."""
        samples = _clayer.ddspy_take(self.entity._ref, ANY_SAMPLE, at_most)
        if isinstance(samples, int):
            raise DDSException(samples, 'could not take')
        return [raw for raw, info in samples if info.valid_data]

    def incompatible_qos(self) -> Any:
        """The status of publishers that did not match; reading it clears its change count."""
        return self.entity.get_requested_incompatible_qos_status()

    def samples_lost(self) -> Any:
        """The status of messages that never arrived; reading it clears its change count."""
        return self.entity.get_sample_lost_status()


class _Sample(ctypes.Structure):
    _fields_ = (('data', ctypes.c_void_p), ('size', ctypes.c_size_t))
