"""From an image and its camera to hands in metres: numpy and a backend, neither ROS nor torch."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from handos_model.backends.base import Engine, EngineOptions, WindowEngine
from handos_model.backends.choice import choose_backend, open_engine
from handos_model.config import HandOSConfig
from handos_model.errors import UserError
from handos_model.geometry.boxes import cxcywh_to_xyxy, pairwise_iou
from handos_model.geometry.placement import (
    Translation,
    agree_on_sides,
    boundary_vertices,
    depth_scale,
    solve_translation,
    wrist_rotation,
)
from handos_model.hand.model import HandModel
from handos_model.postprocess import distinct_hands, hand_length
from handos_model.preprocess import PADDING_VALUE, ChannelOrder, Closeup, Letterbox, Mapping
from handos_model.selection import select_instances
from handos_model.types import Camera, FloatArray, Hand, ImageArray, ScaleSource, TrackState
from handos_model.weights.store import check_template, find_weights, load_config

MAX_SIZES = 4  # kept graphs of other input sizes
HAND_IN_WINDOW = 0.66  # of a window's side, for the longer side of the box that is looked at
DECODED = ('joints_2d', 'visibility', 'vertices_m', 'joints_m', 'translation_m', 'right')
SAME_HAND = 0.3  # IoU of a box and what is found in its window


@dataclass(frozen=True)
class PipelineConfig:
    """What counts as a hand, and how far its metres are believed.

    The defaults are a robot's: `paper()` has those of the paper's evaluation.
    """

    score_threshold: float = 0.3
    nms_threshold: float = 0.9  # IoU of boxes; loose, because crossed hands share a box
    # Hands whose 2D joints agree more than this are one hand found twice, and a hand over a surer
    # one of the same side is a part of it; None keeps all. A robot that is shown one hand twice
    # plans for two; two real hands never agree joint by joint.
    duplicate_similarity: float | None = 0.5
    max_hands: int = 4
    # Hands whose longer side is less in the network's input are looked at again, enlarged: they
    # cost a second, smaller run each. None leaves them as they are.
    closer_below_px: float | None = 60.0
    sigma_px: float = 2.0  # noise of the network's 2D joints
    # Relative spread of adult hand lengths, which one image cannot see past: it scales the
    # position along the ray, and is part of the covariance.
    hand_length_sigma: float = 0.06
    hand_length_m: float | None = None  # this user's, wrist to tip of the middle finger
    network_placement: bool = False  # fill `Hand.network_joints_px`, which only evaluation wants

    def __post_init__(self) -> None:
        if not 0 <= self.score_threshold <= 1 or not 0 <= self.nms_threshold <= 1:
            raise UserError('score_threshold and nms_threshold must be within 0 and 1')
        if self.max_hands < 1:
            raise UserError(f'max_hands={self.max_hands} must be at least 1')
        if self.hand_length_m is not None and not 0.08 <= self.hand_length_m <= 0.3:
            raise UserError(
                f'hand_length_m={self.hand_length_m} must be metres from the wrist to the tip of '
                'the middle finger, 0.08 to 0.3'
            )

    @classmethod
    def paper(cls, max_hands: int = 32) -> PipelineConfig:
        """Section 4.1: score 0.1, NMS 0.9, nothing else suppressed, every hand seen once."""
        return cls(
            score_threshold=0.1,
            duplicate_similarity=None,
            closer_below_px=None,
            max_hands=max_hands,
            network_placement=True,
        )


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


@dataclass
class _Candidates:
    """What the decoder says of N hands, in pixels of the image; every number is finite."""

    scores: FloatArray  # [N]
    boxes_px: FloatArray  # [N,4] xyxy
    joints_px: FloatArray  # [N,21,2]
    visibility: FloatArray  # [N,21]
    vertices_m: FloatArray  # [N,778,3]
    joints_m: FloatArray  # [N,21,3]
    right: FloatArray  # [N]
    network_px: FloatArray  # [N,21,2] joints_m before the network's own camera

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def joined(cls, parts: list[_Candidates]) -> _Candidates:
        fields = [list(vars(part).values()) for part in parts]
        return cls(*(np.concatenate(values) for values in zip(*fields, strict=True)))


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
        self.not_finite = 0
        self._network = network
        self.network_hw = network.input_size_hw
        self._engines = {network.input_size_hw: engine}
        self._boundary = boundary_vertices(hand_model.faces)
        self._letterbox = Letterbox(network.input_size_hw, network.input_size_hw)
        self._input = self._letterbox.buffer()
        self._queries: dict[int, FloatArray] = {}
        self._boxes: dict[int, FloatArray] = {}
        self._window_input: ImageArray | None = None
        if engine.window is not None:
            self._window_input = np.full((1, *engine.window.size_hw, 3), PADDING_VALUE, np.uint8)
        self.warm_up()

    @property
    def backend(self) -> str:
        """What runs the network, as a person reads it."""
        return self.engine.name

    def warm_up(self, runs: int = 2) -> None:
        """Run every graph, so that the first frame is as fast as the others."""
        for _ in range(runs):
            self._run_all(self.engine, self._input)
            if self.engine.window is not None:
                self._run_all(self.engine.window.graphs, self._window_input)

    def _run_all(self, engine: Engine, image: ImageArray | None) -> None:
        found = engine.detector.infer({'image': image})
        for hands, decoder in engine.decoders.items():
            queries, boxes = self._decoder_inputs(hands, found['queries'].shape[-1])
            boxes[:] = 0.5
            decoder.infer(
                {'features': found['features'], 'queries': queries, 'boxes_cxcywh': boxes}
            )

    def __call__(
        self,
        image: ImageArray,
        camera: Camera,
        depth_m: FloatArray | None = None,
        channel_order: ChannelOrder = 'rgb',
    ) -> list[Hand]:
        """Hands in uint8 image [H,W,3], in the optical frame of `camera`.

        `depth_m` [H,W] is an aligned depth image in metres (0 or NaN where unknown). `self.times`
        says what each part took, `self.not_finite` how many candidates were left out because the
        network returned NaN or infinity for them. Raises UserError where image, camera and depth
        do not fit each other.
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
        self.not_finite = int(np.isnan(scores).sum())
        config = self.config
        chosen = select_instances(
            scores, boxes, config.score_threshold, config.nms_threshold, self._most_candidates()
        )
        mark()
        candidates = self._decode(self.engine, self._letterbox, found, chosen)
        mark()
        hands: list[Hand] = []
        if candidates is not None:
            hands = self._place(candidates, camera, depth_m)
        mark()
        hands = self._closer(hands, image, camera, depth_m, channel_order)
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
        window, view = self.engine.window, self._window_input
        if window is None or view is None:
            raise UserError('these weights have no graphs of a window: export them again')
        seen: list[int] = []
        parts: list[_Candidates] = []
        for index, box in enumerate(np.asarray(boxes_xyxy_px, np.float64)):
            part = self._look(window, view, image, box, channel_order)
            if part is not None and len(part):
                seen.append(index)
                parts.append(part)
        hands: list[Hand | None] = [None] * len(boxes_xyxy_px)
        if parts:
            placed = self._place(_Candidates.joined(parts), camera, depth_m, given=True)
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
    ) -> _Candidates | None:
        closeup = Closeup(
            (image.shape[0], image.shape[1]), box_xyxy_px, window.place.whole_hw,
            window.place.corner_px, window.size_hw, HAND_IN_WINDOW * min(window.size_hw),
        )  # fmt: skip
        closeup.apply(image, view, channel_order)
        found = window.graphs.detector.infer({'image': view})
        scores = found['scores'][0]
        own = closeup.boxes_to_image(found['boxes_cxcywh'][0])
        same = pairwise_iou(box_xyxy_px[None], own)[0] >= SAME_HAND
        likely = np.where(same & (scores >= self.config.score_threshold), scores, -1.0)
        best = int(likely.argmax())
        if likely[best] < 0:
            return None
        return self._decode(window.graphs, closeup, found, np.array([best]))

    def _closer(
        self,
        hands: list[Hand],
        image: ImageArray,
        camera: Camera,
        depth_m: FloatArray | None,
        channel_order: ChannelOrder,
    ) -> list[Hand]:
        """The hands, small ones as they look from near; the score stays that of the whole image,
        by which hands were chosen."""
        if self.config.closer_below_px is None or not self.can_look_closer or not hands:
            return hands
        boxes = np.array([hand.box_xyxy_px for hand in hands])
        sides_px = (boxes[:, 2:] - boxes[:, :2]).max(1) * self._letterbox.scale_xy.min()
        small = np.flatnonzero(sides_px < self.config.closer_below_px)
        if len(small):
            looks = self.look(image, camera, boxes[small], depth_m, channel_order)
            for index, hand in zip(small, looks, strict=True):
                if hand is not None:
                    hands[index] = replace(hand, score=hands[index].score)
        return hands

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
        candidates = self._decode(self.engine, self._letterbox, chosen, np.arange(len(rows)))
        assert candidates is not None
        return self._place(candidates, camera, None, given=True)

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

    def _decoder_inputs(self, hands: int, width: int) -> tuple[FloatArray, FloatArray]:
        if hands not in self._queries:
            self._queries[hands] = np.zeros((hands, width), np.float32)
            self._boxes[hands] = np.full((hands, 4), 0.5, np.float32)
        return self._queries[hands], self._boxes[hands]

    def _decode(
        self,
        engine: Engine,
        mapping: Mapping,
        found: dict[str, npt.NDArray[np.float32]],
        chosen: npt.NDArray[np.int64],
    ) -> _Candidates | None:
        """Run the smallest decoder that holds all candidates, or the largest several times.

        What is not finite is left out, and counted. None where nothing was chosen.
        """
        if len(chosen) == 0:
            return None
        sizes = sorted(engine.decoders)
        parts = []
        for start in range(0, len(chosen), sizes[-1]):
            rows = chosen[start : start + sizes[-1]]
            hands = next(size for size in sizes if size >= len(rows))
            queries, boxes = self._decoder_inputs(hands, found['queries'].shape[-1])
            queries[: len(rows)] = found['queries'][0, rows]
            boxes[: len(rows)] = found['boxes_cxcywh'][0, rows]
            boxes[len(rows) :] = 0.5  # padding: any sound box
            outputs = engine.decoders[hands].infer(
                {'features': found['features'], 'queries': queries, 'boxes_cxcywh': boxes}
            )
            parts.append([outputs[name][: len(rows)].copy() for name in DECODED])
        joints_2d, visibility, vertices_m, joints_m, translation_m, right = (
            np.concatenate(values) for values in zip(*parts, strict=True)
        )
        scores, boxes = found['scores'][0, chosen], found['boxes_cxcywh'][0, chosen]
        joints_px = mapping.to_image(joints_2d)
        # A sum is finite only if all its terms are. From here on every number of a hand is.
        total = scores + boxes.sum(1) + visibility.sum(1) + translation_m.sum(1) + right
        for values in (joints_px, joints_m, vertices_m):
            total = total + values.sum((1, 2))
        keep = np.isfinite(total)
        self.not_finite += int((~keep).sum())
        joints_m, translation_m = joints_m[keep], translation_m[keep, None]
        return _Candidates(
            scores=scores[keep],
            boxes_px=mapping.boxes_to_image(boxes[keep]),
            joints_px=joints_px[keep],
            visibility=visibility[keep],
            vertices_m=vertices_m[keep],
            joints_m=joints_m,
            right=right[keep],
            network_px=self._projected_px(joints_m + translation_m, mapping),
        )

    def _place(
        self,
        candidates: _Candidates,
        camera: Camera,
        depth_m: FloatArray | None,
        *,
        given: bool = False,
    ) -> list[Hand]:
        """Tell the sides, drop duplicates, solve for the camera.

        Candidates come best first. In boxes that were `given` there is a hand each: none is
        dropped.
        """
        config, joints_px = self.config, candidates.joints_px
        boxes_px, confidence = candidates.boxes_px, candidates.visibility
        joints_m, vertices_m = candidates.joints_m, candidates.vertices_m
        if config.hand_length_m is not None:
            factor = (config.hand_length_m / hand_length(joints_m))[:, None, None]
            joints_m, vertices_m = joints_m * factor, vertices_m * factor
        right, vertices_m, joints_m = agree_on_sides(
            vertices_m, joints_m, candidates.right, self.faces, self._boundary
        )
        keep = np.arange(len(candidates))
        if not given:
            if config.duplicate_similarity is not None:
                keep = distinct_hands(
                    joints_px, boxes_px, right >= 0.5, config.duplicate_similarity
                )
            keep = keep[: config.max_hands]
            right, joints_m, vertices_m = right[keep], joints_m[keep], vertices_m[keep]
            joints_px, boxes_px, confidence = joints_px[keep], boxes_px[keep], confidence[keep]
        placed = solve_translation(
            joints_m, joints_px, np.maximum(confidence, 0.05), camera, config.sigma_px
        )
        is_right = right >= 0.5
        turns = wrist_rotation(joints_m, is_right)
        hands = []
        for i, row in enumerate(keep):
            scale, covariance, source = self._scale(vertices_m[i], placed, i, camera, depth_m)
            translation = placed.translation_m[i] * scale
            hands.append(
                Hand(
                    id=-1,
                    age=0,
                    state=TrackState.TRACKED,
                    side='right' if is_right[i] else 'left',
                    side_probability=float(max(right[i], 1 - right[i])),
                    score=float(candidates.scores[row]),
                    box_xyxy_px=boxes_px[i],
                    joints_px=joints_px[i],
                    joint_confidence=confidence[i],
                    joints_m=joints_m[i] * scale + translation,
                    vertices_m=vertices_m[i] * scale + translation,
                    wrist_rotation=turns[i],
                    translation_m=translation,
                    translation_covariance_m2=covariance,
                    scale_source=source,
                    network_joints_px=candidates.network_px[row]
                    if config.network_placement
                    else None,
                )
            )
        return hands

    def _projected_px(self, points_m: FloatArray, mapping: Mapping) -> FloatArray:
        """Pixels of the image [...,2] of points before the network's virtual camera."""
        size_px = np.array(self.network_hw[::-1])
        plane = points_m[..., :2] / np.maximum(points_m[..., 2:], 1e-3)
        return mapping.to_image(plane * (size_px.max() / size_px) + 0.5)

    def _scale(
        self,
        vertices_m: FloatArray,
        placed: Translation,
        index: int,
        camera: Camera,
        depth_m: FloatArray | None,
    ) -> tuple[float, FloatArray, ScaleSource]:
        """What to scale the placed hand by, its covariance, and where the metres come from."""
        t, covariance = placed.translation_m[index], placed.covariance_m2[index]
        along = np.outer(t, t)  # a hand of another size moves along its ray
        if depth_m is not None and placed.solved[index]:
            scale, sigma = depth_scale(vertices_m + t, self.faces, depth_m, camera)
            if np.isfinite(sigma):
                across = np.eye(3) - along / (t @ t)
                seen = across @ covariance @ across + sigma**2 * along
                return scale, seen * scale**2, ScaleSource.DEPTH
        if self.config.hand_length_m is not None:
            return 1.0, covariance + 0.02**2 * along, ScaleSource.CALIBRATED
        covariance = covariance + self.config.hand_length_sigma**2 * along
        solved = camera.calibrated and bool(placed.solved[index])
        return 1.0, covariance, ScaleSource.INTRINSICS if solved else ScaleSource.NETWORK
