"""D-FINE on one image; see transformers' modeling_d_fine for what it means.

Boxes are regressed for the chosen tokens only, not for all of them; the two branches of each
RepVGG block are one convolution; a box is read off its four distributions by one product.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from handos_model.network.detectors.dfine import DFineDetector, LiteBackbone
from handos_model.network.detectors.protocol import DetectorOutput, flatten_maps
from handos_model.network.lean.atlas import Atlas
from handos_model.network.lean.attention import LeanSelfAttention
from handos_model.network.lean.window import Window

PIXEL_MEAN, PIXEL_STD = 127.0, 128.0  # of EfficientNet-Lite
CELLS_A_QUERY = 16  # of a window, which holds a hand or two: they need few queries


def why_not_lean(detector: Any) -> str | None:
    """What of a detector this module does not know, None where it knows all."""
    config: Any = detector.model.config
    if config.model_type != 'd_fine':
        return 'the detector is not D-FINE'
    points = config.decoder_n_points
    for known, what in (
        (isinstance(points, int) or len(set(points)) == 1, 'levels have different points'),
        (config.decoder_method == 'default', 'its sampling is discrete'),
        (config.eval_idx in (-1, config.decoder_layers - 1), 'it stops before its last layer'),
        (not config.learn_initial_query, 'its queries are learned'),
        (not config.normalize_before, 'it normalises before attention'),
        (config.eval_size is None, 'its maps have no positions'),
        (config.num_feature_levels == len(config.decoder_in_channels), 'it makes levels'),
    ):
        if not known:
            return what
    return None


class LeanDFine(nn.Module):
    """RGB image [1,3,H,W] in [0,255] -> what `DFineDetector` gives for it."""

    anchors: Tensor  # [L,4] logits
    valid: Tensor | None  # [L,1]; None where all are

    @torch.no_grad()
    def __init__(self, detector: DFineDetector, window: Window) -> None:
        super().__init__()
        whole: Any = detector.model
        model = whole.model
        self.model, self.scores = model, detector.scores
        self.num_queries = model.config.num_queries
        if window.is_part:
            self.num_queries = min(self.num_queries, len(window.tokens()) // CELLS_A_QUERY)
        self.encoder = _lean_encoder(model.encoder, window)
        self.backbone = model.backbone
        self.pixel_mean, self.pixel_std = 0.0, 255.0
        if isinstance(model.backbone, LiteBackbone):
            self.pixel_mean, self.pixel_std = PIXEL_MEAN, 1.0
            self.backbone = copy.deepcopy(model.backbone)
            self.backbone.net.stem.weight /= PIXEL_STD
        anchors, valid = model.generate_anchors(tuple(window.whole))
        anchors, valid = anchors[0, window.tokens()], valid[0, window.tokens()]
        self.register_buffer('anchors', anchors, persistent=False)
        mask = None if valid.all() else valid.float()
        self.register_buffer('valid', mask, persistent=False)
        attention = model.decoder.layers[0].encoder_attn
        self.atlas = Atlas(window, attention.n_heads, attention.num_points_list[0])
        self.layers = nn.ModuleList(
            LeanDFineLayer(layer, self.atlas) for layer in model.decoder.layers
        )
        self.boxes = Distributions(model.decoder)

    def forward(self, pixels: Tensor) -> DetectorOutput:
        model, decoder = self.model, self.model.decoder
        maps = self._backbone_maps(pixels)
        projected = [
            project(level) for project, level in zip(model.encoder_input_proj, maps, strict=True)
        ]
        encoded = self.encoder(projected).last_hidden_state
        memory, shapes = flatten_maps(encoded)
        inputs = model.decoder_input_proj
        source = memory[0]
        if not all(isinstance(project, nn.Identity) for project in inputs):
            levels = [project(level) for project, level in zip(inputs, encoded, strict=True)]
            source = flatten_maps(levels)[0][0]

        considered = model.enc_output(source if self.valid is None else source * self.valid)
        head = model.enc_score_head
        # Weights on the left: a product of one column is slow.
        scores = torch.addmm(head.bias[:, None], head.weight, considered.t())
        _, chosen = scores.amax(0).topk(self.num_queries)
        initial = considered.index_select(0, chosen)
        boxes = model.enc_bbox_head(initial) + self.anchors.index_select(0, chosen)
        boxes = boxes.sigmoid()

        values = self.atlas.spread(source).t()
        tokens, before, corners, start = initial, None, None, boxes
        for number, layer in enumerate(self.layers):
            position = decoder.query_pos_head(boxes).clamp(-10, 10)
            tokens = layer(tokens, position, boxes, values)
            head = decoder.bbox_embed[number]
            if before is None or corners is None:
                start = (decoder.pre_bbox_head(tokens) + _logit(boxes)).sigmoid()
                corners = head(tokens)
            else:
                corners = head(tokens + before) + corners
            before = tokens
            boxes, likely = self.boxes(corners, start)
        logits = decoder.class_embed[-1](tokens) + self.boxes.quality(likely)
        token_logits = scores.index_select(1, chosen).t()[None]
        return DetectorOutput(
            memory=memory,
            spatial_shapes=shapes,
            queries_initial=initial[None],
            queries_final=tokens[None],
            boxes_cxcywh=boxes[None],
            scores=self.scores(token_logits, logits[None], boxes[None]),
            logits=logits[None],
            backbone_maps=maps,
            token_logits=token_logits,
        )

    def _backbone_maps(self, pixels: Tensor) -> tuple[Tensor, ...]:
        if self.pixel_mean:
            return self.backbone.net.maps(pixels - self.pixel_mean)  # type: ignore[no-any-return]
        mask = pixels.new_ones(1, *pixels.shape[2:])
        return tuple(level for level, _ in self.backbone(pixels / self.pixel_std, mask))


class LeanDFineLayer(nn.Module):
    """One decoder layer over the queries [Q,d]."""

    reach: Tensor  # [2,columns]

    def __init__(self, plain: Any, atlas: Atlas) -> None:
        super().__init__()
        self.plain, self.atlas = plain, atlas
        self.attention = _lean_attention(plain.self_attn)
        cross = plain.encoder_attn
        reach = cross.offset_scale / cross.num_points_list[0]
        self.register_buffer('reach', atlas.slope * reach, persistent=False)

    def forward(self, tokens: Tensor, position: Tensor, boxes: Tensor, values: Tensor) -> Tensor:
        """Tokens and position [Q,d], boxes [Q,4], values [d,A] -> tokens."""
        plain, cross, atlas = self.plain, self.plain.encoder_attn, self.atlas
        tokens = plain.self_attn_layer_norm(tokens + self.attention(tokens, tokens + position))
        queries = tokens + position
        base = torch.addmm(atlas.offset, boxes[:, :2], atlas.slope)
        grid = cross.sampling_offsets(queries) * (boxes[:, 2:] @ self.reach) + base
        weights = cross.attention_weights(queries).view(len(queries) * atlas.heads, -1)
        sampled = atlas.sample(values, grid, weights.softmax(-1)).t()
        gate = plain.gateway
        gates = gate.gate(torch.cat([tokens, sampled], dim=1)).sigmoid()
        kept, new = gates.chunk(2, dim=1)
        tokens = gate.norm(kept * tokens + new * sampled)
        return plain.final_layer_norm(tokens + plain.mlp(tokens))  # type: ignore[no-any-return]


class Distributions(nn.Module):
    """Boxes as distributions over the distances of four sides (D-FINE, section 4.1)."""

    project: Tensor  # [4*bins,4]
    unit: Tensor  # [4]

    def __init__(self, decoder: Any) -> None:
        super().__init__()
        from transformers.models.d_fine.modeling_d_fine import weighting_function

        self.bins = decoder.max_num_bins + 1
        scale = float(abs(decoder.reg_scale.double()))
        distance = weighting_function(decoder.max_num_bins, decoder.up, decoder.reg_scale).double()
        # left, top, right, bottom -> shift of the middle, growth of the size, in sizes
        sides = torch.tensor([[-0.5, 0, 1, 0], [0, -0.5, 0, 1], [0.5, 0, 1, 0], [0, 0.5, 0, 1]])
        project = distance.view(1, -1, 1) * sides.double()[:, None] / scale
        self.register_buffer('project', project.reshape(-1, 4).float(), persistent=False)
        self.register_buffer('unit', torch.tensor([0.0, 0, 1, 1]), persistent=False)
        lqe = decoder.lqe_layers[-1]
        self.top, self.quality_layers = lqe.top_prob_values, lqe.reg_conf.layers
        first = self.quality_layers[0]
        # The mean of the highest is among its inputs: a linear map of them.
        split = first.weight.detach().view(first.out_features, 4, self.top + 1)
        weight = split[..., :-1] + split[..., -1:] / self.top
        self.register_buffer('quality_weight', weight.flatten(1), persistent=False)
        self.quality_bias = first.bias

    def forward(self, corners: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        """Corner logits [Q,4*bins], first boxes [Q,4] -> boxes [Q,4], probabilities [4*Q,bins]."""
        likely = corners.view(-1, self.bins).softmax(-1)
        change = torch.addmm(self.unit, likely.view(len(corners), -1), self.project)
        centre, size = start.chunk(2, dim=1)
        shift, growth = change.chunk(2, dim=1)
        return torch.cat([centre + shift * size, growth * size], dim=1), likely

    def quality(self, likely: Tensor) -> Tensor:
        """How sharp the sides are, as logits [Q,1] of being right."""
        highest = likely.topk(self.top, dim=-1).values.view(-1, 4 * self.top)
        weight: Any = self.quality_weight
        value = F.linear(highest, weight, self.quality_bias)
        for layer in self.quality_layers[1:]:
            value = layer(value.relu())
        return value


class _OneBranch(nn.Module):
    """A RepVGG block as one convolution."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        weight, bias = _folded(block.conv1)
        point, point_bias = _folded(block.conv2)
        self.conv = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
        self.conv.weight.copy_(weight + F.pad(point, (1, 1, 1, 1)))
        assert self.conv.bias is not None
        self.conv.bias.copy_(bias + point_bias)
        self.activation = block.activation

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.conv(x))  # type: ignore[no-any-return]


class LeanAifi(nn.Module):
    """Attention within the coarsest map [1,d,h,w]."""

    position: Tensor  # [h*w,d]

    def __init__(self, plain: Any, window: Window, level: int) -> None:
        super().__init__()
        self.layers = plain.layers
        self.attention = nn.ModuleList(_lean_attention(layer.self_attn) for layer in plain.layers)
        device, dtype = plain.layers[0].mlp.layers[0].weight.device, torch.float32
        height, width = window.whole[level]
        position = plain.position_embedding(width, height, device, dtype)[0]
        self.register_buffer('position', position[window.cells(level)], persistent=False)

    def forward(self, level: Tensor) -> Tensor:
        rows = level[0].flatten(1).t()
        for layer, attention in zip(self.layers, self.attention, strict=True):
            rows = layer.self_attn_layer_norm(rows + attention(rows, rows + self.position))
            rows = layer.final_layer_norm(rows + layer.mlp(rows))
        return rows.t().reshape(level.shape)


def _lean_attention(plain: Any) -> LeanSelfAttention:
    heads = plain.q_proj.out_features // plain.head_dim
    return LeanSelfAttention(plain.q_proj, plain.k_proj, plain.v_proj, plain.o_proj, heads)


def _lean_encoder(encoder: Any, window: Window) -> Any:
    encoder = copy.deepcopy(encoder)
    for i, level in enumerate(encoder.encode_proj_layers):
        encoder.aifi[i] = LeanAifi(encoder.aifi[i], window, level)
    for module in list(encoder.modules()):
        for name, child in list(module.named_children()):
            if type(child).__name__ == 'DFineRepVggBlock':
                setattr(module, name, _OneBranch(child))
    return encoder


def _folded(layer: Any) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution with its batch norm in it."""
    norm = layer.norm
    eps = getattr(norm, 'eps', 1e-5)
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + eps)
    bias = norm.bias.double() - norm.running_mean.double() * scale
    return (layer.conv.weight.double() * scale[:, None, None, None]).float(), bias.float()


def _logit(probability: Tensor, eps: float = 1e-5) -> Tensor:
    kept = probability.clamp(0, 1)
    return (kept.clamp_min(eps) / (1 - kept).clamp_min(eps)).log()
