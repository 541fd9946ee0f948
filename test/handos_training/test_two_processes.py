"""Two processes of one run are one run."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from safetensors.torch import load_file
from small_runs import config_of, losses_of

from handos_model.hand.model import HandModel
from handos_training.config import (
    NetworkConfig,
)
from handos_training.stages.network import build_network
from handos_training.train import Trainer


def two_processes(script: str, arguments: list[str]) -> list[str]:
    """What each of two processes of one run prints, under torchrun's variables."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    processes = []
    for rank in (0, 1):
        environment = os.environ | {
            'RANK': str(rank), 'LOCAL_RANK': str(rank), 'WORLD_SIZE': '2',
            'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(port),
        }  # fmt: skip
        command = [sys.executable, '-c', script, str(Path(__file__).parent), *arguments]
        processes.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        )
    printed = [process.communicate(timeout=240)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    return printed


TWO = """
import sys, torch
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, sys.argv[1])
torch.set_num_threads(1)
from small_runs import config_of
from handos_training.config import NetworkConfig
from handos_training.train import Trainer
config = config_of(Path(sys.argv[2]), Path(sys.argv[3]), batch_size=1, num_steps=4,
                   init_from=Path(sys.argv[4]), train_detector=False,
                   accumulate=int(sys.argv[5]), network=NetworkConfig(side_tuning=sys.argv[6]))
Trainer(config).run()
"""


CLOCKS = """
import sys, torch
from pathlib import Path
sys.path.insert(0, sys.argv[1])
torch.set_num_threads(1)
from small_runs import config_of
from handos_training.train import Trainer
trainer = Trainer(config_of(Path(sys.argv[2]), Path(sys.argv[3]), batch_size=1, minutes=0.2))
trainer.minutes_before = 0.06 * trainer.rank  # one began earlier than the other
trainer.run()
values = [p.detach().double().sum() for p in trainer.bare_module.parameters()]
print('END', trainer.step, float(sum(values)))
"""


def test_two_processes_whose_clocks_differ_stay_one(drawn_cache: Path, tmp_path: Path) -> None:
    printed = two_processes(CLOCKS, [str(drawn_cache), str(tmp_path / 'run')])
    ends = [text[text.index('END') :].split() for text in printed]
    assert ends[0] == ends[1]
    assert int(ends[0][1]) > 2


@pytest.mark.parametrize(('side_tuning', 'accumulate'), [('backbone', 1), ('none', 2)])
def test_two_processes_equal_one(
    side_tuning: Literal['backbone', 'none'], accumulate: int, drawn_cache: Path, tmp_path: Path
) -> None:
    """Under torchrun's variables, which do not tell accelerate that there is no GPU.

    With a frozen detector: the denoising queries of a trained one are drawn by each process.
    """
    start = tmp_path / 'start'
    changes = {'network': NetworkConfig(side_tuning=side_tuning), 'num_steps': 4}
    build_network(config_of(drawn_cache, start, **changes), HandModel.embedded()).save_pretrained(
        start
    )
    one = config_of(
        drawn_cache, tmp_path / 'one', init_from=start, batch_size=2 * accumulate, **changes
    )
    Trainer(replace(one, train_detector=False)).run()
    two_processes(
        TWO, [*map(str, (drawn_cache, tmp_path / 'two', start, accumulate)), side_tuning]
    )
    assert losses_of(tmp_path / 'two') == pytest.approx(losses_of(tmp_path / 'one'), rel=1e-4)
    weights = {run: load_file(tmp_path / run / 'model.safetensors') for run in
               ('start', 'one/weights', 'two/weights')}  # fmt: skip
    averaged = [name for name in weights['start'] if 'side_tuning' in name and 'running' in name]
    assert bool(averaged) == (side_tuning == 'backbone')
    for name in averaged:
        torch.testing.assert_close(
            weights['two/weights'][name], weights['one/weights'][name], rtol=1e-3, atol=1e-4
        )
        assert not torch.equal(weights['two/weights'][name], weights['start'][name])
