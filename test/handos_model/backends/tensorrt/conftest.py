"""A machine with TensorRT and a GPU, both stand-ins."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fake_tensorrt import FakeMachine, Faults, make_module
from small_graphs import small_export

from handos_model.backends.tensorrt import cuda_driver

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope='session')
def fake_cuda(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in for libcuda, compiled."""
    compiler = shutil.which('cc') or shutil.which('gcc')
    if compiler is None:
        pytest.skip('needs a C compiler for the stand-in of the CUDA driver')
    path = tmp_path_factory.mktemp('cuda') / 'libcuda.so.1'
    source = HERE / 'fake_cuda.c'
    subprocess.run([compiler, '-O1', '-shared', '-fPIC', '-o', path, source], check=True)
    return path


@pytest.fixture(params=['10.3.0', '11.1.0'])
def tensorrt_version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def machine(
    fake_cuda: Path, tensorrt_version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> FakeMachine:
    path = tmp_path / 'libcuda.so.1'  # a copy has its own memory and faults
    shutil.copy(fake_cuda, path)
    cuda = ctypes.CDLL(str(path))
    cuda.fake_used.restype = ctypes.c_size_t
    cuda.fake_set_limit.argtypes = (ctypes.c_size_t,)
    faults = Faults(version=tensorrt_version)
    monkeypatch.setitem(sys.modules, 'tensorrt', make_module(faults, cuda))
    monkeypatch.setattr(cuda_driver, 'LIBRARY', str(path))
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'caches'))
    return FakeMachine(faults, cuda, path, tmp_path / 'caches')


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return small_export(tmp_path / 'toy')
