"""Running scores of one evaluation: everything that the labels of a dataset allow.

A missed hand is V = 0 in the errors in millimetres and zero in PCK and AUC, as in the paper.
Keys ending in `_proper` align with a proper rotation; their partners are the official numbers,
whose alignment lets reflections pass.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from handos_model.geometry.boxes import pairwise_iou
from handos_model.types import NUM_VERTICES, ROOT_JOINT, Hand
from handos_training.data.sample import HandLabels, Sample
from handos_training.evaluation import metrics
from handos_training.evaluation.matching import DetectionCount, match_boxes

Array = npt.NDArray[np.float64]
PCK_THRESHOLDS = (0.05, 0.1, 0.15)
ALIGNMENTS = {'': True, '_proper': False}  # suffix -> reflections pass


class JointsPx(NamedTuple):
    """2D errors of one labelled hand, infinite where it was missed."""

    direct: Array  # [21] of the network's 2D joints
    projected: Array  # [21] of its 3D joints at its own translation (the paper's proj)
    placed: Array  # [21] of its 3D joints placed by the camera, projected
    box_side: float  # longer side of the labelled box
    labelled: npt.NDArray[np.bool_]  # [21]
    visible: npt.NDArray[np.bool_]  # [21] known to be visible
    hidden: npt.NDArray[np.bool_]  # [21] known to be hidden


@dataclass
class Scores:
    """Sums over images; `joint_regressor` [21,778] replaces the network's own joints by the
    dataset's, and `same_topology` says that its vertices can be compared one by one."""

    same_topology: bool
    joint_regressor: Array | None = None
    mesh: bool = True  # False: the 2D stage, which has neither side nor metres
    detection: DetectionCount = field(default_factory=DetectionCount)
    images: int = 0
    found: list[bool] = field(default_factory=list)
    sides: list[bool] = field(default_factory=list)
    values: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    errors_m: dict[str, list[Array]] = field(default_factory=lambda: defaultdict(list))
    joints_px: list[JointsPx] = field(default_factory=list)
    box_ious: list[Array] = field(default_factory=list)  # [G,P] an image
    box_scores: list[Array] = field(default_factory=list)  # [P] an image
    tracks: dict[str, list[tuple[int, Array, Array | None]]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def add(
        self, index: int, sample: Sample, predictions: list[Hand], sequence: str | None = None
    ) -> list[Hand | None]:
        """Count one image; returns the prediction of each labelled hand."""
        labels = sample.hands
        boxes = np.array([hand.box_xyxy_px for hand in predictions]).reshape(-1, 4)
        truth = labels.boxes_xyxy_px.double().numpy()
        self.images += 1
        self.detection.add(truth, boxes, complete=sample.all_hands_labelled)
        self.box_ious.append(np.asarray(pairwise_iou(truth, boxes), np.float64))
        self.box_scores.append(np.array([hand.score for hand in predictions], np.float64))
        answers: list[Hand | None] = [
            predictions[m] if m >= 0 else None for m in match_boxes(truth, boxes)
        ]
        camera = sample.camera_matrix_px.double().numpy()
        for n, hand in enumerate(answers):
            one = labels[torch.tensor([n])]
            self.found.append(hand is not None)
            if hand is not None and one.has_side[0] and self.mesh:
                self.sides.append(hand.is_left == bool(one.is_left[0]))
            if one.has_joint_px.any():
                self._add_joints_px(one, hand, camera)
            if self.mesh and one.has_joints_m[0] and one.has_translation[0]:
                self._add_joints_m(one, hand)
                if sequence is not None and len(labels) == 1:
                    self._add_track(sequence, index, one, hand)
        return answers

    def joints_m(self, hand: Hand) -> Array:
        """[21,3] of a prediction, as the dataset defines its joints."""
        if self.joint_regressor is None:
            return np.asarray(hand.joints_m, np.float64)
        return np.asarray(self.joint_regressor @ hand.vertices_m)

    def summary(self) -> dict[str, float]:
        """All scores by name; what the labels do not allow is absent."""
        result: dict[str, float] = {'images': self.images, 'hands': len(self.found)}
        if self.found:
            result['found'] = float(np.mean(self.found))
            result['recall_iou50'] = self.detection.recall
            image = np.repeat(np.arange(self.images), [len(s) for s in self.box_scores])
            scores = np.concatenate(self.box_scores)
            result['box_ap'] = metrics.average_precision(scores, self.box_ious, image)
        if self.detection.predictions:
            result['precision_iou50'] = self.detection.precision
        if self.sides:
            result['side_accuracy'] = float(np.mean(self.sides))
        result |= {name: float(np.mean(values)) for name, values in self.values.items()}
        for name, errors in self.errors_m.items():
            result[f'auc_{name}'] = metrics.auc(np.stack(errors))
        result |= self._pck()
        jitter = self._jitter()
        if jitter is not None:
            result['jitter_mm_per_frame2'] = jitter
        return result

    def _add_joints_m(self, one: HandLabels, hand: Hand | None) -> None:
        root = one.translation_m[0].double().numpy()
        truth = one.joints_m[0].double().numpy() + root
        guess = np.zeros((21, 3)) if hand is None else self.joints_m(hand)
        self._errors('mpjpe', 'absolute', metrics.distances(guess, truth), hand)
        relative = metrics.root_relative_distances(guess, truth)
        self._errors('mpjpe_root_relative', 'root_relative', relative, hand)
        scaled = metrics.distances(metrics.scale_translation(guess, truth), truth)
        self._errors('mpjpe_scale_translation', 'scale_translation', scaled, hand)
        for suffix, reflection in ALIGNMENTS.items():
            aligned = metrics.aligned_distances(guess, truth, reflection=reflection)
            self._errors(f'pa_mpjpe{suffix}', f'joints{suffix}', aligned, hand)
        if hand is not None:
            distance = np.linalg.norm(guess[ROOT_JOINT] - truth[ROOT_JOINT])
            self.values['root_error_found_mm'].append(1000 * float(distance))
        if one.has_vertices_m[0]:
            self._add_vertices(one.vertices_m[0].double().numpy() + root, truth, guess, hand)

    def _add_vertices(
        self, truth: Array, joints: Array, guess_joints: Array, hand: Hand | None
    ) -> None:
        guess = np.zeros((NUM_VERTICES, 3))
        if hand is not None:
            guess = np.asarray(hand.vertices_m, np.float64)
        self._f_scores('', guess, truth)
        for suffix, reflection in ALIGNMENTS.items():
            # A mesh of another topology is aligned as its joints are.
            pair = (guess, truth) if self.same_topology else (guess_joints, joints)
            aligned = metrics.procrustes(*pair, reflection=reflection)(guess)
            self._f_scores(f'_aligned{suffix}', aligned, truth)
            if self.same_topology:
                errors = metrics.distances(aligned, truth)
                self._errors(f'pa_mpvpe{suffix}', f'vertices{suffix}', errors, hand)

    def _errors(self, mean_name: str, auc_name: str, errors: Array, hand: Hand | None) -> None:
        self.values[f'{mean_name}_mm'].append(1000 * float(errors.mean()))
        if hand is not None:
            self.values[f'{mean_name}_found_mm'].append(1000 * float(errors.mean()))
        counted = errors if hand is not None else np.full_like(errors, np.inf)
        self.errors_m[auc_name].append(counted)

    def _f_scores(self, suffix: str, guess: Array, truth: Array) -> None:
        for name, score in zip(('f5', 'f15'), metrics.f_scores(guess, truth), strict=True):
            self.values[f'{name}{suffix}'].append(float(score))

    def _add_joints_px(self, one: HandLabels, hand: Hand | None, camera: Array) -> None:
        truth = one.joints_px[0].double().numpy()
        direct = projected = placed = np.full(21, np.inf)
        if hand is not None:
            direct = metrics.distances(hand.joints_px, truth)
        if hand is not None and self.mesh:
            image = np.asarray(hand.joints_m) @ camera.T
            placed = metrics.distances(image[:, :2] / image[:, 2:], truth)
            if hand.network_joints_px is not None:
                projected = metrics.distances(hand.network_joints_px, truth)
        box = one.boxes_xyxy_px[0]
        labelled = one.has_joint_px[0].numpy()
        visible = one.joint_visible[0].numpy()
        known = labelled & bool(one.has_visibility[0])
        side = float((box[2:] - box[:2]).max())
        self.joints_px.append(
            JointsPx(direct, projected, placed, side, labelled, known & visible, known & ~visible)
        )

    def _pck(self) -> dict[str, float]:
        if not self.joints_px:
            return {}
        direct, projected, placed, sides, labelled, visible, hidden = (
            np.stack(values) for values in zip(*self.joints_px, strict=True)
        )
        result = {}
        kinds = [('', direct), ('_projected', projected), ('_placed', placed)]
        for kind, errors in kinds if self.mesh else kinds[:1]:
            for group, mask in (('', labelled), ('_visible', visible), ('_hidden', hidden)):
                if mask.any():
                    shares = metrics.pck(errors, mask, sides, PCK_THRESHOLDS)
                    for threshold, share in zip(PCK_THRESHOLDS, shares, strict=True):
                        result[f'pck{group}{kind}_{threshold}'] = float(share)
        return result

    def _add_track(self, sequence: str, index: int, one: HandLabels, hand: Hand | None) -> None:
        truth = (one.joints_m[0] + one.translation_m[0]).double().numpy()
        guess = None if hand is None else self.joints_m(hand)
        self.tracks[sequence].append((index, truth, guess))

    def _jitter(self) -> float | None:
        """Mean acceleration error over windows of three consecutive found frames."""
        errors = []
        for frames in self.tracks.values():
            frames.sort(key=lambda frame: frame[0])
            step = min((b[0] - a[0] for a, b in pairwise(frames)), default=1)
            span = range(frames[0][0], frames[-1][0] + 1, step)
            known = {index: (truth, guess) for index, truth, guess in frames}
            blank = np.zeros((21, 3))
            rows = [known.get(index, (blank, None)) for index in span]
            present = [guess is not None for _, guess in rows]
            guesses = np.stack([blank if guess is None else guess for _, guess in rows])
            truths = np.stack([truth for truth, _ in rows])
            errors.append(metrics.acceleration_errors(guesses, truths, present).ravel())
        joined = np.concatenate(errors) if errors else np.zeros(0)
        return 1000 * float(joined.mean()) if len(joined) else None
