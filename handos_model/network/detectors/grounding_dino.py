"""Grounding DINO from transformers, asked for one prompt."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from handos_model.config import DetectorConfig
from handos_model.network.detectors.protocol import DetectorBase, DetectorOutput
from handos_model.network.detectors.reference import load_reference, not_had
from handos_model.network.detectors.slim_grounding_dino import constant_masks, slim, text_constants

# "[CLS] hand . [SEP]" in the vocabulary of bert-base-uncased, which all Grounding DINOs use.
HAND_TOKENS = (101, 2192, 1012, 102)


class GroundingDinoDetector(DetectorBase):
    """Grounding DINO behind the protocol; `model` is a GroundingDinoForObjectDetection.

    Its Q0 is a learned embedding by rank and says nothing of the instance; Q6 does. The score is
    the best over the prompt's tokens, as in the reference post-processing.
    """

    input_ids: Tensor  # [1,T]
    text_masks: Tensor  # [1,T,T]
    text_position_ids: Tensor  # [1,T]

    def __init__(
        self,
        model: Any,
        input_ids: tuple[int, ...] = HAND_TOKENS,
        memory_layer: int | None = None,
        slimmed: bool = True,
        freeze: bool = True,
    ) -> None:
        super().__init__(model, freeze, normalise=True)
        self.dim = model.config.d_model
        self.num_levels = model.config.num_feature_levels
        self.backbone_channels = tuple(
            model.model.backbone.conv_encoder.intermediate_channel_sizes
        )
        if memory_layer is not None and not 0 < memory_layer <= model.config.encoder_layers:
            raise ValueError(
                f'memory_layer={memory_layer} is not in 1..{model.config.encoder_layers}'
            )
        self.memory_layer = memory_layer
        self.slimmed = slimmed
        prompt = torch.tensor([input_ids])
        masks, position_ids = text_constants(model.model, prompt)
        self.register_buffer('input_ids', prompt, persistent=False)
        self.register_buffer('text_masks', masks, persistent=False)
        self.register_buffer('text_position_ids', position_ids, persistent=False)
        if slimmed:
            slim(model, prompt)
        captured = self._captured

        def keep_decoder_inputs(_: nn.Module, __: Any, kwargs: dict[str, Any]) -> None:
            captured['queries_initial'] = kwargs['inputs_embeds']
            captured['spatial_shapes'] = kwargs['spatial_shapes_list']

        def keep_backbone_maps(_: nn.Module, __: Any, output: list[tuple[Tensor, Tensor]]) -> None:
            captured['backbone_maps'] = tuple(feature for feature, _ in output)

        model.model.decoder.register_forward_pre_hook(keep_decoder_inputs, with_kwargs=True)
        model.model.backbone.conv_encoder.register_forward_hook(keep_backbone_maps)

    def detect(self, pixels: Tensor) -> DetectorOutput:
        input_ids = self.input_ids.expand(pixels.shape[0], -1)
        constants = constant_masks(self.text_masks, self.text_position_ids)
        with constants if self.slimmed else nullcontext():
            outputs = self.model(
                pixel_values=pixels,
                input_ids=input_ids,
                output_hidden_states=self.memory_layer is not None,
            )
        memory = outputs.encoder_last_hidden_state_vision
        if self.memory_layer is not None:
            memory = outputs.encoder_vision_hidden_states[self.memory_layer]
        return DetectorOutput(
            memory=memory,
            spatial_shapes=tuple((int(h), int(w)) for h, w in self._captured['spatial_shapes']),
            queries_initial=self._captured['queries_initial'],
            queries_final=outputs.last_hidden_state,
            boxes_cxcywh=outputs.pred_boxes,
            scores=outputs.logits.sigmoid().amax(-1),
            logits=outputs.logits,
            backbone_maps=self._captured['backbone_maps'],
        )


def build_grounding_dino(config: DetectorConfig, freeze: bool = True) -> GroundingDinoDetector:
    """From `config.reference`, else from `config.model` with seedable random weights."""
    from transformers import GroundingDinoConfig, GroundingDinoForObjectDetection

    if config.reference is not None:
        model = load_reference(GroundingDinoForObjectDetection, config)
    else:
        model = GroundingDinoForObjectDetection(GroundingDinoConfig(**config.model))
    tokens = prompt_tokens(config.prompt, config.reference)
    return GroundingDinoDetector(model, tokens, config.memory_layer, config.slim, freeze)


def prompt_tokens(prompt: str, reference: str | None) -> tuple[int, ...]:
    """Token ids of the prompt; another prompt than "hand." needs the reference's tokenizer."""
    if prompt == 'hand.':
        return HAND_TOKENS
    from transformers import AutoTokenizer

    name = reference or 'bert-base-uncased'
    try:
        return tuple(AutoTokenizer.from_pretrained(name)(prompt).input_ids)
    except Exception as error:  # the hub client raises a dozen kinds, all meaning: not got
        raise not_had(name, error) from error
