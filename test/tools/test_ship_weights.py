"""The shipped folder: half the size, the same network, checksums over everything."""

import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from handos_model.hand.model import HandModel
from handos_model.network.handos import HandOS
from handos_model.weights.store import verify_checksums
from handos_training.stages.dense import DenseHeads, load_dense_heads, save_dense_heads
from handos_training.stages.network import tiny

TOOL = Path(__file__).resolve().parents[2] / 'tools' / 'ship_weights.py'


def test_a_run_becomes_a_folder_that_trains_on(tmp_path: Path) -> None:
    run, out = tmp_path / 'run', tmp_path / 'out'
    torch.manual_seed(0)
    network = HandOS.from_config(tiny(), HandModel.embedded())
    heads = DenseHeads(32, torch.zeros(778, dtype=torch.long), width=96)
    save_dense_heads(heads, run)
    network.save_pretrained(run)
    out.mkdir()
    (out / 'config.json').write_text((run / 'config.json').read_text())
    subprocess.run([sys.executable, TOOL, run, out], check=True, stdout=subprocess.DEVNULL)

    verify_checksums(out)
    whole, half = (load_file(folder / 'model.safetensors') for folder in (run, out))
    assert {value.dtype for value in half.values() if value.ndim >= 2} == {torch.float16}
    for name, value in whole.items():
        torch.testing.assert_close(half[name].float(), value.float(), rtol=1e-3, atol=1e-6)
    shipped = HandOS.from_pretrained(out)
    assert all(value.dtype == torch.float32 for value in shipped.parameters())
    assert load_dense_heads(DenseHeads(32, torch.zeros(778, dtype=torch.long), width=96), out)
