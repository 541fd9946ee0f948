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

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from handos_model.config import DecoderConfig, DetectorConfig, HandOSConfig, SideTuningConfig
from handos_model.errors import UserError
from handos_model.hand.model import HandModel
from handos_model.network.detectors.dfine import DFineDetector, LiteBackbone, initialise_detector
from handos_model.network.detectors.efficientnet_lite import EfficientNetLite
from handos_model.network.detectors.protocol import DetectorOutput, unflatten_maps
from handos_model.network.detectors.reference import family_of, label_of, without_reference
from handos_model.network.handos import Features, HandOS
from handos_model.network.joint_maps import JointMaps, finest_map
from handos_model.weights.store import CONFIG, WEIGHTS, load_config
from handos_training.config import LossWeights, TrainConfig
from handos_training.layout import fast_attention
from handos_training.stages.assigner import assign
from handos_training.stages.dense import DenseHeads, DenseStage, joint_map_terms, load_dense_heads
from handos_training.stages.detector import DetectorStage
from handos_training.stages.imagenet import load_backbone
from handos_training.stages.losses import MeshTopology, Term, hand_losses, mesh_topology
from handos_training.stages.targets import hand_targets

if TYPE_CHECKING:
    from handos_training.data.sample import Batch

Part = TypeVar('Part', DetectorConfig, SideTuningConfig, DecoderConfig)


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

    def forward(self, batch: Batch) -> dict[str, Term]:
        with fast_attention(batch.images.device):
            return self._forward(batch)

    def _forward(self, batch: Batch) -> dict[str, Term]:
        targets = hand_targets(batch)
        images = batch.images.float() / 255
        terms: dict[str, Term] = {}
        (detector_stage,) = self._detector_stage
        if self.train_detector and detector_stage is not None:
            detected, terms = detector_stage(images, targets, batch.all_hands_labelled)
        else:
            detected = self._detect_frozen(images)
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
    def _detect_frozen(self, images: Tensor) -> DetectorOutput:
        (detector_stage,) = self._detector_stage
        if detector_stage is not None:
            return detector_stage.detect(images)
        with torch.autocast(images.device.type, enabled=False):
            return self.network.detector(images)


def trainable(network: HandOS) -> DFineDetector:
    """The network's detector, if it is of a family that this package trains."""
    if not isinstance(network.detector, DFineDetector):
        raise UserError(
            f'only D-FINE and RT-DETRv2 detectors can be trained, not '
            f'{type(network.detector).__name__}: keep it frozen, in stage 2d or full'
        )
    return network.detector


def joint_maps_of(network: HandOS) -> JointMaps:
    """The decoder's joint maps, which the dense targets are for."""
    if network.decoder.joint_maps is None:
        raise UserError(
            'dense targets teach joint maps, and this network has none: use decoder.start="maps" '
            '(nano), or leave out stage dense and dense_along'
        )
    return network.decoder.joint_maps


def build_network(config: TrainConfig, hand_model: HandModel) -> HandOS:
    """The network of a run, with the weights of `init_from` where they fit."""
    shape = network_config(config)
    trains_detector = config.train_detector or config.stage in ('dense', 'detector')
    if shape.detector.reference is not None and not trains_detector:
        require_hand_class(shape.detector)
    network = HandOS.from_config(shape, hand_model, freeze=not trains_detector)
    if shape.detector.reference is None:
        initialise_detector(network.detector.model, config.seed)
    elif trains_detector:
        detector = without_reference(shape.detector, network.detector.model)
        network.config = replace(network.config, detector=detector)
    if config.backbone is not None and config.init_from is None:
        lite_backbone(network).load_state_dict(load_backbone(config.backbone))
    if trains_detector and (config.freeze_to_stride or config.freeze_norms):
        lite_backbone(network).freeze(config.freeze_to_stride, config.freeze_norms)
    if config.init_from is not None:
        require_same_hand(network, config.init_from)
        left = load_matching(network, config.init_from)
        own = network.config.detector.reference is None and not trains_detector
        if own and (random := [name for name in left if name.startswith('detector.')]):
            raise UserError(
                f'init_from: {config.init_from} holds no {random[0]} ({len(random)} tensors of '
                'the detector), which is frozen in this stage: give a run of the same detector'
            )
    elif config.stage in ('2d', 'full') and not trains_detector and not shape.detector.reference:
        raise UserError(
            f'stage {config.stage} with a frozen detector needs its weights: give init_from (a '
            'run of stage detector), detector (a hub id or folder), or train_detector'
        )
    return network


def require_same_hand(network: HandOS, folder: Path) -> None:
    """Refuse to start a mesh from weights of another hand: their vertices are other places."""
    if network.config.decoder.stage == 'full' and (folder / CONFIG).is_file():
        start = load_config(folder)
        same = start.template_hash in (None, network.config.template_hash)
        if start.decoder.stage == 'full' and not same:
            raise UserError(
                f'init_from: {folder} was trained on another hand template than this run has: '
                'its vertices are other places. Start from its 2D stage, or give the same template'
            )


def lite_backbone(network: HandOS) -> EfficientNetLite:
    """The network's own backbone, the only one that can be frozen in part."""
    backbone = getattr(trainable(network).model.model, 'backbone', None)
    if not isinstance(backbone, LiteBackbone):
        raise UserError(
            'backbone, freeze_to_stride and freeze_norms are for EfficientNet-Lite (nano), and '
            'this detector has another backbone: leave them out'
        )
    return backbone.net


def network_config(config: TrainConfig) -> HandOSConfig:
    """The network's shape; the last image size is the one that it is deployed at."""
    shape = tiny() if config.model == 'tiny' else getattr(HandOSConfig, config.model)()
    detector, changes = shape.detector, config.network
    if config.detector is not None:
        family = family_of(config.detector)
        detector = DetectorConfig(family, config.detector)
    elif detector.reference is not None and config.init_from is not None:
        # That which an earlier stage was trained on, or trained itself.
        detector = load_config(started(config.init_from).parent).detector
    detector = changed(detector, prompt=changes.prompt, hand_label=changes.hand_label,
                       memory_layer=changes.memory_layer)  # fmt: skip
    decoder = changed(shape.decoder, queries=changes.queries, attention=changes.attention)
    return replace(
        shape,
        detector=detector,
        side_tuning=changed(shape.side_tuning, source=changes.side_tuning),
        decoder=replace(decoder, stage='2d' if config.stage == '2d' else 'full'),
        input_size_hw=config.image_sizes_hw[-1],
        long_edge=config.long_edge,
    )


def changed(part: Part, **values: Any) -> Part:
    """A copy of a part of the network's config; None keeps a field."""
    given = {name: value for name, value in values.items() if value is not None}
    return replace(part, **given)


def require_hand_class(detector: DetectorConfig) -> None:
    """Refuse to build on a frozen detector whose class for hands is called something else."""
    if detector.family == 'grounding_dino':
        return
    label = label_of(str(detector.reference), detector.hand_label)
    if label is not None and 'hand' not in label.lower():
        raise UserError(
            f'class {detector.hand_label} of {detector.reference} is {label!r}, not a hand, and '
            'the detector is frozen in this stage: fine-tune it first (base_detector) and give '
            'that run as init_from, or say which class is the hand (--network.hand-label)'
        )


def tiny() -> HandOSConfig:
    """The smallest network that has every part, for tests and smoke runs."""
    nano = HandOSConfig.nano()
    backbone = {
        'model_type': 'hgnet_v2',
        'stem_channels': [3, 8, 8],
        'stage_in_channels': [8, 16, 24, 32],
        'stage_mid_channels': [8, 8, 16, 16],
        'stage_out_channels': [16, 24, 32, 48],
        'stage_num_blocks': [1, 1, 1, 1],
        'stage_downsample': [False, True, True, True],
        'stage_light_block': [False, False, False, False],
        'stage_kernel_size': [3, 3, 3, 3],
        'stage_numb_of_layers': [1, 1, 1, 1],
        'hidden_sizes': [16, 24, 32, 48],
        'depths': [1, 1, 1, 1],
        'out_indices': [2, 3, 4],
    }
    detector = nano.detector.model | {
        'backbone_config': backbone,
        'freeze_backbone_batch_norms': False,
        'encoder_in_channels': [24, 32, 48],
        'encoder_hidden_dim': 32,
        'encoder_ffn_dim': 64,
        'd_model': 32,
        'decoder_in_channels': [32, 32, 32],
        'decoder_ffn_dim': 64,
        'decoder_layers': 2,
        'decoder_attention_heads': 4,
        'encoder_attention_heads': 4,
        'num_queries': 20,
        'num_denoising': 8,
    }
    return replace(
        nano,
        name='tiny',
        detector=DetectorConfig(family='d_fine', model=detector),
        side_tuning=replace(nano.side_tuning, width=32, hidden=16),
        decoder=replace(nano.decoder, dim=32, heads=4, ffn_dim=64, layers_2d=1, layers_3d=1),
        input_size_hw=(128, 160),
    )


def load_matching(network: nn.Module, folder: Path) -> list[str]:
    """Load the tensors of `folder`/model.safetensors whose name and shape fit; names the others.

    A 2D network and a full one share the detector, the side tuning and the first layers.
    """
    file = started(folder)
    saved = load_file(file)
    own = network.state_dict()
    fitting = {
        name: value for name, value in saved.items()
        if name in own and own[name].shape == value.shape
    }  # fmt: skip
    if not fitting:
        raise UserError(f'init_from: nothing in {file} fits this network; is it another model?')
    network.load_state_dict(fitting, strict=False)
    return sorted(set(own) - set(fitting))


def started(folder: Path) -> Path:
    """The weights file in `init_from`. Raises UserError where there is none."""
    file = Path(folder) / WEIGHTS
    if not file.is_file():
        raise UserError(f'init_from: {file} does not exist; give the weights folder of a run')
    return file


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
