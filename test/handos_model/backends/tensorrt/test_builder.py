"""Building: one path for both generations of TensorRT, and what its failures say."""

from __future__ import annotations

import ast
import sys
import tempfile
from pathlib import Path

import pytest
from fake_tensorrt import PLAN, FakeMachine
from small_graphs import decoder, detector

from handos_model.backends.tensorrt import library as tensorrt_library
from handos_model.backends.tensorrt.builder import (
    LEAST_WORKSPACE_BYTES,
    MOST_WORKSPACE_BYTES,
    build_engine,
    network_flags,
    workspace_bytes,
)
from handos_model.backends.tensorrt.cuda_driver import GpuStateError
from handos_model.backends.tensorrt.library import TensorRtLibrary, missing, version_of
from handos_model.errors import UserError

STUB = Path(__file__).resolve().parents[4] / 'typings' / 'tensorrt' / '__init__.pyi'


def model(name: str = 'detector/grid_sample') -> bytes:
    graph = detector(0)
    graph.doc_string = name
    return bytes(graph.SerializeToString())


def file_of(content: bytes) -> Path:
    path = Path(tempfile.mkdtemp()) / 'graph.onnx'
    path.write_bytes(content)
    return path


def build(timings: bytes = b'') -> tuple[bytes, bytes]:
    return build_engine(TensorRtLibrary(), file_of(model()), None, timings, 1 << 30)


def test_both_generations_build_the_same_way(machine: FakeMachine) -> None:
    plan, timings = build()
    assert plan.startswith(PLAN) and plan.endswith(model())
    assert timings == b't'
    assert machine.faults.calls == ['parse detector/grid_sample', 'build detector/grid_sample']


def test_the_number_of_hands_is_fixed_before_building(machine: FakeMachine) -> None:
    graph = decoder(0)
    graph.doc_string = 'decoder/grid_sample'
    library, any_number = TensorRtLibrary(), file_of(graph.SerializeToString())
    plans = [build_engine(library, any_number, hands, b'', 1 << 30)[0] for hands in (1, 3)]
    assert plans[0] != plans[1]
    assert machine.faults.calls[1::2] == [
        'build decoder1/grid_sample',
        'build decoder3/grid_sample',
    ]


def test_networks_are_strongly_typed_and_flags_are_of_this_version(machine: FakeMachine) -> None:
    expected = {'10': 0b11, '11': 0b10}[machine.faults.version[:2]]
    assert network_flags() == expected
    assert type(network_flags()) is int


def test_removed_names_are_not_there_in_the_fake(machine: FakeMachine) -> None:
    """So that code that used one would fail the tests."""
    trt = sys.modules['tensorrt']
    new = machine.faults.version.startswith('11')
    assert hasattr(trt.NetworkDefinitionCreationFlag, 'EXPLICIT_BATCH') is not new
    assert hasattr(trt.BuilderFlag, 'FP16') is not new
    for name in ('nptype', 'volume'):
        assert not hasattr(trt, name)


def test_the_fake_has_what_the_stub_declares(machine: FakeMachine) -> None:
    """mypy checks the code against the stub, the tests run it against the fake: one interface."""
    trt = sys.modules['tensorrt']
    checked = 0
    for node in ast.parse(STUB.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            assert callable(getattr(trt, node.name))
        if not isinstance(node, ast.ClassDef) or not hasattr(trt, node.name):
            continue
        for item in node.body:
            if isinstance(item, ast.FunctionDef) and not item.name.startswith('__'):
                declared = [argument.arg for argument in item.args.args]
                found = getattr(getattr(trt, node.name), item.name, None)
                if found is None:
                    assert (node.name, item.name) == ('ILogger', 'log')  # ours to define
                    continue
                names = found.__code__.co_varnames[: found.__code__.co_argcount]
                assert list(names) == declared, (node.name, item.name)
                checked += 1
    assert checked >= 6


def test_earlier_timings_are_used_and_foreign_ones_are_not(machine: FakeMachine) -> None:
    assert build(b'earlier')[1] == b'earliert'
    machine.faults.timings_foreign = True
    assert build(b'foreign')[1] == b't'


def test_the_workspace_leaves_room_for_the_rest() -> None:
    assert workspace_bytes(4 << 30) == 2 << 30
    assert workspace_bytes(1 << 20) == LEAST_WORKSPACE_BYTES
    assert workspace_bytes(80 << 30) == MOST_WORKSPACE_BYTES


@pytest.mark.parametrize(
    ('said', 'kind', 'words'),
    [
        ('Error Code 2: OutOfMemory (Requested size was 8 bytes.)', GpuStateError, 'max_hands'),
        ('Cuda Runtime (out of memory)', GpuStateError, 'too little free memory'),
        ('could not find any implementation for node Foo', UserError, 'another backend'),
    ],
)
def test_a_build_that_fails_says_why(
    machine: FakeMachine, said: str, kind: type[Exception], words: str
) -> None:
    machine.faults.build_error = said
    with pytest.raises(UserError, match=words) as raised:
        build()
    assert type(raised.value) is kind
    assert said in str(raised.value) and machine.faults.version in str(raised.value)


def test_a_graph_that_cannot_be_read_says_so(machine: FakeMachine) -> None:
    machine.faults.unreadable = ['detector/grid_sample']
    with pytest.raises(UserError, match=r'cannot read the graph.*no importer registered'):
        build()


@pytest.mark.parametrize(
    ('said', 'words'),
    [
        ('CUDA initialization failure with error: 35. Please check', 'driver is too old'),
        ('CUDA initialization failure with error: 100', 'sees no GPU'),
        ('CUDA initialization failure with error: 2', 'too little free memory'),
        ('something else', 'use another backend'),
    ],
)
def test_a_library_that_does_not_start_says_why(
    machine: FakeMachine, said: str, words: str
) -> None:
    machine.faults.start_warning = said
    with pytest.raises(UserError, match=f'does not start: .*{words}'):
        TensorRtLibrary()


def test_a_builder_that_does_not_start_says_why(machine: FakeMachine) -> None:
    library = TensorRtLibrary()
    machine.faults.start_warning = 'CUDA initialization failure with error: 35'
    with pytest.raises(GpuStateError, match=r'builder does not start: .*too old'):
        build_engine(library, file_of(model()), None, b'', 1 << 30)


def test_a_kernel_that_did_not_fit_is_not_the_cause(machine: FakeMachine) -> None:
    """TensorRT warns of every kernel that it tried and had no memory for."""
    library = TensorRtLibrary()
    trt = sys.modules['tensorrt']
    library.logger.log(trt.ILogger.Severity.WARNING, 'Skipping tactic 3: insufficient memory')
    library.logger.log(trt.ILogger.Severity.ERROR, 'Internal error')
    assert type(library.error('the engine could not be built')) is UserError


def test_plugins_that_do_not_load_are_said(machine: FakeMachine) -> None:
    machine.faults.plugins = False
    with pytest.raises(UserError, match='plugin library'):
        TensorRtLibrary()


def test_what_is_missing(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing() is None
    trt = sys.modules['tensorrt']
    for version in ('8.6.1', '10.2.0', '9.3.0.post1'):
        trt.__version__ = version  # type: ignore[attr-defined]
        assert 'older than 10.3' in str(missing())
    for version in ('10.3.0', '10.13.3.9', '11.1.0.106'):
        trt.__version__ = version  # type: ignore[attr-defined]
        assert missing() is None
    monkeypatch.setattr(tensorrt_library, 'find_spec', lambda name: None)
    assert 'pip install tensorrt-cu12' in str(missing())


def test_a_library_that_does_not_load_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "raise ImportError('libnvinfer.so.10: cannot open shared object file')"
    (tmp_path / 'tensorrt.py').write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, 'tensorrt', raising=False)
    assert 'libnvinfer.so.10' in str(missing())


def test_versions_are_compared_as_numbers() -> None:
    assert version_of('10.13.3.9') > version_of('10.3.0') > version_of('8.6.1')
