"""Half the bytes, the same numbers: rounding before the trace, lossless storage after it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from small_graphs import detector, frames
from torch import nn

from handos_model.backends.onnxruntime import OnnxGraph, session_options
from handos_model.errors import UserError
from handos_model.export.exporter import ExportConfig
from handos_model.export.half_storage import rounded_weights, store_half


def rounded(model: onnx.ModelProto) -> onnx.ModelProto:
    for item in model.graph.initializer:
        if item.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(item).astype(np.float16).astype(np.float32)
            item.CopyFrom(numpy_helper.from_array(values, item.name))
    return model


def outputs(model: onnx.ModelProto, path: Path) -> dict[str, np.ndarray]:
    onnx.save(model, path)
    graph = OnnxGraph(path, session_options(1))
    return graph.infer({'image': frames(1)[0][None]})


def test_a_graph_of_half_weights_computes_bit_for_bit_the_same(tmp_path: Path) -> None:
    model = rounded(detector(0))
    smaller = store_half(model)
    stored = {item.data_type for item in smaller.graph.initializer if np.prod(item.dims) >= 256}
    assert stored == {TensorProto.FLOAT16}
    assert smaller.ByteSize() < 0.6 * model.ByteSize()
    before, after = outputs(model, tmp_path / 'a.onnx'), outputs(smaller, tmp_path / 'b.onnx')
    assert set(before) == set(after)
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)


def test_what_would_lose_stays_whole() -> None:
    model = detector(0)  # its weights are not half-precision numbers
    assert store_half(model).SerializeToString() == model.SerializeToString()


def test_weights_are_rounded_with_the_normalisation_that_is_folded_into_them() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 5))
    conv, norm, linear = network[0], network[1], network[3]
    assert isinstance(norm, nn.BatchNorm2d)
    norm.weight.data.uniform_(0.5, 2)
    assert norm.running_var is not None
    norm.running_var.uniform_(0.1, 3)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    scale = norm.weight.data / torch.sqrt(norm.running_var + norm.eps)
    with pytest.raises(RuntimeError, match='stops'), rounded_weights(network):
        folded = conv.weight.data * scale[:, None, None, None]  # type: ignore[operator]
        torch.testing.assert_close(folded, folded.half().float(), rtol=2**-21, atol=0)
        assert torch.equal(linear.weight, linear.weight.half().float())  # type: ignore[operator]
        assert torch.equal(linear.bias, before['3.bias'])  # type: ignore[arg-type]
        assert not torch.equal(linear.weight, before['3.weight'])  # type: ignore[arg-type]
        raise RuntimeError('stops')
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_an_unknown_storage_is_refused() -> None:
    with pytest.raises(UserError, match='int4'):
        ExportConfig(storage='int4')  # type: ignore[arg-type]
