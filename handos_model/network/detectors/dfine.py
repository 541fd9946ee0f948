"""D-FINE from transformers, and the layout that it shares with RT-DETRv2."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from handos_model.config import DetectorConfig
from handos_model.network.detectors.efficientnet_lite import EfficientNetLite
from handos_model.network.detectors.protocol import DetectorBase, DetectorOutput, flatten_maps
from handos_model.network.detectors.reference import load_reference
from handos_model.network.detectors.scores import fused_logits

EFFICIENTNET_LITE = 'efficientnet_lite'  # our own `model_type` of a backbone_config


class DFineDetector(DetectorBase):
    """D-FINE behind the detector protocol; `model` is a DFineForObjectDetection.

    Its Q0 is gathered from the encoder's memory (query selection), so it differs by instance.
    """

    def __init__(self, model: Any, config: DetectorConfig, freeze: bool = True) -> None:
        super().__init__(model, freeze, normalise=False)  # the family is trained on x / 255
        self.hand_label, self.score = config.hand_label, config.score
        self.dim = model.config.d_model
        self.num_levels = len(model.config.encoder_in_channels)
        self.backbone_channels = tuple(model.model.backbone.intermediate_channel_sizes)
        captured = self._captured

        def keep_initial_queries(_: nn.Module, __: Any, kwargs: dict[str, Any]) -> None:
            captured['queries_initial'] = kwargs['inputs_embeds']

        def keep_backbone_maps(_: nn.Module, __: Any, output: list[tuple[Tensor, Tensor]]) -> None:
            captured['backbone_maps'] = tuple(feature for feature, _ in output)

        model.model.decoder.register_forward_pre_hook(keep_initial_queries, with_kwargs=True)
        model.model.backbone.register_forward_hook(keep_backbone_maps)

    def detect(self, pixels: Tensor) -> DetectorOutput:
        outputs = self.model(pixel_values=pixels)
        memory, spatial_shapes = flatten_maps(outputs.encoder_last_hidden_state)
        return DetectorOutput(
            memory=memory,
            spatial_shapes=spatial_shapes,
            queries_initial=self._captured['queries_initial'],
            queries_final=outputs.last_hidden_state,
            boxes_cxcywh=outputs.pred_boxes,
            scores=self.scores(outputs.enc_topk_logits, outputs.logits, outputs.pred_boxes),
            logits=outputs.logits,
            backbone_maps=self._captured['backbone_maps'],
            token_logits=outputs.enc_topk_logits,
        )

    def scores(self, token_logits: Tensor, logits: Tensor, boxes_cxcywh: Tensor) -> Tensor:
        """The chance of a hand [B,Q], of logits [B,Q,classes] of tokens and queries."""
        tokens, queries = (part[..., self.hand_label] for part in (token_logits, logits))
        if self.score is None:
            return queries.sigmoid()
        return fused_logits(self.score, tokens, queries, boxes_cxcywh).sigmoid()


def build_dfine(config: DetectorConfig, freeze: bool = True) -> DFineDetector:
    """From `config.reference`, else from `config.model` with seedable random weights."""
    from transformers import DFineConfig, DFineForObjectDetection

    if config.reference is not None:
        model = load_reference(DFineForObjectDetection, config)
    else:
        backbone = None
        arguments = dict(config.model)
        if arguments.get('backbone_config', {}).get('model_type') == EFFICIENTNET_LITE:
            backbone = LiteBackbone(arguments['backbone_config'].get('variant', 0))
            arguments['backbone_config'] = _smallest_backbone(backbone.net.channels)
            arguments['encoder_in_channels'] = list(backbone.net.channels)
        model = DFineForObjectDetection(DFineConfig(**arguments))
        if backbone is not None:
            model.model.backbone = backbone
    return DFineDetector(model, config, freeze)


class LiteBackbone(nn.Module):
    """EfficientNet-Lite where transformers has a backbone: maps, each with a mask (unused)."""

    def __init__(self, variant: int = 0) -> None:
        super().__init__()
        self.net = EfficientNetLite(variant)
        self.intermediate_channel_sizes = list(self.net.channels)

    def forward(self, pixels: Tensor, _: Tensor) -> list[tuple[Tensor, None]]:
        return [(level, None) for level in self.net(pixels)]


def _smallest_backbone(channels: tuple[int, ...]) -> dict[str, Any]:
    """A backbone that transformers can build, with maps of `channels`, to be replaced by ours."""
    widths = [8, *channels]
    return {
        'model_type': 'hgnet_v2',
        'stem_channels': [3, 8, 8],
        'stage_in_channels': [8, *widths[:-1]],
        'stage_mid_channels': [8] * 4,
        'stage_out_channels': widths,
        'stage_num_blocks': [1] * 4,
        'stage_numb_of_layers': [1] * 4,
        'stage_downsample': [False, True, True, True],
        'stage_light_block': [False] * 4,
        'stage_kernel_size': [3] * 4,
        'hidden_sizes': widths,
        'depths': [1] * 4,
        'out_indices': [2, 3, 4],
    }


@torch.no_grad()
def initialise_detector(module: nn.Module, seed: int) -> None:
    """Healthy random weights for a detector that is trained from scratch.

    The library's default initialisation (normal, std 0.01) shrinks features to about 1e-9 after a
    few layers: denormal numbers, which are slow, and near-ties in the query selection. Here
    the backbone's convolutions get He's gain, the other convolutions gain 1 (they are summed and
    end in SiLU), matrices Xavier's scale; what the detector sets on purpose (sampling offsets,
    class priors, zero-initialised last layers) stays as it is.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, part in module.named_modules():
        if isinstance(part, nn.Conv2d):
            fan_in = part.in_channels * math.prod(part.kernel_size) / part.groups
            gain = 2 if 'backbone' in name else 1
            part.weight.normal_(0, math.sqrt(gain / fan_in), generator=generator)
            if part.bias is not None:
                part.bias.zero_()
        elif isinstance(part, nn.Linear):
            kept = ('sampling_offsets', 'attention_weights', 'gate', 'class_embed', 'score_head')
            if any(word in name for word in kept) or not part.weight.any():
                continue
            bound = math.sqrt(6 / (part.in_features + part.out_features))
            part.weight.uniform_(-bound, bound, generator=generator)
            if part.bias is not None:
                part.bias.zero_()
        elif isinstance(part, nn.Embedding):
            part.weight.normal_(0, 0.5, generator=generator)
        elif isinstance(part, nn.BatchNorm2d):
            part.reset_parameters()
            part.reset_running_stats()
