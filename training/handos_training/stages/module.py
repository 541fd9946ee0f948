"""What a training step is, by stage: a batch goes in, loss terms come out.

    dense     backbone and encoder on dense targets (from scratch only)       dense.py
    detector  boxes and scores with transformers' losses (from scratch only)  detector.py
    2d        joints in the image (the paper's first stage)
    full      joints, mesh and translation

`train_detector` lets 2d and full train the detector along, in one backward pass. That is our own
departure from the paper, which starts from a pretrained detector and freezes it. `dense_along`
keeps the dense targets beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from handos_model.errors import UserError
from handos_model.hand.model import HandModel
from handos_model.network.detectors.dfine import DFineDetector
from handos_model.network.detectors.protocol import DetectorOutput, unflatten_maps
from handos_model.network.handos import Features, HandOS
from handos_model.network.joint_maps import JointMaps, finest_map
from handos_training.config import LossWeights, TrainConfig
from handos_training.layout import fast_attention
from handos_training.stages.assigner import assign
from handos_training.stages.dense import DenseHeads, DenseStage, joint_map_terms, load_dense_heads
from handos_training.stages.detector import DetectorStage
from handos_training.stages.losses import MeshTopology, Term, hand_losses, mesh_topology
from handos_training.stages.network import trainable
from handos_training.stages.targets import hand_targets

if TYPE_CHECKING:
    from handos_training.data.sample import Batch


class DetectorTraining(nn.Module):
    """Stage `detector`."""

    def __init__(self, network: HandOS) -> None:
        super().__init__()
        self.stage = DetectorStage(trainable(network))

    def forward(self, batch: Batch) -> dict[str, Term]:
        _, terms = self.stage(batch.images.float() / 255, hand_targets(batch),
                              batch.all_hands_labelled)  # fmt: skip
        return terms  # type: ignore[no-any-return]


class HandTraining(nn.Module):
    """Stages `2d` and `full`: SimOTA chooses queries, the decoder is trained on them."""

    def __init__(
        self,
        network: HandOS,
        hand_model: HandModel,
        train_detector: bool,
        max_queries: int,
        dense: DenseHeads | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.dense = dense
        self.max_queries = max_queries
        self.train_detector = train_detector
        # In a tuple, because the network has registered the detector already.
        own = isinstance(network.detector, DFineDetector)
        self._detector_stage = (DetectorStage(trainable(network)) if own else None,)
        topology = mesh_topology(torch.tensor(hand_model.faces))
        self.faces = nn.Buffer(topology.faces, persistent=False)
        self.face_pairs = nn.Buffer(topology.face_pairs, persistent=False)

    def forward(self, batch: Batch, detected: DetectorOutput | None = None) -> dict[str, Term]:
        """`detected` is what `detect` said of the batch, where that is known already."""
        with fast_attention(batch.images.device):
            return self._forward(batch, detected)

    def _forward(self, batch: Batch, detected: DetectorOutput | None) -> dict[str, Term]:
        targets = hand_targets(batch)
        images = batch.images.float() / 255
        terms: dict[str, Term] = {}
        (detector_stage,) = self._detector_stage
        if self.train_detector and detector_stage is not None:
            detected, terms = detector_stage(images, targets, batch.all_hands_labelled)
        elif detected is None:
            detected = self.detect(batch)
        positives = assign(
            detected.scores.detach(),
            detected.boxes_cxcywh.detach(),
            targets.boxes_cxcywh,
            targets.image_index,
            self.max_queries,
        )
        size_hw = (int(images.shape[2]), int(images.shape[3]))
        values = self.network.side_tuning(detected, images)
        joint_maps = self.network.decoder.joint_maps
        if joint_maps is not None:
            finest = finest_map(values, detected.spatial_shapes)
            map_terms, trunk = joint_map_terms(joint_maps, finest, targets)
            terms |= map_terms
            if self.dense is not None and detector_stage is not None:
                maps = unflatten_maps(detected.memory, detected.spatial_shapes)
                model = detector_stage.detector.model
                terms |= self.dense(model, maps, trunk, targets, batch)
        features = Features(detected, values, detected.spatial_shapes, size_hw)
        chosen = positives.image_index, positives.query_index
        layers = self.network.decode(
            features,
            positives.image_index,
            detected.instance_queries[chosen],
            detected.boxes_cxcywh[chosen].detach(),
        )
        topology = MeshTopology(self.faces, self.face_pairs)
        with torch.autocast(images.device.type, enabled=False):
            return terms | hand_losses(layers, targets[positives.hand_index], topology)

    @torch.no_grad()
    def detect(self, batch: Batch) -> DetectorOutput:
        """What a frozen detector says of the batch."""
        images = batch.images.float() / 255
        (detector_stage,) = self._detector_stage
        if detector_stage is not None:
            return detector_stage.detect(images)
        with torch.autocast(images.device.type, enabled=False):
            return self.network.detector(images)


def joint_maps_of(network: HandOS) -> JointMaps:
    """The decoder's joint maps, which the dense targets are for."""
    if network.decoder.joint_maps is None:
        raise UserError(
            'dense targets teach joint maps, and this network has none: use decoder.start="maps" '
            '(nano), or leave out stage dense and dense_along'
        )
    return network.decoder.joint_maps


def weight_of_term(weights: LossWeights, name: str) -> float:
    """The weight of a term; the detector's and the dense terms have one each for all."""
    for group in ('detector', 'dense'):
        if name.startswith(f'{group}_'):
            return float(getattr(weights, group))
    return float(getattr(weights, name))


def build_module(config: TrainConfig, network: HandOS, hand_model: HandModel) -> nn.Module:
    """The training step of `config.stage` over the network's parts."""
    dense = None
    if config.stage == 'dense' or config.dense_along:
        parts = torch.tensor(hand_model.skinning_weights).argmax(dim=1)
        dense = DenseHeads(trainable(network).dim, parts, joint_maps_of(network).width)
        if config.init_from is not None:
            load_dense_heads(dense, config.init_from)
    if config.stage == 'dense':
        assert dense is not None
        return DenseStage(trainable(network), joint_maps_of(network), dense)
    if config.stage == 'detector':
        return DetectorTraining(network)
    network.decoder.checkpointing = config.checkpoint_layers
    return HandTraining(
        network, hand_model, config.train_detector, config.max_queries_per_hand, dense
    )
