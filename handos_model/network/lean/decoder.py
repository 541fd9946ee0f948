"""The decoder's last layer for K hands of one image; see `network/decoder.py` for what it means.

Joints and vertices are placed relative to the hand's box throughout: there the sizes of reference
boxes are constants, and so is all that the position embedding makes of them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from handos_model.network.attention import DeformableAttention, attention_groups
from handos_model.network.decoder import InteractiveDecoder
from handos_model.network.heads import HAND_EXTENT_M, RESIDUAL_UNIT_M
from handos_model.network.joint_maps import DEPTH_UNIT_M, OUTSIDE, SHARPNESS, WINDOW, JointMaps
from handos_model.network.lean.atlas import Atlas
from handos_model.network.lean.attention import LeanSelfAttention
from handos_model.network.lean.window import Window
from handos_model.types import NUM_JOINTS, NUM_VERTICES, ROOT_JOINT

J = NUM_JOINTS
# What stands beside each cell's features for the bias: about their size, so that one scale of 8
# bits fits both. A power of two: the bias over it is exact.
UNIT = 4.0
HIDDEN = -1e4  # a logit of attention that is none; float16 holds it


class LeanDecoder(nn.Module):
    """features [1,L,C], queries [K,2d], boxes [K,4] -> the outputs of `graphs.DecoderGraph`."""

    matrix: Tensor  # [T,21] lifts joints to all tokens
    embedding: Tensor  # [T,d]
    lifted: Tensor  # [T,1] 1 where a token is not a joint
    mesh: Tensor  # [778+21,V] coarse vertices to root-relative vertices and joints
    image_px: Tensor  # [2]

    @torch.no_grad()
    def __init__(
        self,
        decoder: InteractiveDecoder,
        window: Window,
        image_size_hw: tuple[int, int],
    ) -> None:
        super().__init__()
        config, self.plain = decoder.config, decoder
        self.atlas = Atlas(window, config.heads, config.points)
        self.maps = LeanMaps(decoder.joint_maps, window) if decoder.joint_maps else None
        lifting: Any = decoder.lifting
        matrix = torch.cat([torch.eye(J), lifting.matrix])
        sizes = torch.cat(
            [decoder.joint_size, (lifting.matrix @ decoder.joint_size) * lifting.size]
        )
        V = config.vertex_tokens
        visible = torch.full((J + V + 1, J + V + 1), HIDDEN)
        for queries, keys in attention_groups(config.attention, J, V):
            visible[queries, keys] = 0
        mask = None if config.attention == 'full' else visible
        self.layers = nn.ModuleList(
            LeanLayer(decoder, i, sizes[:J] if i < config.layers_2d else sizes,
                      None if i < config.layers_2d else mask, self.atlas)
            for i in range(config.num_layers)
        )  # fmt: skip
        root = torch.eye(V).double() - decoder.root_regressor.double()
        upsampling = decoder.upsampling.double()
        joints = decoder.joint_regressor.double() @ upsampling
        height, width = image_size_hw
        self.focal_px = float(max(image_size_hw))
        for name, value in (
            ('matrix', matrix),
            ('embedding', F.pad(lifting.embedding, (0, 0, J, 0))),
            ('lifted', F.pad(torch.ones(V + 1, 1), (0, 0, J, 0))),
            ('mesh', torch.cat([upsampling, joints]) @ root),
            ('image_px', torch.tensor([width, height])),
        ):
            self.register_buffer(name, value.float(), persistent=False)

    def forward(
        self, features: Tensor, queries: Tensor, boxes_cxcywh: Tensor
    ) -> tuple[Tensor, ...]:
        plain: Any = self.plain
        config, K = plain.config, boxes_cxcywh.shape[0]
        centre, size = boxes_cxcywh[:, None, :2], boxes_cxcywh[:, None, 2:].clamp_min(1e-3)
        cells = self.atlas.spread(F.pad(features[0], (0, 1), value=UNIT))
        if config.queries == 'unified':
            instance = plain.unified.expand(K, -1)
        else:
            instance = plain.instance(queries)
        tokens = (instance[:, None] + plain.joint_embedding).flatten(0, 1)
        places = plain.joint_centre(tokens).view(K, J, 2)
        depths_m = None
        if self.maps is not None:
            start, depths_m = self.maps(features, boxes_cxcywh)
            places = places + (start - centre) / size
        residual = None
        for i, layer in enumerate(self.layers):
            full = i >= config.layers_2d
            if i == config.layers_2d:
                tokens = self.matrix @ tokens.view(K, J, -1) + self.embedding
                tokens = tokens.flatten(0, 1)
            of_tokens = places
            if full:
                moved = plain.lifting.centre(tokens).view(K, -1, 2) * self.lifted
                of_tokens = self.matrix @ places + moved
            tokens = layer(tokens, of_tokens, cells, centre, size)
            rows = tokens.view(K, -1, tokens.shape[-1])
            joint_tokens = rows[:, :J].flatten(0, 1) if full else tokens
            offsets = plain.joint_heads[i].offset(joint_tokens)
            places = places + offsets.view(K, J, 2)
            if full:
                head = plain.mesh_heads[i - config.layers_2d]
                step = head.residual(rows[:, J:-1].flatten(0, 1))
                residual = step if residual is None else residual + step
        # Weights on the left: a product of one column is slow.
        seen = plain.joint_heads[-1].visibility
        visibility = torch.addmm(seen.bias[:, None], seen.weight, joint_tokens.t())
        visibility = visibility.view(K, J).sigmoid()
        joints_2d = places * size + centre
        mesh, translation = self._mesh(
            joint_tokens.view(K, J, -1), rows[:, -1], residual, joints_2d, depths_m, size
        )
        right = queries.new_full((K,), 0.5)
        if plain.side_head is not None:
            right = plain.side_head(queries)[:, 0].sigmoid()
        vertices_m, joints_m = mesh[:, :NUM_VERTICES], mesh[:, NUM_VERTICES:]
        return joints_2d, visibility, vertices_m, joints_m, translation, right

    def _mesh(
        self,
        joint_tokens: Tensor,
        camera_token: Tensor,
        residual: Any,
        joints_2d: Tensor,
        depths_m: Tensor | None,
        size: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Vertices and joints [K,778+21,3], and translation [K,3], of the last mesh head."""
        plain: Any = self.plain
        head, K = plain.mesh_heads[-1], joints_2d.shape[0]
        log_scale = head.log_scale(joint_tokens.mean(1)).clamp(-3, 3)
        extent_px = (size[:, 0] * self.image_px).amax(-1, keepdim=True)
        metres_per_px = HAND_EXTENT_M * log_scale.exp() / extent_px  # [K,1]
        root = joints_2d[:, ROOT_JOINT : ROOT_JOINT + 1]
        flat_m = (joints_2d - root) * (self.image_px * metres_per_px[:, None])
        if depths_m is None:
            depths_m = torch.zeros_like(flat_m[..., 0])
        joints_m = torch.cat([flat_m, depths_m[..., None]], dim=-1)
        coarse = plain.lifting.matrix[:-1] @ joints_m + RESIDUAL_UNIT_M * residual.view(K, -1, 3)
        # Hands side by side in one product: several of three columns each are slow.
        mesh = self.mesh @ coarse.transpose(0, 1).flatten(1)
        mesh = mesh.view(-1, K, 3).transpose(0, 1)
        offset = head.translation(camera_token)
        pixel = root[:, 0] + offset[:, :2] * size[:, 0]
        depth = self.focal_px * metres_per_px * offset[:, 2:].clamp(-3, 3).exp()
        ray = (pixel - 0.5) * self.image_px / self.focal_px
        return mesh, torch.cat([ray * depth, depth], dim=-1)


class LeanLayer(nn.Module):
    """One decoder layer over the rows [K*T,d] of all hands."""

    placed: Tensor  # [T,d] or [d]: what sizes and biases add to the position's hidden layer
    place_weight: Tensor  # [d,2]
    reach: Tensor  # [T,columns]: sampling offsets to places relative to the hand's box
    value_weight: Tensor  # [d,C+1], its last column the bias over UNIT

    def __init__(
        self,
        decoder: InteractiveDecoder,
        index: int,
        sizes: Tensor,
        mask: Tensor | None,
        atlas: Atlas,
    ) -> None:
        super().__init__()
        plain: Any = decoder.layers[index]
        self.plain = plain
        self.camera = decoder.camera_position if len(sizes) > J else None
        first: Any = decoder.position[0]
        self.position_out = decoder.position[2]
        own = plain.self_attention
        self.attention = LeanSelfAttention(own.query, own.key, own.value, own.out, own.heads, mask)
        self.atlas = atlas
        d, points = decoder.config.dim, decoder.config.points
        reach = (sizes * (0.5 / points)).repeat(1, atlas.columns // 2)
        rows = slice(index * d, (index + 1) * d)
        bias = decoder.values.bias[rows, None] / UNIT
        value = torch.cat([decoder.values.weight[rows], bias], dim=1)
        for name, buffer in (
            ('placed', sizes @ first.weight[:, 2:].T + first.bias),
            ('place_weight', first.weight[:, :2]),
            ('reach', reach),
            ('value_weight', value),
        ):
            self.register_buffer(name, buffer.detach().contiguous(), persistent=False)

    def forward(
        self, tokens: Tensor, places: Tensor, cells: Tensor, centre: Tensor, size: Tensor
    ) -> Tensor:
        """Tokens [K*T,d], places [K,T,2] relative to boxes, cells [A,C+1], boxes [K,1,2]."""
        in_image = places * size + centre
        position = self._position(places, in_image, size)
        norms: Any = self.plain.norms
        tokens = norms[0](tokens + self.attention(tokens, tokens + position, places.shape[0]))
        deformable: Any = self.plain.deformable
        sampled = self._sample(deformable, tokens + position, in_image, cells, size)
        tokens = norms[1](tokens + deformable.out(sampled.t()))
        return norms[2](tokens + self.plain.ffn(tokens))  # type: ignore[no-any-return]

    def _position(self, places: Tensor, in_image: Tensor, size: Tensor) -> Tensor:
        K, T, _ = places.shape
        hidden = F.linear(places.flatten(0, 1), self.place_weight).view(K, T, -1) + self.placed
        position: Tensor = self.position_out(hidden.relu().flatten(0, 1))
        if self.camera is None:
            return position
        absolute = torch.cat([in_image[:, -1] - 0.5, size[:, 0].log()], dim=-1)
        rows = position.view(K, T, -1)[:, :-1]
        return torch.cat([rows, self.camera(absolute)[:, None]], dim=1).flatten(0, 1)

    def _sample(
        self,
        deformable: DeformableAttention,
        queries: Tensor,
        in_image: Tensor,
        cells: Tensor,
        size: Tensor,
    ) -> Tensor:
        """The heads' outputs [d,K*T]."""
        K, T, _ = in_image.shape
        atlas = self.atlas
        weights = deformable.weights(queries).view(K * T * atlas.heads, -1).softmax(-1)
        reach = self.reach * (size @ atlas.slope)  # [K,T,columns]
        base = torch.addmm(atlas.offset, in_image.flatten(0, 1), atlas.slope)
        grid = deformable.offsets(queries) * reach.flatten(0, 1) + base
        return atlas.sample(self.value_weight @ cells.t(), grid, weights)


class LeanMaps(nn.Module):
    """Places and depths of the joints from the joint maps; see `network/joint_maps.py`."""

    weight: Tensor
    bias: Tensor
    cells: Tensor  # [2,h*w] middles
    cell: Tensor  # [2] size of one

    def __init__(self, maps: JointMaps, window: Window) -> None:
        super().__init__()
        self.plain, self.shape = maps, window.shapes[0]
        h, w = window.whole[0]
        x, y = (torch.arange(w) + 0.5) / w, (torch.arange(h) + 0.5) / h
        cells = torch.stack([x[None].expand(h, -1), y[:, None].expand(-1, w)], dim=-1)
        joints, depths = maps.joint_head, maps.depth_head
        assert joints.bias is not None and depths.bias is not None
        for name, value in (
            ('weight', torch.cat([SHARPNESS * joints.weight, depths.weight])),
            ('bias', torch.cat([SHARPNESS * joints.bias, depths.bias])),
            ('cells', cells.reshape(-1, 2)[window.cells(0)].t().contiguous()),
            ('cell', torch.tensor([1 / w, 1 / h])),
        ):
            self.register_buffer(name, value.detach(), persistent=False)

    def forward(self, features: Tensor, boxes_cxcywh: Tensor) -> tuple[Tensor, Tensor]:
        """Places [K,21,2], normalised to the image, and depths [K,21] in metres."""
        h, w = self.shape
        finest = features[:, : h * w].transpose(1, 2).reshape(1, -1, h, w)
        both = F.conv2d(self.plain.trunk(finest), self.weight, self.bias).view(2, J, h * w)
        middle = boxes_cxcywh[:, :2].clamp(0, 1)
        reach = torch.maximum(WINDOW / 2 * boxes_cxcywh[:, 2:], self.cell)
        beyond = (self.cells - middle[:, :, None]).abs() - reach[:, :, None]
        inside = beyond.amax(1, keepdim=True) <= 0  # [K,1,h*w]
        likely = torch.where(inside, both[0], OUTSIDE).softmax(-1)  # [K,21,h*w]
        # No matrix product: OpenVINO in bfloat16 computes in float what no product follows, and
        # rounding moves the window, whose edge is sharp, by a cell.
        places = (likely[:, :, None] * self.cells).sum(-1)
        return places, DEPTH_UNIT_M * (likely * both[1]).sum(-1)
