"""Checkpoints: exact round trips, and nothing half-written after a kill at any moment."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from handos_model.errors import UserError
from handos_training import checkpoint
from handos_training.checkpoint import (
    CheckpointFolder,
    load_optimizer_state,
    optimizer_state,
)


def tensors(value: float) -> dict[str, dict[str, torch.Tensor]]:
    return {'model': {'weight': torch.full((3,), value)}, 'ema': {'weight': torch.zeros(3)}}


def test_round_trip(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    assert folder.load() is None
    folder.save(7, tensors(1.5), {'best': float('inf'), 'note': 'x'})
    loaded = folder.load()
    assert loaded is not None
    assert loaded.step == 7
    assert loaded.state == {'best': float('inf'), 'note': 'x'}
    assert torch.equal(loaded.tensors['model']['weight'], torch.full((3,), 1.5))


def test_tied_weights_are_saved(tmp_path: Path) -> None:
    shared = torch.arange(4.0)
    CheckpointFolder(tmp_path).save(1, {'model': {'a': shared, 'b': shared}}, {})
    loaded = CheckpointFolder(tmp_path).load()
    assert loaded is not None
    assert torch.equal(loaded.tensors['model']['b'], shared)


def test_optimizer_round_trip(tmp_path: Path) -> None:
    torch.manual_seed(0)

    def train(model: nn.Linear, optimizer: torch.optim.Optimizer, steps: int) -> None:
        for step in range(steps):
            optimizer.zero_grad()
            model(torch.ones(2, 3) * (step + 1)).square().sum().backward()
            optimizer.step()

    first, second = nn.Linear(3, 2), nn.Linear(3, 2)
    a, b = (torch.optim.AdamW(m.parameters(), lr=0.01) for m in (first, second))
    train(first, a, 5)
    second.load_state_dict(first.state_dict())
    moments, groups = optimizer_state(a)
    CheckpointFolder(tmp_path).save(5, {'optimizer': moments}, {'groups': groups})
    loaded = CheckpointFolder(tmp_path).load()
    assert loaded is not None
    load_optimizer_state(b, loaded.tensors['optimizer'], loaded.state['groups'])
    train(first, a, 5)
    train(second, b, 5)
    assert torch.equal(first.weight, second.weight)


def test_keeps_the_last_and_the_best(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep_last=2)
    for step in range(1, 7):
        folder.save(step, tensors(step), {}, best=step == 2)
    names = sorted(path.name for path in tmp_path.glob('step_*'))
    assert names == ['step_00000002', 'step_00000005', 'step_00000006']
    best, last = folder.load('best'), folder.load()
    assert best is not None and best.step == 2
    assert last is not None and last.step == 6


def test_a_rerun_step_replaces_the_old_one(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(3, tensors(1), {})
    folder.save(3, tensors(2), {})
    loaded = folder.load()
    assert loaded is not None
    assert float(loaded.tensors['model']['weight'][0]) == 2
    assert not list(tmp_path.glob('.*'))


@pytest.mark.parametrize('damage', ['state.json', 'model.safetensors', 'ema.safetensors'])
@pytest.mark.fault('training', 'the last checkpoint is damaged', 'the one before is taken')
def test_a_damaged_last_gives_way_to_the_one_before(tmp_path: Path, damage: str) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(1, tensors(1), {})
    path = folder.save(2, tensors(2), {})
    file = path / damage
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    loaded = folder.load()
    assert loaded is not None and loaded.step == 1
    with pytest.raises(UserError, match=r'cannot be read: .*step_00000002'):
        folder.load('step_00000002')


SAVE_FOR_EVER = """
import sys, torch
from pathlib import Path
from handos_training.checkpoint import CheckpointFolder
folder = CheckpointFolder(Path(sys.argv[1]), keep_last=2)
loaded = folder.load()
step = loaded.step if loaded else 0
print('ready', flush=True)
while True:
    step += 1
    values = torch.full((50_000,), float(step))
    folder.save(step, {'model': {'w': values}, 'optimizer': {'w': values}}, {'check': step},
                best=step % 3 == 0)
"""


def kill_while_saving(folder: Path, kills: int) -> list[int]:
    """Kill a saving process again and again; the step that could be loaded after each kill."""
    rng = random.Random(0)
    steps: list[int] = []
    for _ in range(kills):
        process = subprocess.Popen(
            [sys.executable, '-c', SAVE_FOR_EVER, str(folder)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b'ready\n'
        while CheckpointFolder(folder).load() is None:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        loaded = CheckpointFolder(folder).load()
        assert loaded is not None
        assert (folder / 'last').exists()
        assert loaded.step == loaded.state['check']
        for group in ('model', 'optimizer'):
            assert torch.equal(
                loaded.tensors[group]['w'], torch.full((50_000,), float(loaded.step))
            )
        steps.append(loaded.step)
    return steps


@pytest.mark.fault('training', 'kill -9 while a checkpoint is saved', 'the one before is whole')
def test_killed_while_saving(tmp_path: Path) -> None:
    steps = kill_while_saving(tmp_path, kills=2)
    assert len(steps) == 2 and steps == sorted(steps)


@pytest.mark.long
@pytest.mark.fault('training', 'ten times kill -9 while saving', 'the one before is whole')
def test_killed_ten_times_while_saving(tmp_path: Path) -> None:
    steps = kill_while_saving(tmp_path, kills=10)
    assert len(steps) == 10 and steps == sorted(steps)


@pytest.mark.parametrize('error', [FileNotFoundError, RuntimeError])
def test_a_file_removed_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    folder = CheckpointFolder(tmp_path, keep_last=1)
    save = lambda step: folder.save(step, {'model': {'w': torch.ones(1)}}, {})  # noqa: E731
    save(1)
    read = checkpoint.load_file

    def removed_meanwhile(path: Path) -> dict[str, torch.Tensor]:
        # safetensors opens a file and has torch open it again: either may find it gone.
        monkeypatch.setattr(checkpoint, 'load_file', read)
        save(2)
        raise error(f'unable to open file <{path}>: No such file or directory (2)')

    monkeypatch.setattr(checkpoint, 'load_file', removed_meanwhile)
    loaded = folder.load()
    assert loaded is not None and loaded.step == 2


def test_reading_beside_a_running_training_looks_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = CheckpointFolder(tmp_path, keep_last=1)
    save = lambda step: folder.save(step, {'model': {'w': torch.ones(1)}}, {})  # noqa: E731
    save(1)
    read = checkpoint._try_read

    def saved_meanwhile(path: Path) -> tuple[checkpoint.Checkpoint | None, str]:
        monkeypatch.setattr(checkpoint, '_try_read', read)
        save(2)
        return read(path)

    monkeypatch.setattr(checkpoint, '_try_read', saved_meanwhile)
    loaded = folder.load()
    assert loaded is not None and loaded.step == 2
