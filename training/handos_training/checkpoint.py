"""Checkpoints that survive a kill at any moment.

A checkpoint is a folder `step_00001000` of safetensors files and one `state.json`. It is written
under a temporary name, flushed to the disk, and renamed: a folder with a final name is complete.
`last` and `best` are symbolic links, replaced by a rename. Nothing is unpickled.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from handos_model.errors import UserError

STATE_FILE = 'state.json'
TensorGroups = Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True)
class Checkpoint:
    """What one checkpoint holds."""

    path: Path
    step: int  # optimiser steps done
    tensors: dict[str, dict[str, Tensor]]  # by group: model, ema, optimizer
    state: dict[str, Any]  # what is not a tensor


class CheckpointFolder:
    """The checkpoints of one run; keeps the `keep_last` newest and the best one."""

    def __init__(self, path: Path, keep_last: int = 3) -> None:
        if keep_last < 1:
            raise ValueError(f'keep_last must be at least 1, got {keep_last}')
        self.path = path
        self.keep_last = keep_last

    def save(
        self, step: int, tensors: TensorGroups, state: Mapping[str, Any], *, best: bool = False
    ) -> Path:
        """Write a checkpoint of `step`, point `last` (and `best`) at it, remove old ones."""
        self.path.mkdir(parents=True, exist_ok=True)
        final = self.path / f'step_{step:08d}'
        temporary = self.path / f'.writing-{uuid.uuid4().hex}'
        temporary.mkdir()
        for group, values in tensors.items():
            file = temporary / f'{group}.safetensors'
            # Copies: tied weights share memory, which the format does not allow.
            save_file({name: value.detach().cpu().clone().contiguous()
                       for name, value in values.items()}, file)  # fmt: skip
            _flush(file)
        content = {'step': step, 'tensors': sorted(tensors), 'state': dict(state)}
        (temporary / STATE_FILE).write_text(json.dumps(content, indent=1))
        _flush(temporary / STATE_FILE)
        _flush(temporary)
        if final.exists():
            # A rerun of the same step: `rename` cannot replace a folder that has files in it.
            final.rename(self.path / f'.removing-{uuid.uuid4().hex}')
        temporary.rename(final)
        _flush(self.path)
        self._point('last', final)
        if best:
            self._point('best', final)
        self._clean()
        return final

    def load(self, which: str = 'last') -> Checkpoint | None:
        """Read `last`, `best` or `step_...`; None where there is none.

        Should `last` be unreadable, the newest readable checkpoint is taken. Raises UserError
        where a checkpoint that was asked for by name, or every one, is damaged.
        """
        while True:
            candidates = [self.path / which] if (self.path / which).exists() else []
            if which == 'last':
                candidates += reversed(self._complete())
            candidates = [path.resolve() for path in candidates]
            problems = []
            for path in candidates:
                checkpoint, problem = _try_read(path)
                if checkpoint is not None:
                    return checkpoint
                problems.append(f'{path} ({problem})')
            if not problems:
                return None
            if all(path.exists() for path in candidates):
                named = '; '.join(problems)
                raise UserError(f'cannot be read: {named}. Choose another checkpoint')
            # A running training has written newer ones and removed these meanwhile: look again.

    def _complete(self) -> list[Path]:
        return sorted(path for path in self.path.glob('step_*') if (path / STATE_FILE).exists())

    def _point(self, name: str, target: Path) -> None:
        temporary = self.path / f'.link-{uuid.uuid4().hex}'
        temporary.symlink_to(target.name)
        temporary.replace(self.path / name)
        _flush(self.path)

    def _clean(self) -> None:
        keep = set(self._complete()[-self.keep_last :])
        keep |= {(self.path / name).resolve() for name in ('last', 'best')}
        keep = {path.resolve() for path in keep}
        for path in self._complete():
            if path.resolve() not in keep:
                # Renamed first, so that a half-removed folder is never taken for a checkpoint.
                path.rename(self.path / f'.removing-{uuid.uuid4().hex}')
        for leftover in (*self.path.glob('.removing-*'), *self.path.glob('.writing-*')):
            shutil.rmtree(leftover, ignore_errors=True)
        for link in self.path.glob('.link-*'):
            link.unlink(missing_ok=True)


def optimizer_state(
    optimizer: torch.optim.Optimizer,
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Split an optimiser's state into tensors named `parameter.key` and its groups as JSON."""
    content = optimizer.state_dict()
    tensors = {
        f'{index}.{key}': value if isinstance(value, Tensor) else torch.tensor(value)
        for index, values in content['state'].items()
        for key, value in values.items()
    }
    return tensors, content['param_groups']


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], groups: list[dict[str, Any]]
) -> None:
    """Undo `optimizer_state`."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split('.', 1)
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({'state': state, 'param_groups': groups})


def _try_read(path: Path) -> tuple[Checkpoint | None, str]:
    try:
        content = json.loads((path / STATE_FILE).read_text())
        tensors = {group: load_file(path / f'{group}.safetensors') for group in content['tensors']}
        return Checkpoint(path, content['step'], tensors, content['state']), ''
    # RuntimeError: torch opens the file again after safetensors did, and it may be gone by then.
    except (OSError, RuntimeError, ValueError, KeyError, SafetensorError) as error:
        return None, str(error)


def _flush(path: Path) -> None:
    """Force a file's content, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
