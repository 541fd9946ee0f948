"""The rooms of the design: who may import whom, and what stays free of torch and ROS."""

import subprocess
import sys
from collections import Counter

import pytest

from tools.rooms import (
    PAGE,
    ROOT,
    drawn,
    imported_names,
    in_order,
    module_arrows,
    modules,
    room_arrows,
    room_of,
)

ROS = {'rclpy', 'cyclonedds', 'rosbags'}
TORCH = {'torch', 'transformers', 'torchvision', 'accelerate'}
PICKLE = {'pickle', 'cPickle', 'dill', 'joblib'}
# Rooms that may import what the others may not.
ROS_ROOMS = ('handos_ros.runtime',)
TORCH_ROOMS = ('handos_model.network', 'handos_model.export', 'handos_model.backends.torch',
               'handos_training')  # fmt: skip
PACKAGES_KNOWN = {  # of ours, besides itself
    'handos_model': set(),
    'handos_ros': {'handos_model'},
    'handos_training': {'handos_model'},
}
MOST_MODULES = 14
# From the ground up: a room imports from rooms before it, never from those behind it.
FLOORS = {
    'handos_model': [
        *('errors', 'types', 'config', 'files'),
        *('geometry', 'hand', 'tracking', 'weights'),
        *('selection', 'postprocess', 'preprocess', 'draw'),
        *('network.detectors', 'network', 'network.lean', 'backends', 'backends.tensorrt'),
        *('environment', 'export'),
        *('pipeline_config', 'candidates', 'placing', 'pipeline', 'following'),
    ],
    'handos_ros': [
        *('images', 'messages'),
        *('runtime.embedded.wire', 'runtime.embedded', 'runtime'),
        *('adapters', 'health', 'node', 'view', 'commands', 'cli'),
    ],
    'handos_training': [
        *('layout', 'data', 'data.datasets'),
        *('synth.config', 'synth.sampling'),
        *('synth.render', 'synth.camera', 'synth.people', 'synth.surroundings', 'synth.scene'),
        *('synth.renderer', 'synth.dataset', 'synth.cache', 'synth.sheet', 'synth.cli', 'synth'),
        *('config', 'muon', 'optim', 'sync_norm', 'progress', 'checkpoint'),
        *('stages', 'evaluation'),
        *('teacher', 'sources', 'check_data', 'fetch_detector', 'evaluate', 'quantise', 'train'),
    ],
}


def outside(name: str, rooms: tuple[str, ...]) -> bool:
    return not any(name == room or name.startswith(f'{room}.') for room in rooms)


@pytest.mark.parametrize(
    ('packages', 'rooms'), [(ROS, ROS_ROOMS), (TORCH, TORCH_ROOMS)], ids=['ros', 'torch']
)
def test_heavy_packages_stay_in_their_rooms(packages: set[str], rooms: tuple[str, ...]) -> None:
    users = {
        module
        for module, path in modules().items()
        if packages & {name.partition('.')[0] for name in imported_names(path)}
    }
    assert users, 'nobody imports them: this test looks in the wrong place'
    assert [module for module in sorted(users) if outside(module, rooms)] == []


@pytest.mark.parametrize('package', FLOORS)
def test_packages_know_only_those_below(package: str) -> None:
    known = {
        target.partition('.')[0]
        for module, targets in module_arrows().items()
        if module.partition('.')[0] == package
        for target in targets
    }
    assert known - {package} <= PACKAGES_KNOWN[package]


def test_no_circle() -> None:
    assert len(in_order(module_arrows())) == len(modules())
    assert in_order(room_arrows())


@pytest.mark.parametrize('package', FLOORS)
def test_no_arrow_upward(package: str) -> None:
    floors = [f'{package}.{room}' for room in FLOORS[package]]
    rooms = {r: targets for r, targets in room_arrows().items() if r.startswith(f'{package}.')}
    assert sorted(set(rooms) - set(floors)) == [], 'a new room: say where it stands'
    upward = [
        f'{room} -> {target}'
        for room, targets in rooms.items()
        for target in targets
        if target in floors and floors.index(target) > floors.index(room)
    ]
    assert upward == []


def test_no_folder_is_crowded() -> None:
    folders = Counter(path.parent for path in modules().values() if path.name != '__init__.py')
    assert {str(folder): n for folder, n in folders.items() if n > MOST_MODULES} == {}


def test_rooms_are_told_apart() -> None:
    assert room_of('handos_model.pipeline') == 'handos_model.pipeline'
    assert room_of('handos_model.network.decoder') == 'handos_model.network'
    assert room_of('handos_model.network.detectors.dfine') == 'handos_model.network.detectors'
    assert room_of('handos_model.geometry.placement') == 'handos_model.geometry'


def test_the_picture_is_true() -> None:
    page = PAGE.read_text()
    assert page == drawn(page), 'draw it anew: python -m tools.rooms'


def test_only_the_safe_reader_knows_pickle() -> None:
    users = {
        module
        for module, path in modules().items()
        if PICKLE & {name.partition('.')[0] for name in imported_names(path)}
    }
    assert {module for module in users if outside(module, ('handos_training',))} <= {
        'handos_model.hand.safe_pickle'
    }


TORCH_FREE = (
    'handos_model.types',
    'handos_model.geometry.placement',
    'handos_model.preprocess',
    'handos_model.hand.model',
    'handos_model.pipeline',
    'handos_model.tracking.tracker',
    'handos_model.hand.kinematics',
    'handos_model.backends.choice',
    'handos_model.weights.store',
    'handos_ros.cli',
    'handos_ros.node.hand_node',
)


@pytest.mark.parametrize('module', TORCH_FREE)
def test_runs_without_torch(module: str) -> None:
    code = f"import sys; sys.modules['torch'] = None; import {module}"
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
