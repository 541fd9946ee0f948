"""From an image and its camera to hands in metres: numpy and a backend, neither ROS nor torch."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from handos_model.backends.base import Engine, EngineOptions, WindowEngine
from handos_model.backends.choice import choose_backend, open_engine
from handos_model.candidates import CandidateDecoder, Candidates
from handos_model.config import HandOSConfig
from handos_model.errors import UserError
from handos_model.geometry.boxes import cxcywh_to_xyxy, pairwise_iou
from handos_model.hand.model import HandModel
from handos_model.pipeline_config import PipelineConfig
from handos_model.placing import HandPlacer
from handos_model.postprocess import lies_over
from handos_model.preprocess import (
    HAND_IN_WINDOW,
    PADDING_VALUE,
    STILL_HAND_IN_WINDOW,
    ChannelOrder,
    Closeup,
    Letterbox,
)
from handos_model.selection import select_instances
from handos_model.types import Camera, FloatArray, Hand, ImageArray
from handos_model.weights.store import check_template, find_weights, load_config

__all__ = ['HandPipeline', 'PipelineConfig', 'StageTimes']

MAX_SIZES = 4  # kept graphs of other input sizes
MOST_DOUBTFUL = 2  # instances that are looked at for being doubtful
SURE_SCORE = 0.5  # of what is a hand in its window
SAME_HAND = 0.3  # IoU of a box and what is found in its window


@dataclass
class StageTimes:
    """Seconds that the parts of one frame took."""

    preprocess: float = 0.0
    detector: float = 0.0
    select: float = 0.0
    decoder: float = 0.0
    solve: float = 0.0  # un-mapping, duplicates, translation, sides
    closer: float = 0.0  # small hands seen again, network and all
    track: float = 0.0  # of whoever tracks the hands

    @property
    def total(self) -> float:
        return self.network + self.other

    @property
    def network(self) -> float:
        return self.detector + self.decoder

    @property
    def other(self) -> float:
        """All that is not the network."""
        return self.preprocess + self.select + self.solve + self.closer + self.track


class HandPipeline:
    """`pipeline(image_rgb, camera) -> list[Hand]`, best score first.

    `weights` is a folder of `handos export` (or of `HandOS.save_pretrained` for the torch
    backend), or a shipped name. All buffers are made once; one instance serves one thread, and
    remembers nothing from image to image (`tracking.tracker` follows hands over time).
    """

    def __init__(
        self,
        weights: str | Path,
        backend: str = 'auto',
        config: PipelineConfig | None = None,
        options: EngineOptions | None = None,
        hand_model: HandModel | None = None,
    ) -> None:
        self.config = config or PipelineConfig()
        folder = find_weights(weights)
        network = load_config(folder)
        hand_model = hand_model or HandModel.embedded()
        check_template(network, hand_model)
        name, self.backend_reason = choose_backend(backend, folder)
        options = options or EngineOptions(max_hands=self._most_candidates())
        engine = open_engine(name, folder, replace(options, hand_model=hand_model))
        self._set_up(engine, network, hand_model)

    @classmethod
    def of_engine(
        cls,
        engine: Engine,
        network: HandOSConfig,
        config: PipelineConfig | None = None,
        hand_model: HandModel | None = None,
    ) -> HandPipeline:
        """Over graphs that are open already."""
        pipeline = cls.__new__(cls)
        pipeline.config = config or PipelineConfig()
        pipeline.backend_reason = 'given'
        pipeline._set_up(engine, network, hand_model or HandModel.embedded())
        return pipeline

    def _set_up(self, engine: Engine, network: HandOSConfig, hand_model: HandModel) -> None:
        self.engine = engine
        self.faces = hand_model.faces
        self.times = StageTimes()
        self._network = network
        self.network_hw = network.input_size_hw
        self._engines = {network.input_size_hw: engine}
        self._decoder = CandidateDecoder()
        self._placer = HandPlacer(self.config, hand_model)
        self._letterbox = Letterbox(network.input_size_hw, network.input_size_hw)
        self._input = self._letterbox.buffer()
        self._window_input: ImageArray | None = None
        if engine.window is not None:
            self._window_input = np.full((1, *engine.window.size_hw, 3), PADDING_VALUE, np.uint8)
        if not engine.warmed:
            self.warm_up()

    @property
    def backend(self) -> str:
        """What runs the network, as a person reads it."""
        return self.engine.name

    @property
    def not_finite(self) -> int:
        """Candidates of the last image that were left out, because the network returned NaN or
        infinity for them."""
        return self._decoder.not_finite

    def warm_up(self, runs: int = 2) -> None:
        """Run every graph, so that the first frame is as fast as the others."""
        for _ in range(runs):
            self._decoder.warm_up(self.engine, self._input)
            if self.engine.window is not None and self._window_input is not None:
                self._decoder.warm_up(self.engine.window.graphs, self._window_input)

    def __call__(
        self,
        image: ImageArray,
        camera: Camera,
        depth_m: FloatArray | None = None,
        channel_order: ChannelOrder = 'rgb',
        *,
        besides_px: FloatArray | None = None,
    ) -> list[Hand]:
        """Hands in uint8 image [H,W,3], in the optical frame of `camera`.

        `depth_m` [H,W] is an aligned depth image in metres (0 or NaN where unknown). Hands in the
        boxes `besides_px` [N,4] are known already, and left out. `self.times`
        says what each part took. Raises UserError where image, camera and depth do not fit each
        other.
        """
        self._check(image, camera, depth_m)
        marks = [time.perf_counter()]

        def mark() -> None:
            marks.append(time.perf_counter())

        self._prepare(image, channel_order)
        mark()
        found = self.engine.detector.infer({'image': self._input})
        mark()
        scores, boxes = found['scores'][0], found['boxes_cxcywh'][0]
        self._decoder.not_finite = int(np.isnan(scores).sum())
        config = self.config
        chosen = select_instances(
            scores, boxes, config.score_threshold, config.nms_threshold, self._most_candidates()
        )
        if besides_px is not None and len(chosen):
            own = self._letterbox.boxes_to_image(boxes[chosen])
            chosen = chosen[~lies_over(own, besides_px)]
        mark()
        candidates = self._decoder(self.engine, self._letterbox, found, chosen)
        mark()
        hands: list[Hand] = []
        if candidates is not None:
            hands = self._placer(candidates, camera, depth_m)
        mark()
        doubtful_px = self._doubtful_px(scores, boxes, hands, besides_px)
        hands = self._look_again(hands, doubtful_px, image, camera, depth_m, channel_order)
        mark()
        self.times = StageTimes(*np.diff(marks).tolist())
        return hands

    @property
    def can_look_closer(self) -> bool:
        """Whether these weights have graphs of a window, so that `look` works."""
        return self.engine.window is not None and self._window_input is not None

    def look(
        self,
        image: ImageArray,
        camera: Camera,
        boxes_xyxy_px: FloatArray,
        depth_m: FloatArray | None = None,
        channel_order: ChannelOrder = 'rgb',
    ) -> list[Hand | None]:
        """The hand about each of the boxes [N,4], enlarged or reduced to one size; None where
        there is none any more. Raises UserError where these weights have no graphs for it."""
        self._check(image, camera, depth_m)
        self._decoder.not_finite = 0
        return self._looks(image, camera, boxes_xyxy_px, depth_m, channel_order, HAND_IN_WINDOW)

    def _looks(
        self,
        image: ImageArray,
        camera: Camera,
        boxes_xyxy_px: FloatArray,
        depth_m: FloatArray | None,
        channel_order: ChannelOrder,
        part: float,
    ) -> list[Hand | None]:
        window, view = self.engine.window, self._window_input
        if window is None or view is None:
            raise UserError('these weights have no graphs of a window: export them again')
        seen: list[int] = []
        parts: list[Candidates] = []
        for index, box in enumerate(np.asarray(boxes_xyxy_px, np.float64)):
            found = self._look(window, view, image, box, channel_order, part)
            if found is not None and len(found):
                seen.append(index)
                parts.append(found)
        hands: list[Hand | None] = [None] * len(boxes_xyxy_px)
        if parts:
            placed = self._placer(Candidates.joined(parts), camera, depth_m, given=True)
            for index, hand in zip(seen, placed, strict=True):
                hands[index] = hand
        return hands

    def _look(
        self,
        window: WindowEngine,
        view: ImageArray,
        image: ImageArray,
        box_xyxy_px: FloatArray,
        channel_order: ChannelOrder,
        part: float,
    ) -> Candidates | None:
        place, size = window.place, (image.shape[0], image.shape[1])
        closeup = Closeup.about(
            box_xyxy_px, size, place.whole_hw, place.corner_px, window.size_hw, part
        )
        closeup.apply(image, view, channel_order)
        found = window.graphs.detector.infer({'image': view})
        scores = found['scores'][0]
        own = closeup.boxes_to_image(found['boxes_cxcywh'][0])
        same = pairwise_iou(box_xyxy_px[None], own)[0] >= SAME_HAND
        likely = np.where(same & (scores >= self.config.score_threshold), scores, -1.0)
        best = int(likely.argmax())
        if likely[best] < 0:
            return None
        return self._decoder(window.graphs, closeup, found, np.array([best]))

    def _doubtful_px(
        self,
        scores: FloatArray,
        boxes_cxcywh: FloatArray,
        hands: list[Hand],
        besides_px: FloatArray | None,
    ) -> FloatArray:
        """Boxes [N,4] of what may be further hands, the likeliest first."""
        config, found_px = self.config, boxes_of(hands)
        if besides_px is not None:
            found_px = np.concatenate([found_px, besides_px])
        room = min(MOST_DOUBTFUL, config.max_hands - len(hands))
        if config.doubtful_score is None or not self.can_look_closer or room < 1:
            return np.zeros((0, 4))
        doubtful = (scores >= config.doubtful_score) & (scores < config.score_threshold)
        rows = np.flatnonzero(doubtful)
        boxes_px = self._letterbox.boxes_to_image(boxes_cxcywh[rows[np.argsort(-scores[rows])]])
        kept = np.zeros((0, 4))
        for box_px in boxes_px:
            known = np.concatenate([found_px, kept])
            if len(kept) < room and not lies_over(box_px[None], known)[0]:
                kept = np.concatenate([kept, box_px[None]])
        return kept

    def _look_again(
        self,
        hands: list[Hand],
        doubtful_px: FloatArray,
        image: ImageArray,
        camera: Camera,
        depth_m: FloatArray | None,
        channel_order: ChannelOrder,
    ) -> list[Hand]:
        """The hands, small ones as they look from near, and those that are only sure from near.

        A small hand keeps the score of the whole image, by which it was chosen.
        """
        boxes = boxes_of(hands)
        small = np.zeros(0, int)
        if self.config.closer_below_px is not None and self.can_look_closer:
            sides_px = (boxes[:, 2:] - boxes[:, :2]).max(1) * self._letterbox.scale_xy.min()
            small = np.flatnonzero(sides_px < self.config.closer_below_px)
        wanted = np.concatenate([boxes[small], doubtful_px])
        if not len(wanted):
            return hands
        looks = self._looks(image, camera, wanted, depth_m, channel_order, STILL_HAND_IN_WINDOW)
        for index, hand in zip(small, looks, strict=False):
            if hand is not None:
                hands[index] = replace(hand, score=hands[index].score)
        sure = max(SURE_SCORE, self.config.score_threshold)
        for hand in looks[len(small) :]:
            if hand is None or hand.score < sure:
                continue
            if not lies_over(hand.box_xyxy_px[None], boxes_of(hands))[0]:
                hands.append(hand)
        return sorted(hands, key=lambda hand: -hand.score)

    def in_boxes(self, image: ImageArray, camera: Camera, boxes_xyxy_px: FloatArray) -> list[Hand]:
        """The hands in given boxes [N,4] of the image, in their order: what papers call inference
        with the true box. A box takes the query whose own box overlaps it most."""
        self._check(image, camera, None)
        self._prepare(image, 'rgb')
        if not len(boxes_xyxy_px):
            return []
        found = self.engine.detector.infer({'image': self._input})
        wanted = self._letterbox.boxes_to_network(boxes_xyxy_px).astype(np.float32)
        own = cxcywh_to_xyxy(found['boxes_cxcywh'][0])
        rows = pairwise_iou(cxcywh_to_xyxy(wanted), own).argmax(1)
        chosen = dict(
            found,
            scores=found['scores'][:, rows],
            queries=found['queries'][:, rows],
            boxes_cxcywh=wanted[None],
        )
        candidates = self._decoder(self.engine, self._letterbox, chosen, np.arange(len(rows)))
        assert candidates is not None
        return self._placer(candidates, camera, None, given=True)

    def _most_candidates(self) -> int:
        """Duplicates are only known once they are decoded, so more than `max_hands` are."""
        extra = self.config.duplicate_similarity is not None
        return self.config.max_hands * (2 if extra else 1)

    def _check(self, image: ImageArray, camera: Camera, depth_m: FloatArray | None) -> None:
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise UserError(f'image must be uint8 [H,W,3], got {image.dtype} {image.shape}')
        height, width = image.shape[:2]
        if (camera.width, camera.height) != (width, height):
            raise UserError(
                f'the image is {width}x{height} but its camera {camera.width}x{camera.height}: '
                'use the calibration of this resolution'
            )
        if depth_m is not None and depth_m.shape != (height, width):
            raise UserError(
                f'the depth image is {depth_m.shape[::-1]}, the image {(width, height)}: '
                'register depth to the colour camera'
            )

    def _prepare(self, image: ImageArray, channel_order: ChannelOrder) -> None:
        size = (image.shape[0], image.shape[1])
        if size != self._letterbox.image_hw:
            self._resize(self._network.size_for(size))
            self._letterbox = Letterbox(size, self.network_hw)
            self._input[:] = self._letterbox.buffer()
        self._letterbox.apply(image, self._input, channel_order)

    def _resize(self, network_hw: tuple[int, int]) -> None:
        """Go over to graphs of another input size, where the backend has any."""
        make = self._engines[self._network.input_size_hw].at_size
        if make is None or network_hw == self.network_hw:
            return
        if network_hw not in self._engines:
            if len(self._engines) > MAX_SIZES:  # those of the config's own size stay
                del self._engines[next(reversed(self._engines))]
            self._engines[network_hw] = make(network_hw)
        self.network_hw, self.engine = network_hw, self._engines[network_hw]
        self._input = np.empty((1, *network_hw, 3), np.uint8)


def boxes_of(hands: list[Hand]) -> FloatArray:
    """boxes_xyxy_px [N,4] of N hands."""
    return np.array([hand.box_xyxy_px for hand in hands]).reshape(-1, 4)
