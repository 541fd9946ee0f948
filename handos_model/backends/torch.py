"""torch itself, from `model.safetensors`: eager on CPUs, CUDA graphs on GPUs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from handos_model.backends.base import Engine, EngineOptions, WindowEngine
from handos_model.backends.choice import usable_cores
from handos_model.errors import UserError

if TYPE_CHECKING:
    import torch

_log = logging.getLogger(__name__)
_WARM_UP_RUNS = 3


def missing() -> str | None:
    """Why it cannot run here, None where it can."""
    for package in ('torch', 'transformers', 'safetensors'):
        if find_spec(package) is None:
            return f"{package} is not installed (pip install 'handos-ros[torch]')"
    return None


class TorchGraph:
    """A torch module behind `infer`; on a GPU one CUDA graph over buffers that are kept.

    `on_device` outputs stay tensors of the device. The CUDA part is not run by the project's
    tests, which have no GPU.
    """

    def __init__(
        self,
        module: Callable[..., tuple[torch.Tensor, ...]],
        examples: Mapping[str, torch.Tensor],
        output_names: tuple[str, ...],
        on_device: tuple[str, ...],
        autocast: torch.dtype | None,
    ) -> None:
        self._module, self._names, self._on_device = module, output_names, on_device
        self._autocast = autocast
        self._inputs = dict(examples)
        self._device = next(iter(examples.values())).device
        self._graph: torch.cuda.CUDAGraph | None = None
        if self._device.type == 'cuda':
            self._capture()

    def infer(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Run once; inputs are numpy arrays or tensors of this engine's device."""
        import torch

        for name, value in inputs.items():
            tensor = torch.from_numpy(value) if isinstance(value, np.ndarray) else value
            self._inputs[name].copy_(tensor, non_blocking=True)
        if self._graph is not None:
            self._graph.replay()
        else:
            self._outputs = self._run()
        return {
            name: value if name in self._on_device else value.cpu().numpy()
            for name, value in zip(self._names, self._outputs, strict=True)
        }

    def _run(self) -> tuple[torch.Tensor, ...]:
        import torch

        enabled = self._autocast is not None
        with (
            torch.inference_mode(),
            torch.autocast(self._device.type, self._autocast, enabled=enabled),
        ):
            return self._module(*self._inputs.values())

    def _capture(self) -> None:
        import torch

        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP_RUNS):
                self._run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self._outputs = self._run()
        except RuntimeError as error:
            # transformers' RT-DETRv2 and others copy numbers from the host in every run.
            reason = str(error).splitlines()[0]
            _log.warning('no CUDA graph, which would be faster: %s', reason)
        else:
            self._graph = graph


def open_engine(weights: Path, options: EngineOptions) -> Engine:
    """Load the network of folder `weights`, on the first GPU where there is one."""
    import torch

    from handos_model.network.handos import HandOS

    on_gpu = torch.cuda.is_available()
    if not on_gpu:
        torch.set_num_threads(options.threads or usable_cores())
    network = HandOS.from_pretrained(weights, options.hand_model)
    network = network.eval().to('cuda' if on_gpu else 'cpu')
    return engine_of_network(network, options)


def engine_of_network(
    network: Any, options: EngineOptions, size_hw: tuple[int, int] | None = None
) -> Engine:
    """An engine over a network that is in memory already, on the device where it stands."""
    import torch

    from handos_model.network.graphs import (
        DECODER_INPUTS,
        DECODER_OUTPUTS,
        DETECTOR_OUTPUTS,
        build_graphs,
    )
    from handos_model.network.lean.graphs import WINDOW_PX, lean_graphs, window_place
    from handos_model.network.lean.window import Window

    device = next(network.parameters()).device
    wanted = options.precision
    if wanted == 'auto':
        wanted = 'fp16' if device.type == 'cuda' else 'fp32'
    if wanted == 'int8':
        raise UserError('torch computes in floats here: use precision fp32, or another backend')
    if wanted == 'fp16' and device.type == 'cpu':
        raise UserError('torch has no fast fp16 on CPUs: use precision fp32 or bf16')
    autocast = {'fp32': None, 'fp16': torch.float16, 'bf16': torch.bfloat16}[wanted]

    size_hw = size_hw or network.config.input_size_hw
    detector, decoder = build_graphs(network, size_hw)
    if device.type == 'cuda' and size_hw == network.config.input_size_hw:
        # Fewer operations, and none that copies numbers from the host, which no CUDA graph holds.
        seen, made = lean_graphs(detector, decoder)
        whole_graphs = seen.to(device), made.to(device)
    else:
        whole_graphs = detector, decoder
    sizes = [k for k in (1, 2, 4) if k < 2 * options.max_hands]
    name = f'torch on {device.type.upper()}, {wanted}'

    def engine(detector: Any, decoder: Any, seen_hw: tuple[int, int], sizes: list[int]) -> Engine:
        image = torch.zeros(1, *seen_hw, 3, dtype=torch.uint8, device=device)
        finder = TorchGraph(detector, {'image': image}, DETECTOR_OUTPUTS, ('features',), autocast)
        with torch.inference_mode():
            features, queries, _, _ = detector(image)
        decoders = {}
        for hands in sizes:
            values = (
                torch.zeros_like(features),
                torch.zeros(hands, queries.shape[-1], device=device),
                torch.full((hands, 4), 0.5, device=device),
            )
            examples = dict(zip(DECODER_INPUTS, values, strict=True))
            decoders[hands] = TorchGraph(decoder, examples, DECODER_OUTPUTS, (), autocast)
        return Engine(name, finder, decoders, wanted)

    whole = engine(*whole_graphs, size_hw, sizes)
    whole.at_size = partial(engine_of_network, network, options)
    place = window_place(network, WINDOW_PX)
    if options.window and place is not None and size_hw == place.whole_hw:
        side_hw = (WINDOW_PX, WINDOW_PX)
        window = Window.at(decoder.spatial_shapes, place, side_hw)
        seen, made = lean_graphs(detector, decoder, window)
        closer = engine(seen.to(device), made.to(device), side_hw, [1])
        whole.window = WindowEngine(place, side_hw, closer)
    return whole
