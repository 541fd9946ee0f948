"""The network of a run: its shape, from the config, and the weights that it starts with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from safetensors.torch import load_file
from torch import nn

from handos_model.config import DecoderConfig, DetectorConfig, HandOSConfig, SideTuningConfig
from handos_model.errors import UserError
from handos_model.hand.model import HandModel
from handos_model.network.detectors.dfine import DFineDetector, LiteBackbone, initialise_detector
from handos_model.network.detectors.efficientnet_lite import EfficientNetLite
from handos_model.network.detectors.reference import family_of, label_of, without_reference
from handos_model.network.handos import HandOS
from handos_model.weights.store import CONFIG, WEIGHTS, load_config
from handos_training.config import TrainConfig
from handos_training.stages.imagenet import load_backbone

Part = TypeVar('Part', DetectorConfig, SideTuningConfig, DecoderConfig)


def build_network(config: TrainConfig, hand_model: HandModel) -> HandOS:
    """The network of a run, with the weights of `init_from` where they fit."""
    shape = network_config(config)
    trains_detector = config.train_detector or config.stage in ('dense', 'detector')
    if shape.detector.reference is not None and not trains_detector:
        require_hand_class(shape.detector)
    network = HandOS.from_config(shape, hand_model, freeze=not trains_detector)
    if config.stage != 'dense' and config.long_edge is None:  # its sizes are those of its images
        require_cells(network, config.image_sizes_hw)
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


def require_cells(network: HandOS, sizes_hw: Iterable[tuple[int, int]]) -> None:
    """Refuse images [H,W] with fewer cells, of all levels, than the detector chooses queries."""
    if not isinstance(network.detector, DFineDetector):
        return
    shape: Any = network.detector.model.config
    for height, width in sizes_hw:
        cells = sum((height // stride) * (width // stride) for stride in shape.feat_strides)
        if cells < shape.num_queries:
            raise UserError(
                f'image_sizes_hw: {height}x{width} has {cells} cells, and this detector chooses '
                f'{shape.num_queries} queries among them: take larger images'
            )


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


def trainable(network: HandOS) -> DFineDetector:
    """The network's detector, if it is of a family that this package trains."""
    if not isinstance(network.detector, DFineDetector):
        raise UserError(
            f'only D-FINE and RT-DETRv2 detectors can be trained, not '
            f'{type(network.detector).__name__}: keep it frozen, in stage 2d or full'
        )
    return network.detector


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
