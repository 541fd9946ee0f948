"""Hands followed from image to image: a small window a hand, the whole image now and then.

A window of the network costs less than half of the whole's CPU time. While every hand is seen for
sure in the window where it was last, the whole image is only searched for further hands, every few
images. As soon as one is not, the whole image is looked at in the same call, so nothing is lost by
following.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from handos_model.errors import UserError
from handos_model.geometry.boxes import pairwise_iou
from handos_model.pipeline import SURE_SCORE, HandPipeline, boxes_of
from handos_model.preprocess import ChannelOrder
from handos_model.types import Camera, FloatArray, Hand, ImageArray

MERGED = 0.6  # IoU of two followed hands that may have become one
SIZE_GAIN = 0.3  # of a new box size: sizes are noisy, and what is enlarged by them jitters


@dataclass(frozen=True)
class FollowConfig:
    """When the whole image is looked at."""

    search_every: int = 10  # images; 1 = every one, and nothing is followed
    most_hands: int = 2  # to be followed; more windows would cost as much as the whole image
    sure_score: float = SURE_SCORE  # of a hand in its window, below which it may be lost

    def __post_init__(self) -> None:
        if self.search_every < 1 or self.most_hands < 1:
            raise UserError('search_every and most_hands must be at least 1')


class HandFollower:
    """`follower(image, camera) -> list[Hand]`, as its pipeline, for the images of one camera.

    Hands are those of this image alone: they have no ids and are not smoothed (`Tracker` does
    that). One instance serves one thread.
    """

    def __init__(self, pipeline: HandPipeline, config: FollowConfig | None = None) -> None:
        self.pipeline = pipeline
        self.config = config or FollowConfig()
        self.searched = False  # whether the last call looked at the whole image
        self._image_hw: tuple[int, int] | None = None
        self._boxes_px: FloatArray = np.zeros((0, 4))  # where hands are looked for next
        self._followed = 0  # images since the whole one was looked at

    def __call__(
        self,
        image: ImageArray,
        camera: Camera,
        depth_m: FloatArray | None = None,
        channel_order: ChannelOrder = 'rgb',
    ) -> list[Hand]:
        """Hands of the next image; see `HandPipeline.__call__`."""
        rest = depth_m, channel_order
        hands = self._follow(image, camera, *rest)
        self.searched = hands is None or self._followed + 1 >= self.config.search_every
        if hands is None:
            hands = self.pipeline(image, camera, *rest)
            self._boxes_px = boxes_of(hands)
        elif self.searched:
            new = self.pipeline(image, camera, *rest, besides_px=boxes_of(hands))
            new = new[: max(0, self.pipeline.config.max_hands - len(hands))]
            hands = [*hands, *new]
            self._boxes_px = np.concatenate([self._boxes_px, boxes_of(new)])
        self._followed = 0 if self.searched else self._followed + 1
        self._image_hw = (image.shape[0], image.shape[1])
        return sorted(hands, key=lambda hand: -hand.score)

    def _follow(
        self,
        image: ImageArray,
        camera: Camera,
        depth_m: FloatArray | None,
        channel_order: ChannelOrder,
    ) -> list[Hand] | None:
        """The hands of the last image in this one; None where that is not sure."""
        config = self.config
        if not 0 < len(self._boxes_px) <= config.most_hands or config.search_every == 1:
            return None
        if image.shape[:2] != self._image_hw or not self.pipeline.can_look_closer:
            return None
        looks = self.pipeline.look(image, camera, self._boxes_px, depth_m, channel_order)
        hands = [hand for hand in looks if hand is not None and hand.score >= config.sure_score]
        if len(hands) < len(looks):
            return None
        boxes = boxes_of(hands)
        if (np.triu(pairwise_iou(boxes, boxes), 1) > MERGED).any():
            return None
        # Hands are looked for where they are now: to expect them farther on made joints jitter.
        middles, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
        before = self._boxes_px[:, 2:] - self._boxes_px[:, :2]
        half = (before + SIZE_GAIN * (sizes - before)) / 2
        self._boxes_px = np.concatenate([middles - half, middles + half], axis=1)
        return hands
