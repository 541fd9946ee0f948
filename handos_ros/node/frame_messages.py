"""What the hands of a frame are on each output, for a topic as for a recording."""

from __future__ import annotations

from typing import Any

from handos_model.draw import draw_hands
from handos_ros.messages import conversions
from handos_ros.messages.markers import HandMarkers
from handos_ros.node.perception import Perception
from handos_ros.node.processing import Result


class FrameMessages:
    """Builds messages of the classes that `types` gives by name."""

    def __init__(self, types: conversions.MessageTypes, marker_lifetime_s: float) -> None:
        self._types = types
        self._marker_lifetime_s = marker_lifetime_s
        self._markers: HandMarkers | None = None

    def topology(self, perception: Perception) -> Any:
        return conversions.topology_to_message(
            self._types,
            perception.triangles,
            model=perception.model,
            template_hash=perception.template_hash,
        )

    def hands(
        self, result: Result, perception: Perception, *, with_vertices: bool, with_theta: bool
    ) -> Any:
        return conversions.hands_to_message(
            self._types,
            result.header,
            result.hands,
            model=perception.model,
            template_hash=perception.template_hash,
            with_vertices=with_vertices,
            thetas=[perception.theta(hand) for hand in result.hands] if with_theta else None,
        )

    def markers(self, result: Result, perception: Perception) -> bytes:
        """Serialized, because markers are many numbers; remembers what is shown, to delete it."""
        self._markers = self._markers or HandMarkers(perception.triangles, self._marker_lifetime_s)
        stamp = (result.header.stamp.sec, result.header.stamp.nanosec)
        return self._markers.serialize(stamp, result.header.frame_id, result.hands)

    def transforms(self, result: Result) -> Any:
        return conversions.transforms_to_message(self._types, result.header, result.seen)

    def detections(self, result: Result) -> Any:
        return conversions.detections_to_message(self._types, result.header, result.seen)

    def overlay(self, result: Result, perception: Perception) -> Any:
        drawn = draw_hands(result.image_rgb, result.seen, result.camera, perception.triangles)
        return conversions.rgb_to_image_message(self._types, result.header, drawn)
