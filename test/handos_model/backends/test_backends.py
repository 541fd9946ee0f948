"""Backends: the choice, what a missing one says, and that all compute the same hands."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from handos_model.backends import choice as backends
from handos_model.backends.base import Engine, EngineOptions
from handos_model.backends.choice import BACKENDS, choose_backend, open_engine
from handos_model.backends.parity import beyond_limits, engine_parity, made_up_images
from handos_model.backends.torch import engine_of_network
from handos_model.errors import UserError
from handos_model.network.handos import HandOS


@pytest.fixture(scope='module')
def reference(make_tiny_network: Callable[[], HandOS]) -> Engine:
    return engine_of_network(make_tiny_network(), EngineOptions(precision='fp32', max_hands=2))


@pytest.mark.parametrize(
    ('name', 'precision'),
    [
        ('onnxruntime', 'fp32'),
        ('onnxruntime', 'fp16'),
        ('openvino', 'fp32'),
        ('torch', 'fp32'),
    ],
)
def test_every_backend_finds_the_hands_that_torch_finds(
    name: str, precision: str, tiny_weights: Path, reference: Engine
) -> None:
    pytest.importorskip(name)
    options = EngineOptions(precision=precision, max_hands=2, threads=2)  # type: ignore[arg-type]
    engine = open_engine(name, tiny_weights, options)
    assert sorted(engine.decoders) == [1, 2]
    errors = engine_parity(reference, engine, made_up_images((96, 128)), (96, 128))
    assert {'joints_px', 'vertices_mm', 'boxes_px', 'unmatched'} <= set(errors)
    assert not beyond_limits(errors, precision)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs an NVIDIA GPU')
@pytest.mark.parametrize('precision', ['fp32', 'fp16'])
def test_torch_on_a_gpu_finds_the_hands_of_the_cpu(
    precision: str, make_tiny_network: Callable[[], HandOS], reference: Engine
) -> None:
    options = EngineOptions(precision=precision, max_hands=2)  # type: ignore[arg-type]
    engine = engine_of_network(make_tiny_network().to('cuda'), options)
    errors = engine_parity(reference, engine, made_up_images((96, 128)), (96, 128))
    assert not beyond_limits(errors, precision)


def test_bfloat16_is_less_exact_but_no_other_hand(tiny_weights: Path, reference: Engine) -> None:
    """OpenVINO's own bf16 rounds sampling locations too: faster, and outside the fp16 limits."""
    engine = open_engine('openvino', tiny_weights, EngineOptions(precision='bf16', max_hands=2))
    assert engine.precision == 'bf16'
    errors = engine_parity(reference, engine, made_up_images((96, 128)), (96, 128))
    assert errors['joints_px'] < 1.5 and errors['vertices_mm'] < 20


def test_a_second_frame_is_not_the_first(tiny_weights: Path) -> None:
    """Outputs live in buffers that the next call overwrites; inputs may come from new memory."""
    for name in ('onnxruntime', 'openvino'):
        engine = open_engine(name, tiny_weights, EngineOptions(max_hands=1, threads=1))
        frames = [image[None] for image in made_up_images((96, 128))]
        first = [np.array(engine.detector.infer({'image': f})['features']) for f in frames]
        second = [np.array(engine.detector.infer({'image': f.copy()})['features']) for f in frames]
        assert np.abs(first[0] - first[1]).max() > 0.01
        frames[0][:] = frames[1]  # the pipeline writes each frame into one buffer
        again = np.array(engine.detector.infer({'image': frames[0]})['features'])
        np.testing.assert_array_equal(again, first[1])
        for one, other in zip(first, second, strict=True):
            np.testing.assert_array_equal(one, other)


def test_auto_takes_the_first_that_can_run_and_says_why(
    tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reasons: dict[str, str | None] = dict.fromkeys(BACKENDS, 'not installed')
    monkeypatch.setattr(backends, 'why_unavailable', lambda name, weights=None: reasons[name])
    with pytest.raises(UserError, match=r'no backend can run: .*openvino: not installed'):
        choose_backend('auto', tiny_weights)
    reasons['onnxruntime'] = None
    name, reason = choose_backend('auto', tiny_weights)
    assert name == 'onnxruntime' and 'openvino: not installed' in reason
    reasons['tensorrt'] = None
    assert choose_backend('auto', tiny_weights) == ('tensorrt', 'the first that can run')


def test_the_choice_looks_at_the_files(tmp_path: Path, tiny_weights: Path) -> None:
    (tmp_path / 'model.safetensors').write_bytes(b'')
    name, reason = choose_backend('auto', tmp_path)
    assert name == 'torch' and 'handos export' in reason
    with pytest.raises(UserError, match=r'has no manifest.json'):
        choose_backend('onnxruntime', tmp_path)
    assert choose_backend('auto', tiny_weights)[0] in ('openvino', 'onnxruntime')
    assert choose_backend('torch', tiny_weights) == ('torch', 'asked for')


def test_unknown_and_missing_backends_say_what_to_do(
    tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match='not one of auto, tensorrt'):
        choose_backend('tflite', tiny_weights)
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    for name in ('openvino', 'onnxruntime'):
        module = f'handos_model.backends.{name}'
        monkeypatch.delitem(sys.modules, module, raising=False)
        with pytest.raises(UserError, match=rf'{name} cannot run: .*pip install {name}'):
            choose_backend(name, tiny_weights)
    for name in ('openvino', 'onnxruntime'):
        monkeypatch.delitem(sys.modules, f'handos_model.backends.{name}')


def test_a_precision_that_is_not_there_is_said(tiny_weights: Path) -> None:
    with pytest.raises(UserError, match=r'no graphs in bf16.*--precision bf16'):
        open_engine('onnxruntime', tiny_weights, EngineOptions(precision='bf16'))
    with pytest.raises(UserError, match='no fast fp16'):
        open_engine('torch', tiny_weights, EngineOptions(precision='fp16'))


def test_options_are_validated() -> None:
    with pytest.raises(ValueError, match='at least 1'):
        EngineOptions(max_hands=0)
