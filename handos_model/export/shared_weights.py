"""Weights that two graphs have in common, stored once: one graph's file reads the other's.

ONNX lets a tensor lie at an offset of any file beside the graph. The graphs of a window are those
of the whole input but for their constants, so their weights need no second place.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto

from handos_model.weights.store import sha256

LEAST_BYTES = 512  # of a tensor that is worth looking for


def share_weights(model: onnx.ModelProto, other: Path) -> onnx.ModelProto:
    """`model` with every larger tensor that the file `other` holds told by its place in there.

    The graph must be saved beside `other`, and says in its doc string which bytes it counts on:
    it is another graph when they change.
    """
    content = other.read_bytes()
    shared = onnx.ModelProto()
    shared.CopyFrom(model)
    for tensor in shared.graph.initializer:
        if len(tensor.raw_data) < LEAST_BYTES:
            continue
        offset = content.find(tensor.raw_data)
        if offset < 0:
            continue
        place = (('location', other.name), ('offset', offset), ('length', len(tensor.raw_data)))
        tensor.ClearField('raw_data')
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.extend(
            onnx.StringStringEntryProto(key=key, value=str(value)) for key, value in place
        )
    counts_on = f'weights in {other.name}, sha256 {sha256(other)}'
    shared.doc_string = '; '.join(filter(None, (model.doc_string, counts_on)))
    return shared
