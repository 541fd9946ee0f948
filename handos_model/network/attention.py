"""Attention over all hands of all images at once: deformable, and grouped self-attention.

Hands are a batch dimension throughout, so that hands of one image never see each other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handos_model.config import AttentionStrategy
from handos_model.network.detectors.protocol import Sampler, SpatialShapes

Groups: TypeAlias = tuple[tuple[slice, slice], ...]

# Fig. 8 (a) to (d): who sees whom among joints J, vertices V and the camera token t.
VISIBILITY: dict[AttentionStrategy, tuple[tuple[str, str], ...]] = {
    'independent': (('J', 'J'), ('V', 'V'), ('t', 't')),
    'unidirectional': (('J', 'J'), ('V', 'JV'), ('t', 'JVt')),
    'hierarchical': (('JV', 'JV'), ('t', 'JVt')),
    'full': (('JVt', 'JVt'),),
}


def attention_groups(strategy: AttentionStrategy, joints: int, vertices: int) -> Groups:
    """Pairs of (query slice, key slice) over the tokens [joints, vertices, camera].

    Each pair is one unmasked attention call; together they equal one call with a dense mask.
    """
    bounds = {'J': (0, joints), 'V': (joints, joints + vertices)}
    bounds['t'] = (joints + vertices, joints + vertices + 1)

    def tokens(kinds: str) -> slice:
        return slice(bounds[kinds[0]][0], bounds[kinds[-1]][1])

    return tuple((tokens(queries), tokens(keys)) for queries, keys in VISIBILITY[strategy])


class GroupedSelfAttention(nn.Module):
    """Multi-head self-attention in which each group of tokens sees its own slice of tokens."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)
        for layer in (self.query, self.key, self.value, self.out):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, tokens: Tensor, position: Tensor, groups: Groups) -> Tensor:
        """Tokens and position [N,T,d] -> [N,T,d]; the position enters query and key, not value."""
        located = tokens + position  # [N,T,d]
        query, key, value = (  # [N,heads,T,dh]
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, x in ((self.query, located), (self.key, located), (self.value, tokens))
        )
        attended = [
            F.scaled_dot_product_attention(query[:, :, q], key[:, :, k], value[:, :, k])
            for q, k in groups
        ]
        joined = (
            attended[0] if len(attended) == 1 else torch.cat(attended, dim=2)
        )  # [N,heads,T,dh]
        output: Tensor = self.out(joined.transpose(1, 2).flatten(2))
        return output


@dataclass
class HandPacking:
    """Folds the hands of an image into its token dimension, so that values are hardly copied.

    N hands with T tokens become [P, K*T]: P pages, each of K hands of one image, the last page of
    an image padded. K is the mean number of hands an image, so that neither padding nor the copies
    of an image's values grow where hands are unevenly spread. With one image this is a reshape.
    """

    slots: Tensor | None  # [N] row of each hand in [P*K]; None with one image
    page_image: Tensor | None  # [P] int64, the image of each page; None with one image
    hands_per_page: int  # K

    @classmethod
    def of(cls, image_index: Tensor, num_images: int) -> HandPacking:
        """From the image of each hand, `image_index` [N]."""
        N = image_index.shape[0]
        if num_images == 1:
            return cls(None, None, N)
        K = -(-N // num_images)
        counts = torch.bincount(image_index, minlength=num_images)
        pages = (counts + K - 1) // K
        order = torch.argsort(image_index, stable=True)
        starts = counts.cumsum(0) - counts
        rank = torch.empty_like(image_index)
        rank[order] = torch.arange(N, device=order.device) - starts[image_index[order]]
        first_slot = (pages.cumsum(0) - pages) * K
        images = torch.arange(num_images, device=counts.device)
        return cls(first_slot[image_index] + rank, images.repeat_interleave(pages), K)

    def pack(self, x: Tensor) -> Tensor:
        """[N,T,...] -> [P,K*T,...]."""
        if self.slots is None or self.page_image is None:
            return x.flatten(0, 1).unsqueeze(0)
        P = len(self.page_image)
        padded = x.new_zeros(P * self.hands_per_page, *x.shape[1:]).index_copy(0, self.slots, x)
        return padded.reshape(P, -1, *x.shape[2:])

    def of_pages(self, values: Tensor) -> Tensor:
        """Values of the images [B,...] -> of the pages [P,...]."""
        return values if self.page_image is None else values[self.page_image]

    def unpack(self, x: Tensor, tokens: int) -> Tensor:
        """[P,K*T,...] -> [N,T,...]."""
        hands = x.reshape(-1, tokens, *x.shape[2:])
        return hands if self.slots is None else hands[self.slots]


class DeformableAttention(nn.Module):
    """Multi-scale deformable attention around reference boxes (Deformable DETR, eq. 3).

    Values come projected: they are computed once an image and shared by all its hands. Sampling
    locations stay float32 in every precision, because a half-precision pixel coordinate is off by
    whole pixels.
    """

    def __init__(self, dim: int, heads: int, levels: int, points: int, sampler: Sampler) -> None:
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.sampler = sampler
        self.offsets = nn.Linear(dim, heads * levels * points * 2)
        self.weights = nn.Linear(dim, heads * levels * points)
        self.out = nn.Linear(dim, dim)
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        """Each head looks in its own direction, each point one step further."""
        angle = torch.arange(self.heads) * (2 * math.pi / self.heads)
        direction = torch.stack([angle.cos(), angle.sin()], -1)
        direction = direction / direction.abs().amax(-1, keepdim=True)
        steps = torch.arange(1, self.points + 1).view(1, 1, -1, 1)
        bias = direction.view(self.heads, 1, 1, 2) * steps
        self.offsets.bias.copy_(bias.expand(-1, self.levels, -1, -1).flatten())
        for layer in (self.offsets, self.weights):
            nn.init.zeros_(layer.weight)
        nn.init.zeros_(self.weights.bias)
        nn.init.xavier_uniform_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(
        self,
        queries: Tensor,
        references_cxcywh: Tensor,
        values: Tensor,
        spatial_shapes: SpatialShapes,
        packing: HandPacking,
    ) -> Tensor:
        """Queries [N,T,d], boxes [N,T,4] normalised, values [B,L,heads,dh] -> [N,T,d]."""
        N, T, _ = queries.shape
        shape = (N, T, self.heads, self.levels, self.points)
        weights = self.weights(queries).view(N, T, self.heads, -1).softmax(-1).view(shape)
        offsets = self.offsets(queries).view(*shape, 2).float()
        reference = references_cxcywh.float()[:, :, None, None, None]  # [N,T,1,1,1,4]
        # [N,T,heads,levels,points,2]
        locations = reference[..., :2] + offsets * reference[..., 2:] * (0.5 / self.points)
        sampled = self.sampler(  # [P,K*T,d]
            packing.of_pages(values), spatial_shapes, packing.pack(locations),
            packing.pack(weights),
        )  # fmt: skip
        output: Tensor = self.out(packing.unpack(sampled.to(queries.dtype), T))
        return output


def sample_by_grid(
    values: Tensor, spatial_shapes: SpatialShapes, locations: Tensor, weights: Tensor
) -> Tensor:
    """Bilinear sampling by `grid_sample`, zeros outside the image; in float32 throughout.

    See `Sampler` for shapes. bf16 or fp16 values are widened: half-precision interpolation is
    inaccurate, and on a CPU it crashes on strided values.
    """
    B, T, heads, _, points, _ = locations.shape
    # [levels,B*heads,T,points,2], from -1 to 1 as grid_sample has it
    grid = (2 * locations.float() - 1).permute(3, 0, 2, 1, 4, 5).flatten(1, 2)
    # [levels,B*heads,1,T,points]
    weight = weights.float().permute(3, 0, 2, 1, 4).reshape(-1, B * heads, 1, T, points)
    start, total = 0, None
    for level, (height, width) in enumerate(spatial_shapes):
        value = values[:, start : start + height * width].float().permute(0, 2, 3, 1)
        value = value.reshape(B * heads, -1, height, width).contiguous()  # [B*heads,dh,h,w]
        sampled = F.grid_sample(
            value, grid[level], mode='bilinear', padding_mode='zeros', align_corners=False
        )
        part = (sampled * weight[level]).sum(-1)  # [B*heads,dh,T]
        total = part if total is None else total + part
        start += height * width
    assert total is not None
    return total.reshape(B, -1, T).transpose(1, 2)


def sample_by_gather(
    values: Tensor, spatial_shapes: SpatialShapes, locations: Tensor, weights: Tensor
) -> Tensor:
    """The same by gathering the four neighbours, for runtimes whose GridSample is wrong."""
    B, L, heads, dh = values.shape
    T, points = locations.shape[1], locations.shape[4]
    rows = values.float().reshape(B * L * heads, dh)
    image = torch.arange(B, device=values.device).view(B, 1, 1, 1) * L
    head = torch.arange(heads, device=values.device).view(1, 1, heads, 1)
    start, total = 0, torch.zeros(B, T, heads, dh, device=values.device)
    for level, (height, width) in enumerate(spatial_shapes):
        x = locations[:, :, :, level, :, 0].float() * width - 0.5
        y = locations[:, :, :, level, :, 1].float() * height - 0.5
        x0, y0 = x.floor(), y.floor()
        for dy in (0, 1):
            for dx in (0, 1):
                column, row = x0 + dx, y0 + dy
                bilinear = (1 - (x - column).abs()) * (1 - (y - row).abs())
                inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
                share = bilinear * inside * weights[:, :, :, level].float()
                cell = row.clamp(0, height - 1).long() * width + column.clamp(0, width - 1).long()
                index = (image + start + cell) * heads + head
                neighbours = rows[index.flatten()].view(B, T, heads, points, dh)
                total = total + (neighbours * share.unsqueeze(-1)).sum(3)
        start += height * width
    return total.flatten(2)


SAMPLERS: dict[str, Sampler] = {'grid_sample': sample_by_grid, 'gather': sample_by_gather}
