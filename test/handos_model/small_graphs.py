"""An exported folder of toy graphs with the names and shapes of real ones, made without torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from handos_model.export.shared_weights import share_weights
from handos_model.weights.exported import (
    HANDS,
    ExportedWeights,
    GraphFile,
    GraphSampling,
    WindowPlace,
    graph_file_name,
)
from handos_model.weights.store import sha256

SIZE_HW = (8, 8)
L, C, Q, D = 24, 8, 5, 6
WINDOW_HW, WINDOW_L = (4, 4), 6


def small_export(
    folder: Path,
    samplings: tuple[GraphSampling, ...] = ('grid_sample', 'plugin', 'gather'),
    precisions: tuple[str, ...] = ('fp32',),
    seed: int = 0,
    window: bool = False,
) -> Path:
    """A detector and decoders of one and two hands in every variant, which all compute the same.

    The doc string of each is 'detector/gather' or alike; the fake TensorRT goes by it. With
    `window` there are graphs of a quarter of the input, which have their weights in the others.
    """
    folder.mkdir(parents=True, exist_ok=True)
    graphs = []
    for precision in precisions:
        for sampling in samplings:
            for hands in (None, 1, 2):
                model = detector(seed) if hands is None else decoder(seed)
                part = 'detector' if hands is None else 'decoder'
                model.doc_string = f'{part}/{sampling}'
                path = folder / graph_file_name(part, precision, sampling)  # type: ignore[arg-type]
                onnx.save(model, path)
                graphs.append(
                    GraphFile(path.name, sha256(path), hands, precision, sampling, {})  # type: ignore[arg-type]
                )
    exported = ExportedWeights(
        folder, 'toy', 'Apache-2.0', 17, SIZE_HW, 'aa', '0' * 64, tuple(graphs)
    )
    (folder / 'manifest.json').write_text(exported.to_json())
    if window:
        small_window(exported, seed)
    (folder / 'config.json').write_text('{}')  # what tells a weights folder
    return folder


def small_window(exported: ExportedWeights, seed: int) -> None:
    graphs = []
    for hands in (None, 1):
        model = detector(seed, WINDOW_HW) if hands is None else decoder(seed, WINDOW_L)
        part = 'detector' if hands is None else 'decoder'
        model.doc_string = f'{part}_window/grid_sample'
        path = exported.folder / graph_file_name(part, 'fp32', 'grid_sample', window=True)
        beside = exported.folder / graph_file_name(part, 'fp32', 'grid_sample')
        onnx.save(share_weights(model, beside), path)
        graphs.append(GraphFile(path.name, sha256(path), hands, 'fp32', 'grid_sample', {}))
    place = WindowPlace(SIZE_HW, (2, 4))
    window = replace(exported, input_size_hw=WINDOW_HW, graphs=tuple(graphs), window=place)
    window.manifest.write_text(window.to_json())


def frames(count: int = 3, seed: int = 1) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.integers(0, 255, (*SIZE_HW, 3), dtype=np.uint8) for _ in range(count)]


class Layers:
    """Nodes and constants as they are added."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: np.ndarray) -> str:
        name = f'c{len(self.constants)}'
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def add(self, operator: str, *inputs: str, to: str = '', **attributes: object) -> str:
        name = to or f'n{len(self.nodes)}'
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def dense(self, value: str, rows: int, shape: tuple[int, ...], to: str, act: str = '') -> None:
        """[N,rows] -> `shape`, whose first size is N (-1: any)."""
        weight = self._random.normal(0, 0.3, (rows, int(np.prod(shape[1:])))).astype(np.float32)
        found = self.add('MatMul', value, self.constant(weight))
        found = self.add(act, found) if act else found
        self.add('Reshape', found, self.constant(np.array(shape, np.int64)), to=to)

    def model(
        self, inputs: dict[str, tuple[int, ...]], outputs: dict[str, tuple[int, ...]]
    ) -> onnx.ModelProto:
        def info(name: str, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
            kind = TensorProto.UINT8 if name == 'image' else TensorProto.FLOAT
            sizes = [HANDS if size < 0 else size for size in shape]
            return helper.make_tensor_value_info(name, kind, sizes)

        graph = helper.make_graph(
            self.nodes, 'toy', [info(*item) for item in inputs.items()],
            [info(*item) for item in outputs.items()], self.constants,
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)])
        model.ir_version = 8
        onnx.checker.check_model(model)
        return model


def detector(seed: int, size_hw: tuple[int, int] = SIZE_HW) -> onnx.ModelProto:
    L = size_hw[0] * size_hw[1] * 3 // C
    layers = Layers(seed)
    layers.nodes.append(helper.make_node('Cast', ['image'], ['float'], to=TensorProto.FLOAT))
    pixels = size_hw[0] * size_hw[1] * 3
    flat = layers.add('Reshape', 'float', layers.constant(np.array([1, pixels], np.int64)))
    flat = layers.add('Mul', flat, layers.constant(np.float32([1 / 255])))
    layers.add('Reshape', flat, layers.constant(np.array([1, L, C], np.int64)), to='features')
    layers.dense(flat, pixels, (1, Q, D), 'queries')
    layers.dense(flat, pixels, (1, Q, 4), 'boxes_cxcywh', 'Sigmoid')
    layers.dense(flat, pixels, (1, Q), 'scores', 'Sigmoid')
    return layers.model(
        {'image': (1, *size_hw, 3)},
        {'features': (1, L, C), 'queries': (1, Q, D), 'boxes_cxcywh': (1, Q, 4), 'scores': (1, Q)},
    )


def decoder(seed: int, L: int = L) -> onnx.ModelProto:
    K = -1
    layers = Layers(seed + 100)
    mean = layers.add('ReduceMean', 'features', keepdims=0)
    joined = layers.add('Concat', 'queries', 'boxes_cxcywh', axis=1)
    joined = layers.add('Add', joined, mean)
    outputs = {
        'joints_2d': (K, 21, 2), 'visibility': (K, 21), 'vertices_m': (K, 778, 3),
        'joints_m': (K, 21, 3), 'translation_m': (K, 3), 'right': (K,),
    }  # fmt: skip
    for name, shape in outputs.items():
        act = 'Sigmoid' if name in ('joints_2d', 'visibility', 'right') else 'Tanh'
        layers.dense(joined, D + 4, shape, name, act)
    return layers.model(
        {'features': (1, L, C), 'queries': (K, D), 'boxes_cxcywh': (K, 4)}, outputs
    )
