"""Grounding DINO for one fixed prompt, slimmed without changing what it computes.

Three rewrites, each exact up to rounding:

- The text branch (BERT and its projection, 109 million parameters) sees only the prompt, so its
  output is a constant, and so are the masks and position ids made from the prompt.
- In the fusion attention the image has thousands of tokens and the prompt T = 4. With
  x W_q k^T = x (W_q k^T), P v W_o = P (v W_o) and P (x W_v) = (P x) W_v the wide projections of
  the image vanish: 477 -> 297 GFLOP in the encoder at 720x1280.
- Logits are not padded to 256 text tokens, and position embeddings of a full image are constants.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

MODELING = 'transformers.models.grounding_dino.modeling_grounding_dino'
MASKS = 'generate_masks_with_special_tokens_and_transfer_map'


class FoldedText(nn.Module):
    """Stands for the text backbone: the projected prompt, whatever the input."""

    features: Tensor  # [1,T,d]

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.register_buffer('features', features)

    def forward(self, input_ids: Tensor, *_: Any, **__: Any) -> Any:
        from transformers.modeling_outputs import BaseModelOutput

        features = self.features.expand(input_ids.shape[0], -1, -1)
        return BaseModelOutput(last_hidden_state=features)


class ConstantPosition(nn.Module):
    """Position embedding of an unpadded map: a constant of its shape, computed once."""

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self.original = original
        self._known: dict[tuple[int, int, str], Tensor] = {}

    def forward(self, pixel_values: Tensor, pixel_mask: Tensor) -> Tensor:
        height, width = pixel_values.shape[-2:]
        key = (int(height), int(width), str(pixel_values.device))
        if key not in self._known:
            mask = torch.ones(1, height, width, dtype=torch.bool, device=pixel_values.device)
            self._known[key] = self.original(pixel_values[:1], mask)
        return self._known[key].expand(pixel_values.shape[0], -1, -1, -1)


class SlimFusionAttention(nn.Module):
    """GroundingDinoBiMultiHeadAttention re-associated for few text tokens; eval mode, no padding.

    It takes over the original's six projections under their own names.
    """

    def __init__(self, original: Any) -> None:
        super().__init__()
        self.num_heads, self.head_dim = original.num_heads, original.head_dim
        self.scale = original.scale
        self.vision_proj: nn.Linear = original.vision_proj
        self.text_proj: nn.Linear = original.text_proj
        self.values_vision_proj: nn.Linear = original.values_vision_proj
        self.values_text_proj: nn.Linear = original.values_text_proj
        self.out_vision_proj: nn.Linear = original.out_vision_proj
        self.out_text_proj: nn.Linear = original.out_text_proj

    def forward(
        self,
        vision_features: Tensor,
        text_features: Tensor,
        vision_attention_mask: Tensor | None = None,
        text_attention_mask: Tensor | None = None,
    ) -> tuple[tuple[Tensor, None], tuple[Tensor, None]]:
        """Image [B,L,d] and text [B,T,d] -> their updates; attention weights are not returned."""
        B, T, d = text_features.shape
        heads, dh = self.num_heads, self.head_dim

        def by_head(x: Tensor) -> Tensor:
            return x.view(B, T, heads, dh).transpose(1, 2)  # [B,heads,T,dh]

        key = by_head(self.text_proj(text_features)) * self.scale
        query_weight = self.vision_proj.weight.view(heads, dh, d)
        query_bias = self.vision_proj.bias.view(heads, dh, 1)
        folded_key = (key @ query_weight).flatten(1, 2)  # [B,heads*T,d]
        folded_bias = (key @ query_bias).view(B, 1, heads * T)
        scores = vision_features @ folded_key.transpose(1, 2) + folded_bias  # [B,L,heads*T]
        scores = scores.unflatten(-1, (heads, T))

        out_weight = self.out_vision_proj.weight.view(d, heads, dh).permute(1, 2, 0)
        folded_value = (by_head(self.values_text_proj(text_features)) @ out_weight).flatten(1, 2)
        vision_update = scores.softmax(-1).flatten(2) @ folded_value + self.out_vision_proj.bias

        over_image = scores.flatten(2).softmax(1).transpose(1, 2)  # [B,heads*T,L]
        gathered = (over_image @ vision_features).view(B, heads, T, d)
        value_weight = self.values_vision_proj.weight.view(heads, dh, d).transpose(1, 2)
        value_bias = self.values_vision_proj.bias.view(heads, 1, dh)
        gathered = gathered @ value_weight + value_bias  # the weights over the image sum to 1
        text_update = self.out_text_proj(gathered.transpose(1, 2).flatten(2))
        return (vision_update, None), (text_update, None)


@torch.no_grad()
def slim(model: Any, input_ids: Tensor) -> None:
    """Slim a GroundingDinoForObjectDetection in place for the prompt `input_ids` [1,T]."""
    inner = model.model
    masks, position_ids = text_constants(inner, input_ids)
    text = inner.text_backbone.eval()(
        input_ids, masks[:, None], torch.zeros_like(input_ids), position_ids, return_dict=True
    )
    inner.text_backbone = FoldedText(inner.text_projection(text.last_hidden_state))
    inner.text_projection = nn.Identity()
    inner.backbone.position_embedding = ConstantPosition(inner.backbone.position_embedding)
    for layer in inner.encoder.layers:
        layer.fusion_layer.attn = SlimFusionAttention(layer.fusion_layer.attn)
    for module in model.modules():
        if type(module).__name__ == 'GroundingDinoContrastiveEmbedding':
            module.max_text_len = input_ids.shape[1]


def text_constants(inner: Any, input_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Self-attention masks [1,T,T] and position ids [1,T] of the prompt."""
    from importlib import import_module

    make = getattr(import_module(MODELING), MASKS)
    # Earlier releases of transformers 5 know the special tokens without being told.
    given = {'special_tokens': inner.special_tokens} if hasattr(inner, 'special_tokens') else {}
    masks, position_ids = make(input_ids, **given)
    return masks, position_ids


@contextmanager
def constant_masks(masks: Tensor, position_ids: Tensor) -> Iterator[None]:
    """Within the block the prompt's masks are constants; no exporter knows how to make them."""

    def known(input_ids: Tensor, **_: Tensor) -> tuple[Tensor, Tensor]:
        B = input_ids.shape[0]
        return masks.expand(B, -1, -1), position_ids.expand(B, -1)

    with patch(f'{MODELING}.{MASKS}', known):
        yield
