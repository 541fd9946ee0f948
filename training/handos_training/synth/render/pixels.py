"""Flat lists of P pixels, channel-first [C,P], and what each image says about its own.

Channel-first because every operation then runs along contiguous pixels, several times as fast as
over rows of three.
"""

from __future__ import annotations

from torch import Tensor


def take(table: Tensor, index: Tensor) -> Tensor:
    """Entries of `table` [B] or [B,C] at `index` [P]: [P] or [C,P]."""
    if table.dim() == 1:
        return table.index_select(0, index)
    return table.flatten(1).T.contiguous().index_select(1, index)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Scalar products [P] of vectors [3,P]."""
    return (a[0] * b[0]).addcmul_(a[1], b[1]).addcmul_(a[2], b[2])


def unit(vectors: Tensor) -> Tensor:
    """Vectors [3,P] scaled to length 1."""
    return vectors * dot(vectors, vectors).clamp_(min=1e-12).rsqrt_()


def transform(matrices: Tensor, vectors: Tensor, image: Tensor) -> Tensor:
    """The matrix of `matrices` [B,3,3] that `image` [P] names, times `vectors` [3,P]."""
    m = take(matrices, image).view(3, 3, -1)
    return (m[:, 0] * vectors[0]).addcmul_(m[:, 1], vectors[1]).addcmul_(m[:, 2], vectors[2])
