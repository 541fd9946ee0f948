"""The import arrows of the design: who may import whom, and what stays free of torch and ROS."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    'handos_model': ROOT / 'handos_model',
    'handos_ros': ROOT / 'handos_ros',
    'handos_training': ROOT / 'training' / 'handos_training',
}
FORBIDDEN = {
    'handos_model': {'handos_ros', 'handos_training', 'rclpy', 'cyclonedds', 'rosbags'},
    'handos_ros': {'handos_training', 'torch'},
    'handos_training': {'handos_ros', 'rclpy', 'cyclonedds', 'rosbags'},
}
WIRE = {'rclpy', 'cyclonedds', 'rosbags'}  # only handos_ros/runtime may import these


def imported_modules(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
    return {name.split('.')[0] for name in names}


@pytest.mark.parametrize('package', PACKAGES)
def test_arrows(package: str) -> None:
    files = sorted(PACKAGES[package].rglob('*.py'))
    assert files
    for path in files:
        forbidden = set(FORBIDDEN[package])
        if package == 'handos_ros' and 'runtime' not in path.parts:
            forbidden |= WIRE
        assert not imported_modules(path) & forbidden, path


def test_only_the_mano_reader_knows_pickle() -> None:
    users = {
        path.relative_to(ROOT).as_posix()
        for root in (PACKAGES['handos_model'], PACKAGES['handos_ros'])
        for path in root.rglob('*.py')
        if imported_modules(path) & {'pickle', 'cPickle', 'dill', 'joblib'}
    }
    assert users <= {'handos_model/hand/mano_pickle.py'}


TORCH_FREE = (
    'handos_model.types',
    'handos_model.geometry.placement',
    'handos_model.preprocess',
    'handos_model.hand.model',
    'handos_model.pipeline',
    'handos_model.tracking.tracker',
    'handos_model.hand.kinematics',
    'handos_model.backends.choice',
    'handos_ros.cli',
    'handos_ros.node.hand_node',
)


@pytest.mark.parametrize('module', TORCH_FREE)
def test_runs_without_torch(module: str) -> None:
    if (
        not (ROOT / (module.replace('.', '/') + '.py')).exists()
        and not (ROOT / module.replace('.', '/')).is_dir()
    ):
        pytest.fail(f'{module} is missing')
    code = f"import sys; sys.modules['torch'] = None; import {module}"
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
