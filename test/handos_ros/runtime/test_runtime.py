"""Which runtime is chosen, and that both have the same names."""

import ast
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

RUNTIME = Path(__file__).resolve().parents[3] / 'handos_ros' / 'runtime'
HAS_RCLPY = importlib.util.find_spec('rclpy') is not None


def import_runtime(choice: str) -> subprocess.CompletedProcess[str]:
    code = (
        'from handos_model.errors import UserError\n'
        'try:\n'
        '    from handos_ros import runtime\n'
        '    node = runtime.Node\n'
        'except UserError as error:\n'
        '    print("UserError:", error)\n'
        'else:\n'
        '    print(node.__module__)\n'
    )
    return subprocess.run(
        [sys.executable, '-c', code],
        env={**os.environ, 'HANDOS_RUNTIME': choice},
        capture_output=True,
        text=True,
        check=True,
    )


def test_the_embedded_runtime_can_be_asked_for():
    assert import_runtime('embedded').stdout.strip() == 'handos_ros.runtime.embedded.node'


def test_an_unknown_runtime_is_named():
    assert "HANDOS_RUNTIME is 'ros1'" in import_runtime('ros1').stdout


@pytest.mark.skipif(HAS_RCLPY, reason='rclpy is installed')
def test_a_missing_rclpy_is_said():
    assert 'UserError: rclpy is not installed: source a ROS 2' in import_runtime('rclpy').stdout


def test_recordings_need_no_runtime():
    code = (
        'import sys\n'
        'sys.modules["cyclonedds"] = sys.modules["rclpy"] = None\n'
        'import handos_ros.node.bag_processing\n'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def exported(path: Path) -> set[str]:
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == '__all__':
            return set(ast.literal_eval(node.value))
    raise AssertionError(f'{path} has no __all__')


def test_both_runtimes_have_the_same_names():
    names = exported(RUNTIME / '__init__.py')
    assert names == exported(RUNTIME / 'embedded' / 'api.py')
    defined: set[str] = set()
    for node in ast.walk(ast.parse((RUNTIME / 'genuine.py').read_text())):
        if isinstance(node, ast.ImportFrom):
            defined |= {alias.name for alias in node.names}
        elif isinstance(node, ast.FunctionDef):
            defined.add(node.name)
    assert names <= defined


@pytest.mark.long
@pytest.mark.skipif(not HAS_RCLPY, reason='needs a sourced ROS 2 installation (rclpy)')
@pytest.mark.parametrize('tests', ['node/test_node.py', 'test_end_to_end.py'])
def test_the_nodes_tests_pass_on_rclpy(tests):
    done = subprocess.run(
        [sys.executable, '-m', 'pytest', str(Path(__file__).parents[1] / tests)],
        env={**os.environ, 'HANDOS_RUNTIME': 'rclpy'},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:]
