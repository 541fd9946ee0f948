"""A quick look at a fixed validation set; `evaluate.py` has the official numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from handos_model.hand.model import HandModel
from handos_model.network.handos import HandOS
from handos_training.data.sample import Batch
from handos_training.evaluation.matching import DetectionCount, match_boxes
from handos_training.evaluation.metrics import aligned_distances, pck
from handos_training.evaluation.panels import joint_map_predictions, panel
from handos_training.evaluation.prediction import Prediction, predict
from handos_training.stages.dense import DenseStage
from handos_training.stages.losses import Term
from handos_training.stages.module import weight_of_term

if TYPE_CHECKING:
    from handos_training.config import TrainConfig

Array = npt.NDArray[np.float64]
PANEL_ROWS = 6
SCORE_THRESHOLD = 0.3  # for precision and recall at one point


class ValidationScores:
    """Running figures over images: detection, 2D joints, mesh and side."""

    def __init__(self) -> None:
        self.detection = DetectionCount()
        self.joint_errors_px: list[Array] = []
        self.labelled: list[npt.NDArray[np.bool_]] = []
        self.sides_px: list[float] = []
        self.mesh_errors_mm: list[float] = []
        self.side_right: list[bool] = []

    def add(
        self,
        prediction: Prediction,
        batch: Batch,
        image: int,
        faces: npt.NDArray[np.int64],
    ) -> None:
        """Take in one image; a missed hand has infinite 2D error and no mesh error."""
        labels = batch.hands_of(image).to('cpu')
        truth = labels.boxes_xyxy_px.numpy()
        sure = prediction.scores >= SCORE_THRESHOLD
        self.detection.add(
            truth, prediction.boxes_xyxy_px[sure], complete=bool(batch.all_hands_labelled[image])
        )
        for hand, match in enumerate(match_boxes(truth, prediction.boxes_xyxy_px)):
            known = labels.has_joint_px[hand].numpy()
            error = np.full(21, np.inf)
            if match >= 0:
                offset = prediction.joints_px[match] - labels.joints_px[hand].numpy()
                error = np.linalg.norm(offset, axis=-1)
            self.joint_errors_px.append(error)
            self.labelled.append(known)
            self.sides_px.append(float((truth[hand, 2:] - truth[hand, :2]).max()))
            if match < 0 or prediction.vertices_m is None:
                continue
            vertices = prediction.vertices_m[match]
            if labels.has_vertices_m[hand]:
                wanted = labels.vertices_m[hand].numpy()
                errors = aligned_distances(vertices, wanted, reflection=False)
                self.mesh_errors_mm.append(1000 * float(np.mean(errors)))
            if labels.has_side[hand]:
                left = signed_volume(vertices, faces) < 0
                self.side_right.append(left == bool(labels.is_left[hand]))

    def figures(self) -> dict[str, float]:
        """Recall and precision at IoU 0.5; PCK, PA-MPVPE and side accuracy where labelled."""
        values = {'recall': self.detection.recall, 'precision': self.detection.precision}
        if self.joint_errors_px:
            shares = pck(
                np.stack(self.joint_errors_px), np.stack(self.labelled), self.sides_px, (0.1, 0.2)
            )
            values |= {'pck_0.1': float(shares[0]), 'pck_0.2': float(shares[1])}
        if self.mesh_errors_mm:
            values['pa_mpvpe_mm'] = float(np.mean(self.mesh_errors_mm))
        if self.side_right:
            values['side_accuracy'] = float(np.mean(self.side_right))
        return values


def signed_volume(vertices_m: Array, faces: npt.NDArray[np.int64]) -> float:
    """Six times the volume that the faces [F,3] enclose; positive for a right hand."""
    a, b, c = (vertices_m[faces[:, i]] - vertices_m.mean(0) for i in range(3))
    return float((a * np.cross(b, c)).sum())


class Validator:
    """Losses, figures and a picture of a validation set, for the stage of a run."""

    def __init__(
        self, config: TrainConfig, network: HandOS, hand_model: HandModel, device: torch.device
    ) -> None:
        self.config, self.network, self.faces = config, network, hand_model.faces
        self.device = device

    @torch.no_grad()
    def __call__(
        self, module: nn.Module, validation: Sequence[Batch]
    ) -> tuple[float, dict[str, float], npt.NDArray[np.uint8] | None]:
        """The weighted loss, all figures by name, and a picture of the first batch."""
        if not validation:
            return float('inf'), {}, None
        module.eval()
        sums: dict[str, Term] = {}
        scores = ValidationScores()
        picture = None
        for number, batch in enumerate(validation):
            moved = batch.to(self.device)
            for name, term in module(moved).items():
                so_far = sums.get(name, Term(torch.zeros(()), torch.zeros(())))
                sums[name] = Term(so_far.total + term.total.cpu(), so_far.size + term.size.cpu())
            if isinstance(module, DenseStage):
                logits = module.joint_logits(moved.images.float() / 255)
                predictions = joint_map_predictions(logits, batch)
            else:
                predictions = predict(self.network, moved.images)
            for image, prediction in enumerate(predictions):
                scores.add(prediction, batch, image, self.faces)
            if number == 0:
                picture = panel(batch, predictions[:PANEL_ROWS])
        losses = {name: float(term.total / term.size.clamp(min=1)) for name, term in sums.items()}
        weights = self.config.weights
        loss = sum(weight_of_term(weights, name) * value for name, value in losses.items())
        return loss, {'loss': loss} | scores.figures() | losses, picture
