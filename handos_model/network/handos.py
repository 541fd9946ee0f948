"""HandOS: a frozen detector, side tuning and the interactive decoder, in one module."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from handos_model.config import HandOSConfig
from handos_model.errors import UserError
from handos_model.files import write_whole
from handos_model.hand.model import HandModel
from handos_model.network.decoder import InteractiveDecoder
from handos_model.network.detectors.families import build_detector
from handos_model.network.detectors.protocol import (
    Detector,
    DetectorOutput,
    Sampler,
    SpatialShapes,
)
from handos_model.network.heads import DecoderOutput
from handos_model.network.side_tuning import SideTuning
from handos_model.weights import store

__all__ = ['DecoderOutput', 'Features', 'HandOS']


@dataclass
class Features:
    """What is computed once an image."""

    detector: DetectorOutput
    values_source: Tensor  # F_GD [B,L,C]
    spatial_shapes: SpatialShapes
    image_size_hw: tuple[int, int]


class HandOS(nn.Module):
    """One-stage hand reconstruction: `encode` an image, choose instances, `decode` them.

    `detector` is built outside (`detectors.build_detector`), and so is `hand_model`, whose
    template fixes the meaning of the 778 vertices.
    """

    def __init__(self, config: HandOSConfig, detector: Detector, hand_model: HandModel) -> None:
        super().__init__()
        self.config = replace(config, template_hash=hand_model.template_hash)
        self.detector = detector
        self.side_tuning = SideTuning(
            config.side_tuning, detector.dim, detector.backbone_channels, detector.num_levels
        )
        self.decoder = InteractiveDecoder(
            config.decoder, 2 * detector.dim, self.side_tuning.dim, detector.num_levels, hand_model
        )

    def encode(self, images: Tensor) -> Features:
        """Features of `images` [B,3,H,W], RGB, uint8 or float in [0,255]."""
        images = images.float() / 255
        detected = self.detector(images)
        values = self.side_tuning(detected, images)
        size_hw = (int(images.shape[2]), int(images.shape[3]))
        return Features(detected, values, detected.spatial_shapes, size_hw)

    def decode(
        self, features: Features, image_index: Tensor, queries: Tensor, boxes_cxcywh: Tensor
    ) -> list[DecoderOutput]:
        """Reconstruct N hands; one output a decoder layer, the last is final.

        `image_index` [N] int64 says the image of each hand, `queries` [N,2d] are rows of
        `features.detector.instance_queries`, `boxes_cxcywh` [N,4] their normalised boxes.
        """
        return self.decoder(  # type: ignore[no-any-return]
            features.values_source,
            features.spatial_shapes,
            features.image_size_hw,
            image_index,
            queries,
            boxes_cxcywh,
        )

    def set_sampler(self, sampler: Sampler) -> None:
        """Swap the sampling of the decoder's deformable attention, for export."""
        self.decoder.set_sampler(sampler)

    @classmethod
    def from_pretrained(cls, name: str | Path, hand_model: HandModel | None = None) -> HandOS:
        """From a shipped name ('nano'), a local folder, or a hub id; frozen and in eval mode.

        Raises UserError where the files are damaged or do not fit each other or the hand model.
        """
        folder = store.find_weights(name)
        store.verify_checksums(folder)
        config = store.load_config(folder)
        hand_model = hand_model or HandModel.embedded()
        store.check_template(config, hand_model)
        network = cls.from_config(config, hand_model)
        result = network.load_state_dict(load_file(folder / store.WEIGHTS), strict=False)
        # A hub detector's weights stay with the hub; everything else must be there, and no more.
        stays_away = config.detector.reference is not None
        missing = [
            k for k in result.missing_keys if not (stays_away and k.startswith('detector.'))
        ]
        if missing or result.unexpected_keys:
            raise UserError(
                f'{folder / store.WEIGHTS} does not fit its config.json: missing {missing[:3]}, '
                f'unexpected {result.unexpected_keys[:3]} (of {len(missing)} and '
                f'{len(result.unexpected_keys)}); the two files are not of one training run'
            )
        return network.eval()

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json`, `model.safetensors` and checksums; a hub detector stays away."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        own_detector = self.config.detector.reference is None
        # Copies: safetensors refuses tensors that share memory, as a detector's tied heads do.
        tensors = {
            key: value.clone(memory_format=torch.contiguous_format)
            for key, value in self.state_dict().items()
            if own_detector or not key.startswith('detector.')
        }
        write_whole(folder / store.WEIGHTS, save(tensors, metadata={'format': 'pt'}))
        (folder / store.CONFIG).write_text(self.config.to_json())
        store.write_checksums(folder)

    @classmethod
    def from_config(
        cls, config: HandOSConfig, hand_model: HandModel | None = None, freeze: bool = True
    ) -> HandOS:
        """With fresh weights (a hub detector keeps its own)."""
        hand_model = hand_model or HandModel.embedded()
        return cls(config, build_detector(config.detector, freeze), hand_model)
