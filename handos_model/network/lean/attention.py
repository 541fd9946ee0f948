"""Self-attention with channels first, so that no head of a single set of rows is moved."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LeanSelfAttention(nn.Module):
    """Multi-head attention among the rows of each hand, by the layers of a plain one."""

    query_weight: Tensor
    query_bias: Tensor
    mask: Tensor | None  # added to the scores

    def __init__(
        self,
        query: nn.Linear,
        key: nn.Linear,
        value: nn.Linear,
        out: nn.Linear,
        heads: int,
        mask: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.heads, self.key, self.value, self.out = heads, key, value, out
        scale = (query.out_features // heads) ** -0.5
        self.register_buffer('query_weight', query.weight.detach() * scale, persistent=False)
        self.register_buffer('query_bias', query.bias.detach() * scale, persistent=False)
        self.register_buffer('mask', mask, persistent=False)

    def forward(self, tokens: Tensor, located: Tensor, hands: int | None = None) -> Tensor:
        """Rows [K*T,d] of K hands (None: [T,d]) without and with their position -> alike."""

        def channels_first(weight: Tensor, bias: Tensor, rows: Tensor) -> Tensor:
            made = torch.addmm(bias[:, None], weight, rows.t())  # [d,K*T]
            if hands is None:
                return made.view(1, self.heads, -1, made.shape[1])
            return made.view(self.heads, -1, hands, made.shape[1] // hands).permute(2, 0, 1, 3)

        query = channels_first(self.query_weight, self.query_bias, located)
        key = channels_first(self.key.weight, self.key.bias, located)
        value = channels_first(self.value.weight, self.value.bias, tokens)
        scores = query.transpose(2, 3) @ key
        if self.mask is not None:
            scores = scores + self.mask
        attended = value @ scores.softmax(-1).transpose(2, 3)  # [K,heads,dh,T]
        if hands is None:
            return self.out(attended.view(-1, tokens.shape[0]).t())  # type: ignore[no-any-return]
        rows = attended.flatten(1, 2).transpose(1, 2).flatten(0, 1)
        return self.out(rows)  # type: ignore[no-any-return]
