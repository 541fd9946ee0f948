"""QoS under rclpy's names, and what it is in DDS."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from enum import Enum, IntEnum
from typing import Any

from cyclonedds.core import Policy, Qos
from cyclonedds.util import duration


class HistoryPolicy(IntEnum):
    SYSTEM_DEFAULT = 0
    KEEP_LAST = 1
    KEEP_ALL = 2
    UNKNOWN = 3


class ReliabilityPolicy(IntEnum):
    SYSTEM_DEFAULT = 0
    RELIABLE = 1
    BEST_EFFORT = 2
    UNKNOWN = 3


class DurabilityPolicy(IntEnum):
    SYSTEM_DEFAULT = 0
    TRANSIENT_LOCAL = 1
    VOLATILE = 2
    UNKNOWN = 3


@dataclass(frozen=True)
class QoSProfile:
    """The policies that the node sets; everything else is DDS's default."""

    depth: int
    history: HistoryPolicy = HistoryPolicy.KEEP_LAST
    reliability: ReliabilityPolicy = ReliabilityPolicy.RELIABLE
    durability: DurabilityPolicy = DurabilityPolicy.VOLATILE

    def to_dds(self, user_data: bytes = b'') -> Qos:
        """For a reader or writer; plain CDR is pinned because ROS 2 speaks nothing else."""
        reliable = self.reliability != ReliabilityPolicy.BEST_EFFORT
        latched = self.durability == DurabilityPolicy.TRANSIENT_LOCAL
        history: Any = (
            Policy.History.KeepAll
            if self.history == HistoryPolicy.KEEP_ALL
            else Policy.History.KeepLast(max(1, self.depth))
        )
        policies = [
            history,
            Policy.Reliability.Reliable(duration(milliseconds=100))
            if reliable
            else Policy.Reliability.BestEffort,
            Policy.Durability.TransientLocal if latched else Policy.Durability.Volatile,
            Policy.DataRepresentation(use_cdrv0_representation=True),
        ]
        if latched:
            policies.append(Policy.DurabilityService(0, history, -1, -1, -1))
        if user_data:
            policies.append(Policy.Userdata(user_data))
        return Qos(*policies)

    @classmethod
    def from_dds(cls, qos: Qos) -> QoSProfile:
        """The profile of an endpoint that was discovered."""
        reliable = isinstance(qos[Policy.Reliability], Policy.Reliability.Reliable)
        latched = qos[Policy.Durability] == Policy.Durability.TransientLocal
        return cls(
            history=HistoryPolicy.UNKNOWN,  # not part of what DDS discovers
            depth=0,
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
            durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
        )


class QoSPolicyKind(Enum):
    """Policies that parameters may override."""

    HISTORY = 'history'
    DEPTH = 'depth'
    RELIABILITY = 'reliability'
    DURABILITY = 'durability'


@dataclass(frozen=True)
class QoSOverridingOptions:
    """Which policies the user may set, as `qos_overrides.<topic>.<kind>.<policy>`."""

    policy_kinds: tuple[QoSPolicyKind, ...] = ()

    @classmethod
    def with_default_policies(cls) -> QoSOverridingOptions:
        kinds = (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY)
        return cls(kinds)


def override(profile: QoSProfile, values: Iterable[tuple[QoSPolicyKind, Any]]) -> QoSProfile:
    """The profile with the parameters' values, which are ROS 2's lower-case names or a depth."""
    enums: dict[QoSPolicyKind, type[IntEnum]] = {
        QoSPolicyKind.HISTORY: HistoryPolicy,
        QoSPolicyKind.RELIABILITY: ReliabilityPolicy,
        QoSPolicyKind.DURABILITY: DurabilityPolicy,
    }
    for kind, value in values:
        try:
            parsed = int(value) if kind == QoSPolicyKind.DEPTH else enums[kind][str(value).upper()]
        except KeyError:
            raise RuntimeError(
                f'Unexpected QoS override for policy `{kind.value}`: `{value}`'
            ) from None
        changed: dict[str, Any] = {kind.value: parsed}
        profile = replace(profile, **changed)
    return profile


@dataclass(frozen=True)
class QoSRequestedIncompatibleQoSInfo:
    """What the incompatible_qos event tells: how many publishers did not match, and why last."""

    total_count: int
    total_count_change: int
    last_policy_kind: int


@dataclass(frozen=True)
class QoSMessageLostInfo:
    """What the message_lost event tells."""

    total_count: int
    total_count_change: int


@dataclass(frozen=True)
class SubscriptionEventCallbacks:
    """Events of a subscription; only those that the node uses."""

    incompatible_qos: Callable[[QoSRequestedIncompatibleQoSInfo], None] | None = None
    message_lost: Callable[[QoSMessageLostInfo], None] | None = None


@dataclass(frozen=True)
class TopicEndpointInfo:
    """A publisher or subscription somewhere in the graph."""

    topic_type: str
    qos_profile: QoSProfile
    endpoint_gid: list[int] = field(default_factory=list)
