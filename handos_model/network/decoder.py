"""The interactive 2D-3D decoder (paper, section 3.3), over all hands of all images at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from handos_model.config import DecoderConfig
from handos_model.hand.coarse_vertices import select_vertices
from handos_model.hand.model import HandModel
from handos_model.network.attention import (
    SAMPLERS,
    DeformableAttention,
    GroupedSelfAttention,
    Groups,
    HandPacking,
    attention_groups,
)
from handos_model.network.detectors.protocol import Sampler, SpatialShapes
from handos_model.network.heads import (
    MLP,
    DecoderOutput,
    HandFrame,
    JointHeads,
    MeshHeads,
    exact_matmul,
    project,
)
from handos_model.network.joint_maps import JointMaps, finest_map, joint_positions
from handos_model.types import NUM_JOINTS, NUM_VERTICES, ROOT_JOINT

JOINTS_ONLY: Groups = ((slice(0, NUM_JOINTS), slice(0, NUM_JOINTS)),)


class InteractiveDecoder(nn.Module):
    """Instance queries and boxes to joints, mesh and translation, one output a layer.

    Layers 0..layers_2d-1 hold the 21 joint tokens; the others also the vertex tokens and the
    camera token. Values are projected once an image for all layers, by one matrix.
    """

    joint_regressor: Tensor  # [21,778]
    upsampling: Tensor  # [778,V]
    root_regressor: Tensor  # [1,V], root joint of the coarse mesh

    def __init__(
        self,
        config: DecoderConfig,
        query_dim: int,
        values_dim: int,
        levels: int,
        hand_model: HandModel,
    ) -> None:
        super().__init__()
        dim, J = config.dim, NUM_JOINTS
        self.config = config
        self.checkpointing = False  # of layers in training: less memory, a third more time
        if config.queries == 'instance':
            self.instance = nn.Sequential(nn.Linear(query_dim, dim), nn.LayerNorm(dim))
        else:
            self.unified = nn.Parameter(torch.randn(1, dim))
        self.joint_embedding = nn.Parameter(torch.randn(J, dim) * 0.5)
        self.joint_maps = JointMaps(values_dim) if config.start == 'maps' else None
        self.joint_centre = MLP(dim, dim, 2, zero=True)
        self.joint_size = nn.Parameter(torch.full((J, 2), 0.5))
        self.side_head = MLP(query_dim, query_dim, 1) if config.side == 'query' else None
        self.position = MLP(4, dim, dim)
        self.values = nn.Linear(values_dim, config.num_layers * dim)
        for one_layer in self.values.weight.chunk(config.num_layers):
            nn.init.xavier_uniform_(one_layer)
        nn.init.zeros_(self.values.bias)
        self.layers = nn.ModuleList(DecoderLayer(config, levels) for _ in range(config.num_layers))
        self.joint_heads = nn.ModuleList(JointHeads(dim) for _ in range(config.num_layers))
        if config.stage == '2d':
            return
        vertices, upsampling = select_vertices(hand_model, config.vertex_tokens)
        self.lifting = Lifting(dim, hand_model, torch.tensor(vertices))
        self.camera_position = MLP(4, dim, dim)
        self.mesh_heads = nn.ModuleList(MeshHeads(dim) for _ in range(config.layers_3d))
        regressor = torch.tensor(hand_model.joint_regressor_21).double()
        upsample = torch.tensor(upsampling).double()
        # Multiplied in float64, so that every process rounds to the same float32.
        for name, value in (
            ('joint_regressor', regressor),
            ('upsampling', upsample),
            ('root_regressor', regressor[ROOT_JOINT : ROOT_JOINT + 1] @ upsample),
        ):
            self.register_buffer(name, value.float(), persistent=False)

    def set_sampler(self, sampler: Sampler) -> None:
        """Swap the sampling of the deformable attention in all layers, for export."""
        for module in self.modules():
            if isinstance(module, DeformableAttention):
                module.sampler = sampler

    def forward(
        self,
        values_source: Tensor,
        spatial_shapes: SpatialShapes,
        image_size_hw: tuple[int, int],
        image_index: Tensor,
        queries: Tensor,
        boxes_cxcywh: Tensor,
    ) -> list[DecoderOutput]:
        """F_GD [B,L,C]; image of each hand [N] int64; [Q0,Q6] [N,2d]; boxes [N,4] normalised."""
        config, N = self.config, queries.shape[0]
        if N == 0:
            return self._no_hands(queries)
        frame = HandFrame.of(boxes_cxcywh, image_size_hw)
        packing = HandPacking.of(image_index, values_source.shape[0])
        values = self.values(values_source)  # [B,L,layers*d]
        values = values.unflatten(
            -1, (config.num_layers, config.heads, -1)
        )  # [B,L,layers,heads,dh]

        instance = self.unified if config.queries == 'unified' else self.instance(queries)
        tokens = instance.expand(N, -1)[:, None] + self.joint_embedding  # [N,21,d]
        centres, depths_m = self._start(
            values_source, spatial_shapes, image_index, boxes_cxcywh, frame
        )
        centres = centres + self.joint_centre(tokens).float() * frame.size  # [N,21,2]
        sizes = frame.size * self.joint_size  # [N,21,2]
        groups = JOINTS_ONLY
        residual = values_source.new_zeros(N, config.vertex_tokens, 3, dtype=torch.float32)
        outputs = []
        for i, (layer, head) in enumerate(zip(self.layers, self.joint_heads, strict=True)):
            full = config.stage == 'full' and i >= config.layers_2d
            if full and i == config.layers_2d:
                tokens = torch.cat([tokens, self.lifting.lift(tokens)], dim=1)  # [N,21+V+1,d]
                groups = attention_groups(config.attention, NUM_JOINTS, config.vertex_tokens)
            references = torch.cat([centres, sizes], dim=-1)  # [N,21,4]
            if full:
                lifted = self.lifting.references(tokens[:, NUM_JOINTS:], references, frame)
                references = torch.cat([references, lifted], dim=1)  # [N,21+V+1,4]
            position = self._position(references, frame, full)  # [N,T,d]
            given = tokens, position, references, groups, values[:, :, i], spatial_shapes, packing
            if self.checkpointing and torch.is_grad_enabled():
                tokens = checkpoint(layer, *given, use_reentrant=False)
            else:
                tokens = layer(*given)
            output = head(tokens[:, :NUM_JOINTS], centres, frame)  # joints_2d [N,21,2]
            if full:
                mesh_head = self.mesh_heads[i - config.layers_2d]
                residual = self._add_mesh(output, mesh_head, tokens, depths_m, residual, frame)
            centres = output.joints_2d.detach()
            outputs.append(output)
        outputs[-1].right_logits = self._right_logits(queries)
        return outputs

    def _right_logits(self, queries: Tensor) -> Tensor | None:
        """Logits [N] of a right hand, from queries [N,2d]."""
        return None if self.side_head is None else self.side_head(queries)[:, 0].float()

    @torch.no_grad()
    def _start(
        self,
        values_source: Tensor,
        spatial_shapes: SpatialShapes,
        image_index: Tensor,
        boxes_cxcywh: Tensor,
        frame: HandFrame,
    ) -> tuple[Tensor, Tensor]:
        """Where the joints' references start [N,21,2] or [N,1,2], and depths [N,21] in metres.

        Detached as all references are: the maps learn from losses of their own.
        """
        if self.joint_maps is None:
            return frame.centre, frame.centre.new_zeros(len(boxes_cxcywh), NUM_JOINTS)
        logits, depths_m = self.joint_maps(finest_map(values_source, spatial_shapes))
        return joint_positions(logits, depths_m, image_index, boxes_cxcywh)

    def _position(self, references: Tensor, frame: HandFrame, full: bool) -> Tensor:
        """Position embedding [N,T,d] of reference boxes [N,T,4].

        Joints and vertices are placed relative to the hand's box, because they should not vary
        with its translation and scale; the camera token is placed in the image, because it must.
        """
        relative = torch.cat(
            [
                (references[..., :2] - frame.centre) / frame.size,
                references[..., 2:] / frame.size,
            ],
            dim=-1,
        )
        if not full:
            return self.position(relative)  # type: ignore[no-any-return]
        absolute = torch.cat([references[:, -1:, :2] - 0.5, frame.size.log()], dim=-1)
        return torch.cat([self.position(relative[:, :-1]), self.camera_position(absolute)], dim=1)

    def _add_mesh(
        self,
        output: DecoderOutput,
        head: nn.Module,
        tokens: Tensor,
        depths_m: Tensor,
        residual: Tensor,
        frame: HandFrame,
    ) -> Tensor:
        """Fill in a layer's 3D outputs; returns the residual [N,V,3] for the next layer."""
        residual, coarse, translation = head(
            tokens, output.joints_2d, depths_m, self.lifting.matrix[:-1], residual, frame
        )
        coarse = coarse - exact_matmul(self.root_regressor, coarse)  # [N,V,3], root at the origin
        output.vertices_m = exact_matmul(self.upsampling, coarse)  # [N,778,3]
        output.joints_m = exact_matmul(self.joint_regressor, output.vertices_m)  # [N,21,3]
        output.translation_m = translation  # [N,3]
        output.joints_projected = project(output.joints_m, translation, frame)
        return residual

    def _no_hands(self, queries: Tensor) -> list[DecoderOutput]:
        def empty(*shape: int) -> Tensor:
            return queries.new_zeros(0, *shape, dtype=torch.float32)

        J, outputs = NUM_JOINTS, []
        for i in range(self.config.num_layers):
            output = DecoderOutput(empty(J, 2), empty(J))
            if self.config.stage == 'full' and i >= self.config.layers_2d:
                output.vertices_m, output.joints_m = empty(NUM_VERTICES, 3), empty(J, 3)
                output.translation_m, output.joints_projected = empty(3), empty(J, 2)
            outputs.append(output)
        outputs[-1].right_logits = self._right_logits(queries)
        return outputs


class DecoderLayer(nn.Module):
    """Self-attention, deformable attention, FFN; Fig. 3 (a) or (b) by the groups it is given."""

    def __init__(self, config: DecoderConfig, levels: int) -> None:
        super().__init__()
        dim = config.dim
        self.self_attention = GroupedSelfAttention(dim, config.heads)
        self.deformable = DeformableAttention(
            dim, config.heads, levels, config.points, SAMPLERS[config.sampling]
        )
        self.ffn = MLP(dim, config.ffn_dim, dim)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))

    def forward(
        self,
        tokens: Tensor,
        position: Tensor,
        references: Tensor,
        groups: Groups,
        values: Tensor,
        spatial_shapes: SpatialShapes,
        packing: HandPacking,
    ) -> Tensor:
        """Tokens [N,T,d] with reference boxes [N,T,4] -> tokens."""
        tokens = self.norms[0](tokens + self.self_attention(tokens, position, groups))
        # [N,T,d], from values [B,L,heads,dh]
        sampled = self.deformable(tokens + position, references, values, spatial_shapes, packing)
        tokens = self.norms[1](tokens + sampled)
        return self.norms[2](tokens + self.ffn(tokens))  # type: ignore[no-any-return]


class Lifting(nn.Module):
    """2D-to-3D query lifting by the learnable L [V+1,21], its last row the camera token's.

    A vertex embedding is added to the lifted queries: vertices with equal skinning weights would
    otherwise start as equal tokens. It starts as a random linear map of the template's vertices,
    so that neighbours on the hand start as neighbours.
    """

    def __init__(self, dim: int, hand_model: HandModel, vertices: Tensor) -> None:
        super().__init__()
        rows = torch.cat([vertices, torch.tensor([NUM_VERTICES])])
        self.matrix = nn.Parameter(torch.tensor(hand_model.lifting_matrix()).float()[rows])
        template = torch.tensor(hand_model.v_template).float()[vertices]
        template = (template - template.mean(0)) / template.std()
        embedding = template @ torch.randn(3, dim) / 3**0.5
        self.embedding = nn.Parameter(torch.cat([embedding, torch.zeros(1, dim)]))
        self.centre = MLP(dim, dim, 2, zero=True)
        self.size = nn.Parameter(torch.ones(len(rows), 2))

    def lift(self, joint_tokens: Tensor) -> Tensor:
        """[N,21,d] -> [N,V+1,d]."""
        return self.matrix @ joint_tokens + self.embedding

    def references(self, tokens: Tensor, joint_references: Tensor, frame: HandFrame) -> Tensor:
        """Boxes [N,V+1,4] from the joints' boxes [N,21,4] and the lifted tokens."""
        centre, size = joint_references[..., :2] - frame.centre, joint_references[..., 2:]
        lifted = exact_matmul(self.matrix, torch.cat([centre, size], dim=-1))  # [N,V+1,4]
        centre = frame.centre + lifted[..., :2] + self.centre(tokens).float() * frame.size
        return torch.cat([centre, lifted[..., 2:] * self.size], dim=-1)
