"""From what the network says of hands to hands in metres, before this camera."""

from __future__ import annotations

import numpy as np

from handos_model.candidates import Candidates
from handos_model.geometry.placement import (
    Translation,
    agree_on_sides,
    boundary_vertices,
    depth_scale,
    solve_translation,
    wrist_rotation,
)
from handos_model.hand.model import HandModel
from handos_model.pipeline_config import PipelineConfig
from handos_model.postprocess import distinct_hands, hand_length
from handos_model.types import Camera, FloatArray, Hand, ScaleSource, TrackState


class HandPlacer:
    """`placer(candidates, camera, depth_m) -> list[Hand]`."""

    def __init__(self, config: PipelineConfig, hand_model: HandModel) -> None:
        self.config = config
        self._faces = hand_model.faces
        self._boundary = boundary_vertices(hand_model.faces)

    def __call__(
        self,
        candidates: Candidates,
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
            vertices_m, joints_m, candidates.right, self._faces, self._boundary
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
            scale, sigma = depth_scale(vertices_m + t, self._faces, depth_m, camera)
            if np.isfinite(sigma):
                across = np.eye(3) - along / (t @ t)
                seen = across @ covariance @ across + sigma**2 * along
                return scale, seen * scale**2, ScaleSource.DEPTH
        if self.config.hand_length_m is not None:
            return 1.0, covariance + 0.02**2 * along, ScaleSource.CALIBRATED
        covariance = covariance + self.config.hand_length_sigma**2 * along
        solved = camera.calibrated and bool(placed.solved[index])
        return 1.0, covariance, ScaleSource.INTRINSICS if solved else ScaleSource.NETWORK
