"""A reduced model of each detector family: exported, checked for TensorRT, the same everywhere."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from small_networks import small_config, small_network
from tensorrt_operators import assert_fit_for_tensorrt, with_hands

from handos_model.backends.base import EngineOptions
from handos_model.backends.choice import open_engine
from handos_model.backends.parity import beyond_limits, engine_parity, made_up_images
from handos_model.backends.torch import engine_of_network
from handos_model.export.exporter import ExportConfig, export

pytestmark = pytest.mark.long


@pytest.mark.parametrize('sampling', ['grid_sample', 'gather'])
@pytest.mark.parametrize('family', ['d_fine', 'rt_detr_v2', 'grounding_dino'])
def test_every_backend_agrees_with_torch(family: str, sampling: str, tmp_path: Path) -> None:
    network = small_network(small_config(family))
    config = ExportConfig(('fp32', 'fp16'), (sampling,), hands=(1,))  # type: ignore[arg-type]
    exported = export(network, tmp_path, config, licence='x', source_sha256='0' * 64)
    for graph in exported.graphs:
        model = onnx.load(tmp_path / graph.file)
        assert_fit_for_tensorrt(model if graph.hands is None else with_hands(model, graph.hands))
        assert (sampling == 'grid_sample') == ('GridSample' in graph.operators)
    reference = engine_of_network(network, EngineOptions(precision='fp32', max_hands=1))
    for name in ('onnxruntime', 'openvino'):
        for precision in ('fp32', 'fp16'):
            options = EngineOptions(precision=precision, max_hands=1)  # type: ignore[arg-type]
            engine = open_engine(name, tmp_path, options)
            errors = engine_parity(reference, engine, made_up_images((96, 128)), (96, 128))
            assert not beyond_limits(errors, precision), (name, precision, errors)
